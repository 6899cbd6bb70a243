"""The load of this machine, of a limited control group and of a namespace of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from omcore.sensors.host import HostSensor
from omcore.sensors.limits import _cpu_limit, _Group, _memory_limit, _own_dir, detect
from omcore.sensors.meter import TaskMeter
from omcore.sensors.proc import children, parse_stat, stat, tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SPIN = "import os\nif os.fork() == 0:\n    while True: pass\nprint(1, flush=True)\nos.wait()"


@pytest.fixture
def spinner() -> Iterator[int]:
    """A process with a child that uses a core; ends with the test."""
    process = subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    for pid in reversed(tree(process.pid)):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def sensor() -> Iterator[HostSensor]:
    sensor = HostSensor(detect(whole_machine=True))
    yield sensor
    sensor.close()


def used_s(pid: int) -> float:
    reading = stat(pid)
    assert reading is not None
    return (reading.utime + reading.stime) / os.sysconf("SC_CLK_TCK")


def await_cpu(pid: int, more_s: float) -> None:
    """Until the process has used that much CPU: the event itself, on however busy a machine."""
    until, goal = time.monotonic() + 60, used_s(pid) + more_s
    while used_s(pid) < goal:
        assert time.monotonic() < until


def test_a_sample_describes_this_machine(sensor: HostSensor) -> None:
    sensor.sample(10.0)
    sample = sensor.sample(11.0)
    assert sample.cores == os.cpu_count()
    assert 0 < sample.mem_used_bytes < sample.mem_total_bytes
    assert 0 <= sample.cpu_percent <= 100
    assert sample.wait_percent is None or 0 <= sample.wait_percent <= 100
    assert sample.uptime_s > 0
    assert sample.load_own == sample.load_guest == 0


def test_load_is_split_between_own_jobs_and_guests(sensor: HostSensor, spinner: int) -> None:
    (child,) = children(spinner)
    roots = [spinner]
    sensor.sample(time.monotonic(), guest_roots=roots)
    await_cpu(child, 0.4)
    sample = sensor.sample(time.monotonic(), guest_roots=roots)
    # One task, running or waiting all the time; without the smoothing.
    guest = sample.load_guest / sample.load * sensor.raw_load * sample.cores
    assert guest == pytest.approx(1.0, abs=0.35)
    assert sample.load_own == 0
    assert sample.load >= sample.load_guest - 1e-9
    assert sample.cpu_percent > 0


def test_load_falls_at_once_and_rises_slowly(sensor: HostSensor) -> None:
    assert sensor._smoothed(0.0) == 0.0
    assert sensor._smoothed(1.0) == pytest.approx(3 / 8)
    assert sensor._smoothed(1.0) == pytest.approx((5 * 3 / 8 + 3) / 8)
    assert sensor._smoothed(0.1) == pytest.approx(0.1)


def test_a_sample_is_cheap(sensor: HostSensor) -> None:
    sensor.sample(1.0)
    began = time.process_time()
    for i in range(20):
        sensor.tick()
        sensor.sample(2.0 + i)
    assert (time.process_time() - began) / 20 < 0.002


def test_it_works_when_no_descriptor_is_left(sensor: HostSensor) -> None:
    code = (
        "import resource, os\nfrom omcore.sensors.host import HostSensor\ns = HostSensor(); s.sample(1.0)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\nx = s.sample(2.0)\n"
        "print(x.uptime_s > 0 < x.mem_used_bytes)"
    )
    assert subprocess.check_output([sys.executable, "-c", code]) == b"True\n"


def test_rates_of_busy_tasks_are_exact_and_idle_ones_are_bounded(spinner: int) -> None:
    (child,) = children(spinner)
    while (reading := stat(spinner)) and reading.state == "R":
        pass  # it prints and then waits for its child
    meter = TaskMeter(budget=2)
    pids = {spinner, child, os.getpid(), 1}
    meter.measure(pids, time.monotonic())
    await_cpu(child, 0.3)
    used = meter.measure(pids, time.monotonic())
    assert used >= 0.25
    assert meter.runnable([child]) == pytest.approx(1.0, abs=0.35)
    assert meter.runnable([spinner]) < 0.1
    assert meter.rss_bytes > 1_000_000


def test_children_that_were_reaped_still_count() -> None:
    code = (
        "import subprocess, sys; input()\n"
        "for _ in range(3): subprocess.run([sys.executable, '-c', 'for i in range(2000000): pass'])\n"
        "print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        meter = TaskMeter()
        meter.measure({process.pid}, 1.0)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert meter.measure({process.pid}, 2.0) >= 0.05
        assert meter.runnable() >= 0.05
        process.stdin.write(b"\n")


def test_a_stat_line_with_a_hostile_name() -> None:
    line = b"7 (a) R 1 (x) S 1 7 7 34816 7 4194560 1 0 0 0 12 34 5 6 20 -5 3 0 99 1000 42 0"
    reading = parse_stat(line)
    assert (reading.comm, reading.state, reading.ppid) == ("a) R 1 (x", "S", 1)
    assert (reading.utime, reading.cstime, reading.nice, reading.threads, reading.start) == (12, 6, -5, 3, 99)
    with pytest.raises(ValueError):
        parse_stat(b"")


# -- limits ---------------------------------------------------------------------------------------------------


def test_the_tightest_limit_of_version_2_counts(tmp_path: Path) -> None:
    own = tmp_path / "a" / "b"
    own.mkdir(parents=True)
    (own / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    (own / "memory.max").write_text("1048576\n")
    (tmp_path / "a" / "memory.max").write_text("max\n")
    groups = {"": _Group(2, str(tmp_path), str(own))}
    assert _cpu_limit(groups) == (1.5, str(tmp_path / "a"), 2)
    assert _memory_limit(groups, 1 << 30) == (1048576, str(own))
    assert _memory_limit(groups, 1 << 10) is None  # no limit at all on a machine with less


def test_a_container_sees_only_a_part_of_the_hierarchy(tmp_path: Path) -> None:
    mount = str(tmp_path)
    (tmp_path / "sub").mkdir()
    assert _own_dir(mount, "/", "/sub") == f"{mount}/sub"
    assert _own_dir(mount, "/docker/7", "/docker/7/sub") == f"{mount}/sub"
    assert _own_dir(mount, "/docker/7", "/elsewhere") == mount
    assert _own_dir(mount, "/", "/../../etc") == mount


PROBE = """
import json, os, sys, time
for d in sys.argv[1:]:
    open(d + '/cgroup.procs', 'w').write(str(os.getpid()))
