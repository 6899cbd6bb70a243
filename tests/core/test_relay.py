"""Output between a job's shim and its home: kept until home has it, joined, sent again after silence."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omcore.jobs.relay import AGAIN_MOST_S, AGAIN_S, OutRelay
from omcore.wire import CHUNK


def relay(out: int = 0, err: int = 0) -> OutRelay:
    return OutRelay({"out": out, "err": err})


def test_small_writes_are_joined_and_sent_once() -> None:
    one = relay(out=10)
    assert one.add("out", 10, b"ab", 0.0)
    assert one.add("out", 12, b"cd", 0.0)
    assert one.add("err", 0, b"e", 0.0)
    assert list(one.outgoing()) == [("out", 10, b"abcd"), ("err", 0, b"e")]
    assert list(one.outgoing()) == []
    one.add("out", 14, b"ef", 0.0)
    assert list(one.outgoing()) == [("out", 14, b"ef")]


def test_large_output_goes_in_pieces() -> None:
    one = relay()
    data = random.Random(3).randbytes(2 * CHUNK + 7)
    one.add("out", 0, data, 0.0)
    pieces = list(one.outgoing())
    assert [len(data) for _, _, data in pieces] == [CHUNK, CHUNK, 7]
    assert b"".join(data for _, _, data in pieces) == data


def test_what_was_here_before_is_no_news_and_a_gap_waits() -> None:
    one = relay(out=10)
    one.add("out", 10, b"abcd", 0.0)
    for offset, data in ((10, b"abcd"), (11, b"b"), (0, b"x" * 14), (99, b"gap"), (14, b"")):
        assert not one.add("out", offset, data, 0.0)
    assert one.add("out", 8, b"..abcdef", 0.0)
    assert list(one.outgoing()) == [("out", 10, b"abcdef")]


@pytest.mark.parametrize("offset", [-1, 0, 9, 10, 15, 10**12])
def test_an_ack_of_nothing_new_or_of_what_was_never_made_is_ignored(offset: int) -> None:
    one = relay(out=10)
    one.add("out", 10, b"abcd", 0.0)
    assert not one.acknowledged("out", offset, 0.0)
    assert not one.acknowledged("in", 12, 0.0)
    assert one.acked == {"out": 10, "err": 0}


def test_an_ack_forgets_and_may_come_before_the_sending() -> None:
    one = relay()
    one.add("out", 0, b"abcdef", 0.0)
    assert one.acknowledged("out", 4, 0.0)  # home had it from the job's last node
    assert list(one.outgoing()) == [("out", 4, b"ef")]
    assert one.acked["out"] == 4


def test_after_silence_all_is_sent_again_less_and_less_often() -> None:
    one = relay()
    assert not one.due(100.0)
    one.add("out", 0, b"abc", 100.0)
    assert not one.due(200.0)  # nothing has been sent, so nobody is silent
    list(one.outgoing())
    assert not one.due(100.0 + AGAIN_S / 2)
    times = []
    now = 100.0
    while now < 120.0:
        now += 0.01
        if one.due(now):
            times.append(now)
            assert list(one.outgoing()) == [("out", 0, b"abc")]
    pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert times[0] == pytest.approx(100.0 + AGAIN_S, abs=0.02)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(AGAIN_MOST_S, abs=0.02)


def test_an_ack_makes_it_patient_and_then_quick_again() -> None:
    one = relay()
    one.add("out", 0, b"abcdef", 0.0)
    list(one.outgoing())
    assert one.due(1.0)
    list(one.outgoing())
    one.acknowledged("out", 2, 1.1)
    assert not one.due(1.1 + AGAIN_S * 0.9)
    assert one.due(1.1 + AGAIN_S)
    assert list(one.outgoing()) == [("out", 2, b"cdef")]
    one.acknowledged("out", 6, 2.0)
    assert not one.due(1000.0)


def test_a_new_home_gets_all_that_was_not_acknowledged() -> None:
    one = relay()
    one.add("out", 0, b"abc", 0.0)
    list(one.outgoing())
    one.acknowledged("out", 1, 0.0)
    one.rewind()
    assert list(one.outgoing()) == [("out", 1, b"bc")]


@given(st.lists(st.tuples(st.binary(max_size=9), st.integers(-3, 3), st.booleans()), max_size=40))
def test_whatever_is_repeated_and_acknowledged_the_bytes_are_the_bytes(steps: list[tuple[bytes, int, bool]]) -> None:
    one = relay()
    made, got = b"", b""
    for data, back, ack in steps:
        made += data
        start = min(len(made), max(0, len(made) - len(data) + back))
        one.add("out", start, made[start:], 0.0)
        one.add("out", 0, made, 0.0)
        for _, offset, piece in one.outgoing():
            assert offset <= len(got)
            got += piece[len(got) - offset :]
        if ack:
            one.acknowledged("out", len(got), 0.0)
    assert got == made
