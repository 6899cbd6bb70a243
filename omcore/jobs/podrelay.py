"""Stdio of a job inside its pod: pipes and a pty on one side, absolute stream offsets on the other.

Nothing here is lost or doubled by a move: every unacknowledged byte of output and every byte of input that the job
has not read is part of the relay state, which travels as `relay.img`.
"""

from __future__ import annotations

import fcntl
import os

from .frames import MAX_DATA, STREAMS, WINDOW
from .podpty import Pty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

F_SETPIPE_SZ, F_GETPIPE_SZ = 1031, 1032


class Stream:
    """One output stream: `base` acknowledged, `kept` the bytes after it, `sent` told to the engine that listens."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.number = STREAMS.index(name)
        self.fd = fd  # our reading end; -1: at its end
        self.base = 0
        self.kept = bytearray()
        self.sent = 0
        self.eof_sent = False

    @property
    def made(self) -> int:
        """Offset after the last byte the job made and we have."""
        return self.base + len(self.kept)

    @property
    def full(self) -> bool:
        """Whether the window is full: then the job must wait."""
        return len(self.kept) >= WINDOW

    def read(self, limit: int = WINDOW) -> bool:
        """Take one piece from the job, keeping at most `limit`; False when there is none now.  Closes at the end."""
        try:
            data = os.read(self.fd, min(MAX_DATA, limit - len(self.kept)))
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last slave end of the pty is closed
            data = b""
        if data:
            self.kept += data
            return True
        self.close()
        return False

    def close(self) -> None:
        """No more output can come."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def acknowledge(self, offset: int) -> None:
        """Forget what is before `offset`; an offset beyond what was sent is ignored."""
        if self.base < offset <= self.sent:
            del self.kept[: offset - self.base]
            self.base = offset

    def rewind(self) -> None:
        """A new engine listens: send again from the first unacknowledged byte."""
        self.sent = self.base
        self.eof_sent = False


