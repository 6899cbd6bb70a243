"""Finds out, once at start, what this node may use: the whole machine, a control group, or its own namespace.

Inside a container or a CPU-limited control group a node reports that limit and that usage, not the host's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from omcore.sensors.proc import PAGE_BYTES

_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, a constant of the kernel's interface
MACHINE_PRESSURE = "/proc/pressure/cpu"
_MANY_BYTES = 1 << 60  # cgroup v1 says "no limit" with a number near 2**63

Source = Literal["machine", "cgroup", "namespace"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a node's figures come from; paths are empty where they do not apply."""

    cpu: Source
    memory: Source
    cores: float  # effective cores
    mem_total_bytes: int
    cpu_usage_path: str = ""  # v2 cpu.stat or v1 cpuacct.usage; empty: add up the processes
    cpu_procs_dir: str = ""  # control group whose processes are the node's
    memory_dir: str = ""  # control group with memory.current or memory.usage_in_bytes
    pressure_path: str = MACHINE_PRESSURE
    words: str = "the whole machine"  # for people


@dataclass(frozen=True, slots=True)
class _Group:
    """One hierarchy of control groups as this process sees it."""

    version: int
    mount: str
    own: str  # directory of our own group, at or below `mount`

    def upwards(self) -> list[str]:
        """Our own group first, then its ancestors up to what is mounted."""
        found = [self.own]
        while found[-1] != self.mount and found[-1].startswith(self.mount + "/"):
            found.append(os.path.dirname(found[-1]))
        return found


def detect(whole_machine: bool = False) -> Limits:
    """What this node may use. `whole_machine` ignores limits: for a system engine that only limits itself."""
    online = os.cpu_count() or 1
    total = _machine_memory()
    if whole_machine:
        return Limits("machine", "machine", float(online), total)
    groups = _groups()
    private = _own_pid_namespace()
    usable = len(os.sched_getaffinity(0)) if private or groups else online
    cpu = _cpu_limit(groups)
    memory = _memory_limit(groups, total)
    fallback: Source = "namespace" if private else "machine"
    if cpu is not None:
        quota, directory, version = cpu
        cores = min(quota, float(usable))
        usage = _usage_path(groups, directory, version)
        # Version 1 keeps no pressure of a group, and the machine's would be that of others too.
        pressure = os.path.join(directory, "cpu.pressure")
    else:
        cores, directory, usage = float(usable if private else online), "", ""
        pressure = "" if private else MACHINE_PRESSURE
    return Limits(
        cpu="cgroup" if cpu else fallback,
        memory="cgroup" if memory else fallback,
        cores=max(cores, 0.01),
        mem_total_bytes=memory[0] if memory else total,
        cpu_usage_path=usage,
        cpu_procs_dir="" if private else directory,
        memory_dir=memory[1] if memory else "",
        pressure_path=pressure if os.path.exists(pressure) else "",
        words=_words(cpu, memory, private),
    )


def _words(cpu: tuple[float, str, int] | None, memory: tuple[int, str] | None, private: bool) -> str:
    base = "the processes of its own PID namespace" if private else "the whole machine"
    if cpu is None and memory is None:
        return base
    parts = []
    if cpu:
        parts.append(f"{cpu[0]:g} cores by control group {cpu[1]}")
    if memory:
        parts.append(f"{memory[0] / 2**30:.1f} GiB by control group {memory[1]}")
    rest = "" if cpu and memory else f"; {'memory' if cpu else 'CPU'} of {base}"
    return "limited to " + " and ".join(parts) + rest


def _machine_memory() -> int:
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemTotal:"):
                return int(line.split()[1]) * 1024
    return PAGE_BYTES * os.sysconf("SC_PHYS_PAGES")


def _own_pid_namespace() -> bool:
    try:
        return os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE
    except OSError:
        return False


def _groups() -> dict[str, _Group]:
    """Hierarchies by controller: "cpu", "memory", "cpuacct" of version 1, "" for version 2."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            memberships = [line.rstrip("\n").split(":", 2) for line in file]
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return {}
    paths = {name: path for _, names, path in memberships for name in names.split(",")}
    groups: dict[str, _Group] = {}
    for fields in mounts:
        root, mount, rest = fields[3], fields[4], fields[fields.index("-") + 1 :]
        kind, options = rest[0], rest[2].split(",") if len(rest) > 2 else []
        if kind == "cgroup2":
            groups[""] = _Group(2, mount, _own_dir(mount, root, paths.get("", "/")))
        elif kind == "cgroup":
            for name in ("cpu", "cpuacct", "memory"):
                if name in options:
                    groups[name] = _Group(1, mount, _own_dir(mount, root, paths.get(name, "/")))
    return groups


def _own_dir(mount: str, root: str, path: str) -> str:
    """Where our group is mounted. In a container the mount may show only a part of the hierarchy (`root`)."""
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    own = os.path.normpath(mount + "/" + path)
    inside = own == mount or own.startswith(mount + "/")
    return own if inside and os.path.isdir(own) else mount


def _cpu_limit(groups: dict[str, _Group]) -> tuple[float, str, int] | None:
    """The tightest CPU limit as (cores, directory, version)."""
    found = []
    for name in ("", "cpu"):
        if name not in groups:
            continue
        group = groups[name]
        for directory in group.upwards():
            quota = _quota_v2(directory) if group.version == 2 else _quota_v1(directory)
            if quota is not None:
                found.append((quota, directory, group.version))
    return min(found, default=None)


def _quota_v2(directory: str) -> float | None:
    words = _read(directory, "cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _quota_v1(directory: str) -> float | None:
    quota = _read(directory, "cpu.cfs_quota_us")
    period = _read(directory, "cpu.cfs_period_us")
    return int(quota) / int(period) if period and int(quota or -1) > 0 else None


def _memory_limit(groups: dict[str, _Group], total: int) -> tuple[int, str] | None:
    """The tightest memory limit below the machine's own memory as (bytes, directory)."""
    found = []
    for name, file in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        if name not in groups:
            continue
        for directory in groups[name].upwards():
            text = _read(directory, file)
            if text.isdigit() and 0 < int(text) < min(total, _MANY_BYTES):
                found.append((int(text), directory))
    return min(found, default=None)


def _usage_path(groups: dict[str, _Group], directory: str, version: int) -> str:
    """Where the CPU time used by the limited group stands; "" when version 1 accounts elsewhere."""
    if version == 2:
        return os.path.join(directory, "cpu.stat")
    accounting = groups.get("cpuacct")
    if accounting is None:
        return ""
    below = os.path.relpath(directory, groups["cpu"].mount)
    path = os.path.normpath(os.path.join(accounting.mount, below, "cpuacct.usage"))
    return path if os.path.exists(path) and os.path.dirname(path) in accounting.upwards() else ""


def _read(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
