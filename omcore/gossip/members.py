"""Membership and failure detection: SWIM (2002) with Lifeguard (arXiv 1707.00788), as a pure machine.

Who may be a member is the roster's business (`set_members`); this says which of them run.  Promises:
  * a crash is suspected by the first node about two probe periods later, and a verdict follows not before the
    least time to object (`suspicion.least_s`);
  * a node that is only frozen or starved for less than that is never declared dead, since it objects when it wakes;
  * a node that was itself frozen judges nobody by what it missed: its inner time stands still meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from omcore.errors import LocalProtocolError
from omcore.gossip import messages
from omcore.gossip.cast import Cast, cast_with
from omcore.gossip.config import GossipConfig
from omcore.gossip.local import Local
from omcore.gossip.messages import INCARNATION_LIMIT, Kind, Message, Status
from omcore.gossip.opinions import Opinions
from omcore.gossip.outputs import Output
from omcore.gossip.prober import Prober
from omcore.gossip.roster import Roster
from omcore.gossip.sync import Sync

GOODBYES = 16  # nodes told directly that we leave


class Members:
    """One node's membership machine.

    `incarnation` must be greater than in earlier lives of the node (seconds since 1970 will do); where it is not,
    the node learns so from the others and raises it.
    """

    def __init__(
        self, me: int, config: GossipConfig, rng: Random, incarnation: int = 1, roster: Roster | None = None
    ) -> None:
        if not 0 <= incarnation < INCARNATION_LIMIT:
            raise LocalProtocolError(f"{incarnation=}")
        self._local = Local(me, config, rng, incarnation)
        self._opinions = Opinions(self._local, Roster() if roster is None else roster)
        self._prober = Prober(self._local, self._opinions)
        self._sync = Sync(self._local, self._opinions, self._prober)

    @property
    def deadline(self) -> float:
        """When `tick` next has work, in the caller's time."""
        return self._local.clock.outer(self._local.timers.next)

    @property
    def health(self) -> int:
        """0: well; up to `health_max`: this node doubts itself, and waits longer before it accuses."""
        return self._local.health

    @property
    def incarnation(self) -> int:
        """This node's own."""
        return self._local.incarnation

    @property
    def probes(self) -> int:
        """Probes made so far."""
        return self._prober.probes

    @property
    def accusations(self) -> int:
        """Probes so far that nobody answered, so that their target was suspected."""
        return self._prober.accusations

    @property
    def running(self) -> int:
        """Nodes believed to run, this one included."""
        return self._opinions.roster.running

    def status(self, number: int) -> Status | None:
        """What is believed of a node; None: no member, or never heard of."""
        if number == self._local.me:
            return Status.LEFT if self._local.leaving else Status.ALIVE
        member = self._opinions.peek(number)
        return member.status if member else None

    def waited_s(self, number: int, now: float) -> float:
        """How long a member has been in the roster, in seconds (0 before the first tick)."""
        member = self._opinions.peek(number)
        return max(0.0, self._local.clock.peek(now) - member.added) if member else 0.0

    def set_members(self, numbers: Iterable[int] | Cast) -> None:
        """Who is a member; new ones count as down until they are heard of."""
        self._opinions.set_members(cast_with(self._local.me, numbers))
        self._prober.members_changed()

    def fill(self, cast: Cast) -> None:
        """Start with these members, all known to run: for the simulator.

        To be called once, instead of `set_members`; the roster that was given must hold the others as alive.
        """
        self._opinions.fill(cast)

    def tick(self, now: float) -> list[Output]:
        """Do what is due."""
        self._advance(now)
        self._run()
        return self._local.collect()

    def receive(self, data: bytes, sender: int, now: float) -> list[Output]:
        """Take in a message of `sender`, then do what is due.

        Raises RemoteProtocolError, and changes nothing, where it is not a right one.
        """
        message = messages.unpack(data)
        self._advance(now)
        if sender in self._opinions.cast and sender != self._local.me:
            self._handle(message, sender)
        self._run()
        return self._local.collect()

    def heard(self, sender: int, now: float) -> list[Output]:
        """Something else came from `sender`: a sign of life."""
        self._advance(now)
        self._prober.heard(sender)
        return self._local.collect()

    def failed(self, number: int, now: float) -> list[Output]:
        """The transport could not reach `number`: have others try at once."""
        self._advance(now)
        self._prober.failed(number)
        return self._local.collect()

    def leave(self, now: float) -> list[Output]:
        """Say goodbye; afterwards nothing is objected to.  Keep the machine ticking for a second if possible."""
        self._advance(now)
        local = self._local
        local.leaving = True
        self._opinions.spread(Status.LEFT, local.me, local.incarnation)
        for number in self._opinions.roster.alive.draw(local.rng, GOODBYES):
            self._opinions.send(number, Kind.NEWS, records=[self._goodbye()])
        return local.collect()

    def _goodbye(self) -> messages.Record:
        return messages.Record(Status.LEFT, self._local.me, self._local.incarnation, self._local.me)

    def _advance(self, now: float) -> None:
        local = self._local
        first = not local.clock.started
        if local.clock.read(now, local.timers.next):
            local.ail(+1)
        if first:
            self._opinions.started()
            self._prober.start()
            self._sync.start()

    def _run(self) -> None:
        if not self._local.clock.holding:
            self._local.timers.run(self._local.t)

    def _handle(self, message: Message, sender: int) -> None:
        self._opinions.alive(sender, message.incarnation, direct=True)
        if message.kind not in (Kind.DIGEST, Kind.PAGE):
            for record in message.records:
                self._opinions.apply(record)
        self._prober.heard(sender)
        match message.kind:
            case Kind.PING:
                self._opinions.send(sender, Kind.ACK, message.a)
            case Kind.ACK:
                self._prober.acked(sender, message.a)
            case Kind.NACK:
                self._prober.nacked(sender, message.a)
            case Kind.ASK:
                self._prober.asked(sender, message.a, message.b)
            case Kind.DIGEST:
                self._sync.digest_came(sender, message)
            case Kind.PAGE:
                self._sync.page_came(sender, message)
            case Kind.PULL:
                self._sync.pull_came(sender, message)
            case Kind.NEWS:
                pass
