"""What this node believes of each member, and how claims change that.

Precedence (SWIM): a greater incarnation wins; at equal ones LEFT over DEAD over SUSPECT over ALIVE.  Only a node
itself raises its incarnation, to object to a claim about it.  Two rules of ours on top:
  * "X is dead" about a node believed alive only starts its (least) time to object; it never kills at once.  So
    nobody is lost to a node that did not suspect it first, and a healed partition does not spread its verdicts.
  * whatever is sent to a node not believed alive tells it so (Lifeguard's buddy rule, widened to dead and left).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from omcore.gossip.cast import Cast
from omcore.gossip.clock import EPSILON_S
from omcore.gossip.local import Local
from omcore.gossip.messages import INCARNATION_LIMIT, Kind, Message, Record, Status, pack
from omcore.gossip.news import News
from omcore.gossip.outputs import NodeBack, NodeJoined, NodeLeft, NodeLost, NodeSuspected, Send
from omcore.gossip.roster import Roster
from omcore.gossip.suspicion import Suspicion, retransmits

NEVER = -inf


class Member:
    """One other node, as this one sees it; `status` None: never heard of."""

    __slots__ = ("added", "incarnation", "number", "pinged", "status", "suspicion")

    def __init__(self, number: int, t: float) -> None:
        self.number = number
        self.status: Status | None = None
        self.incarnation = -1
        self.suspicion: Suspicion | None = None
        self.added = t
        self.pinged = NEVER  # when last asked "do you run after all?"

    def copy(self, number: int) -> Member:
        """The same belief about another node."""
        made = Member(number, self.added)
        made.status, made.incarnation = self.status, self.incarnation
        return made


class Opinions:
    """The table of members, with the claims' rules and the news that spreads them.

    What is believed of a member is written down when it is first asked for; up to then all are alike (`_initial`).
    So a table of ten thousand of which nothing was heard costs nothing.
    """

    def __init__(self, local: Local, roster: Roster) -> None:
        self.cast = Cast((local.me,))
        self.roster = roster
        self._members: dict[int, Member] = {}
        self._initial = Member(0, local.t)
        self._local = local
        self._news = News()
        self._gossiping = False
        self.on_met: Callable[[int], None] = lambda number: None  # a node thought down spoke to us itself

    def set_members(self, cast: Cast) -> None:
        """Add and remove members; added ones count as down until heard of."""
        known = self.cast
        self.cast = cast
        for number in known.slots.keys() - cast.slots.keys():
            self._members.pop(number, None)
            self.roster.remove(number)
            self._news.drop(number)
        for number in sorted(cast.slots.keys() - known.slots.keys() - {self._local.me}):
            if self._local.clock.started:
                self._members[number] = Member(number, self._local.t)
            self.roster.lower(number)

    def fill(self, cast: Cast) -> None:
        """Start with these members, all running in their first life; the roster has them already."""
        self.cast = cast
        self._initial.status, self._initial.incarnation = Status.ALIVE, 1

    def started(self) -> None:
        """The clock was read for the first time: from now on members wait to be heard of."""
        self._initial.added = self._local.t
        for member in self._members.values():
            member.added = self._local.t

    def find(self, number: int) -> Member | None:
        """What is believed of a member, to be changed; None: a stranger, or oneself."""
        member = self._members.get(number)
        if member is None and number != self._local.me and (slot := self.cast.slots.get(number)) is not None:
            number = self.cast.numbers[slot]  # one object for all tables
            member = self._members[number] = self._initial.copy(number)
        return member

    def peek(self, number: int) -> Member | None:
        """The same, only to be read: its `number` and `suspicion` may be another's where nothing is known of it."""
        member = self._members.get(number)
        if member is None and number in self.cast and number != self._local.me:
            return self._initial
        return member

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
        held = self.peek(number)
        if held is None or incarnation <= held.incarnation or (member := self.find(number)) is None:
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
        member = self.find(number)
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
        member = self.find(number)
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
        member = self.find(number)
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
        member = self.find(number)
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
        member = self.peek(to)
        if member is None or member.status is None or member.status is Status.ALIVE:
            return []
        return [Record(member.status, to, member.incarnation, self._local.me)]
