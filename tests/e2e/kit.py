"""A lab of real hosts with real engines, and what the end-to-end tests do on it: run, move, look."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OMVIEW = (sys.executable, "-P", "-m", "omview")
SECONDS = 60.0

TICKER = """
import os, sys, time
number = 0
while not os.path.exists(sys.argv[1]):
    print(number, flush=True)
    if number % 10 == 0:
        print("e", number, file=sys.stderr, flush=True)
    number += 1
    time.sleep(0.005)
sys.exit(int(sys.argv[2]))
"""
"""Counts until a file appears, so that no test depends on how fast the machine is."""


@dataclass(frozen=True)
class Cluster:
    """The lab, by name, with a directory that all its hosts see."""

    name: str
    shared: Path

    def words(self, node: str, *command: str) -> list[str]:
        """The command line that runs `command` on a host."""
        return [*OMVIEW, "lab", "exec", "--name", self.name, node, "--", *command]

    def on(self, node: str, *command: str, timeout: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a command on a host and wait for it."""
        return subprocess.run(
            self.words(node, *command),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=self.shared,
            stdin=subprocess.DEVNULL,
        )

    def omview(self, node: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run an omview verb on a host."""
        return self.on(node, "omview", *words)

    def start(self, node: str, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start `omview run WORDS` on a host with pipes as its streams."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen(self.words(node, "omview", "run", *words), cwd=self.shared, **streams)

    def ticker(self, name: str, status: int = 0, *options: str) -> subprocess.Popen[bytes]:
        """Start a counting job and wait until it runs; `stop` ends it."""
        stop = self.shared / f"stop-{name}"
        stop.unlink(missing_ok=True)
        job = self.start("node1", "--name", name, *options, "--", "python3", "ticker.py", str(stop), str(status))
        self.until(name, state="running")
        return job

    def stop(self, name: str) -> None:
        """Let a ticker end."""
        (self.shared / f"stop-{name}").touch()

    def jobs(self, node: str = "node1") -> dict[str, dict[str, Any]]:
        """All jobs by name, as a host sees them."""
        answer = self.omview(node, "jobs", "--all", "--json")
        assert answer.returncode == 0, answer.stderr
        return {job["name"]: job for job in json.loads(answer.stdout)}

    def migrate(self, job: str, to: str, node: str = "node1") -> dict[str, Any]:
        """Move a job; it must succeed."""
        answer = self.omview(node, "migrate", job, to, "--json")
        assert answer.returncode == 0, answer.stdout + answer.stderr
        moved: dict[str, Any] = json.loads(answer.stdout)
        assert moved["ok"]
        return moved

    def until(self, job: str, node: str = "node1", **fields: Any) -> dict[str, Any]:
        """Wait until a job is listed with these fields."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            found = self.jobs(node).get(job)
            if found and all(found[key] == value for key, value in fields.items()):
                return found
        raise AssertionError(f"{job} never had {fields}: {self.jobs(node).get(job)}")

    def engine(self, node: str) -> list[str]:
        """PIDs of the engine of a host, as seen there."""
        script = (
            "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q 'omview.* serve *$'"
            " && basename $p; done"
        )
        return self.on(node, "sh", "-c", script).stdout.split()

    def restart(self, node: str, *env: str) -> None:
        """Kill the engine of a host without warning and start another one, with changes to its environment."""
        pids = self.engine(node)
        if pids:
            self.on(node, "kill", "-9", *pids)
        again = self.on(node, "env", *env, "omview", "serve", "--daemon")
        assert again.returncode == 0, again.stderr

    def leftovers(self) -> list[str]:
        """Image files on any host: there must be none once moves have ended."""
        found = []
        for node in ("node1", "node2", "node3"):
            listed = self.on(node, "find", "/dev/shm", "-name", "*.img")
            found += [f"{node}:{line}" for line in listed.stdout.split()]
        return found


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Wait for a job's deputy: status, output, errors."""
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def counted(out: bytes, least: int = 10) -> int:
    """How far the ticker counted; fails on the first number that is missing, doubled or cut."""
    lines = out.split(b"\n")
    assert lines.pop() == b""
    for number, line in enumerate(lines):
        assert line == b"%d" % number, f"line {number} is {line!r}"
    assert len(lines) >= least
    return len(lines)


class Screen:
    """A program in a terminal of our own: type, and wait for what appears."""

    def __init__(self, words: Sequence[str], rows: int = 24, cols: int = 80, cwd: Path | None = None) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                if cwd is not None:
                    os.chdir(cwd)
                os.environ.update(TERM="xterm-256color", PS1="$ ", LANG="C.UTF-8", PYTHON_BASIC_REPL="1")
                os.execvp(words[0], list(words))
            finally:
                os._exit(127)
        self.resize(rows, cols)
        self.seen = ""

    def resize(self, rows: int, cols: int) -> None:
        """Change the window."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._fd, text.encode())

    def wait(self, pattern: str, seconds: float = SECONDS) -> str:
        """Read until the pattern appears after what was waited for before; returns what was read."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} did not appear in {self.seen[-2000:]!r}"
            if select.select([self._fd], [], [], left)[0]:
                try:
                    data = os.read(self._fd, 65536)
                except OSError:
                    data = b""
                assert data, f"the program ended before {pattern!r}: {self.seen[-2000:]!r}"
                self.seen += data.decode(errors="replace")
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def status(self) -> int:
        """Wait for the end; exit code or minus the signal."""
        while True:
            try:
                if not os.read(self._fd, 65536):
                    break
            except OSError:
                break
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """End what is left."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)
