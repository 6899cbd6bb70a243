"""What the screens show, worked out from what the client told: histories in columns, sums, joins. Pure.

Times are Unix seconds handed in by the caller; node numbers are the keys people see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from omcore.types import (
    ClusterView,
    EventView,
    JobState,
    JobView,
    Movable,
    MoveView,
    NodeState,
    NodeView,
    Series,
    Step,
)

Metric = Literal["load", "cpu", "mem", "in", "out"]
WINDOW_S = 600.0
KEEP_S = 1000.0
ENDS = frozenset({Step.DONE, Step.BACK, Step.REFUSED})
STEPS = (Step.CHECK, Step.PREPARE, Step.FREEZE, Step.SHIP, Step.RESTORE, Step.COMMIT)


@dataclass(frozen=True, slots=True)
class Columns:
    """Values for a chart, oldest first, one per `span_s`; only spans that are over."""

    span_s: float
    values: tuple[float | None, ...]


def span_for(columns: int, window_s: float = WINDOW_S) -> float:
    """Whole seconds one column stands for, so that `columns` of them hold the window and little more."""
    return float(max(1, -(-int(window_s) // max(1, columns))))


class Book:
    """The recent past of every node, as this face saw it and as the engine remembered it."""

    def __init__(self) -> None:
        self._samples: dict[tuple[int, Metric], deque[tuple[float, float]]] = {}
        self._cache: dict[tuple[int, Metric, int], tuple[float, Columns]] = {}

    def seed(self, history: Iterable[Series], now: float) -> None:
        """Take the engine's memory of loads; forgets what was here of these nodes."""
        for series in history:
            fresh: deque[tuple[float, float]] = deque()
            start = now - len(series.values) * series.step_s
            for index, value in enumerate(series.values):
                if value is not None:  # one sample a second, or narrow columns would have holes
                    fresh.extend(
                        (start + index * series.step_s + offset, value) for offset in range(max(1, int(series.step_s)))
                    )
            self._samples[series.node, "load"] = fresh
        self._cache.clear()

    def record(self, view: ClusterView, now: float) -> None:
        """Note the figures of now; a node that is not up leaves a gap."""
        for node in view.nodes:
            if node.state is NodeState.UP:
                sample = node.sample
                self._add(node.number, "load", now, sample.load)
                self._add(node.number, "cpu", now, sample.cpu_percent)
                self._add(node.number, "mem", now, float(sample.mem_used_bytes))
                self._add(node.number, "in", now, sample.net_in_bps)
                self._add(node.number, "out", now, sample.net_out_bps)

    def _add(self, node: int, metric: Metric, now: float, value: float) -> None:
        samples = self._samples.setdefault((node, metric), deque())
        samples.append((now, value))
        while samples and samples[0][0] < now - KEEP_S:
            samples.popleft()

    def columns(self, node: int, metric: Metric, count: int, now: float) -> Columns:
        """The last `count` complete columns: the highest load of each span, the mean of anything else."""
        span = span_for(count)
        end = now // span
        cached = self._cache.get((node, metric, count))
        if cached is not None and cached[0] == end:
            return cached[1]
        buckets: list[list[float]] = [[] for _ in range(count)]
        for moment, value in self._samples.get((node, metric), ()):
            place = int(moment // span - end) + count
            if 0 <= place < count:
                buckets[place].append(value)
        if metric == "load":
            values = tuple(max(bucket) if bucket else None for bucket in buckets)
        else:
            values = tuple(sum(bucket) / len(bucket) if bucket else None for bucket in buckets)
        made = Columns(span, values)
        self._cache[node, metric, count] = (end, made)
        return made

    def direction(self, node: int, load: float, now: float) -> str:
        """`↑` or `↓` if the load changed by more than a tenth within a minute, else a blank."""
        before = None
        for moment, value in self._samples.get((node, "load"), ()):
            if moment > now - 55:
                break
            before = value if moment >= now - 70 else None
        if before is None or abs(load - before) <= max(0.05, 0.1 * before):
            return " "
        return "↑" if load > before else "↓"


@dataclass(frozen=True, slots=True)
class Sums:
    """The line that says how the whole cluster is."""

    load: float
    own: float
    guest: float
    balance_percent: float | None
    mem_used_bytes: int
    mem_total_bytes: int
    up: int
    stale: int
    lost: int
    jobs: int
    home: int
    away: int
    locked: int
    moving: int


def live_jobs(view: ClusterView) -> tuple[JobView, ...]:
    """The jobs that have not ended."""
    return tuple(job for job in view.jobs if job.state is not JobState.ENDED)


def sums(view: ClusterView) -> Sums:
    """Add up what is known; nodes that are lost do not count, for their figures are not true any more."""
    known = [node for node in view.nodes if node.state is not NodeState.LOST and node.age_s is not None]
    cores = sum(node.sample.cores for node in known) or 1.0
    jobs = live_jobs(view)
    away = sum(job.node != job.home for job in jobs)
    return Sums(
        load=sum(node.sample.load * node.sample.cores for node in known) / cores,
        own=sum(node.sample.load_own * node.sample.cores for node in known) / cores,
        guest=sum(node.sample.load_guest * node.sample.cores for node in known) / cores,
        balance_percent=balance(known),
        mem_used_bytes=sum(node.sample.mem_used_bytes for node in known),
        mem_total_bytes=sum(node.sample.mem_total_bytes for node in known),
        up=sum(node.state is NodeState.UP for node in view.nodes),
        stale=sum(node.state is NodeState.STALE for node in view.nodes),
        lost=sum(node.state is NodeState.LOST for node in view.nodes),
        jobs=len(jobs),
        home=len(jobs) - away,
        away=away,
        locked=sum(job.locked for job in jobs),
        moving=sum(move.step not in ENDS for move in view.moves),
    )


def balance(nodes: Iterable[NodeView]) -> float | None:
    """How even the load is, in percent: the mean load over the highest; None with fewer than two nodes or no load."""
    loads = [node.sample.load for node in nodes]
    if len(loads) < 2 or max(loads) < 0.05:
        return None
    return 100.0 * sum(loads) / len(loads) / max(loads)


def job_sign(job: JobView | None, here: int | None = None) -> tuple[str, str]:
    """The sign of a job and its token; `here` is the node whose list this is (its deputies are hollow)."""
    if job is None:
        return "·", "faint"
    if job.state is JobState.LOST:
        return "×", "bad"
    if job.state is JobState.DOUBT:
        return "!", "busy"
    if job.state is JobState.MOVING:
        return "»", "move"
    if here is not None and job.home == here and job.node != here:
        return "◇", "own"
    if job.locked:
        return "■", "busy"
    return ("◆", "guest") if job.node != job.home else ("●", "own")


_MOVE_TOKENS = {
    Movable.YES: "accent",
    Movable.FIX: "busy",
    Movable.LOCKED: "busy",
    Movable.MOVING: "move b",
    Movable.NO: "muted",
    Movable.UNKNOWN: "muted",
}


def movable(job: JobView | None) -> tuple[str, str]:
    """The word of the column `move?` and its token."""
    if job is None:
        return "no", "faint"
    answer = Movable.MOVING if job.state is JobState.MOVING else Movable.LOCKED if job.locked else job.movable
    return str(answer.value), _MOVE_TOKENS[answer]


def job_label(job: JobView) -> str:
    """What people call a job: its name, else the program it runs."""
    return job.name or (job.command[0].rsplit("/", 1)[-1] if job.command else job.id[:8])


def node_sign(node: NodeView) -> tuple[str, str]:
    """A small dot for the normal, a loud sign for the rest."""
    return {NodeState.UP: ("•", "accent"), NodeState.STALE: ("~", "busy"), NodeState.LOST: ("×", "bad")}[node.state]


def node_name(view: ClusterView, number: int) -> str:
    """A node's name; its number where nobody told the name."""
    return next((node.name for node in view.nodes if node.number == number), f"node {number}")


def jobs_on(view: ClusterView, number: int) -> list[JobView]:
    """Live jobs that run on a node, busiest first."""
    here = [job for job in live_jobs(view) if job.node == number]
    return sorted(here, key=lambda job: (-(job.cpu_percent or 0.0), job_label(job), job.id))


def jobs_away(view: ClusterView, number: int) -> list[JobView]:
    """Live jobs whose home this node is and which run elsewhere."""
    return [job for job in live_jobs(view) if job.home == number != job.node]


def running_moves(view: ClusterView) -> list[MoveView]:
    """Moves that have not ended, newest first."""
    return [move for move in view.moves if move.step not in ENDS]


def ended_moves(view: ClusterView) -> list[MoveView]:
    """Moves that have ended, newest first."""
    return [move for move in view.moves if move.step in ENDS]


def move_share(move: MoveView) -> float | None:
    """How much of a move's bytes has arrived, 0..1; None while the size is not known."""
    return min(1.0, move.bytes_done / move.bytes_total) if move.bytes_total > 0 else None


@dataclass(slots=True)
class Moments:
    """When things happened, by the viewer's clock; fixed at first sight, so that seconds do not flicker."""

    _known: dict[str, float] = field(default_factory=dict)

    def of_event(self, event: EventView, now: float) -> float:
        """The moment of an event."""
        return self._known.setdefault(f"e{event.serial}", now - event.age_s)

    def of_move(self, move: MoveView, now: float) -> float:
        """The moment a move started."""
        return self._known.setdefault(f"m{move.id}", now - move.started_age_s)

    def forget_except(self, view: ClusterView) -> None:
        """Drop what no view shows any more."""
        keep = {f"e{event.serial}" for event in view.events} | {f"m{move.id}" for move in view.moves}
        for key in self._known.keys() - keep:
            del self._known[key]
