"""The build-id of programs and libraries: the one thing CRIU compares besides size."""

from __future__ import annotations

import os
import stat
import struct

_HEAD_BYTES = 4096  # program headers and the note stand on the first page of every linker's output
_LARGEST_NOTE = 64 * 1024
_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3
_MOST_CACHED = 4096

_cache: dict[tuple[int, int, int, int], str] = {}


def build_id(path: str, known: os.stat_result | None = None) -> str:
    """The GNU build-id of an ELF file in hexadecimal; "" when it has none, is no ELF or cannot be read.

    Kept by device, inode, time and size, so that asking again costs nothing.
    """
    try:
        s = known or os.stat(path)
        if not stat.S_ISREG(s.st_mode):
            return ""
        key = s.st_dev, s.st_ino, s.st_mtime_ns, s.st_size
        if key not in _cache:
            if len(_cache) >= _MOST_CACHED:
                _cache.clear()
            _cache[key] = _read(path)
        return _cache[key]
    except OSError:
        return ""


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        head = os.pread(fd, _HEAD_BYTES, 0)
        for offset, size in _notes(head):
            found = _build_id_in(os.pread(fd, min(size, _LARGEST_NOTE), offset))
            if found:
                return found
    except (struct.error, ValueError, OverflowError):  # a damaged or hostile file: it has no build-id
        return ""
    finally:
        os.close(fd)
    return ""


def _notes(head: bytes) -> list[tuple[int, int]]:
    """Offset and size of the note segments."""
    if head[:4] != b"\x7fELF" or len(head) < 64:
        return []
    wide = head[4] == 2
    order = "<" if head[5] == 1 else ">"
    if wide:
        start, entry, count = *struct.unpack_from(order + "Q", head, 32), *struct.unpack_from(order + "HH", head, 54)
    else:
        start, entry, count = *struct.unpack_from(order + "I", head, 28), *struct.unpack_from(order + "HH", head, 42)
    found = []
    for i in range(count):
        at = start + i * entry
        if at + entry > len(head):
            break
        if struct.unpack_from(order + "I", head, at)[0] == _PT_NOTE:
            form, where, length = ("Q", 8, 32) if wide else ("I", 4, 16)
            offset = struct.unpack_from(order + form, head, at + where)[0]
            found.append((offset, struct.unpack_from(order + form, head, at + length)[0]))
    return found


def _build_id_in(notes: bytes) -> str:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("=III", notes, at)
        name = notes[at + 12 : at + 12 + name_size]
        at += 12 + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and name == b"GNU\0":
            return notes[at : at + size].hex()
        at += size + 3 & ~3
    return ""
