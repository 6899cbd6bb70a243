"""Files of an image that the pod itself reads or writes: the relay state and CRIU's note of terminals."""

from __future__ import annotations

import os
import struct

from .frames import pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RELAY = "relay.img"
_TTY = "tty-info.img"
MAX_RELAY = 32 << 20
_HEADER = 8  # two magic numbers
_SID = 6  # field of tty_info_entry in CRIU's images/tty.proto


def write_relay(images: int, state: dict[str, Any]) -> None:
    """Put the relay state among the images."""
    _write(images, RELAY, pack(state))


def read_relay(images: int) -> dict[str, Any]:
    """Read it again; raises OSError or ValueError."""
    data = _read(images, RELAY)
    state = unpack(data)
    if not isinstance(state, dict) or state.get("version") != 1:
        raise ValueError("relay.img is of another version")
    return state


def free_terminal(images: int) -> None:
    """Make CRIU restore the pod's terminal as one of nobody's session.

    The session leader is the shim, outside the image: CRIU would look for it among the restored tasks ("No task
    found with sid 1").  With session 0 it takes the inherited terminal as it is, and the shim, leader of the new
    pod's session, already has that as its controlling terminal.
    """
    try:
        data = _read(images, _TTY)
    except FileNotFoundError:
        return
    out = bytearray(data[:_HEADER])
    at = _HEADER
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        entry = _without_session(data[at + 4 : at + 4 + length])
        out += struct.pack("<I", len(entry)) + entry
        at += 4 + length
    _write(images, _TTY, bytes(out))


def _without_session(entry: bytes) -> bytes:
    out = bytearray()
    at = 0
    while at < len(entry):
        start = at
        tag, at = _varint(entry, at)
        if tag & 7 == 0:
            _, at = _varint(entry, at)
        elif tag & 7 == 2:
            length, at = _varint(entry, at)
            at += length
        else:
            raise ValueError(f"{_TTY}: unexpected field")
        out += bytes((_SID << 3, 0)) if tag == _SID << 3 else entry[start:at]
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def sum_of_images(images: int) -> int:
    """Bytes of all image files."""
    with os.scandir(images) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries if entry.name.endswith(".img"))


def log_of(images: int, name: str) -> str:
    """The end of a criu log; "" if there is none."""
    try:
        return _read(images, name, tail=65536).decode("utf-8", "replace")
    except OSError:
        return ""


def _read(images: int, name: str, tail: int = 0) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=images)
    with open(fd, "rb") as file:
        size = os.fstat(fd).st_size
        if tail:
            file.seek(max(0, size - tail))
        elif size > MAX_RELAY:
            raise ValueError(f"{name} is too large")
        return file.read()


def _write(images: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=images), "wb") as file:
        file.write(data)
