"""Who did what: one JSON object a line in `audit.log`, 0600, at most five files of 10 MB.

Written by the engine, read by its owner.  Keys, tokens, environments and other people's command lines never get here:
callers give names, fingerprints, job ids and signal numbers.  A full disk stops the log, not the engine.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from omcore.text import clean

AUDIT = "audit.log"
MAX_BYTES = 10 * 1024 * 1024
FILES = 5
OFTEN_S = 1.0
"""Least pause between two lines that a stranger can cause."""

Value = str | int | float | bool | None

log = logging.getLogger(__name__)


class Audit:
    """The engine's end.  `clock`: wall-clock seconds."""

    def __init__(
        self, state: Path, clock: Callable[[], float] = time.time, max_bytes: int = MAX_BYTES, files: int = FILES
    ) -> None:
        self._path = state / AUDIT
        self._clock = clock
        self._max_bytes = max_bytes
        self._files = files
        self._broken = False
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def note(self, event: str, **fields: Value) -> None:
        """Write one line: when, what, and the fields, with every text made harmless."""
        line: dict[str, Value] = {"time": round(self._clock(), 3), "event": event}
        line.update((name, clean(value, 400) if isinstance(value, str) else value) for name, value in fields.items())
        data = json.dumps(line).encode() + b"\n"
        try:
            self._append(data)
            self._broken = False
        except OSError as error:
            if not self._broken:  # once, or a full disk fills the engine's log as well
                log.error("audit not written error=%s", error)
            self._broken = True

    def note_seldom(self, event: str, **fields: Value) -> None:
        """The same for what strangers can cause: one line a second, the next one tells how many were left out."""
        now = self._clock()
        if 0.0 <= now - self._last.get(event, float("-inf")) < OFTEN_S:
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return
        self._last[event] = now
        left_out = self._left_out.pop(event, 0)
        self.note(event, **fields, **({"left_out": left_out} if left_out else {}))

    def _append(self, data: bytes) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            what = os.fstat(fd)
            if stat.S_IMODE(what.st_mode) & 0o077:
                os.fchmod(fd, 0o600)
            os.write(fd, data)
        finally:
            os.close(fd)
        if what.st_size + len(data) >= self._max_bytes:
            self._turn()

    def _turn(self) -> None:
        for number in range(self._files - 1, 0, -1):
            source = _numbered(self._path, number - 1)
            with contextlib.suppress(FileNotFoundError):
                os.replace(source, _numbered(self._path, number))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def read_audit(state: Path, files: int = FILES) -> Iterator[dict[str, Value]]:
    """All lines that are there, oldest first; what is no line of ours is passed over."""
    for number in range(files - 1, -1, -1):
        try:
            with open(_numbered(state / AUDIT, number), "rb") as file:
                for line in file:
                    with contextlib.suppress(ValueError):
                        found = json.loads(line)
                        if isinstance(found, dict) and isinstance(found.get("event"), str):
                            yield found
        except OSError:
            continue
