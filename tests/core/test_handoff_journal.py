"""The journal's two slots: the newest whole one is read, whatever a power cut did to the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omcore.handoff.journal import FILE_BYTES, PAYLOAD_LIMIT, SLOT_BYTES, Slots, decode_file, decode_slot, encode_slot


@given(sequence=st.integers(0, (1 << 64) - 1), payload=st.binary(max_size=PAYLOAD_LIMIT))
def test_a_slot_is_read_as_it_was_written(sequence: int, payload: bytes) -> None:
    slot = encode_slot(sequence, payload)
    assert len(slot) == SLOT_BYTES
    assert decode_slot(slot) == (sequence, payload)


@given(payload=st.binary(min_size=1, max_size=200), at=st.integers(0, 219), flip=st.integers(1, 255))
def test_a_changed_byte_is_noticed(payload: bytes, at: int, flip: int) -> None:
    slot = bytearray(encode_slot(7, payload))
    at %= 20 + len(payload)
    slot[at] ^= flip
    assert decode_slot(bytes(slot)) is None


@given(cut=st.integers(0, SLOT_BYTES))
def test_a_torn_write_leaves_the_synced_slot(cut: int) -> None:
    disk = bytearray(FILE_BYTES)
    slots = Slots()
    for sequence, payload in ((1, b"one"), (2, b"two")):
        at = slots.next_offset()
        disk[at : at + SLOT_BYTES] = encode_slot(sequence, payload)
        slots.confirm()
    at = slots.next_offset()
    disk[at : at + cut] = encode_slot(3, b"three")[:cut]
    found = decode_file(bytes(disk))
    assert found is not None
    assert found[1:] in {(2, b"two"), (3, b"three")}


def test_an_unsynced_write_is_overwritten_and_the_synced_one_never() -> None:
    slots = Slots()
    assert slots.next_offset() == 0
    slots.confirm()
    assert [slots.next_offset(), slots.next_offset()] == [SLOT_BYTES, SLOT_BYTES]


def test_nothing_is_read_from_an_empty_or_foreign_file() -> None:
    assert decode_file(b"") is None
    assert decode_file(bytes(FILE_BYTES)) is None
    assert decode_file(b"x" * FILE_BYTES) is None


@pytest.mark.parametrize(("sequence", "size"), [(0, PAYLOAD_LIMIT + 1), (-1, 1), (1 << 64, 1)])
def test_what_does_not_fit_is_refused(sequence: int, size: int) -> None:
    with pytest.raises(ValueError):
        encode_slot(sequence, b"x" * size)
