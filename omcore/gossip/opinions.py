"""What this node believes of each member, and how claims change that.

Precedence (SWIM): a greater incarnation wins; at equal ones LEFT over DEAD over SUSPECT over ALIVE.  Only a node
itself raises its incarnation, to object to a claim about it.  Two rules of ours on top:
  * "X is dead" about a node believed alive only starts its (least) time to object; it never kills at once.  So
    nobody is lost to a node that did not suspect it first, and a healed partition does not spread its verdicts.
  * whatever is sent to a node not believed alive tells it so (Lifeguard's buddy rule, widened to dead and left).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omcore.gossip.clock import EPSILON_S
from omcore.gossip.local import Local
from omcore.gossip.messages import INCARNATION_LIMIT, Kind, Message, Record, Status, pack
from omcore.gossip.news import News
from omcore.gossip.outputs import NodeBack, NodeJoined, NodeLeft, NodeLost, NodeSuspected, Send
from omcore.gossip.roster import Roster
from omcore.gossip.suspicion import Suspicion, retransmits


class Member:
    """One other node, as this one sees it; `status` None: never heard of."""

    __slots__ = ("added", "incarnation", "number", "pinged", "status", "suspicion")

    def __init__(self, number: int, t: float) -> None:
        self.number = number
        self.status: Status | None = None
        self.incarnation = -1
        self.suspicion: Suspicion | None = None
        self.added = t
        self.pinged = float("-inf")  # when last asked "do you run after all?"


class Opinions:
    """The table of members, with the claims' rules and the news that spreads them."""

    def __init__(self, local: Local, roster: Roster) -> None:
        self.members: dict[int, Member] = {}
        self.roster = roster
        self._local = local
        self._news = News()
        self._gossiping = False
        self.on_met: Callable[[int], None] = lambda number: None  # a node thought down spoke to us itself

    def set_members(self, numbers: set[int]) -> None:
        """Add and remove members; added ones count as down until heard of."""
        for number in self.members.keys() - numbers:
            del self.members[number]
            self.roster.remove(number)
            self._news.drop(number)
        for number in sorted(numbers - self.members.keys()):
            self.members[number] = Member(number, self._local.t)
            self.roster.lower(number)

    # --- claims ---------------------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Judge one claim that came with a message."""
        if record.number == self._local.me:
            self.about_me(record)
        elif record.status is Status.ALIVE:
            self.alive(record.number, record.incarnation)
        elif record.status is Status.SUSPECT:
            self.suspect(record.number, record.incarnation, record.by)
        elif record.status is Status.DEAD:
            self.dead(record.number, record.incarnation, record.by)
        else:
            self.left(record.number, record.incarnation)

    def about_me(self, record: Record) -> None:
        """Object to whatever is said of this node, unless it is just leaving."""
        mine = self._local.incarnation
        beaten = record.incarnation > mine or (record.incarnation == mine and record.status is not Status.ALIVE)
        if self._local.leaving or not beaten or record.incarnation + 1 >= INCARNATION_LIMIT:
            return
        if record.status is Status.SUSPECT:
            self._local.ail(+1)
        self._local.incarnation = record.incarnation + 1
        self.spread(Status.ALIVE, self._local.me, self._local.incarnation)

    def alive(self, number: int, incarnation: int, *, direct: bool = False, spread: bool = True) -> None:
        """`number` runs with this incarnation; `direct`: it said so itself."""
        member = self.members.get(number)
        if member is None or incarnation <= member.incarnation:
            return
        was, member.status = member.status, Status.ALIVE
        member.incarnation, member.suspicion = incarnation, None
        if was in (None, Status.LEFT):
            self._local.emit(NodeJoined(number))
        elif was is not Status.ALIVE:
            self._local.emit(NodeBack(number, after_loss=was is Status.DEAD))
        if spread:
            self.spread(Status.ALIVE, number, incarnation)
        if number in self.roster.down:
            self.roster.raise_up(number)
            if direct:
                self.on_met(number)

    def suspect(self, number: int, incarnation: int, by: int) -> None:
        """`by` got no answer from `number`."""
        member = self.members.get(number)
        if member is None or incarnation < member.incarnation:
            return
        if incarnation > member.incarnation:
            self.alive(number, incarnation, spread=False)
        if member.status is Status.ALIVE:
            member.status = Status.SUSPECT
            member.suspicion = Suspicion(by, self._local.t, self.roster.running, self._local.config)
            self._local.emit(NodeSuspected(number))
        elif member.suspicion is None or not member.suspicion.confirm(by):
            return
        self._wait_for(member)
        self.spread(Status.SUSPECT, number, incarnation, by)

    def dead(self, number: int, incarnation: int, by: int) -> None:
        """`by` declared `number` dead."""
        member = self.members.get(number)
        if member is None or incarnation < member.incarnation:
            return
        if member.status is None:
            member.status, member.incarnation = Status.DEAD, incarnation
        elif member.status is Status.SUSPECT:
            member.incarnation = incarnation
            self._verdict(member)
        elif member.status is Status.ALIVE:
            self.suspect(number, incarnation, by)
            if member.suspicion is not None:
                member.suspicion.settle()
                self._wait_for(member)

    def left(self, number: int, incarnation: int) -> None:
        """`number` said goodbye."""
        member = self.members.get(number)
        if member is None or incarnation < member.incarnation or member.status is Status.LEFT:
            return
        was, member.status = member.status, Status.LEFT
        member.incarnation, member.suspicion = incarnation, None
        self.roster.lower(number)
        if was in (Status.ALIVE, Status.SUSPECT):
            self._local.emit(NodeLeft(number))
            self.spread(Status.LEFT, number, incarnation)

    def _wait_for(self, member: Member) -> None:
        if member.suspicion is not None:
            self._local.timers.at(member.suspicion.deadline, self._waited, member.number)

    def _waited(self, number: int) -> None:
        member = self.members.get(number)
        if member and member.suspicion and self._local.t >= member.suspicion.deadline - EPSILON_S:
            self._verdict(member)

    def _verdict(self, member: Member) -> None:
        member.status, member.suspicion = Status.DEAD, None
        self.roster.lower(member.number)
        self._local.emit(NodeLost(member.number))
        self.spread(Status.DEAD, member.number, member.incarnation)

    # --- talking --------------------------------------------------------------------------------------------

    def send(self, to: int, kind: Kind, a: int = 0, b: int = 0, records: Sequence[Record] | None = None) -> None:
        """Send one message: with `records` as its page or challenge, else with news and the word to its target."""
        if records is None:
            records = self._buddy(to) + self._news.take(but=to)
        message = Message(kind, self._local.incarnation, a, b, tuple(records))
        self._local.emit(Send(to, pack(message)))

    def spread(self, status: Status, number: int, incarnation: int, by: int | None = None) -> None:
        """Make news of this claim."""
        local = self._local
        record = Record(status, number, incarnation, local.me if by is None else by)
        self._news.put(record, retransmits(self.roster.running, local.config))
        if not self._gossiping:
            self._gossiping = True
            local.timers.at(local.t + local.config.news_s * local.rng.random(), self._gossip)

    def _gossip(self, _key: int) -> None:
        local = self._local
        for number in self.roster.alive.draw(local.rng, local.config.news_fanout):
            if len(self._news):
                self.send(number, Kind.NEWS)
        self._gossiping = len(self._news) > 0 and len(self.roster.alive) > 0
        if self._gossiping:
            local.timers.at(local.t + local.config.news_s, self._gossip)

    def _buddy(self, to: int) -> list[Record]:
        member = self.members.get(to)
        if member is None or member.status is None or member.status is Status.ALIVE:
            return []
        return [Record(member.status, to, member.incarnation, self._local.me)]
