"""What faces see of the cluster: nodes by the board, jobs and moves of all homes, asked for while somebody looks."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from omcore import messages
from omcore.errors import OmError
from omcore.types import ClusterView, JobView, LoadSample, MoveView, NodeId, NodeState, NodeView

if TYPE_CHECKING:
    from omcore.node import Node

log = logging.getLogger(__name__)

MOVES_SILENT_S = 10.0  # a move of which nothing was heard for so long is not shown as running
WATCH_MOVES_S = 0.15


class Overview:
    """The engine's picture of all nodes and their jobs."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._remote_jobs: dict[NodeId, messages.Jobs] = {}
        self._told_at: dict[NodeId, float] = {}  # when each of those came
        self._polling: set[NodeId] = set()
        self._serial = 0

    async def poll(self) -> None:
        """Ask every living node for its jobs; called while somebody looks."""
        alive = {
            self._node.cluster.numbers[number]
            for number, state, _, _ in self._node.gossip.view(self._node.now())
            if state is not NodeState.LOST and number in self._node.cluster.numbers
        } - {self._node.me}
        for node in [node for node in self._remote_jobs if node not in self._node.cluster.infos]:
            del self._remote_jobs[node], self._told_at[node]
        await asyncio.gather(*(self._poll(node) for node in alive - self._polling))

    async def _poll(self, node: NodeId) -> None:
        self._polling.add(node)
        try:
            self._remote_jobs[node] = await self._node.calls.ask(node, messages.AskJobs(), messages.Jobs, 3)
            self._told_at[node] = self._node.now()
        except OmError as error:  # also what it says itself: one node's trouble must not hide the jobs of the others
            log.info("no jobs told by=%s error=%s", self._node.cluster.name(node), error)
        finally:
            self._polling.discard(node)

    async def watch_moves(self, home: NodeId) -> None:
        """Ask this home often, while one of its jobs moves because somebody here wished it."""
        while True:
            await self.ask(home)
            await asyncio.sleep(WATCH_MOVES_S)

    async def ask(self, node: NodeId) -> None:
        """Ask one node for its jobs now, and show them."""
        if node not in self._polling:
            await self._poll(node)
            self._node.touch()

    def moves(self, now: float) -> tuple[MoveView, ...]:
        """Moves of jobs of all homes, newest first; of a home that is silent, those that had ended."""
        moves = list(self._node.jobs.moving.moves(now))
        for node, answer in self._remote_jobs.items():
            age = now - self._told_at[node]
            moves += (
                replace(move, started_age_s=move.started_age_s + age)
                for move in answer.moves
                if move.total_s is not None or age < MOVES_SILENT_S
            )
        return tuple(sorted(moves, key=lambda move: move.started_age_s))

    def jobs(self) -> tuple[JobView, ...]:
        """Jobs of all homes, with the figures of the nodes that run them."""
        figures = {figure.job: figure for figure in self._node.jobs.figures()}
        homes = list(self._node.jobs.home_views())
        for answer in self._remote_jobs.values():
            homes += answer.homes
            figures.update((figure.job, figure) for figure in answer.held)
        return tuple(merge_figures(job, figures.get(job.id)) for job in homes)

    def view(self) -> ClusterView:
        """Everything a face shows, now."""
        now = self._node.now()
        self._serial += 1
        jobs = self.jobs()
        nodes = self.nodes(jobs)
        return ClusterView(
            me=self._node.me,
            number=self._node.info.number,
            cluster="" if len(nodes) == 1 else "cluster",
            engine=self._node.kind,
            nodes=nodes,
            jobs=jobs,
            moves=self.moves(now),
            events=self._node.cluster.events(now),
            serial=self._serial,
            warnings=self._node.warnings,
        )

    def nodes(self, jobs: Iterable[JobView] = ()) -> tuple[NodeView, ...]:
        """All nodes by number; `jobs` are counted where they are locked."""
        locked = Counter(job.node for job in jobs if job.locked)
        seen = {number: (state, sample, age) for number, state, sample, age in self._node.gossip.view(self._node.now())}
        return tuple(
            self._node_view(number, node, seen.get(number), locked[number])
            for number, node in sorted(self._node.cluster.numbers.items())
        )

    def _node_view(
        self,
        number: int,
        node: NodeId,
        seen: tuple[NodeState, LoadSample | None, float | None] | None,
        locked: int,
    ) -> NodeView:
        info = self._node.cluster.infos[node]
        state, sample, age = seen or (NodeState.STALE, None, None)
        if node == self._node.me:
            state, sample, age = NodeState.UP, self._node.sample, max(0.0, age or 0.0)
        why = ""
        if not info.criu and info.serial:
            why = f"{self._node.cluster.name(node)} has no CRIU. Run there: omview doctor --fix"
        return NodeView(
            id=node,
            number=number,
            name=self._node.cluster.name(node),
            state=state,
            me=node == self._node.me,
            age_s=age,
            sample=sample or LoadSample(),
            info=info,
            locked_jobs=locked,
            can_guest=not why,
            why_not=why,
        )


def merge_figures(job: JobView, figures: messages.Figures | None) -> JobView:
    """A job as its home tells, with what the node that runs it measures."""
    if figures is None:
        return job
    return replace(
        job,
        pid=figures.pid,
        cpu_percent=figures.cpu_percent,
        rss_bytes=figures.rss_bytes,
        tasks=figures.tasks,
        movable=job.movable if job.locked else figures.movable,
        why_not=job.why_not or figures.why_not,
    )
