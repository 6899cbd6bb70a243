"""The pod's pseudo terminal: opened inside the pod; its line settings and unread input travel with the job."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios

_WINSIZE = struct.Struct("HHHH")
_QUIET_IN = termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON | termios.ISTRIP
_QUIET_LOCAL = termios.ECHO | termios.ECHONL | termios.ISIG | termios.IEXTEN
_TERM_FLAGS = struct.Struct("4I")


class Pty:
    """A master and its slave; the slave is the controlling terminal of the pod's session."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self.slave)
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    @property
    def key(self) -> str:
        """How CRIU names it: hexadecimal rdev:dev of the slave."""
        status = os.fstat(self.slave)
        return f"{status.st_rdev:x}:{status.st_dev:x}"

    def close_slave(self) -> None:
        """Give up our own slave end: once the job's ends are closed the master reads EIO at the end of output."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def resize(self, rows: int, cols: int) -> None:
        """Set the window size; the kernel sends SIGWINCH if it changed."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, _WINSIZE.pack(rows, cols, 0, 0))

    def size(self) -> tuple[int, int]:
        """Rows, columns."""
        rows, cols, _, _ = _WINSIZE.unpack(fcntl.ioctl(self.master, termios.TIOCGWINSZ, bytes(8)))
        return rows, cols

    def pack(self) -> bytes:
        """The line settings, in the form of RunSpec.term: four flag words, then the control characters."""
        iflag, oflag, cflag, lflag, _, _, chars = termios.tcgetattr(self.slave)
        codes = bytes(c[0] if isinstance(c, bytes) else int(c) & 0xFF for c in chars)
        return _TERM_FLAGS.pack(iflag, oflag, cflag, lflag) + codes

    def apply(self, packed: bytes) -> None:
        """Take line settings as `pack` writes them; speed and hardware flags stay; b"" changes nothing."""
        if len(packed) <= _TERM_FLAGS.size:
            return
        settings = termios.tcgetattr(self.slave)
        settings[0], settings[1], _, settings[3] = _TERM_FLAGS.unpack_from(packed)
        codes = packed[_TERM_FLAGS.size :][: len(settings[6])]
        for index, code in enumerate(codes):
            settings[6][index] = code if isinstance(settings[6][index], int) else bytes((code,))
        termios.tcsetattr(self.slave, termios.TCSANOW, settings)

    def foreground(self) -> int:
        """Process group in the foreground."""
        return os.tcgetpgrp(self.slave)

    def set_foreground(self, pgid: int) -> None:
        """Bring a process group to the foreground; one that does not exist (any more) is ignored."""
        try:
            os.tcsetpgrp(self.slave, pgid)
        except OSError:
            return

    def pull_back(self) -> bytes:
        """Read what was typed but not read by the job; all of the job must be stopped.

        The reader must be in the foreground for that, and the line discipline out of the way.  An end-of-file
        character waiting in the queue reads as NUL and is put back as what was typed.
        """
        foreground = self.foreground()
        self.set_foreground(os.getpgrp())
        saved = termios.tcgetattr(self.slave)
        plain = list(saved)
        plain[0] &= ~_QUIET_IN
        plain[3] &= ~(_QUIET_LOCAL | termios.ICANON)
        plain[6] = list(saved[6])
        plain[6][termios.VMIN], plain[6][termios.VTIME] = 0, 0
        reader = os.open(self.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        data = bytearray()
        try:
            termios.tcsetattr(self.slave, termios.TCSANOW, plain)
            while piece := _read(reader):
                data += piece
        finally:
            termios.tcsetattr(self.slave, termios.TCSANOW, saved)
            os.close(reader)
            self.set_foreground(foreground)
        end_code = saved[6][termios.VEOF]
        if saved[3] & termios.ICANON and isinstance(end_code, bytes):
            return bytes(data).replace(b"\0", end_code)
        return bytes(data)

    def push_back(self, data: bytes) -> None:
        """Type pulled-back input again, unseen: what was echoed once is not echoed twice."""
        if not data:
            return
        saved = termios.tcgetattr(self.slave)
        quiet = list(saved)
        quiet[0] &= ~_QUIET_IN
        quiet[3] &= ~_QUIET_LOCAL
        termios.tcsetattr(self.slave, termios.TCSANOW, quiet)
        try:
            os.write(self.master, data)
            watcher = select.poll()
            watcher.register(self.slave, select.POLLIN)
            # poll() flushes the kernel's queue into the line discipline (or finds that it has begun to), and
            # tcsetattr waits for the line discipline to finish what it has begun
            watcher.poll(0)
        finally:
            termios.tcsetattr(self.slave, termios.TCSANOW, saved)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except (BlockingIOError, OSError):
        return b""
