"""Moving a job as its home does it: where it could go, whether it may, and the moves people follow."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from omcore.errors import NotMovable, OmError, Refused
from omcore.jobs.forecast import Target, forecast, freeze_s, plan_targets
from omcore.jobs.home import HomeJob
from omcore.jobs.track import Track
from omcore.messages import CheckNeeds, Examine, Examined, NeedsChecked
from omcore.types import Check, JobId, MovePlan, MoveResult, MoveView, NodeId, NodeState, NodeView, Step

if TYPE_CHECKING:
    from omcore.jobs.manager import Jobs

KEEP_TRACKS = 50
ASK_S = 10.0
ASK_STALE_S = 2.0


class Moving:
    """Plans and moves of the jobs whose home is here."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._node = jobs.node
        self._tracks: deque[Track] = deque(maxlen=KEEP_TRACKS)
        self._tickets = 0

    def moves(self, now: float) -> tuple[MoveView, ...]:
        """Moves of jobs whose home is here, newest first."""
        number = self._node.cluster.number
        return tuple(t.view(number(t.source), number(t.dest), now) for t in reversed(self._tracks))

    async def plan(self, job: JobId) -> MovePlan:
        """Where the job could go and what would happen; touches nothing."""
        home = self._jobs.home_of(job)
        if home.end is not None:
            raise NotMovable(f"{home.meta.name} has ended.")
        examined = await self._examine(home)
        views = self._node.overview.nodes()
        source = next((view for view in views if view.id == home.owner), None)
        targets = await asyncio.gather(*(self._target(examined, view, source) for view in views))
        found = plan_targets(list(targets))
        return MovePlan(job, self._node.cluster.number(home.owner), examined.rss_bytes, found, examined.checks)

    async def _examine(self, home: HomeJob) -> Examined:
        name = self._node.cluster.name(home.owner)
        return await self._node.calls.ask(home.owner, Examine(home.id), Examined, ASK_S, name)

    async def _target(self, examined: Examined, view: NodeView, source: NodeView | None) -> Target:
        here = view is source
        checks: tuple[Check, ...] = ()
        reason, hint = "", ""
        if view.state is NodeState.LOST and not here:
            reason = f"{view.name} is lost" + (f", last heard of {view.age_s:.0f} s ago" if view.age_s else "")
        elif not view.can_guest:
            reason, hint = view.why_not, f"on {view.name}: omview doctor --fix"
        elif not here:
            # Its own answer counts, not the age of its news; but a person waits, so one that is silent gets less time.
            patience = ASK_S if view.state is NodeState.UP else ASK_STALE_S
            try:
                question = CheckNeeds(examined.needs)
                answer = await self._node.calls.ask(view.id, question, NeedsChecked, patience, view.name)
                checks = answer.checks
            except OmError as error:
                reason, hint = error.text, error.hint
        fatal = next((check for check in checks if check.fatal), None)
        if fatal is not None:
            reason, hint = fatal.text, fatal.hint
        return forecast(view, source, examined, here, view.id == self._node.me, reason, hint)

    async def migrate(self, job: JobId, to: str, by: str = "you") -> MoveResult:
        """Move a job; returns when it ended well, raises `MigrationError` or `UsageError` when it did not."""
        home = self._jobs.home_of(job)
        dest = self._node.me if to == "home" else self._node.cluster.find(to)
        self._check_request(home, dest)
        self._tickets += 1
        source, started = home.owner, self._node.now()
        track = Track(str(self._tickets), job, home.meta.name, home.meta.user, source, dest, by, started)
        self._tracks.append(track)
        self._node.touch()
        try:
            examined = await self._checked(home, dest)
            self._check_request(home, dest)  # again: while both ends were asked another move may have begun or ended
            if home.owner != source:
                raise Refused(
                    f"{home.meta.name} has just moved to {self._node.cluster.name(home.owner)}.", "Try again."
                )
            track.forecast_s = freeze_s(examined.rss_bytes)
            await home.move(track, examined.rss_bytes, track.forecast_s, home.meta.uid)
        except Exception as error:
            if track.running:
                self._refuse(track, home, error)
            raise
        name = self._node.cluster.name
        total = self._node.now() - started
        return MoveResult(job, name(source), name(dest), True, track.freeze_s, total, track.bytes_total)

    def _refuse(self, track: Track, home: HomeJob, error: Exception) -> None:
        text = getattr(error, "text", "") or "the move failed"
        track.ended(Step.REFUSED, self._node.now(), Refused(text, getattr(error, "hint", "")))
        self._node.cluster.event("refused", home.meta.name, text)
        self._node.touch()

    def _check_request(self, home: HomeJob, dest: NodeId) -> None:
        name = home.meta.name
        if home.end is not None:
            raise NotMovable(f"{name} has ended.")
        if dest == home.owner:
            raise Refused(f"{name} already runs on {self._node.cluster.name(dest)}.")
        if home.meta.locked:
            raise Refused(f"{name} is locked.", f"Unlock it first: omview unlock {name}")
        if home.moving:
            raise Refused(f"{name} is moving already.", "Wait until that move has ended.")
        # A node never heard of yet may just be slow to connect: it is asked, and says no by its silence.
        lost = {n for n, state, _, age in self._node.gossip.view(self._node.now()) if state is NodeState.LOST and age}
        for node in {dest, home.owner} - {self._node.me}:
            if self._node.cluster.number(node) in lost:
                text = f"{self._node.cluster.name(node)} is lost: nothing can move to or from it."
                raise Refused(text, "Wait until it is heard of again: omview nodes")

    async def _checked(self, home: HomeJob, dest: NodeId) -> Examined:
        """Preflight on both sides, before anything is touched."""
        examined = await self._examine(home)
        fatal = next((check for check in examined.checks if check.fatal), None)
        if fatal is not None:
            raise NotMovable(f"{home.meta.name} cannot move: {fatal.text}.", fatal.hint)
        name = self._node.cluster.name(dest)
        question = CheckNeeds(examined.needs)
        answer = await self._node.calls.ask(dest, question, NeedsChecked, ASK_S, name)
        fatal = next((check for check in answer.checks if check.fatal), None)
        if fatal is not None:
            raise Refused(f"{home.meta.name} cannot move to {name}: {fatal.text}.", fatal.hint)
        return examined
