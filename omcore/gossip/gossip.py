"""Board and membership on one wire, for the driver.

    for output in gossip.receive(data, sender, now): ...     # whenever something came
    gossip.refresh(sample, now); gossip.tick(now)            # at `gossip.deadline`, and once a second with a sample

The first byte of a message says which of the two it is for.  `receive` also does what is due, so a busy driver
that never gets to `tick` is still on time.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from omcore.errors import RemoteProtocolError
from omcore.gossip import codec, messages
from omcore.gossip.board import Board
from omcore.gossip.cast import Cast, cast_with
from omcore.gossip.config import GossipConfig
from omcore.gossip.members import Members
from omcore.gossip.messages import Status
from omcore.gossip.outputs import NodeBack, NodeJoined, Output
from omcore.gossip.roster import Roster
from omcore.types import LoadSample, NodeState

UNHEARD_S = 10.0  # a member never heard of counts as lost after this
PULL_PAUSE_S = 5.0

Row = tuple[int, NodeState, LoadSample | None, float | None]


class Gossip:
    """All that one node says and hears about who runs and how loaded they are.

    `me` and all other numbers are the roster's (u32).  `rng` decides phases and targets; `incarnation` must grow
    from one life of the node to the next (seconds since 1970 will do).
    """

    def __init__(
        self, me: int, config: GossipConfig, rng: Random, incarnation: int = 1, roster: Roster | None = None
    ) -> None:
        self.me = me
        roster = Roster() if roster is None else roster
        self.board = Board(me, config, rng, roster)
        self.members = Members(me, config, rng, incarnation, roster)
        self._pull_ready = float("-inf")

    @property
    def deadline(self) -> float:
        """When `tick` next has work, in the caller's time."""
        return min(self.board.deadline, self.members.deadline)

    def set_members(self, numbers: Iterable[int] | Cast) -> None:
        """Who belongs to the cluster (with or without oneself); call again whenever the roster changes."""
        cast = cast_with(self.me, numbers)
        self.members.set_members(cast)
        self.board.set_members(cast)

    def refresh(self, sample: LoadSample, now: float) -> None:
        """Put in what this node just measured; about once a second, best right before a tick that is due."""
        self.board.refresh(sample, now)

    def tick(self, now: float) -> list[Output]:
        """Do what is due; nothing before `deadline`."""
        return self.board.tick(now) + self.members.tick(now)

    def receive(self, data: bytes, sender: int, now: float) -> list[Output]:
        """Take in a message that the transport authenticated as `sender`'s.

        Raises RemoteProtocolError, and changes nothing, where it is not a right one.  What comes from a node that
        is no member is dropped.
        """
        if data[:1] == bytes((messages.KIND,)):
            outputs = self.members.receive(data, sender, now)
            outputs += self._pull_from(sender, outputs, now)
            return outputs + self.board.tick(now)
        if data[:1] == bytes((codec.KIND,)):
            outputs = self.board.receive(data, sender, now)
            return outputs + self.members.heard(sender, now) + self.tick(now)
        raise RemoteProtocolError(f"gossip: unknown kind {data[:1]!r}")

    def failed(self, number: int, now: float) -> list[Output]:
        """The transport could not connect or send to `number`."""
        return self.board.failed(number, now) + self.members.failed(number, now)

    def leave(self, now: float) -> list[Output]:
        """Say goodbye; keep ticking for a second afterwards where possible, so that it spreads."""
        return self.members.leave(now)

    def state(self, number: int, now: float) -> NodeState:
        """What is believed of one node."""
        if number == self.me:
            return NodeState.UP
        return self._state(number, self.board.age(number, now), self.board.stale_after_s, now)

    def view(self, now: float) -> tuple[Row, ...]:
        """All members, oneself first, then by number: (number, state, last figures, their age in seconds)."""
        known = {number: (sample, age_s) for number, sample, age_s in self.board.entries(now)}
        stale_after_s = self.board.stale_after_s
        rows: list[Row] = []
        for number in self.board.numbers:
            sample, age_s = known.get(number, (None, None))
            state = NodeState.UP
            if number != self.me:
                state = self._state(number, age_s, stale_after_s, now)
            rows.append((number, state, sample, age_s))
        return tuple(rows)

    def _state(self, number: int, age_s: float | None, stale_after_s: float, now: float) -> NodeState:
        status = self.members.status(number)
        if status in (Status.DEAD, Status.LEFT):
            return NodeState.LOST
        fresh = age_s is not None and age_s <= stale_after_s
        if status is None:
            waiting = fresh or self.members.waited_s(number, now) < UNHEARD_S
            return NodeState.STALE if waiting else NodeState.LOST
        return NodeState.UP if fresh and status is Status.ALIVE else NodeState.STALE

    def _pull_from(self, sender: int, outputs: list[Output], now: float) -> list[Output]:
        """On meeting a node thought down, ask for its board: ours knows little of its side."""
        met = any(isinstance(out, NodeJoined | NodeBack) and out.number == sender for out in outputs)
        if not met or 0 < self._pull_ready - now <= PULL_PAUSE_S:
            return []
        self._pull_ready = now + PULL_PAUSE_S
        return self.board.pull(sender)
