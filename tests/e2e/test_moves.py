"""Real programs move between real hosts and notice nothing."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import subprocess
import threading

import pytest

from tests.e2e.kit import SECONDS, Cluster, Screen, counted, finish

pytestmark = [pytest.mark.lab, pytest.mark.criu, pytest.mark.slow]


def test_a_python_job_hops_and_comes_home_and_its_output_is_whole(cluster: Cluster) -> None:
    job = cluster.ticker("ticker", 7)
    for to, name in (("node2", "node2"), ("node3", "node3"), ("home", "node1")):
        moved = cluster.migrate("ticker", to)
        assert moved["to"] == name
        assert moved["freeze_s"] > 0
        assert moved["bytes"] > 100_000
    cluster.stop("ticker")
    status, out, err = finish(job)
    assert status == 7
    assert err == b"".join(b"e %d\n" % number for number in range(0, counted(out), 10))
    assert cluster.jobs()["ticker"]["moves"] == 3
    assert cluster.leftovers() == []


def test_a_bash_pipeline_moves_as_a_whole(cluster: Cluster) -> None:
    stop = cluster.shared / "stop-pipeline"
    script = (
        f"n=0; while [ ! -e {stop} ]; do echo $n; n=$((n + 1)); sleep 0.002; done"
        " | while read n; do echo $((n * 2)); done | awk '{ s += $1; print s; fflush() }'; exit 4"
    )
    job = cluster.start("node1", "--name", "pipeline", "--", "bash", "-c", script)
    cluster.until("pipeline", state="running")
    cluster.migrate("pipeline", "node2")
    cluster.migrate("pipeline", "node3")
    stop.touch()
    status, out, _ = finish(job)
    assert status == 4
    sums = out.split()
    assert len(sums) > 10
    assert sums == [b"%d" % (n * (n + 1)) for n in range(len(sums))]


def test_an_sqlite_writer_keeps_every_row(cluster: Cluster) -> None:
    base = cluster.shared / "rows.db"
    script = (
        "import os, sqlite3, time\n"
        f"base = sqlite3.connect({str(base)!r}, isolation_level=None)\n"
        "base.execute('create table rows (n integer)')\n"
        "block = 0\n"
        f"while not os.path.exists({str(base) + '.stop'!r}):\n"
        "    base.execute('begin immediate')\n"
        "    for n in range(20):\n"
        "        base.execute('insert into rows values (?)', (block * 20 + n,)); time.sleep(0.003)\n"
        "    base.execute('commit'); block += 1\n"
        "print(base.execute('pragma integrity_check').fetchone()[0])\n"
    )
    job = cluster.start("node1", "--name", "writer", "--", "python3", "-c", script)
    cluster.until("writer", state="running")
    cluster.migrate("writer", "node3")
    cluster.migrate("writer", "node2")
    base.with_name("rows.db.stop").touch()
    status, out, err = finish(job)
    assert (status, out) == (0, b"ok\n"), err
    with sqlite3.connect(base) as rows:
        found = [n for (n,) in rows.execute("select n from rows order by rowid")]
    assert len(found) >= 20
    assert found == list(range(len(found)))


def test_whoever_asks_sees_the_steps(cluster: Cluster) -> None:
    job = cluster.ticker("guided")
    cluster.until("guided", state="running")
    screen = Screen(cluster.words("node2", "omview", "migrate", "guided", "node3"))
    try:
        assert re.search(r"(check|prepare|freeze|ship|restore|commit)[^:]*moved guided", screen.wait("moved guided"))
        assert screen.status() == 0
    finally:
        screen.close()
    cluster.stop("guided")
    assert finish(job)[0] == 0


def test_a_terminal_program_keeps_its_terminal(cluster: Cluster) -> None:
    screen = Screen(cluster.words("node1", "omview", "run", "--name", "repl", "--", "python3", "-q"), 33, 101)
    try:
        screen.wait(">>> ")
        screen.type("import os; print('size', os.get_terminal_size().columns, os.isatty(0), os.uname().nodename)\r")
        screen.wait("size 101 True node1")
        cluster.migrate("repl", "node2")
        screen.type("print('on', os.uname().nodename, os.isatty(0), os.get_terminal_size().lines)\r")
        screen.wait("on node2 True 33")
        screen.resize(40, 120)
        screen.type("print('now', os.get_terminal_size())\r")
        screen.wait(r"now os.terminal_size\(columns=120, lines=40\)")
        screen.type("while True: pass\r\r")
        screen.type("\x03")
        screen.wait("KeyboardInterrupt")
        cluster.migrate("repl", "home")
        screen.type("print('back on', os.uname().nodename); os._exit(3)\r")
        screen.wait("back on node1")
        assert screen.status() == 3
    finally:
        screen.close()


def test_stdin_through_a_pipe_arrives_once_and_in_order(cluster: Cluster) -> None:
    job = cluster.start("node1", "--name", "reader", "--", "sha256sum", stdin=subprocess.PIPE)
    sent = hashlib.sha256()
    stop = threading.Event()

    def feed() -> None:
        assert job.stdin is not None
        number = 0
        while not stop.is_set():
            block = b"%d " % number * 300
            job.stdin.write(block)
            sent.update(block)
            number += 1
        job.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        cluster.until("reader", state="running")
        for to in ("node2", "node3", "home"):
            cluster.migrate("reader", to)
    finally:
        stop.set()
        feeder.join(SECONDS)
    job.stdin = None
    status, out, _ = finish(job)
    assert status == 0
    assert out.split()[0].decode() == sent.hexdigest()


def test_death_by_a_signal_on_another_host_is_seen_at_home(cluster: Cluster) -> None:
    job = cluster.start("node1", "--name", "victim", "--", "sleep", "1000")
    cluster.until("victim", state="running")
    cluster.migrate("victim", "node2")
    assert cluster.omview("node3", "kill", "-s", "KILL", "victim").returncode == 0
    status, _, _ = finish(job)
    assert status in (-9, 137)


def test_four_jobs_move_at_once(cluster: Cluster) -> None:
    names = [f"four{n}" for n in range(4)]
    jobs = [cluster.ticker(name) for name in names]
    for to in ("node2", "node3"):
        moves = [
            subprocess.Popen(cluster.words("node1", "omview", "migrate", name, to), stdout=subprocess.DEVNULL)
            for name in names
        ]
        assert [move.wait(SECONDS) for move in moves] == [0] * 4
    for name, job in zip(names, jobs, strict=True):
        cluster.stop(name)
        status, out, _ = finish(job)
        assert status == 0
        counted(out)
    assert cluster.leftovers() == []


def test_a_killed_engine_loses_nothing_whatever_role_it_had(cluster: Cluster) -> None:
    job = cluster.ticker("survivor")
    cluster.migrate("survivor", "node2")
    for node in ("node1", "node2"):
        assert cluster.engine(node)
        cluster.restart(node)
    cluster.until("survivor", state="running", node="node1")
    cluster.migrate("survivor", "node3")
    cluster.stop("survivor")
    status, out, _ = finish(job)
    assert status == 0
    counted(out)


def test_a_job_may_start_elsewhere_and_its_terminal_is_here(cluster: Cluster) -> None:
    job = cluster.start("node1", "--on", "node3", "--name", "away", "--", "sh", "-c", "uname -n; exit 5")
    status, out, _ = finish(job)
    assert (status, out) == (5, b"node3\n")


def test_a_stopped_job_moves_and_stays_stopped(cluster: Cluster) -> None:
    assert cluster.omview("node1", "run", "--detach", "--name", "halted", "--", "sleep", "500").returncode == 0
    assert cluster.omview("node1", "kill", "-s", "STOP", "halted").returncode == 0
    cluster.until("halted", state="stopped")
    cluster.migrate("halted", "node2")
    cluster.until("halted", state="stopped", node="node1")
    assert cluster.omview("node1", "kill", "-s", "CONT", "halted").returncode == 0
    cluster.until("halted", state="running")
    assert cluster.omview("node1", "kill", "halted").returncode == 0


def test_big_memory_moves_whole(cluster: Cluster) -> None:
    script = (
        "import os, hashlib, sys\n"
        "data = bytearray(os.urandom(1 << 20) * 96)\n"
        "for i in range(96): data[i << 20] = i\n"
        "print(hashlib.sha256(data).hexdigest(), flush=True)\n"
        "sys.stdin.readline()\n"
        "print(hashlib.sha256(data).hexdigest(), os.uname().nodename, flush=True)\n"
    )
    job = cluster.start("node1", "--name", "big", "--", "python3", "-c", script, stdin=subprocess.PIPE)
    assert job.stdout is not None
    first = job.stdout.readline().decode().strip()
    moved = cluster.migrate("big", "node2")
    assert moved["bytes"] > 96 << 20
    out, _ = job.communicate(b"go\n", timeout=SECONDS)
    assert out.decode().split() == [first, "node2"]
    assert job.returncode == 0
