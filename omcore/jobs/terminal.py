"""The home side of a job's streams: what it printed, what was typed, which signals it must still get.

Offsets are absolute from the job's start, so nothing is lost or doubled however often the job moves, the engine
restarts or a terminal reconnects:

* output is accepted at `offset <= received`, kept in a log file per stream (its size *is* `received`, so a
  restarted engine knows it), and acknowledged to the job's owner once written here.  While deputies are attached,
  the acknowledgement also waits for the slowest of them, within `WINDOW`: a slow reader slows the job, as a pipe
  would.
* input and signals are kept until the owner has taken them *for good*: its answer carries the epoch it runs under,
  and while a move is open nothing is forgotten, since the job may still go on from the cut.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from omcore import requests
from omcore.jobs.frames import STREAMS
from omcore.wire import CHUNK

WINDOW = 256 * 1024
"""Bytes of a stream that may be under way between two parties."""

MOST_LOST = 1 << 30
"""More than a machine's page cache holds back of one file when it goes down."""

_PUNCH_HOLE_KEEP_SIZE = 0x03
_libc = ctypes.CDLL(None, use_errno=True)


class LogFile:
    """One output stream on disk: file offset = stream offset; the oldest part is freed as a hole."""

    def __init__(self, path: Path, keep_bytes: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._keep = keep_bytes
        self.end = os.fstat(self._fd).st_size
        data_start = 0
        with contextlib.suppress(OSError):
            data_start = os.lseek(self._fd, 0, os.SEEK_DATA) if self.end else 0
        self.floor = min(data_start, self.end)

    def append(self, data: bytes | memoryview) -> None:
        """Write at the end; raises OSError (disk full) with nothing counted that was not written."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, self.end)
            self.end += done
            view = view[done:]

    def skip(self, offset: int) -> None:
        """Go on at a later offset; what would be between is nowhere.  Raises OSError."""
        os.ftruncate(self._fd, offset)
        self.end = self.floor = offset

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on."""
        return os.pread(self._fd, max(0, min(size, self.end - offset)), offset)

    def trim(self, before: int) -> None:
        """Free what is older than the kept amount and before `before`, in steps of a quarter of it."""
        limit = min(before, self.end - self._keep) & ~0xFFFF
        if limit - self.floor < self._keep // 4:
            return
        length = ctypes.c_long(limit)
        if _libc.fallocate(self._fd, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(0), length) == 0:
            self.floor = limit

    def close(self) -> None:
        """Close the file; it stays on disk."""
        os.close(self._fd)


class Viewer(Protocol):
    """A connected deputy, as the terminal sees it."""

    def write(self, message: object) -> None:
        """Queue one message of omcore.requests for it."""
        ...


class _Seat:
    """What one viewer was sent and has written."""

    def __init__(self, viewer: Viewer, sent: dict[str, int]) -> None:
        self.viewer = viewer
        self.sent = sent
        self.consumed = dict(sent)


class Terminal:
    """All streams of one job at its home.

    Callbacks (set by the owner of this object): `on_ack(stream, offset)` the owner node may forget output;
    `on_input(offset, data, eof)` and `on_signal(seq, signum)` something new to pass to the owner node.
    """

    def __init__(self, directory: Path, keep_bytes: int) -> None:
        self.logs = {name: LogFile(directory / name, keep_bytes) for name in STREAMS}
        self._seats: dict[Viewer, _Seat] = {}
        self._seen = {name: log.end for name, log in self.logs.items()}
        self._acked = dict.fromkeys(STREAMS, 0)
        self._pending: deque[tuple[int, bytes]] = deque()
        self.typed = 0
        self.taken = 0
        self.eof_at: int | None = None
        self._signals: deque[tuple[int, int]] = deque()
        self.signal_seq = 0
        self._early: list[int] | None = []  # None: the owner has told how far its numbers are
        self.window: tuple[int, int] | None = None
        self.moving = False
        self.on_ack: Callable[[str, int], None] = lambda stream, offset: None
        self.on_input: Callable[[int, bytes, bool], None] = lambda offset, data, eof: None
        self.on_signal: Callable[[int, int], None] = lambda seq, signum: None

    # -- output: owner -> log -> deputies

    def received(self, stream: str) -> int:
        """Everything of the stream before this offset is here."""
        return self.logs[stream].end

    def deliver(self, stream: str, offset: int, data: bytes) -> None:
        """Take output of the owner; late repeats are cut off, a gap is ignored (it will be sent again)."""
        log = self.logs[stream]
        if offset > log.end or offset + len(data) <= log.end:
            self._acknowledge(stream, again=True)
            return
        log.append(memoryview(data)[log.end - offset :])
        for seat in self._seats.values():
            self._feed(seat, stream)
        self._acknowledge(stream)

    def skip(self, stream: str, offset: int) -> int:
        """The owner has nothing before `offset` any more: go on there.  Returns how many bytes are lost."""
        log = self.logs[stream]
        lost = offset - log.end
        if not 0 < lost <= MOST_LOST:
            return 0
        log.skip(offset)
        for seat in self._seats.values():
            seat.sent[stream] = seat.consumed[stream] = offset
        self._seen[stream] = offset
        return lost

    def _feed(self, seat: _Seat, stream: str) -> None:
        log = self.logs[stream]
        while seat.sent[stream] < log.end and seat.sent[stream] - seat.consumed[stream] < WINDOW:
            data = log.read(seat.sent[stream], CHUNK)
            seat.viewer.write(requests.Output(stream, seat.sent[stream], data))
            seat.sent[stream] += len(data)

    def _acknowledge(self, stream: str, again: bool = False) -> None:
        log = self.logs[stream]
        slowest = min((seat.consumed[stream] for seat in self._seats.values()), default=log.end)
        offset = min(log.end, slowest + WINDOW)
        if offset > self._acked[stream] or again:
            self._acked[stream] = max(offset, self._acked[stream])
            self.on_ack(stream, self._acked[stream])
        log.trim(slowest)

    def acknowledge_all(self) -> None:
        """Say again what is acknowledged (the owner is new or was restarted)."""
        for stream in STREAMS:
            self._acknowledge(stream, again=True)

    def drained(self, viewer: Viewer) -> bool:
        """Whether this deputy has been sent all output; what others still wait for is no matter to it."""
        seat = self._seats.get(viewer)
        return seat is None or all(seat.sent[name] >= log.end for name, log in self.logs.items())

    # -- deputies

    def attach(self, viewer: Viewer, offsets: tuple[int, int, int], replay: int = 0) -> None:
        """Seat a deputy; offset -1 means: what nobody has seen yet, and `replay` bytes before that."""
        sent = {}
        for name, offset in zip(STREAMS, offsets, strict=True):
            log = self.logs[name]
            start = self._seen[name] - replay if offset < 0 else offset
            sent[name] = min(max(start, log.floor), log.end)
        seat = self._seats[viewer] = _Seat(viewer, sent)
        for name in STREAMS:
            self._feed(seat, name)

    def detach(self, viewer: Viewer) -> None:
        """The deputy is gone; the job no longer waits for it."""
        if self._seats.pop(viewer, None):
            for name in STREAMS:
                self._acknowledge(name)

    def consumed(self, viewer: Viewer, stream: str, offset: int) -> None:
        """The deputy has written everything before `offset`."""
        seat = self._seats.get(viewer)
        if seat is None or stream not in seat.sent or not seat.consumed[stream] < offset <= seat.sent[stream]:
            return
        seat.consumed[stream] = offset
        self._seen[stream] = max(self._seen[stream], offset)
        self._feed(seat, stream)
        self._acknowledge(stream)

    @property
    def attached(self) -> bool:
        """Whether a deputy is connected."""
        return bool(self._seats)

    def tell(self, message: object) -> None:
        """Write a message to every deputy."""
        for viewer in tuple(self._seats):
            viewer.write(message)

    # -- input and signals: deputies -> owner

    def type(self, offset: int, data: bytes, eof: bool) -> None:
        """Typed bytes of a deputy; only the next ones in order are accepted, within the window."""
        if self.eof_at is not None or offset > self.typed:
            return
        data = data[self.typed - offset :] if offset < self.typed else data
        if self.typed - self.taken + len(data) > 2 * WINDOW:
            return
        start = self.typed
        if data:
            self._pending.append((start, data))
            self.typed += len(data)
        if eof:
            self.eof_at = self.typed
        if data or eof:
            self.on_input(start, data, eof)

    def input_state(self, again: bool = False) -> requests.InputState:
        """What deputies must know of their typed bytes."""
        return requests.InputState(self.typed, self.taken, again)

    def took_input(self, offset: int) -> None:
        """The owner has everything typed before `offset`, under its current epoch; kept while a move is open."""
        if self.moving or offset <= self.taken:
            return
        self.taken = min(offset, self.typed)
        while self._pending and self._pending[0][0] + len(self._pending[0][1]) <= self.taken:
            self._pending.popleft()
        self.tell(self.input_state())

    def adopt_input(self, taken: int, sig_taken: int) -> None:
        """The owner's first word: after a restart of this engine it is all that is known of what was typed."""
        if taken > self.typed:
            self.typed = taken
            # Until now a deputy that knew more than we did spoke into a gap.
            self.tell(self.input_state(again=True))
        self.took_input(taken)
        self.signal_seq = max(self.signal_seq, sig_taken)
        self.took_signals(sig_taken)
        early, self._early = self._early or (), None
        for signum in early:
            self.signal(signum)

    def resend_input(self, taken: int, sig_taken: int) -> None:
        """Give the owner (again) all that it has not taken."""
        for start, data in tuple(self._pending):
            skip = max(0, taken - start)
            if skip < len(data):
                self.on_input(start + skip, data[skip:], False)
        if self.eof_at is not None:
            self.on_input(self.eof_at, b"", True)
        for seq, signum in tuple(self._signals):
            if seq > sig_taken:
                self.on_signal(seq, signum)

    def signal(self, signum: int) -> None:
        """Number a signal and keep it until the owner has applied it."""
        if self._early is not None:
            self._early.append(signum)
            return
        self.signal_seq += 1
        self._signals.append((self.signal_seq, signum))
        self.on_signal(self.signal_seq, signum)

    def took_signals(self, seq: int) -> None:
        """The owner has applied every signal up to `seq`; kept while a move is open."""
        while not self.moving and self._signals and self._signals[0][0] <= seq:
            self._signals.popleft()

    @property
    def waiting(self) -> bool:
        """Whether something typed or a signal has not been taken yet."""
        return bool(self._pending or self._signals)

    def close(self) -> None:
        """Close the log files."""
        for log in self.logs.values():
            log.close()
