"""What an engine and the shim of a pod say to each other: frames on a unix stream socket.

A frame is `length u32 | kind u8 | payload`, little endian; `length` counts the payload.  Data frames carry raw
bytes after a fixed head, at most `MAX_DATA`; the rare control frames carry a packed value (see `pack`).
Imported by the shim as well: only `struct` may be imported here.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MAX_DATA = 65536
"""Bytes of stream data in one frame."""
MAX_PAYLOAD = 8 << 20
"""Bytes of any frame: the kernel's own limit for arguments and environment is 6 MiB."""
WINDOW = 256 * 1024
"""Bytes of one stream that may be unacknowledged."""
STREAMS = ("out", "err", "tty")
"""Output streams; their index is their number in frames."""

HEAD = struct.Struct("<IB")
OUT = struct.Struct("<BQ")  # stream, offset
IN = struct.Struct("<Q")  # offset
SIGNAL = struct.Struct("<QB")  # sequence number, signal
SIZE = struct.Struct("<HH")  # rows, columns

# engine -> shim
K_CALL = 1  # packed {"id", "op", ...}: start, dump, undo, restore, resume; answered by one K_REPLY
K_IN = 2  # IN, bytes
K_IN_EOF = 3  # IN
K_ACK = 4  # OUT
K_SIGNAL = 5  # SIGNAL
K_RESIZE = 6  # SIZE
K_CLOSE = 7  # OUT; the offset means nothing
# shim -> engine
K_STATE = 16  # packed state; the first frame of a connection
K_REPLY = 17  # packed {"id", "ok", "text", "hint", "log", "state", ...}
K_OUT = 18  # OUT, bytes
K_OUT_EOF = 19  # OUT
K_TAKEN = 20  # IN
K_SIGNAL_TAKEN = 21  # SIGNAL
K_STOPPED = 22  # one byte: the signal; 0: goes on
K_ENDED = 23  # packed {"status", "totals"}

IMAGES_FD = 20
"""Descriptor of the images directory in criu."""
JOB_FDS = (21, 22, 23)
"""Descriptors of the job's ends of new pipes, in criu."""
TTY_FD = 24
"""Descriptor of the new pty's slave, in criu."""


class FrameError(ValueError):
    """The other side sent what is not a frame."""


def frame(kind: int, *parts: bytes) -> bytes:
    """One whole frame."""
    return HEAD.pack(sum(map(len, parts)), kind) + b"".join(parts)


class Splitter:
    """Cuts a byte stream into frames; raises FrameError on an impossible length."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (kind, payload) for every frame that `data` completes; take them all before feeding more."""
        if self._rest:
            data = self._rest + data
        start = 0
        while len(data) - start >= HEAD.size:
            length, kind = HEAD.unpack_from(data, start)
            if length > MAX_PAYLOAD:
                raise FrameError(f"frame of {length} bytes")
            end = start + HEAD.size + length
            if len(data) < end:
                break
            payload = data[start + HEAD.size : end]
            start = end
            yield kind, payload
        self._rest = data[start:]


def pack(value: Any) -> bytes:
    """None, bool, int (64 bits), bytes, str, list, tuple and dict with str keys as bytes; tuples come back as lists.

    JSON would do but for its 17 ms of imports and for raw bytes.
    """
    out = bytearray()
    _pack(value, out)
    return bytes(out)


def _pack(value: Any, out: bytearray) -> None:
    if value is None or value is True or value is False:
        out += {None: b"n", True: b"t", False: b"f"}[value]
    elif isinstance(value, int):
        out += b"i%d;" % value
    elif isinstance(value, (bytes, bytearray, memoryview)):
        out += b"b%d;" % len(value)
        out += value
    elif isinstance(value, str):
        raw = value.encode("utf-8", "surrogateescape")
        out += b"s%d;" % len(raw)
        out += raw
    elif isinstance(value, (list, tuple)):
        out += b"l%d;" % len(value)
        for item in value:
            _pack(item, out)
    elif isinstance(value, dict):
        out += b"d%d;" % len(value)
        for key, item in value.items():
            _pack(key, out)
            _pack(item, out)
    else:
        raise TypeError(f"cannot pack {type(value).__name__}")


def unpack(data: bytes) -> Any:
    """The value that `pack` made these bytes of; raises FrameError when it made no such bytes."""
    try:
        value, end = _unpack(data, 0, 0)
    except (ValueError, IndexError, TypeError) as error:
        raise FrameError(str(error)) from error
    if end != len(data):
        raise FrameError("bytes after the value")
    return value


def _unpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind = data[at : at + 1]
    if kind in (b"n", b"t", b"f"):
        return {b"n": None, b"t": True, b"f": False}[kind], at + 1
    stop = data.index(b";", at, at + 24)
    number = int(data[at + 1 : stop])
    at = stop + 1
    if kind == b"i":
        return number, at
    if number < 0 or number > len(data) - at or depth > 8:
        raise FrameError("bad length")
    if kind in (b"b", b"s"):
        raw = data[at : at + number]
        return (raw if kind == b"b" else raw.decode("utf-8", "surrogateescape")), at + number
    if kind == b"l":
        items = []
        for _ in range(number):
            item, at = _unpack(data, at, depth + 1)
            items.append(item)
        return items, at
    if kind == b"d":
        table = {}
        for _ in range(number):
            key, at = _unpack(data, at, depth + 1)
            if not isinstance(key, str):
                raise FrameError("key is not text")
            table[key], at = _unpack(data, at, depth + 1)
        return table, at
    raise FrameError(f"unknown kind {kind!r}")
