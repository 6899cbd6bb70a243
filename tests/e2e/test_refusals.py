"""What cannot be done is said beforehand in one sentence with a hint, and no job is lost by asking."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from omcore.checkpoint.criu import find_criu
from tests.e2e.kit import Cluster, counted, finish

pytestmark = [pytest.mark.lab, pytest.mark.criu, pytest.mark.slow]

IO_URING = """
import ctypes, time
params = ctypes.create_string_buffer(120)
fd = ctypes.CDLL(None).syscall(425, 4, params)
print("ring" if fd >= 0 else "none", flush=True)
time.sleep(600)
"""

OLD_CRIU = """#!/bin/sh
case "$*" in
*--version*|-V) echo "Version: 3.17.1";;
*) exit 1;;
esac
"""


def refused(answer: subprocess.CompletedProcess[str], *words: str, status: int = 1) -> None:
    """One sentence, a hint, exit 1, no traceback."""
    lines = answer.stderr.strip().splitlines()
    assert answer.returncode == status, answer
    assert lines[0].startswith("omview: ")
    assert len(lines) <= 2
    assert "Traceback" not in answer.stderr
    for word in words:
        assert word in answer.stderr, answer.stderr


@pytest.fixture
def ticker(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A counting job that must be whole after whatever was tried with it."""
    name = request.node.name.removeprefix("test_")[:24]
    job = cluster.ticker(name)
    yield name
    cluster.stop(name)
    status, out, _ = finish(job)
    assert status == 0
    counted(out)


def test_unknown_names(cluster: Cluster, ticker: str) -> None:
    refused(cluster.omview("node1", "migrate", ticker, "node9"), "node9", "hint")
    refused(cluster.omview("node1", "migrate", "nobody", "node2"), "nobody", "hint")
    refused(cluster.omview("node1", "run", "--", "no-such-program"), "no-such-program", "not found", status=127)
    refused(cluster.omview("node1", "run", "--", "/etc/passwd"), "/etc/passwd", "Permission denied", status=126)
    refused(cluster.omview("node1", "run", "--on", "node9", "--", "true"), "node9")
    refused(cluster.omview("node1", "kill", "nobody"), "nobody")
    assert cluster.omview("node1", "frobnicate").returncode == 2
    assert cluster.omview("node1", "migrate").returncode == 2


def test_it_is_there_already(cluster: Cluster, ticker: str) -> None:
    refused(cluster.omview("node1", "migrate", ticker, "home"), "already")


def test_a_locked_job_stays(cluster: Cluster, ticker: str) -> None:
    assert cluster.omview("node2", "lock", ticker).returncode == 0
    refused(cluster.omview("node1", "migrate", ticker, "node2"), "locked", "unlock")
    assert cluster.jobs()[ticker]["locked"] is True
    assert cluster.omview("node1", "unlock", ticker).returncode == 0


def test_io_uring_is_named(cluster: Cluster) -> None:
    job = cluster.start("node1", "--name", "ring", "--", "python3", "-c", IO_URING)
    try:
        assert job.stdout is not None
        if job.stdout.readline() != b"ring\n":
            pytest.skip("this kernel forbids io_uring")
        refused(cluster.omview("node1", "migrate", "ring", "node2"), "io_uring")
        assert cluster.jobs()["ring"]["state"] == "running"
    finally:
        cluster.omview("node1", "kill", "-s", "KILL", "ring")
        finish(job)


