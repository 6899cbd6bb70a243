"""What really goes to a terminal: no colours where the viewer wants none, and little when little changes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from dataclasses import replace
from tests import demo
from omview.app import OmView, run_app
still = demo.view(moves=demo.MOVES[1:], jobs=tuple(j for j in demo.JOBS if j.state != "moving"))
raise SystemExit(run_app(OmView(demo.DemoClient(still), clock=demo.clock)))
"""


class Terminal:
    """A pty with the program in it; `until` reads up to a word."""

    def __init__(self, **environ: str) -> None:
        self.data = b""
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        keep = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLORTERM"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=side, stdout=side, stderr=side, cwd=ROOT,
            env={**keep, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), **environ},
            start_new_session=True,
        )  # fmt: skip
        os.close(side)

    def until(self, word: str) -> None:
        """Read until the word has come; what came before it counts no more."""
        seen = b""
        while word.encode() not in re.sub(rb"\x1b\[[\d;:?]*[a-zA-Z]", b"", seen):
            assert select.select([self._main], [], [], 30)[0], seen[-500:]
            got = os.read(self._main, 65536)
            seen += got
            self.data += got

    def press(self, key: str) -> None:
        """Send a key."""
        os.write(self._main, key.encode())

    def close(self) -> int:
        """Wait for the program's own end."""
        while True:
            try:
                if not (got := os.read(self._main, 65536)):
                    break
            except OSError:
                break
            self.data += got
        os.close(self._main)
        return self.process.wait(30)


def colours(data: bytes) -> list[bytes]:
    """The SGR sequences that set a colour."""
    found = []
    for codes in re.findall(rb"\x1b\[([\d;:]*)m", data):
        numbers = [int(code) for code in re.split(rb"[;:]", codes) if code]
        if any(30 <= n <= 38 or 40 <= n <= 48 or 90 <= n <= 107 for n in numbers):
            found.append(codes)
    return found


@pytest.mark.slow
def test_with_no_color_not_one_colour_is_sent() -> None:
    terminal = Terminal(NO_COLOR="1")
    terminal.until("? help")
    terminal.press("3")
    terminal.until("talk.mp4")
    terminal.press("m")
    terminal.until("Yes, move it")
    terminal.press("n")
    terminal.until("4 threads")
    terminal.press("q")
    assert terminal.close() == 0
    assert colours(terminal.data) == []
    assert b"\x1b[7m" in terminal.data or b";7m" in terminal.data  # the cursor row is still seen


@pytest.mark.slow
def test_sixteen_colours_are_enough_for_a_plain_terminal() -> None:
    terminal = Terminal(TERM="xterm")
    terminal.until("? help")
    terminal.press("q")
    assert terminal.close() == 0
    assert colours(terminal.data)
    assert b"38;2;" not in terminal.data
    assert b"38;5;" not in terminal.data
