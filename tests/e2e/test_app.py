"""The app in a real terminal (tmux), on real engines: start, press keys, read the screen."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import SECONDS, Cluster, counted, finish

pytestmark = [pytest.mark.lab, pytest.mark.criu, pytest.mark.slow]


class Tmux:
    """A tmux server of our own with one window."""

    def __init__(self, words: list[str], cols: int, rows: int) -> None:
        self._name = f"omview-test-{uuid.uuid4().hex[:8]}"
        size = ["-x", str(cols), "-y", str(rows)]
        # tmux 3.3 may forget to reap: the pane says itself how the program ended, and stays
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, f"{shlex.join(words)}; echo ended with $?; exec cat")

    def _tmux(self, *words: str) -> str:
        env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        done = subprocess.run(
            ["tmux", "-L", self._name, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
            env=env,
        )
        return done.stdout

    def gone(self, pattern: str) -> None:
        """Look until the pattern is on the screen no more."""
        deadline = time.monotonic() + SECONDS
        while re.search(pattern, seen := self.screen()):
            assert time.monotonic() < deadline, f"{pattern!r} is still on:\n{seen}"

    def keys(self, *keys: str) -> None:
        """Press keys, by their tmux names."""
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        """What is on the screen."""
        return self._tmux("capture-pane", "-p")

    def wait(self, pattern: str) -> str:
        """Look until the pattern is on the screen."""
        deadline = time.monotonic() + SECONDS
        while not re.search(pattern, seen := self.screen()):
            assert time.monotonic() < deadline, f"{pattern!r} is not on:\n{seen}"
        return seen

    def ended(self) -> int:
        """Wait until the program has ended; its exit status."""
        found = re.search(r"ended with (\d+)", self.wait(r"ended with \d+"))
        assert found
        return int(found[1])

    def resize(self, cols: int, rows: int) -> None:
        """Another size of the window."""
        self._tmux("resize-window", "-x", str(cols), "-y", str(rows))

    def close(self) -> None:
        """End the server and what runs in it; it leaves its socket behind."""
        path = self._tmux("display-message", "-p", "#{socket_path}").strip()
        self._tmux("kill-server")
        Path(path).unlink(missing_ok=True)


@pytest.fixture
def app(cluster: Cluster) -> Iterator[Tmux]:
    """The app on node1."""
    if shutil.which("tmux") is None:
        pytest.skip("no tmux: apt install tmux")
    window = Tmux(cluster.words("node1", "omview"), 120, 36)
    yield window
    window.close()


def test_m_moves_the_job_under_the_cursor_and_h_brings_it_home(cluster: Cluster, app: Tmux) -> None:
    job = cluster.ticker("walker")
    app.wait(r"(?s)node1.*node2.*node3")
    app.keys("3")
    app.wait("stop-walker")
    app.keys("/")
    app.keys("job", "Space", "ticker", "Enter")
    app.wait(r"▌ +●.*python3 tick")
    app.keys("m")
    app.wait("Where to")
    app.keys("2")
    app.wait("move it to node2")
    app.keys("y")
    app.wait(r"Moved walker +node1 → node2")
    assert cluster.until("walker", node="node2")["moves"] == 1
    app.wait("◆")
    app.keys("h")
    app.wait(r"(?s)Bring home walker.*move it to node1")
    app.keys("y")
    app.wait(r"Moved walker +node2 → node1")
    cluster.until("walker", node="node1", moves=2)
    app.keys("l")
    app.wait("walker is locked")
    cluster.until("walker", locked=True)
    app.wait(r"▌ +■.*locked +python3 tick")  # l takes back what the screen says
    app.keys("l")
    cluster.until("walker", locked=False)
    app.keys("?")
    app.wait("keys and signs of this screen")
    app.keys("Escape")
    app.gone("keys and signs of this screen")
    app.keys("q")
    assert app.ended() == 0
    cluster.stop("walker")
    status, out, _ = finish(job)
    assert status == 0
    counted(out)


def test_every_size_is_drawn(app: Tmux) -> None:
    app.wait(r"(?s)node1.*node2.*node3")
    for cols, rows in ((80, 24), (200, 60), (60, 16), (38, 9), (18, 2), (160, 50)):
        app.resize(cols, rows)
        seen = app.wait("omview" if rows < 3 else "node1")
        assert "Traceback" not in seen
