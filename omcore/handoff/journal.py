"""The journal's file: two slots of 4 KiB, of which one always holds the last synced state.

A write goes into the slot that is *not* the last synced one and is followed by one fdatasync; a torn slot fails its
checksum and the other one holds.  This file only lays out bytes; the driver does pwrite and fdatasync.
"""

from __future__ import annotations

import struct
import zlib

SLOT_BYTES = 4096  # one block: a disk writes it whole or the checksum fails
FILE_BYTES = 2 * SLOT_BYTES
PAYLOAD_LIMIT = 2048
_HEAD = struct.Struct("<4sIQI")  # magic, checksum of the rest, sequence, length
_MAGIC = b"omJ1"


def encode_slot(sequence: int, payload: bytes) -> bytes:
    """One slot, padded to 4096 bytes.  Raises ValueError for a payload above 2 KiB or a sequence outside u64."""
    if len(payload) > PAYLOAD_LIMIT or not 0 <= sequence < 1 << 64:
        raise ValueError(f"{len(payload)=} {sequence=}")
    body = _HEAD.pack(_MAGIC, 0, sequence, len(payload))[8:] + payload
    return (_MAGIC + struct.pack("<I", zlib.crc32(body)) + body).ljust(SLOT_BYTES, b"\0")


def decode_slot(data: bytes) -> tuple[int, bytes] | None:
    """(sequence, payload) of a whole slot; None if it is torn, empty or foreign."""
    if len(data) < _HEAD.size:
        return None
    magic, checksum, sequence, length = _HEAD.unpack_from(data)
    if magic != _MAGIC or length > PAYLOAD_LIMIT or _HEAD.size + length > len(data):
        return None
    body = data[8 : _HEAD.size + length]
    if zlib.crc32(body) != checksum:
        return None
    return sequence, body[_HEAD.size - 8 :]


def decode_file(data: bytes) -> tuple[int, int, bytes] | None:
    """(slot, sequence, payload) of the newest valid slot of a journal file; None if neither is valid."""
    found: tuple[int, int, bytes] | None = None
    for slot in (0, 1):
        one = decode_slot(data[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES])
        if one and (found is None or one[0] > found[1]):
            found = (slot, *one)
    return found


class Slots:
    """Which slot the next write may use: never the one that was synced last."""

    __slots__ = ("_synced", "_written")

    def __init__(self, synced: int = 1) -> None:
        """`synced`: the slot that `decode_file` found (1 for a new file, so that slot 0 is written first)."""
        self._synced = synced
        self._written = synced

    def next_offset(self) -> int:
        """Byte offset for the next pwrite."""
        self._written = 1 - self._synced
        return self._written * SLOT_BYTES

    def confirm(self) -> None:
        """An fdatasync after the last write succeeded."""
        self._synced = self._written
