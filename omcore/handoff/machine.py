"""What both kinds of machine share: outputs in order, timers, and saying again what is not yet answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from omcore.handoff.messages import Message
from omcore.handoff.outputs import Dropped, Output, Send
from omcore.types import JobId, NodeId


class Timer(StrEnum):
    """What a machine may be waiting for.  None of them may resume, delete or give up a sealed copy."""

    RESEND = "resend"
    PREPARE = "prepare"
    READY = "ready"
    GRANT = "grant"
    INVITE = "invite"
    MAX_FREEZE = "max_freeze"
    SILENT = "silent"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; the defaults are those of the protocol."""

    resend_first_s: float = 0.2
    resend_most_s: float = 5.0
    prepare_s: float = 10.0
    invite_s: float = 30.0
    silent_s: float = 5.0
    grant_s: float = 10.0
    forget_s: float = 3600.0


class Machine:
    """A machine of one job.  Not thread-safe; one input at a time; outputs are returned, never performed."""

    __slots__ = ("_jitter", "_now", "_out", "_spoken", "_step_s", "job", "me", "timers", "timing")

    def __init__(self, job: JobId, me: NodeId, timing: Timing) -> None:
        self.job = job
        self.me = me
        self.timing = timing
        self.timers: tuple[tuple[Timer, float], ...] = ()
        self._out: list[Output] = []
        self._now = 0.0
        self._jitter = 0.0
        self._spoken: tuple[tuple[NodeId, Message], ...] = ()
        self._step_s = timing.resend_first_s

    @property
    def deadline(self) -> float | None:
        """When `tick` next has work, in the driver's monotonic seconds; None: never."""
        return min((due for _, due in self.timers), default=None)

    def tick(self, now: float, jitter: float = 0.0) -> list[Output]:
        """Let the timers that are due have their effect; nothing before the deadline.

        `jitter` in -0.2..0.2 stretches the next interval of repeating, so that nodes do not march in step.
        """
        self._begin(now, jitter)
        for timer, due in self.timers:
            if due <= now:
                self._stop(timer)
                self._fire(timer)
        return self._finish()

    def _begin(self, now: float, jitter: float) -> None:
        self._now = now
        self._jitter = jitter
        self._out = []

    def _finish(self) -> list[Output]:
        """Say at once what is new to say; keep repeating all of it while anything is unanswered."""
        said = tuple(self.voice())
        if said != self._spoken:
            for one in said:
                if one not in self._spoken:
                    self.send(*one)
            self._spoken = said
            self._step_s = self.timing.resend_first_s
            self._stop(Timer.RESEND)
            if said:
                self._arm_resend()
        out, self._out = self._out, []
        return out

    def _arm_resend(self) -> None:
        self._arm(Timer.RESEND, self._step_s * (1 + self._jitter))
        self._step_s = min(self._step_s * 2, self.timing.resend_most_s)

    def _fire(self, timer: Timer) -> None:
        if timer is Timer.RESEND:
            for one in self._spoken:
                self.send(*one)
            self._arm_resend()
        else:
            self.expired(timer)

    def voice(self) -> list[tuple[NodeId, Message]]:
        """What this state keeps saying until it is answered."""
        raise NotImplementedError

    def expired(self, timer: Timer) -> None:
        """A timer other than RESEND is due."""
        raise NotImplementedError

    def emit(self, *outputs: Output) -> None:
        """Append outputs, in order."""
        self._out.extend(outputs)

    def send(self, to: NodeId | None, message: Message) -> None:
        """Append a Send, once per receiver and message."""
        if to is not None and (one := Send(to, message)) not in self._out:
            self._out.append(one)

    def drop(self, sender: NodeId, message: Message, reason: str) -> None:
        """Refuse a message: it is counted and changes nothing."""
        self._out.append(Dropped(sender, type(message).__name__.lower(), reason))

    def _arm(self, timer: Timer, after_s: float) -> None:
        self._stop(timer)
        self.timers = (*self.timers, (timer, self._now + after_s))

    def _stop(self, *timers: Timer) -> None:
        self.timers = tuple(one for one in self.timers if one[0] not in timers)
