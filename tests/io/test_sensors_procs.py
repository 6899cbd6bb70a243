"""The process list as differences, and the figures of one job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from omcore.sensors.jobs import JobMeter, tree_figures
from omcore.sensors.proc import children, read_bytes, stat, tree
from omcore.sensors.procs import ProcessSensor
from omcore.types import JobId, ProcKey, ProcView

JOB = JobId("ab" * 16)

Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program that says a line when it is ready; it ends with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def launch(*command: str) -> int:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield launch
    for process in running:
        for pid in reversed(tree(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def python(start: Start, code: str) -> int:
    return start(sys.executable, "-c", "import os, signal, time\n" + code)


WAIT = "print(1, flush=True); signal.pause()"


def row(sensor: ProcessSensor, pid: int) -> ProcView:
    return next(view for view in sensor.full() if view.key.pid == pid)


def await_cpu(pid: int, more_s: float) -> None:
    until, goal = time.monotonic() + 60, None
    while True:
        reading = stat(pid)
        assert reading is not None
        used = (reading.utime + reading.stime) / os.sysconf("SC_CLK_TCK")
        goal = goal or used + more_s
        if used >= goal:
            return
        assert time.monotonic() < until


def await_state(pid: int, state: str) -> None:
    until = time.monotonic() + 30
    while (reading := stat(pid)) is None or reading.state != state:
        assert time.monotonic() < until


def test_the_first_scan_gives_all_and_the_next_only_what_changed(start: Start) -> None:
    pid = python(start, WAIT)
    await_state(pid, "S")  # it may still be on its way to sleep
    sensor = ProcessSensor(3)
    changed, gone = sensor.scan(1.0)
    assert {view.key for view in changed} == {view.key for view in sensor.full()}
    assert gone == ()
    view = row(sensor, pid)
    assert view.key.node == 3
    assert view.ppid == os.getpid()
    assert view.command.startswith(sys.executable + " -c import os, signal, time\\x0a")
    assert view.rss_bytes > 1_000_000
    assert view.threads == 1
    assert row(sensor, 1).user == "root"
    changed, gone = sensor.scan(2.0)
    assert pid not in {view.key.pid for view in changed}
    sensor.forget()
    assert pid in {view.key.pid for view in sensor.scan(3.0)[0]}


def test_what_ends_is_gone(start: Start) -> None:
    sensor = ProcessSensor(1)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        sensor.scan(1.0)
        key = row(sensor, process.pid).key
    assert key in sensor.scan(2.0)[1]
    assert key not in {view.key for view in sensor.full()}


def test_cpu_is_measured_and_falls_back_to_nothing(start: Start) -> None:
    pid = python(start, "print(1, flush=True)\nwhile True: pass")
    sensor = ProcessSensor(1)
    began = time.monotonic()
    sensor.scan(began)
    await_cpu(pid, 0.3)
    changed, _ = sensor.scan(time.monotonic())
    view = next(view for view in changed if view.key.pid == pid)
    assert 1 <= view.cpu_percent <= 200  # the machine may be busy, or hold us up between clock and file
    os.kill(pid, signal.SIGSTOP)
    await_state(pid, "T")
    sensor.scan(time.monotonic() + 1)
    sensor.scan(time.monotonic() + 2)
    assert row(sensor, pid).cpu_percent == 0
    assert row(sensor, pid).state == "T"


def test_after_exec_the_command_is_read_again(start: Start) -> None:
    pid = start(
        sys.executable, "-c", "import os; print(1, flush=True); input(); os.execlp('sh', 'sh', '-c', 'echo 2; read x')"
    )
    sensor = ProcessSensor(1)
    sensor.scan(1.0)
    with open(f"/proc/{pid}/fd/0", "wb", buffering=0) as keys:
        keys.write(b"\n")
    until = time.monotonic() + 10
    while not (read_bytes(f"/proc/{pid}/cmdline") or b"").startswith(b"sh"):  # the name is new before this is
        assert time.monotonic() < until
    changed, gone = sensor.scan(2.0)
    view = next(view for view in changed if view.key.pid == pid)
    assert (view.name, view.command) == ("sh", "sh -c echo 2; read x")
    assert view.key not in gone


def test_hostile_names_and_arguments_are_cleaned(start: Start) -> None:
    code = (
        "import ctypes, signal; ctypes.CDLL(None).prctl(15, b'\\x1b]0;x\\n\\xff'); print(1, flush=True); signal.pause()"
    )
    pid = start(sys.executable, "-c", code, "\x1b[2J", "\u202e", "x" * 20_000)
    sensor = ProcessSensor(1)
    sensor.scan(1.0)
    view = row(sensor, pid)
    assert view.name == "\\x1b]0;x\\x0a\\udcff"
    assert view.command.isprintable()
    assert "\\x1b[2J \\u202e xxx" in view.command
    assert len(view.command) <= 4096


def test_a_kernel_thread_is_put_in_brackets() -> None:
    sensor = ProcessSensor(1)
    sensor.scan(1.0)
    threads = [view for view in sensor.full() if view.ppid == 2]
    if not threads:
        pytest.skip("no kernel threads are visible here")
    assert all(view.command == f"[{view.name}]" for view in threads)


def test_all_below_a_root_belong_to_its_job(start: Start) -> None:
    pid = python(start, "os.fork();" + WAIT)
    (child,) = children(pid)
    sensor = ProcessSensor(1)
    sensor.mark({pid: JOB})
    changed, _ = sensor.scan(1.0)
    marks = {view.key.pid: (view.job, view.root) for view in changed}
    assert marks[pid] == (JOB, True)
    assert marks[child] == (JOB, False)
    assert marks[os.getpid()] == (None, False)
    sensor.mark({})
    changed, _ = sensor.scan(2.0)
    assert {pid, child} <= {view.key.pid for view in changed}
    assert row(sensor, child).job is None


def test_a_number_that_is_used_again_is_another_process(start: Start) -> None:
    pid = python(start, WAIT)
    sensor = ProcessSensor(1)
    sensor.scan(1.0)
    real = row(sensor, pid).key
    entry = sensor._seen[pid]
    old = ProcKey(1, pid, real.start - 1)
    entry.view = ProcView(old, 1, "x", "S", 0.0, 0, 0.0, 1, "old", "old")
    entry.raw = b"7 (old) S 1"
    entry.stat = type(entry.stat)("old", "S", 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, old.start, 0)
    changed, gone = sensor.scan(2.0)
    assert old in gone
    assert real in {view.key for view in changed}


def test_a_scan_survives_processes_that_come_and_go() -> None:
    code = "while :; do /bin/true & /bin/true & wait; done"
    with subprocess.Popen(["sh", "-c", code]) as storm:
        sensor = ProcessSensor(1)
        known: dict[ProcKey, ProcView] = {}
        for i in range(30):
            changed, gone = sensor.scan(float(i))
            for key in gone:
                del known[key]
            known.update({view.key: view for view in changed})
            assert known.keys() == {view.key for view in sensor.full()}
        for pid in reversed(tree(storm.pid)):
            with suppress(ProcessLookupError):  # a /bin/true that has just ended
                os.kill(pid, signal.SIGKILL)


def test_figures_of_a_tree(start: Start) -> None:
    pid = python(start, "os.fork() or time.sleep(0);" + WAIT)
    figures = tree_figures(pid)
    assert figures is not None
    assert figures.tasks == 2
    assert figures.rss_bytes > 2_000_000
    for member in tree(pid):
        os.kill(member, signal.SIGSTOP)

    until = time.monotonic() + 10
    while (stopped := tree_figures(pid)) is None or stopped.state != "T":
        assert time.monotonic() < until


def test_a_job_meter_keeps_percent_over_time(start: Start) -> None:
    pid = python(start, "if os.fork() == 0:\n    while True: pass\nprint(1, flush=True); signal.pause()")
    (child,) = children(pid)
    meter = JobMeter()
    meter.update(pid, time.monotonic())
    assert meter.cpu_percent is None
    await_cpu(child, 0.3)
    figures = meter.update(pid, time.monotonic())
    assert figures is not None
    assert figures.state == "R"
    assert meter.cpu_percent is not None
    assert 1 <= meter.cpu_percent <= 200


def test_a_job_that_is_gone_has_no_figures() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    meter = JobMeter()
    assert meter.update(process.pid, 1.0) is None
    assert meter.cpu_percent is None
