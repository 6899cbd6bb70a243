"""Pipes, redirections, job control, attach and logs: as without `omview run --`."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.kit import Cluster, Screen, counted, finish

pytestmark = [pytest.mark.lab, pytest.mark.slow]


def test_pipes_and_redirections(cluster: Cluster) -> None:
    data = b"".join(b"line %d\n" % n for n in range(100_000))
    (cluster.shared / "input").write_bytes(data)
    script = "omview run -- cat < input | omview run -- grep -c line; omview run -- sh -c 'echo e >&2; exit 9' 2>err"
    answer = cluster.on("node1", "sh", "-c", script)
    assert answer.stdout.split() == ["100000"]
    assert answer.returncode == 9
    assert (cluster.shared / "err").read_text() == "e\n"


def test_a_reader_that_leaves_early_ends_the_writer(cluster: Cluster) -> None:
    answer = cluster.on("node1", "sh", "-c", "omview run --name writer2 -- yes | head -n 2")
    assert answer.stdout == "y\ny\n"
    cluster.until("writer2", state="ended")


def test_megabytes_arrive_whole(cluster: Cluster) -> None:
    job = cluster.start("node1", "--", "sh", "-c", "seq 2000000")
    status, out, _ = finish(job)
    assert status == 0
    assert out == b"".join(b"%d\n" % n for n in range(1, 2_000_001))


def test_job_control_in_a_shell(cluster: Cluster) -> None:
    shell = Screen(cluster.words("node1", "bash", "--norc", "--noprofile", "-i"), cwd=cluster.shared)
    try:
        shell.wait(r"\$ ")
        shell.type("omview run --name sleeper -- sleep 1000\r")
        cluster.until("sleeper", state="running")
        shell.type("\x1a")
        shell.wait(r"Stopped[^$]*\$ ")
        cluster.until("sleeper", state="stopped")
        shell.type("fg\r")
        cluster.until("sleeper", state="running")
        shell.type("\x03")
        shell.wait(r"\$ ")
        shell.type("echo status=$?\r")
        shell.wait("status=130")
        shell.type("exit\r")
    finally:
        shell.close()


def test_detach_attach_and_logs(cluster: Cluster) -> None:
    terminal = Screen(
        cluster.words("node1", "omview", "run", "--detach", "--name", "calc", "--", "python3", "-q"),
        cwd=cluster.shared,
    )
    job = terminal.wait(r"[0-9a-f]{32}").strip()
    assert terminal.status() == 0
    terminal.close()
    first = Screen(cluster.words("node1", "omview", "attach", job[-32:]))
    try:
        first.wait(">>> ")
        first.type("print(6 * 7)\r")
        first.wait("\n42")
        first.type("\r~.")
        first.wait("detached")
        assert first.status() == 0
    finally:
        first.close()
    cluster.migrate("calc", "node2")
    second = Screen(cluster.words("node1", "omview", "attach", "calc"))
    try:
        second.type("print('on', __import__('os').uname().nodename)\r")
        second.wait("on node2")
        second.type("raise SystemExit(4)\r")
        assert second.status() == 4
    finally:
        second.close()
    kept = cluster.omview("node1", "logs", "calc")
    assert "42" in kept.stdout
    assert "on node2" in kept.stdout


def test_a_caller_without_a_terminal_gets_none(cluster: Cluster) -> None:
    script = "import os; print([os.isatty(fd) for fd in (0, 1, 2)])"
    job = cluster.start("node1", "--", "python3", "-c", script)
    assert finish(job)[1] == b"[False, False, False]\n"
    terminal = Screen(cluster.words("node1", "omview", "run", "--no-tty", "--", "python3", "-c", script))
    try:
        terminal.wait(r"\[False, False, False\]")
        assert terminal.status() == 0
    finally:
        terminal.close()


def test_a_deputy_goes_on_with_the_next_engine(cluster: Cluster) -> None:
    job = cluster.ticker("patient")
    cluster.restart("node1")
    cluster.until("patient", state="running")
    cluster.stop("patient")
    status, out, _ = finish(job)
    assert status == 0
    counted(out)


def test_signals_reach_the_job(cluster: Cluster) -> None:
    script = "trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.05; done"
    job = cluster.start("node1", "--name", "trap", "--", "sh", "-c", script, stderr=subprocess.DEVNULL)
    assert job.stdout is not None
    assert job.stdout.readline() == b"up\n"
    assert cluster.omview("node2", "kill", "-s", "USR1", "trap").returncode == 0
    assert finish(job)[:2] == (3, b"got\n")
