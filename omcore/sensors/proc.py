"""The little of /proc that all sensors read, in as few system calls as it takes.

A process may vanish between any two calls: then readers return None or an empty list, never an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

TICKS_PER_S: int = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: int = os.sysconf("SC_PAGE_SIZE")

_MOST_TASKS_OF_A_TREE = 4096  # a fork bomb must not stall the engine


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are of use here; times in clock ticks."""

    comm: str
    state: str
    ppid: int
    session: int
    tty_nr: int
    flags: int
    utime: int
    stime: int
    cutime: int
    cstime: int
    nice: int
    threads: int
    start: int
    rss_pages: int


def read_bytes(path: str, size: int = 8192) -> bytes | None:
    """The first `size` bytes of a small file of /proc; None when it is gone or may not be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, size)
    except OSError:
        return None
    finally:
        os.close(fd)


def parse_stat(data: bytes) -> Stat:
    """Fields of one line of /proc/PID/stat; the name may hold blanks and brackets. ValueError if it is none."""
    head, bracket, tail = data.rpartition(b")")
    f = tail.split()
    if not bracket or len(f) < 22:
        raise ValueError("not a stat line")
    return Stat(
        comm=head.partition(b"(")[2].decode(errors="surrogateescape"),
        state=f[0].decode(),
        ppid=int(f[1]),
        session=int(f[3]),
        tty_nr=int(f[4]),
        flags=int(f[6]),
        utime=int(f[11]),
        stime=int(f[12]),
        cutime=int(f[13]),
        cstime=int(f[14]),
        nice=int(f[16]),
        threads=int(f[17]),
        start=int(f[19]),
        rss_pages=int(f[21]),
    )


def stat(pid: int) -> Stat | None:
    """What /proc/PID/stat says now, or None when there is no such process."""
    data = read_bytes(f"/proc/{pid}/stat", 1024)
    return parse_stat(data) if data else None


def visible_pids() -> list[int]:
    """All processes of this PID namespace that /proc shows."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def task_ids(pid: int) -> list[int]:
    """The threads of a process; empty when it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def children(pid: int) -> list[int]:
    """Direct children of all threads of a process."""
    found: list[int] = []
    try:
        # Two links and one per thread: half the cost of listing the usual single thread.
        tids = [pid] if os.stat(f"/proc/{pid}/task").st_nlink == 3 else task_ids(pid)
    except OSError:
        return found
    for tid in tids:
        data = read_bytes(f"/proc/{pid}/task/{tid}/children", 65536)
        if data:
            found += map(int, data.split())
    return found


def tree(root: int, skip: Iterable[int] = ()) -> list[int]:
    """`root` and everything below it, parents before children; without the trees of `skip`.

    A kernel without /proc/PID/task/TID/children shows only the root: every usual distribution has it.
    """
    seen = {root, *skip}
    order = [root]
    for pid in order:
        for child in children(pid):
            if child not in seen:
                seen.add(child)
                order.append(child)
        if len(order) >= _MOST_TASKS_OF_A_TREE:
            break
    return order


def run_wait_ns(pid: int, threads: int) -> int:
    """Nanoseconds that all threads of a process have so far run or waited for a processor.

    Its growth per second is the number of runnable tasks, averaged exactly; time throttled by a CPU limit
    counts as waiting. 0 when the process is gone or the kernel keeps no such figures.
    """
    if threads <= 1:
        return _run_wait(f"/proc/{pid}/schedstat")
    return sum(_run_wait(f"/proc/{pid}/task/{tid}/schedstat") for tid in task_ids(pid))


def _run_wait(path: str) -> int:
    data = read_bytes(path, 128)
    if not data:
        return 0
    run, wait, _ = data.split()
    return int(run) + int(wait)