class Input:
    """The stream towards the job.  `taken` counts bytes handed to pipe or pty; at most a window waits in `queue`."""

    def __init__(self, fd: int, is_pty: bool) -> None:
        self.fd = fd  # our writing end; -1: closed
        self.is_pty = is_pty
        self.taken = 0
        self.queue = bytearray()
        self.eof_at = -1
        self.unread = b""  # pulled back: to be re-sent before anything else
        # a name for the pipe that keeps neither end open: what is unread can be pulled back after the end, too
        self.handle = os.open(f"/proc/self/fd/{fd}", os.O_PATH | os.O_CLOEXEC)

    @property
    def received(self) -> int:
        """Offset of the next byte that is welcome."""
        return self.taken + len(self.queue)

    def accept(self, offset: int, data: bytes) -> None:
        """Queue what continues the stream: overlap is cut, a gap ignored, what is beyond the window dropped."""
        skip = self.received - offset
        if 0 <= skip < len(data):
            self.queue += data[skip : skip + WINDOW - len(self.queue)]

    def write(self) -> bool:
        """Hand the job what it takes; whether `taken` moved.  Input that nobody can read any more is swallowed."""
        before = self.taken
        try:
            with memoryview(self.queue) as view:
                count = os.write(self.fd, view[:MAX_DATA]) if self.fd >= 0 else len(view)
        except BlockingIOError:
            return False
        except OSError:  # EPIPE: the job closed its stdin
            count = len(self.queue)
        del self.queue[:count]
        self.taken += count
        self.finish()
        return self.taken != before

    def end(self, offset: int) -> None:
        """No input comes after `offset`; the first such word counts."""
        if self.eof_at < 0 and offset >= self.received:
            self.eof_at = offset
            self.finish()

    def finish(self) -> None:
        """Close the pipe when all is written; a pty has no half to close."""
        if self.taken == self.eof_at and not self.is_pty and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def pull_back(self, pty: Pty | None) -> None:
        """Take back what the stopped job has not read."""
        if self.is_pty and pty:
            self.unread = pty.pull_back()
            return
        reader = os.open(f"/proc/self/fd/{self.handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        data = bytearray()
        try:
            while piece := os.read(reader, 1 << 20):
                data += piece
        except BlockingIOError:
            pass
        finally:
            os.close(reader)
        self.unread = bytes(data)

    def push_back(self, pty: Pty | None) -> None:
        """Give it to the job again, first of all; what does not fit goes to the head of the queue."""
        data, self.unread = self.unread, b""
        if self.is_pty and pty:
            pty.push_back(data)
        elif data:
            try:
                writer = os.open(f"/proc/self/fd/{self.handle}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                return  # no reader is left
            try:
                count = os.write(writer, data)
            except BlockingIOError:
                count = 0
            finally:
                os.close(writer)
            self.queue[:0] = data[count:]
            self.taken -= len(data) - count
        self.finish()


class Relay:
    """All stdio of one job: which descriptors are the pty (`tty`), the input, the outputs, and who is in front."""

    def __init__(self, tty: list[int], capacity: list[int] | None = None) -> None:
        self.tty = tty
        self.pty = Pty() if tty else None
        self.job_fds: dict[int, int] = {}  # the job's ends; closed once the job has them
        self.streams: dict[str, Stream] = {}
        self.signals_taken = 0
        self.inodes = [0, 0, 0]
        self.capacity = [0, 0, 0]
        self.input: Input = self._open_input()
        for fd, name in ((1, "out"), (2, "err")):
            if fd not in tty:
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                self._keep(fd, ours, theirs)
                self.streams[name] = Stream(name, ours)
        if self.pty:
            self.streams["tty"] = Stream("tty", self.pty.master)
        for fd, size in enumerate(capacity or ()):
            if size > self.capacity[fd] > 0:
                self._grow(fd, size)

    def _open_input(self) -> Input:
        if self.pty and 0 in self.tty:
            return Input(self.pty.master, True)
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        self._keep(0, ours, theirs)
        return Input(ours, False)

    def _keep(self, fd: int, ours: int, theirs: int) -> None:
        os.set_blocking(ours, False)
        self.job_fds[fd] = theirs
        self.inodes[fd] = os.fstat(ours).st_ino
        self.capacity[fd] = fcntl.fcntl(ours, F_GETPIPE_SZ)

    def _grow(self, fd: int, size: int) -> None:
        try:
            fcntl.fcntl(self.job_fds[fd], F_SETPIPE_SZ, size)
        except OSError:
            return  # the node's limit: unread input then waits in the queue

    def close_job_ends(self) -> None:
        """The job has its ends: ours would hide end-of-file from it and from us."""
        for fd in self.job_fds.values():
            os.close(fd)
        self.job_fds.clear()

    def close(self) -> None:
        """Drop everything."""
        self.close_job_ends()
        for stream in self.streams.values():
            stream.close()
        if self.input.fd >= 0 and not self.input.is_pty:
            os.close(self.input.fd)
        os.close(self.input.handle)
        if self.pty:
            self.pty.close_slave()

    def drain(self) -> None:
        """Read all that the stopped job has written, window or not."""
        for stream in self.streams.values():
            while stream.fd >= 0 and stream.read(1 << 30):
                pass

    def counters(self) -> dict[str, Any]:
        """What an engine wants to know on connecting."""
        return {
            "tty": self.tty,
            "streams": {s.name: [s.made, s.base, s.fd < 0] for s in self.streams.values()},
            "taken": self.input.taken,
            "received": self.input.received,
            "signals": self.signals_taken,
            "size": list(self.pty.size()) if self.pty else [0, 0],
        }

    def save(self) -> dict[str, Any]:
        """The relay's part of relay.img; the job is stopped and `pull_back` and `drain` were done."""
        pty = self.pty
        for fd, name in ((0, ""), (1, "out"), (2, "err")):
            ours = self.input.fd if fd == 0 else self.streams[name].fd if name in self.streams else -1
            if self.inodes[fd] and ours >= 0:
                self.capacity[fd] = fcntl.fcntl(ours, F_GETPIPE_SZ)
        return {
            "tty": self.tty,
            "inodes": self.inodes,
            "capacity": self.capacity,
            "streams": {s.name: [s.base, bytes(s.kept), s.fd < 0] for s in self.streams.values()},
            "taken": self.input.taken,
            "queue": bytes(self.input.queue),
            "unread": self.input.unread,
            "eof_at": self.input.eof_at,
            "signals": self.signals_taken,
            "pty": [pty.key, pty.pack(), *pty.size(), pty.foreground()] if pty else None,
        }

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Relay:
        """A relay with fresh pipes and pty that goes on where the saved one stopped."""
        relay = cls(saved["tty"], saved["capacity"])
        for name, (base, kept, at_end) in saved["streams"].items():
            stream = relay.streams[name]
            stream.base = stream.sent = base
            stream.kept += kept
            if at_end:
                stream.close()
        entry = relay.input
        entry.taken, entry.eof_at, entry.unread = saved["taken"], saved["eof_at"], saved["unread"]
        entry.queue += saved["queue"]
        relay.signals_taken = saved["signals"]
        if relay.pty and saved["pty"]:
            relay.pty.resize(saved["pty"][2], saved["pty"][3])
            relay.pty.apply(saved["pty"][1])
        return relay
