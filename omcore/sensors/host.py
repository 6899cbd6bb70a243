"""The load of this node, once a second, as gossip carries it.

Descriptors of the machine's own figures are held open from the start: an engine that has run out of
descriptors can still say how it is. One sample costs 0.1 to 1 ms of CPU.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from omcore.sensors.limits import Limits, detect
from omcore.sensors.meter import TaskMeter
from omcore.sensors.proc import tree, visible_pids
from omcore.types import LoadSample

_LARGE_TREE = 32  # tasks; larger trees are walked every fourth time
_OURSELVES = 1  # the reader is running while it reads


class HostSensor:
    """Measures one node. Not thread-safe; blocking, but for well under 2 ms a call."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or detect()
        self.raw_load = 0.0
        """Runnable tasks per effective core over the last interval, not smoothed."""
        self._files: dict[str, int] = {}
        self._meter = TaskMeter()
        self._trees: dict[int, tuple[int, list[int]]] = {}
        self._turn = 0
        self._waiting: list[float] = []
        self._smooth: float | None = None
        self._last_now: float | None = None
        self._last_cpu: tuple[float, float] | None = None
        self._last_net: tuple[int, int] | None = None
        for path in self._paths():
            self._hold(path)

    def close(self) -> None:
        """Give the held descriptors back."""
        while self._files:
            os.close(self._files.popitem()[1])

    def tick(self) -> None:
        """Count the waiting tasks now, between two samples: 4 us. Optional; ten a second make `load` steadier."""
        if self.limits.cpu == "machine":
            running = int(self._text("/proc/loadavg").split()[3].partition("/")[0]) - _OURSELVES
            self._waiting.append(max(0.0, running - self.limits.cores))

    def sample(self, now: float, own_roots: Collection[int] = (), guest_roots: Collection[int] = ()) -> LoadSample:
        """Measure; `now` is monotonic seconds, rates are over the time since the last call.

        `own_roots` and `guest_roots` are PIDs of the roots of jobs whose home is, or is not, this node. `jobs_*` and
        `speed` of the sample are left for the caller. The first call has no rates yet.
        """
        span = now - self._last_now if self._last_now is not None else 0.0
        self.tick()
        self._turn += 1
        own = self._walk(own_roots)
        guest = self._walk(guest_roots)
        self._forget_trees({*own_roots, *guest_roots})
        used_s = self._meter.measure(self._pids(own, guest), now)
        busy = self._busy_cores(span, used_s)
        cores = self.limits.cores
        raw_own = self._meter.runnable(own) / cores
        raw_guest = self._meter.runnable(guest) / cores
        self.raw_load = max(self._runnable(busy) / cores, raw_own + raw_guest)
        load = self._smoothed(self.raw_load)
        part = load / self.raw_load if self.raw_load > 0 else 0.0  # the parts rise as slowly as the whole
        self._last_now = now
        received, sent = self._network(span)
        return LoadSample(
            load=load,
            load_own=raw_own * part,
            load_guest=raw_guest * part,
            cpu_percent=min(100.0, 100.0 * busy / cores),
            wait_percent=self._pressure(),
            mem_used_bytes=self._memory_used(),
            mem_total_bytes=self.limits.mem_total_bytes,
            cores=cores,
            uptime_s=float(self._text("/proc/uptime").split()[0]),
            net_in_bps=received,
            net_out_bps=sent,
        )

    def _paths(self) -> tuple[str, ...]:
        limits = self.limits
        memory = ("memory.current", "memory.usage_in_bytes", "memory.stat")
        return (
            "/proc/stat",
            "/proc/loadavg",
            "/proc/meminfo",
            "/proc/uptime",
            # Opened for this process, so it stays the network namespace of the engine.
            "/proc/self/net/dev",
            limits.pressure_path,
            limits.cpu_usage_path,
            *(os.path.join(limits.memory_dir, name) for name in memory if limits.memory_dir),
        )

    def _hold(self, path: str) -> None:
        if path and os.path.exists(path):
            self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _text(self, path: str) -> str:
        fd = self._files.get(path)
        if fd is None:
            return ""
        try:
            return os.pread(fd, 32768, 0).decode("ascii", "replace")
        except OSError:  # no PSI in this kernel's configuration; or the control group was removed
            return ""

    # -- load ---------------------------------------------------------------------------------------------

    def _pids(self, own: list[int], guest: list[int]) -> list[int]:
        if self.limits.cpu == "machine" and self.limits.memory != "namespace":
            return own + guest  # only for the split: the machine counts its tasks itself
        if self.limits.cpu_procs_dir:
            return _processes_of(self.limits.cpu_procs_dir)
        return visible_pids()

    def _walk(self, roots: Iterable[int]) -> list[int]:
        found: list[int] = []
        for root in roots:
            turn, pids = self._trees.get(root, (0, []))
            if len(pids) <= _LARGE_TREE or self._turn - turn >= 4:
                pids = tree(root)
                self._trees[root] = self._turn, pids
            found += pids
        return found

    def _forget_trees(self, roots: set[int]) -> None:
        for root in self._trees.keys() - roots:
            del self._trees[root]

    def runnable(self, root: int) -> float:
        """Runnable tasks of a job's tree at the last sample, on average: what it asks for, not what it gets."""
        return self._meter.runnable(self._trees.get(root, (0, []))[1])

    def _runnable(self, busy: float) -> float:
        """Runnable tasks on average over the interval.

        A whole machine never idles while a task waits: so it is the busy cores, known exactly, plus the tasks
        beyond the cores, counted at some instants. Elsewhere others compete: run plus wait time of each process.
        """
        if self.limits.cpu != "machine":
            ourselves = self._meter.runnable((os.getpid(),))
            return max(0.0, max(self._meter.runnable(), busy) - ourselves)
        waiting = sum(self._waiting) / len(self._waiting)
        self._waiting.clear()
        return busy + waiting

    def _smoothed(self, x: float) -> float:
        """Fall at once, rise slowly (ALGORITHMS 3.1): no export on a blip."""
        m = self._smooth
        self._smooth = x if m is None or x <= m else (5 * m + 3 * x) / 8
        return self._smooth

    def _busy_cores(self, span: float, used_s: float) -> float:
        limits = self.limits
        if limits.cpu == "machine":
            busy, total = self._machine_ticks()
            last, self._last_cpu = self._last_cpu, (busy, total)
            if last is None or total <= last[1]:
                return 0.0
            return max(0.0, busy - last[0]) / (total - last[1]) * limits.cores
        if limits.cpu_usage_path:
            used = self._group_cpu_s()
            last, self._last_cpu = self._last_cpu, (used, 0.0)
            used_s = used - last[0] if last is not None else 0.0
        return min(max(0.0, used_s) / span, limits.cores) if span > 0 else 0.0

    def _machine_ticks(self) -> tuple[float, float]:
        """Busy and all ticks of all processors; stolen time counts as neither used nor free by us."""
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, self._text("/proc/stat").split(None, 9)[1:9])
        busy = user + nice + system + irq + softirq
        return busy, busy + idle + iowait + steal

    def _group_cpu_s(self) -> float:
        text = self._text(self.limits.cpu_usage_path)
        if text.startswith("usage_usec"):
            return int(text.split(None, 2)[1]) / 1e6
        return int(text) / 1e9 if text.strip().isdigit() else 0.0

    def _pressure(self) -> float | None:
        text = self._text(self.limits.pressure_path)
        return float(text.split("avg10=", 1)[1].split(None, 1)[0]) if "avg10=" in text else None

    # -- memory and network -------------------------------------------------------------------------------

    def _memory_used(self) -> int:
        if self.limits.memory == "namespace":
            return self._meter.rss_bytes
        if self.limits.memory == "cgroup":
            return self._group_memory()
        text = self._text("/proc/meminfo")
        available = text.split("MemAvailable:", 1)[1].split(None, 1)[0]
        return max(0, self.limits.mem_total_bytes - int(available) * 1024)

    def _group_memory(self) -> int:
        """Memory of the control group without file pages that can be dropped at once, as kubelet counts."""
        directory = self.limits.memory_dir
        current = self._text(os.path.join(directory, "memory.current"))
        current = current or self._text(os.path.join(directory, "memory.usage_in_bytes"))
        figures = dict(line.split() for line in self._text(os.path.join(directory, "memory.stat")).splitlines())
        cache = int(figures.get("total_inactive_file") or figures.get("inactive_file") or 0)
        return max(0, int(current or 0) - cache)

    def _network(self, span: float) -> tuple[float, float]:
        """Bytes per second in and out of this network namespace, without lo."""
        received = sent = 0
        for line in self._text("/proc/self/net/dev").splitlines()[2:]:
            name, _, figures = line.partition(":")
            if name.strip() != "lo":
                f = figures.split()
                received += int(f[0])
                sent += int(f[8])
        last, self._last_net = self._last_net, (received, sent)
        if last is None or span <= 0:
            return 0.0, 0.0
        return max(0, received - last[0]) / span, max(0, sent - last[1]) / span


def _processes_of(directory: str) -> list[int]:
    """All processes of a control group and the groups below it."""
    found: list[int] = []
    for path, _, files in os.walk(directory):
        if "cgroup.procs" not in files:
            continue
        try:
            with open(os.path.join(path, "cgroup.procs"), "rb") as file:
                found += map(int, file.read().split())
        except OSError:
            continue  # the group was removed, or is threaded
    return found
