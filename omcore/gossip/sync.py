"""Anti-entropy: what two nodes believe of a page of the members is compared, never the whole table.

Every `digest_s` a page of at most 256 members goes to a random node, which answers with what it knows better.  A node
that meets somebody it had thought down (it joined, or a partition healed) pulls that one's pages, one at a time.

A page is hearsay, so no verdict in it is taken over for a node believed otherwise.  Where the two contradict each
other, the node in question is told what is said of it, and settles the matter by raising its incarnation.
"""

from __future__ import annotations

from collections.abc import Sequence

from omcore.gossip.local import Local
from omcore.gossip.messages import Kind, Message, Record, Status
from omcore.gossip.opinions import Opinions
from omcore.gossip.prober import Prober

LAST = 0xFFFFFFFF
PULL_WAIT_S = 2.0
PULL_TRIES = 3
PULL_PAUSE_S = 5.0  # after one set of pages; whom we meet meanwhile would tell us the same


class Sync:
    """This node's digests, and the pulling of pages."""

    def __init__(self, local: Local, opinions: Opinions, prober: Prober) -> None:
        self._local = local
        self._opinions = opinions
        self._prober = prober
        self._cursor = 0  # the number at which the next digest begins
        self._peer: int | None = None  # whose pages we pull
        self._low = 0
        self._tries = 0
        self._ready = float("-inf")
        opinions.on_met = self.met

    def start(self) -> None:
        """Begin, at a phase of one's own."""
        self._local.timers.at(self._local.t + self._local.rng.random() * self._local.config.digest_s, self._digest)

    def met(self, number: int) -> None:
        """A node thought down spoke to us: learn what it knows."""
        if self._peer is None and self._local.t >= self._ready:
            self._peer, self._low = number, 0
            self._pull()

    def digest_came(self, sender: int, message: Message) -> None:
        """Compare a page, and answer with what is known better here."""
        self._merge(message.records)
        theirs = {record.number: (record.incarnation, record.status) for record in message.records}
        better = [
            record
            for record in self._records(self._opinions.cast.page(message.a, self._local.config.page))
            if record.number <= message.b
            and (record.incarnation, record.status) > theirs.get(record.number, (-1, Status.ALIVE))
        ]
        if better:
            self._opinions.send(sender, Kind.PAGE, message.a, message.b, better)

    def page_came(self, sender: int, message: Message) -> None:
        """Take in an answer; go on pulling where there is more."""
        self._merge(message.records)
        if sender == self._peer and message.a == self._low:
            if message.b >= LAST:
                self._stop()
            else:
                self._low = message.b + 1
                self._pull()

    def pull_came(self, sender: int, message: Message) -> None:
        """Send the page that begins at the number asked for."""
        low, high, records = self._page(message.a)
        self._opinions.send(sender, Kind.PAGE, low, high, records)

    def _digest(self, _key: int) -> None:
        local = self._local
        # a little jitter: rounds of different nodes must not stay in step
        local.timers.at(local.t + local.config.digest_s * (0.9 + 0.2 * local.rng.random()), self._digest)
        low, high, records = self._page(self._cursor)
        self._cursor = 0 if high >= LAST else high + 1
        for number in self._opinions.roster.alive.draw(local.rng, 1):
            self._opinions.send(number, Kind.DIGEST, low, high, records)

    def _page(self, low: int) -> tuple[int, int, list[Record]]:
        size = self._local.config.page
        numbers = self._opinions.cast.page(low, size + 1)
        high = numbers[size] - 1 if len(numbers) > size else LAST
        return low, high, self._records(numbers[:size])

    def _records(self, numbers: Sequence[int]) -> list[Record]:
        local, opinions = self._local, self._opinions
        records = []
        for number in numbers:
            if number == local.me:
                status = Status.LEFT if local.leaving else Status.ALIVE
                records.append(Record(status, number, local.incarnation, number))
                continue
            member = opinions.peek(number)
            if member is not None and member.status is not None:
                by = member.suspicion.first if member.suspicion else local.me
                records.append(Record(member.status, number, member.incarnation, by))
        return records

    def _merge(self, records: Sequence[Record]) -> None:
        opinions = self._opinions
        for record in records:
            member = opinions.peek(record.number)
            if member is not None and self._contradicts(member.status, member.incarnation, record):
                claim = Record(Status.DEAD, record.number, record.incarnation, self._local.me)
                self._prober.ping(record.number, [claim])
            elif member is not None and record.status is Status.ALIVE:
                opinions.alive(record.number, record.incarnation, spread=False)
            else:
                opinions.apply(record)

    @staticmethod
    def _contradicts(status: Status | None, incarnation: int, record: Record) -> bool:
        """Whether one of us holds the node dead and the other alive, with nothing to decide between us."""
        if record.status is Status.DEAD:
            return status in (Status.ALIVE, Status.SUSPECT) and record.incarnation >= incarnation
        return record.status is Status.ALIVE and status is Status.DEAD and record.incarnation == incarnation

    def _pull(self) -> None:
        self._tries = 0
        self._ask(self._low)

    def _ask(self, low: int) -> None:
        """Ask for the page at `low`; asked again until it came, PULL_TRIES times."""
        if self._peer is None or low != self._low:
            return
        if self._tries >= PULL_TRIES:
            self._stop()
            return
        self._tries += 1
        self._opinions.send(self._peer, Kind.PULL, low)
        self._local.timers.at(self._local.t + PULL_WAIT_S, self._ask, low)

    def _stop(self) -> None:
        self._peer = None
        self._ready = self._local.t + PULL_PAUSE_S
