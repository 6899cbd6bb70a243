"""How many tasks of a set of processes were runnable on average, and what they used, second by second."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from omcore.sensors.proc import PAGE_BYTES, TICKS_PER_S, Stat, run_wait_ns, stat

_IDLE_RATE = 0.01


@dataclass(slots=True)
class _Task:
    """Last reading of one process."""

    ppid: int
    start: int
    own_s: float  # CPU time of itself
    reaped_s: float  # CPU time of children it has waited for
    run_wait_ns: int
    rss_bytes: int
    read_at: float
    rate: float  # runnable tasks on average since the reading before


class TaskMeter:
    """Reads a changing set of processes once a second at bounded cost.

    Busy and new processes are read each time, idle ones in turn, at most `budget` of them per call (about 35 us
    each). The runnable average is exact (run plus wait time of the scheduler), not a count at one instant.
    """

    def __init__(self, budget: int = 40) -> None:
        self._budget = budget
        self._tasks: dict[int, _Task] = {}
        self._last: float | None = None
        self._turn = 0
        self._used_s = 0.0
        self.rss_bytes = 0
        """Resident memory of all, added up at the last call."""

    def measure(self, pids: Collection[int], now: float) -> float:
        """Read these processes; gives CPU seconds they and their reaped children used since the last call."""
        gone = self._tasks.keys() - pids
        reaped: dict[int, float] = {}
        for pid in gone:
            task = self._tasks.pop(pid)
            reaped[task.ppid] = reaped.get(task.ppid, 0.0) + task.own_s + task.reaped_s
        for pid in self._due(pids, reaped):
            reading = stat(pid)
            if reading is None:
                self._tasks.pop(pid, None)
            else:
                self._note(pid, reading, reaped.get(pid, 0.0), now)
        total = sum(task.own_s + task.reaped_s for task in self._tasks.values())
        used, first = max(0.0, total - self._used_s), self._last is None
        self._used_s, self._last = total, now
        self.rss_bytes = sum(task.rss_bytes for task in self._tasks.values())
        return 0.0 if first else used

    def runnable(self, pids: Iterable[int] | None = None) -> float:
        """Runnable tasks on average at the last `measure`, of these processes or of all."""
        if pids is None:
            return sum(task.rate for task in self._tasks.values())
        tasks = self._tasks
        return sum(tasks[pid].rate for pid in pids if pid in tasks)

    def _due(self, pids: Collection[int], must: Collection[int]) -> list[int]:
        busy: list[int] = []
        idle: list[int] = []
        for pid in pids:
            task = self._tasks.get(pid)
            (idle if task and task.rate < _IDLE_RATE and pid not in must else busy).append(pid)
        if self._last is None:
            return busy  # the first call reads everything, once
        self._turn += 1
        chosen = _slice(busy, self._turn, self._budget)
        return chosen + _slice(idle, self._turn, min(self._budget - len(chosen), 8 + len(idle) // 4))

    def _note(self, pid: int, reading: Stat, already_counted_s: float, now: float) -> None:
        own_s = (reading.utime + reading.stime) / TICKS_PER_S
        reaped_s = (reading.cutime + reading.cstime) / TICKS_PER_S
        ran_ns = run_wait_ns(pid, reading.threads)
        old = self._tasks.get(pid)
        if old is not None and old.start == reading.start:
            span = now - old.read_at
            # Children too short-lived to be seen count once their parent has waited for them.
            unseen_s = max(0.0, reaped_s - old.reaped_s - already_counted_s)
            # We may have been held up between reading the clock and the file: no thread runs more than always.
            ran_s = min(max(0, ran_ns - old.run_wait_ns) / 1e9, span * reading.threads)
            rate = (ran_s + unseen_s) / span if span > 0 else old.rate
        elif self._last is not None and now > self._last:
            rate = min(ran_ns / 1e9 / (now - self._last), float(reading.threads))
        else:
            rate = 1.0 if reading.state == "R" else 0.0
        self._tasks[pid] = _Task(
            ppid=reading.ppid,
            start=reading.start,
            own_s=own_s,
            reaped_s=reaped_s,
            run_wait_ns=ran_ns,
            rss_bytes=reading.rss_pages * PAGE_BYTES,
            read_at=now,
            rate=rate,
        )


def _slice(items: list[int], turn: int, most: int) -> list[int]:
    """At most `most` of the items, another part each turn."""
    if most <= 0 or len(items) <= most:
        return items if most > 0 else []
    first = turn * most % len(items)
    return (items + items)[first : first + most]
