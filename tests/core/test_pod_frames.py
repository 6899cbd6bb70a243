"""The frames between engine and shim, and the values in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omcore.jobs.frames import HEAD, MAX_PAYLOAD, FrameError, Splitter, frame, pack, unpack

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


@given(VALUES)
def test_values_come_back(value: object) -> None:
    assert unpack(pack(value)) == value


@given(st.binary(max_size=60))
def test_rubbish_is_refused_or_a_value(data: bytes) -> None:
    try:
        unpack(data)
    except FrameError:
        return


def test_a_deep_or_lying_value_is_refused() -> None:
    for data in (b"l1;" * 100 + b"n", b"b99;x", b"d1;i1;n", b"", b"nn", b"i", b"s1;\xff"):
        if data != b"s1;\xff":
            with pytest.raises(FrameError):
                unpack(data)
    assert pack(unpack(b"s1;\xff")) == b"s1;\xff"  # names of files may be any bytes


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8), st.integers(1, 13))
def test_frames_come_whole_however_they_are_cut(items: list[tuple[int, bytes]], step: int) -> None:
    stream = b"".join(frame(kind, payload) for kind, payload in items)
    splitter = Splitter()
    got = [item for at in range(0, len(stream), step) for item in splitter.feed(stream[at : at + step])]
    assert got == items


def test_an_impossible_length_is_an_error() -> None:
    with pytest.raises(FrameError):
        list(Splitter().feed(HEAD.pack(MAX_PAYLOAD + 1, 1)))
