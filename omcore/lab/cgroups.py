"""A control group for each host: its CPU and memory share, and a place that can be emptied and removed as a whole.

Both generations are supported: v2 (cpu.max, memory.max) wherever its controllers can be had, else v1
(cpu.cfs_quota_us, memory.limit_in_bytes).  Groups are made below our own group, or the nearest ancestor that
lets us; nothing is ever changed in a group that is not ours, but for switching a controller on for children.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

PERIOD_US = 20_000  # short, so that a host that used up its share waits 20 ms at most, not 100
Limits = dict[str, float | int | None]
_REMOVE_SECONDS = 3.0  # a group stays busy for a moment after its last process died


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree of control groups: which controllers it has, and the directories from ours upwards."""

    version: int
    controllers: frozenset[str]
    upwards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """What was made: for each host its directories (one per hierarchy), and why a limit could not be had."""

    by_host: tuple[tuple[str, ...], ...]
    cpu_limited: bool = False
    note: str = ""


def hierarchies() -> tuple[Hierarchy, ...]:
    """All mounted hierarchies with our place in each, v2 first."""
    memberships: dict[str, str] = {}
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            for name in names.split(","):
                memberships[name] = path
    found: list[Hierarchy] = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            root, point = head.split()[3:5]
            kind, _, options = tail.rstrip("\n").split(" ", 2)
            if kind == "cgroup2" and "" in memberships:
                place = _upwards(point, root, memberships[""])
                found.append(Hierarchy(2, _controllers_v2(place[-1]), place))
            elif kind == "cgroup":
                controllers = frozenset(options.split(",")) & set(memberships)
                if controllers:
                    place = _upwards(point, root, memberships[min(controllers)])
                    found.append(Hierarchy(1, controllers, place))
    return tuple(sorted(found, key=lambda one: -one.version))


def make(
    trees: Sequence[Hierarchy],
    label: str,
    hosts: Sequence[str],
    cpu: float | None,
    memory_bytes: int | None,
    announce: Callable[[Sequence[str]], None],
) -> Groups:
    """Make the group `label` with one child for each host, limited to `cpu` cores and `memory_bytes` (None: not).

    `announce` hears the directories that may come to be, before they do.  A limit that cannot be had is not an
    error: `note` says why.
    """
    announce([os.path.join(place, label) for tree in trees for place in tree.upwards])
    wanted: Limits = {"cpu": cpu, "memory": memory_bytes}
    missing = {name for name, value in wanted.items() if value is not None}
    made: list[str] = []
    refusal = ""
    for tree in trees:
        useful = missing & tree.controllers
        if not useful and tree.version == 1:
            continue
        limits = {name: wanted[name] for name in useful}
        root, why = _plant(tree, label, hosts, limits)
        if not root and limits and tree.version == 2:
            # a bare v2 group is worth having too: engines make their groups below it, and they go with it
            root, _ = _plant(tree, label, hosts, {})
            useful = set()
        if root:
            made.append(root)
            missing -= useful
        if limits and why:
            refusal = refusal or why
    note = ""
    if missing:
        words = " and ".join({"cpu": "CPU", "memory": "memory"}[name] for name in sorted(missing))
        note = f"no {words} limit: {refusal or 'no such control group here'}"
    by_host = tuple(tuple(os.path.join(root, host) for root in made) for host in hosts)
    return Groups(by_host, cpu is not None and "cpu" not in missing, note)


def open_groups(paths: Sequence[str]) -> tuple[int, ...]:
    """The doors of these groups, to be written to by whoever shall be inside; those closed to us are left out."""
    doors: list[int] = []
    for path in paths:
        with suppress(OSError):
            doors.append(os.open(os.path.join(path, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC))
    return tuple(doors)


def join(doors: Sequence[int]) -> None:
    """Move this process into the groups behind these doors and close them; a refusal (v2 delegation) is borne."""
    for door in doors:
        with suppress(OSError):
            os.write(door, b"0")
        os.close(door)


def remove(root: str) -> bool:
    """Remove a group with all below it, ending what is still inside; True when nothing is left."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while os.path.isdir(root):
        with suppress(OSError):
            _write(root, "cgroup.kill", "1")
        try:
            for directory, _, _ in os.walk(root, topdown=False):
                os.rmdir(directory)
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return False
            time.sleep(0.01)  # the kernel offers no event for v1 groups becoming empty
    return True


def _plant(tree: Hierarchy, label: str, hosts: Sequence[str], limits: Limits) -> tuple[str, str]:
    """Make the group as near to ours as allowed: (directory, ""), or ("", why not)."""
    why = ""
    for place in tree.upwards:
        root = os.path.join(place, label)
        try:
            if tree.version == 2:
                _switch_on(place, limits)
            os.mkdir(root, 0o755)
            if tree.version == 2:
                _switch_on(root, limits)
            for host in hosts:
                os.mkdir(os.path.join(root, host), 0o755)
                _limit(os.path.join(root, host), tree.version, limits)
        except OSError as error:
            why = why or f"{place}: {error.strerror}"
            remove(root)
        else:
            return root, ""
    return "", why


def _switch_on(directory: str, limits: Limits) -> None:
    """Let the children of a v2 group have these controllers; as root of the machine or in a delegated group."""
    with open(os.path.join(directory, "cgroup.subtree_control"), encoding="ascii") as file:
        missing = sorted(set(limits) - set(file.read().split()))
    if missing:
        _write(directory, "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))


def _limit(group: str, version: int, limits: Limits) -> None:
    cpu, memory = limits.get("cpu"), limits.get("memory")
    if cpu is not None:
        quota = max(1000, round(cpu * PERIOD_US))  # the kernel takes no less than 1 ms
        if version == 2:
            _write(group, "cpu.max", f"{quota} {PERIOD_US}")
        else:
            _write(group, "cpu.cfs_period_us", str(PERIOD_US))
            _write(group, "cpu.cfs_quota_us", str(quota))
    if memory is not None:
        _write(group, "memory.max" if version == 2 else "memory.limit_in_bytes", str(int(memory)))


def _upwards(mount_point: str, root: str, path: str) -> tuple[str, ...]:
    """Our directory below a mount of `root`, then its parents up to the mount."""
    inside = os.path.relpath(path, root)
    parts = [] if inside == "." or inside.startswith("..") else inside.split("/")
    return tuple(os.path.join(mount_point, *parts[:depth]) for depth in range(len(parts), -1, -1))


def _controllers_v2(root: str) -> frozenset[str]:
    try:
        with open(os.path.join(root, "cgroup.controllers"), encoding="ascii") as file:
            return frozenset(file.read().split())
    except OSError:
        return frozenset()


def _write(directory: str, name: str, text: str) -> None:
    fd = os.open(os.path.join(directory, name), os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
