"""Figures of one job's whole tree: CPU time, memory, tasks, state."""

from __future__ import annotations

from dataclasses import dataclass

from omcore.sensors.proc import PAGE_BYTES, TICKS_PER_S, stat, tree


@dataclass(frozen=True, slots=True)
class TreeFigures:
    """What a tree of processes uses now."""

    cpu_time_s: float  # of all living processes, and of children they have waited for
    rss_bytes: int  # resident, shared pages counted in each process
    tasks: int  # threads of all processes
    state: str  # letter of /proc/PID/stat: R if any runs, else T if all are stopped, else the root's


def tree_figures(root_pid: int) -> TreeFigures | None:
    """Figures of `root_pid` and everything below it, about 60 us a process; None when the root is gone."""
    found = [reading for reading in map(stat, tree(root_pid)) if reading is not None]
    if not found or stat(root_pid) is None:
        return None
    alive = [reading.state for reading in found if reading.state not in "ZX"]
    state = found[0].state
    if "R" in alive:
        state = "R"
    elif alive and all(letter in "Tt" for letter in alive):
        state = "T"
    return TreeFigures(
        cpu_time_s=sum(r.utime + r.stime + r.cutime + r.cstime for r in found) / TICKS_PER_S,
        rss_bytes=sum(r.rss_pages for r in found) * PAGE_BYTES,
        tasks=sum(r.threads for r in found),
        state=state,
    )


class JobMeter:
    """Keeps the CPU percent of one job's tree over time; also over the change of PID that a move may bring."""

    def __init__(self) -> None:
        self._last: tuple[int, float, float] | None = None
        self.cpu_percent: float | None = None
        """Of one core, over the time between the last two calls; None before the second."""

    def update(self, root_pid: int, now: float) -> TreeFigures | None:
        """Measure the tree at `now` (monotonic seconds); None and no percent when it is gone."""
        figures = tree_figures(root_pid)
        if figures is None:
            self._last = self.cpu_percent = None
            return None
        last = self._last
        if last is None or last[0] != root_pid:
            self.cpu_percent = None
            self._last = root_pid, figures.cpu_time_s, now
        elif now > last[2]:
            self.cpu_percent = max(0.0, 100.0 * (figures.cpu_time_s - last[1]) / (now - last[2]))
            self._last = root_pid, figures.cpu_time_s, now
        return figures