from dataclasses import asdict
from omcore.sensors.host import HostSensor
pid = os.fork()
if pid == 0:
    while True: pass
s = HostSensor()
t = lambda: time.clock_gettime(time.CLOCK_MONOTONIC)
s.sample(t(), [pid])
end = t() + 1.0
import select
select.select([], [], [], 1.0)
x = s.sample(t(), [pid])
os.kill(pid, 9); os.waitpid(pid, 0)
print(json.dumps([{**asdict(x), "job": s.runnable(pid), "none": s.runnable(1)}, asdict(s.limits)]))
"""


@pytest.fixture
def limited_group() -> Iterator[list[str]]:
    """Real control groups with half a core and 256 MiB; removed afterwards."""
    made: list[Path] = []

    def make(base: str, **values: str) -> bool:
        path = Path(base) / f"omtest-sensors-{os.getpid()}"
        with suppress(OSError):
            path.mkdir()
            made.append(path)
            for name, value in values.items():
                (path / name.replace("__", ".")).write_text(value)
            return True
        return False

    root = "/sys/fs/cgroup"
    done = False
    if os.path.exists(f"{root}/cpu/cpu.cfs_quota_us"):
        done = make(f"{root}/cpu", cpu__cfs_quota_us="50000")
        done = done and make(f"{root}/memory", memory__limit_in_bytes=str(256 << 20))
    elif os.path.exists(f"{root}/cgroup.controllers"):
        done = make(root, cpu__max="50000 100000", memory__max=str(256 << 20))
    yield [str(path) for path in made] if done else []
    for path in made:
        path.rmdir()


@needs_root
@pytest.mark.slow
def test_a_limited_node_reports_its_own_limit_and_usage(limited_group: list[str]) -> None:
    if not limited_group:
        pytest.skip("no control group with CPU and memory can be made here")
    out = subprocess.check_output([sys.executable, "-c", PROBE, *limited_group])
    sample, limits = json.loads(out)
    assert limits["cpu"] == limits["memory"] == "cgroup"
    assert "0.5 cores" in limits["words"]
    assert sample["cores"] == 0.5
    assert sample["mem_total_bytes"] == 256 << 20
    assert 1_000_000 < sample["mem_used_bytes"] < 200_000_000
    assert sample["cpu_percent"] > 50  # of half a core, on a busy machine
    # One endless task on half a core is a load of two, whoever else is busy on this machine.
    assert sample["load"] == pytest.approx(2.0, abs=0.8)
    assert sample["load_own"] == pytest.approx(sample["load"], abs=0.5)
    assert sample["job"] == pytest.approx(1.0, abs=0.35)  # it asks for a core, though it gets half of one
    assert sample["none"] == 0.0
    assert (sample["wait_percent"] is None) == (limits["pressure_path"] == "")
    assert limits["pressure_path"] != "/proc/pressure/cpu"  # the whole machine's, not this node's


@needs_root
@pytest.mark.slow
def test_a_namespace_adds_up_its_own_processes() -> None:
    command = ["unshare", "-p", "-m", "-f", "--mount-proc", sys.executable, "-c", PROBE]
    sample, limits = json.loads(subprocess.check_output(command))
    assert limits["cpu"] == limits["memory"] == "namespace"
    assert "PID namespace" in limits["words"]
    assert sample["load"] * sample["cores"] == pytest.approx(1.0, abs=0.4)
    assert 1_000_000 < sample["mem_used_bytes"] < 200_000_000