def test_an_outside_unix_stream_is_named(cluster: Cluster) -> None:
    path = cluster.shared / "outside.sock"
    server = subprocess.Popen(
        cluster.words(
            "node1",
            "python3",
            "-c",
            f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen(); "
            "print('up', flush=True); c, _ = s.accept(); c.recv(1)",
        ),
        stdout=subprocess.PIPE,
        cwd=cluster.shared,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"up\n"
    client = f"import socket, time; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); time.sleep(600)"
    job = cluster.start("node1", "--name", "outside", "--", "python3", "-c", client)
    try:
        cluster.until("outside", state="running")
        answer = cluster.omview("node1", "migrate", "outside", "node2")
        refused(answer, "outside", "connected to")
        assert cluster.jobs()["outside"]["state"] == "running"
    finally:
        cluster.omview("node1", "kill", "outside")
        finish(job)
        server.wait(30)


def test_a_file_that_only_home_has_is_named(cluster: Cluster) -> None:
    assert cluster.on("node1", "sh", "-c", "echo words > /tmp/only-here").returncode == 0
    job = cluster.start("node1", "--name", "holds", "--", "python3", "-c",
                        "import time; f = open('/tmp/only-here'); time.sleep(600)")  # fmt: skip
    try:
        cluster.until("holds", state="running")
        refused(cluster.omview("node1", "migrate", "holds", "node2"), "/tmp/only-here", "node2")
        assert cluster.jobs()["holds"]["state"] == "running"
    finally:
        cluster.omview("node1", "kill", "holds")
        finish(job)


def test_a_full_destination_refuses_and_the_job_goes_on(cluster: Cluster, ticker: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a host's /dev/shm small")
    assert cluster.on("node2", "mount", "-o", "remount,size=512k", "/dev/shm").returncode == 0
    try:
        refused(cluster.omview("node1", "migrate", ticker, "node2"), "node2")
        assert cluster.jobs()[ticker]["state"] == "running"
    finally:
        assert cluster.on("node2", "mount", "-o", "remount,size=8g", "/dev/shm").returncode == 0
    cluster.migrate(ticker, "node2")


def test_a_destination_without_criu_or_with_an_old_one(cluster: Cluster, ticker: str) -> None:
    old = cluster.shared / "old" / "criu"
    old.parent.mkdir()
    old.write_text(OLD_CRIU)
    old.chmod(0o755)
    try:
        cluster.restart("node3", f"OMVIEW_CRIU={old}")
        refused(cluster.omview("node1", "migrate", ticker, "node3"), "CRIU", "node3")
        cluster.restart("node3", "OMVIEW_CRIU=/nonexistent")
        refused(cluster.omview("node1", "migrate", ticker, "node3"), "CRIU", "node3")
    finally:
        cluster.restart("node3")
    cluster.migrate(ticker, "node3")


@pytest.fixture
def cannot_restore(cluster: Cluster) -> Iterator[None]:
    """node2 has a CRIU that does everything but restore."""
    real = find_criu()
    assert real is not None
    script = cluster.shared / "half" / "criu"
    script.parent.mkdir(exist_ok=True)
    words = shlex.join(real.command)
    script.write_text(f'#!/bin/sh\ncase " $* " in *" restore "*) exit 1;; esac\nexec {words} "$@"\n')
    script.chmod(0o755)
    cluster.restart("node2", f"OMVIEW_CRIU={script}")
    yield
    cluster.restart("node2")


@pytest.mark.usefixtures("cannot_restore")
def test_a_restore_that_fails_takes_the_move_back(cluster: Cluster, ticker: str) -> None:
    answer = cluster.omview("node1", "migrate", ticker, "node2")
    refused(answer, ticker, "node1")
    cluster.until(ticker, state="running", node="node1")
    cluster.migrate(ticker, "node3")
    assert cluster.leftovers() == []


@pytest.mark.usefixtures("cannot_restore")
def test_a_job_with_locks_is_rebuilt_where_it_was(cluster: Cluster) -> None:
    lock, stop = cluster.shared / "lock", cluster.shared / "stop-locker"
    script = (
        "import fcntl, os, time\n"
        f"file = open({str(lock)!r}, 'w'); fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "number = 0\n"
        f"while not os.path.exists({str(stop)!r}):\n"
        "    print(number, flush=True); number += 1; time.sleep(0.005)\n"
    )
    job = cluster.start("node1", "--name", "locker", "--", "python3", "-c", script)
    cluster.until("locker", state="running")
    refused(cluster.omview("node1", "migrate", "locker", "node2"), "locker", "node1")
    cluster.until("locker", state="running", node="node1")
    cluster.migrate("locker", "node3")
    stop.touch()
    status, out, _ = finish(job)
    assert status == 0
    counted(out)
    assert cluster.leftovers() == []


def test_a_destination_that_dies_in_the_middle(cluster: Cluster) -> None:
    script = (
        "import os, sys\n"
        "data = os.urandom(1 << 20) * 300\n"
        "print('ready', flush=True)\n"
        "print(sys.stdin.readline().strip(), len(data), os.uname().nodename, flush=True)\n"
    )
    job = cluster.start("node1", "--name", "halfway", "--", "python3", "-c", script, stdin=subprocess.PIPE)
    assert job.stdout is not None
    assert job.stdout.readline() == b"ready\n"
    engine = cluster.engine("node2")
    move = subprocess.Popen(
        cluster.words("node1", "omview", "migrate", "halfway", "node2"), stderr=subprocess.PIPE, text=True
    )
    watch = "while ! find /dev/shm -name '*.img' | grep -q .; do :; done; kill -9 " + " ".join(engine)
    assert cluster.on("node2", "sh", "-c", watch).returncode == 0
    try:
        _, said = move.communicate(timeout=90)
        assert move.returncode == 1
        assert "halfway" in said
    finally:
        cluster.restart("node2")
    out, _ = job.communicate(b"still\n", timeout=60)
    assert out == b"still %d node1\n" % (300 << 20)
    assert job.returncode == 0
    assert cluster.leftovers() == []


def test_a_corrupt_configuration_and_a_second_engine(cluster: Cluster) -> None:
    refused(cluster.omview("node1", "serve"), "engine", "hint")
    script = (
        "mkdir -p /tmp/c/omview && echo 'name = [' > /tmp/c/omview/config.toml; "
        "XDG_CONFIG_HOME=/tmp/c XDG_STATE_HOME=/tmp/c/s XDG_RUNTIME_DIR=/tmp/c omview serve"
    )
    refused(cluster.on("node1", "sh", "-c", script), "config.toml", "TOML")
