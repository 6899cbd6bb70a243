"""One move as people follow it: steps, bytes, freeze; and the future its asker waits for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from omcore.errors import MigrationError
from omcore.messages import Progressed
from omcore.types import JobId, MoveView, NodeId, Step

FROZEN_STEPS = (Step.FREEZE, Step.SHIP, Step.RESTORE, Step.COMMIT)
ORDER = tuple(Step)


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass
class Track:
    """Filled in by the home of the job while the move goes on.

    The freeze is what the job itself sees: what it spent stopped at the source until the seal left, plus what it
    spent at the dest from the seal's arrival until it ran; each node measures its part by its own clock.
    """

    ticket: str
    job: JobId
    name: str
    user: str
    source: NodeId
    dest: NodeId
    by: str
    started: float
    forecast_s: float = 0.0
    step: Step = Step.CHECK
    changed: float = 0.0  # when anything was last heard of it
    done: asyncio.Future[None] = field(default_factory=_future)
    bytes_done: int = 0
    bytes_total: int = 0
    frozen_since: float | None = None
    freeze_source_s: float | None = None
    freeze_dest_s: float | None = None
    freeze_home_s: float | None = None
    ended_at: float | None = None
    error: str = ""
    hint: str = ""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.ended_at is None

    @property
    def freeze_s(self) -> float | None:
        """Seconds the job stood still; None while unknown."""
        if self.freeze_source_s is not None and self.freeze_dest_s is not None:
            return self.freeze_source_s + self.freeze_dest_s
        return self.freeze_home_s

    def step_to(self, step: Step, now: float) -> None:
        """A further step; never backwards, since news of source and dest may cross."""
        if not self.running or ORDER.index(step) <= ORDER.index(self.step):
            return
        self.step, self.changed = step, now
        if step in FROZEN_STEPS and self.frozen_since is None:
            self.frozen_since = now

    def figures(self, message: Progressed, from_source: bool, now: float) -> None:
        """Bytes and times from one of the two ends."""
        self.changed = now
        if message.total > 0:
            self.bytes_done, self.bytes_total = min(max(0, message.done), message.total), message.total
        if message.frozen_s > 0:
            if from_source:
                self.freeze_source_s = message.frozen_s
            else:
                self.freeze_dest_s = message.frozen_s
        if message.step in FROZEN_STEPS:
            self.step_to(Step(message.step), now)

    def ended(self, step: Step, now: float, error: MigrationError | None = None) -> None:
        """The move is over."""
        if not self.running:
            return
        self.step, self.ended_at = step, now
        if self.frozen_since is not None:
            self.freeze_home_s = now - self.frozen_since
        if error is not None:
            self.error, self.hint = error.text, error.hint
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
                self.done.exception()  # the asker may be gone: not an error of ours

    def view(self, source: int, dest: int, now: float) -> MoveView:
        """What faces show."""
        frozen = None if self.frozen_since is None or not self.running else now - self.frozen_since
        return MoveView(
            id=f"{self.job}.{self.ticket}",
            job=self.job,
            name=self.name,
            user=self.user,
            source=source,
            dest=dest,
            step=self.step,
            started_age_s=now - self.started,
            bytes_done=self.bytes_done,
            bytes_total=self.bytes_total,
            freeze_s=None if self.running else self.freeze_s,
            frozen_for_s=frozen,
            total_s=None if self.ended_at is None else self.ended_at - self.started,
            by=self.by,
            error=self.error,
            hint=self.hint,
        )
