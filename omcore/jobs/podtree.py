"""The processes inside a pod, as its PID 1 sees them in /proc."""

from __future__ import annotations

import os

SIGCONT = 18
SIGSTOP = 19


class Task:
    """One process: numbers of the pod's PID namespace."""

    __slots__ = ("name", "pgid", "pid", "ppid", "sid", "state")

    def __init__(self, pid: int, stat: str) -> None:
        name, _, rest = stat.partition("(")[2].rpartition(")")
        fields = rest.split()
        self.pid = pid
        self.name = name
        self.state = fields[0]
        self.ppid, self.pgid, self.sid = int(fields[1]), int(fields[2]), int(fields[3])


def tasks() -> list[Task]:
    """Every process of the pod but PID 1, zombies included."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    found.append(Task(int(name), file.read()))
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
    return found


def leaves_first(found: list[Task]) -> list[Task]:
    """The same tasks, children before their parents: a shell that goes on must not see its child still stopped."""
    parents = {task.pid: task.ppid for task in found}

    def depth(pid: int) -> int:
        steps = 0
        while pid in parents and steps < len(parents):
            pid = parents[pid]
            steps += 1
        return steps

    return sorted(found, key=lambda task: -depth(task.pid))


def strays(found: list[Task], root: int) -> list[Task]:
    """Processes that are no longer below the root: CRIU would leave them behind without a word."""
    return [task for task in found if task.ppid in (0, 1) and task.pid != root and task.state not in "ZX"]


def too_mighty(found: list[Task], uid: int) -> list[str]:
    """Names of tasks that have more rights than a job in a user namespace may have: a doctored image."""
    wanted = {
        "Uid": [str(uid)] * 4,
        "CapPrm": ["0" * 16],
        "CapEff": ["0" * 16],
        "CapBnd": ["0" * 16],
        "NoNewPrivs": ["1"],
    }
    mighty = []
    for task in found:
        for thread in os.listdir(f"/proc/{task.pid}/task"):
            with open(f"/proc/{task.pid}/task/{thread}/status", encoding="utf-8", errors="replace") as file:
                fields = dict(line.split(":", 1) for line in file if ":" in line)
            if any(fields[name].split() != value for name, value in wanted.items()):
                mighty.append(task.name)
    return mighty


def stopped_by_user(found: list[Task]) -> list[int]:
    """PIDs of those that are stopped now."""
    return [task.pid for task in found if task.state == "T"]


def go_on(keep_stopped: list[int]) -> None:
    """SIGCONT to every process, leaves first and the root last, but for those that the user had stopped."""
    for task in leaves_first(tasks()):
        if task.pid not in keep_stopped:
            try:
                os.kill(task.pid, SIGCONT)
            except ProcessLookupError:
                continue


def numbers(found: list[Task]) -> list[int]:
    """Every number an image of these tasks needs free: PIDs, thread ids, groups and sessions."""
    used: set[int] = set()
    for task in found:
        used.update((task.pid, task.pgid, task.sid))
        try:
            used.update(int(name) for name in os.listdir(f"/proc/{task.pid}/task"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(used - {0, 1})


def keep_clear_of(used: list[int]) -> None:
    """Make the next PIDs of this fresh namespace lie in the widest gap between the numbers of an image."""
    with open("/proc/sys/kernel/pid_max", encoding="ascii") as file:
        edges = [300, *sorted(used), int(file.read()) - 1]
    start, _ = max(zip(edges, edges[1:], strict=False), key=lambda gap: gap[1] - gap[0])
    with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as file:
        file.write(str(start + 16))
