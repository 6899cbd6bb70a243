"""Run a terminal program in a pty and measure what it costs while it refreshes by itself.

usage: tui_cost.py [--secs 20] [--warm 6] [--rows 50] [--cols 160] [--until TEXT] [--keys KEYS] -- COMMAND...
Prints one JSON object: CPU in percent of one core (the command and all its descendants), PSS, bytes written to
the terminal a second, and seconds until TEXT first appeared.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What the program cost."""

    cpu_percent: float
    pss_mib: float
    bytes_per_s: float
    first_s: float | None


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{entry}/stat") as file:
            children.setdefault(int(file.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of these processes so far, with that of children they have reaped."""
    total = 0
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/stat") as file:
            total += sum(map(int, file.read().rsplit(")", 1)[1].split()[11:15]))
    return total / TICKS


def pss_mib(pids: list[int]) -> float:
    """Proportional share of memory of these processes."""
    total = 0
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total / 1024


class Terminal:
    """The master's end: reads all that the program draws, and remembers when a text first came."""

    def __init__(self, fd: int, until: bytes, start: float) -> None:
        self._fd, self._until, self._start = fd, until, start
        self._seen = b""
        self.written = 0
        self.first_s: float | None = None

    def pump(self, end: float) -> bool:
        """Read until this moment; False when the program has ended."""
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._fd], [], [], left)[0]:
                continue
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.written += len(data)
            if self.first_s is None and self._until:
                self._seen += data
                if self._until in self._seen:
                    self.first_s = time.monotonic() - self._start
        return True


def measure(
    command: list[str], secs: float, warm: float, size: tuple[int, int] = (50, 160), until: str = "", keys: str = ""
) -> Cost | None:
    """Run the command, warm up, press keys, measure, end it; None when it ended by itself before."""
    start = time.monotonic()
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", LANG="C.UTF-8")
        os.execvp(command[0], command)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    terminal = Terminal(fd, until.encode(), start)
    try:
        alive = terminal.pump(start + warm)
        for key in keys:
            with suppress(OSError):
                os.write(fd, key.encode())
            alive = alive and terminal.pump(time.monotonic() + 0.5)
        before, written, begun = cpu_seconds(tree(pid)), terminal.written, time.monotonic()
        if not (alive and terminal.pump(begun + secs)):
            return None
        took = time.monotonic() - begun
        pids = tree(pid)
        cpu = 100 * (cpu_seconds(pids) - before) / took
        return Cost(round(cpu, 2), round(pss_mib(pids), 1), (terminal.written - written) // took, terminal.first_s)
    finally:
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)
        terminal.pump(time.monotonic() + 0.5)
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        os.close(fd)
        os.waitpid(pid, 0)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secs", type=float, default=20)
    parser.add_argument("--warm", type=float, default=6)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--cols", type=int, default=160)
    parser.add_argument("--until", default="")
    parser.add_argument("--keys", default="", help="pressed after the warm-up, half a second apart")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    command = asked.command[1:] if asked.command[:1] == ["--"] else asked.command
    if not command:
        parser.error("which command?")
    cost = measure(command, asked.secs, asked.warm, (asked.rows, asked.cols), asked.until, asked.keys)
    if cost is None:
        print("the command ended early", file=sys.stderr)
        return 1
    print(json.dumps(asdict(cost)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
