"""Who still answers: SWIM's probes, direct and by way of helpers, with Lifeguard's doubts about oneself."""

from __future__ import annotations

from array import array

from omcore.gossip.local import Local
from omcore.gossip.messages import Kind, Record, Status
from omcore.gossip.opinions import Opinions

NACK_PART = 0.8  # a helper says "no answer yet" after this part of ack_s, so that it arrives in time
ALONE_TRIES = 3  # nodes greeted each round while nobody is known to run
START_ROUNDS = 10  # rounds in which a new or changed roster is looked through faster
PING_PAUSE_S = 1.0  # between two questions "do you run after all?" to one node


class _Probe:
    __slots__ = ("helpers", "nacked", "target")

    def __init__(self, target: int) -> None:
        self.target = target
        self.helpers: frozenset[int] = frozenset()
        self.nacked: set[int] = set()


class Prober:
    """One round per `probe_s`: the next member in a shuffled order must answer within it, else it is suspected."""

    def __init__(self, local: Local, opinions: Opinions) -> None:
        self._local = local
        self._opinions = opinions
        self._order = array("I")  # whom to probe in this lap
        self._probes: dict[int, _Probe] = {}
        self._relays: dict[int, tuple[int, int, int]] = {}  # my ping -> (who asked, its number, target)
        self._pinging: set[int] = set()  # nodes this one suspects by its own probes
        self._sequence = 0
        self.probes = 0  # made so far, and how many of them ended in an accusation
        self.accusations = 0
        self._eager = START_ROUNDS

    def start(self) -> None:
        """Begin, at a phase of one's own."""
        self._local.timers.at(self._local.t + self._local.rng.random() * self._local.config.probe_s, self._round)

    def members_changed(self) -> None:
        """Look through the roster faster for a while."""
        self._eager = START_ROUNDS

    def failed(self, number: int) -> None:
        """The transport could not reach `number`: ask others about it without waiting."""
        member = self._opinions.find(number)
        open_ = next((seq for seq, probe in self._probes.items() if probe.target == number), None)
        if member is None or member.status is not Status.ALIVE:
            return
        if open_ is not None:
            self._unanswered(open_)
            return
        sequence = self._open(number)
        self._unanswered(sequence)
        wait_s = self._local.config.ack_s * self._local.patience
        self._local.timers.at(self._local.t + wait_s, self._ended, sequence)

    def ping(self, number: int, records: list[Record] | None = None) -> None:
        """Ask without holding the answer against anybody."""
        self._opinions.send(number, Kind.PING, self._next(), records=records)

    def heard(self, number: int) -> None:
        """A sign of life came from `number`: where it is not believed alive, let it say so itself."""
        member = self._opinions.find(number)
        if member is None or member.status in (Status.ALIVE, Status.SUSPECT):
            return
        if self._local.t >= member.pinged + PING_PAUSE_S:
            member.pinged = self._local.t
            self.ping(number)

    def asked(self, sender: int, sequence: int, target: int) -> None:
        """`sender` wants us to ping `target`."""
        if target not in self._opinions.cast or target == self._local.me:
            return
        mine = self._next()
        self._relays[mine] = (sender, sequence, target)
        self._opinions.send(target, Kind.PING, mine)
        config = self._local.config
        self._local.timers.at(self._local.t + NACK_PART * config.ack_s, self._relay_late, mine)
        self._local.timers.at(self._local.t + 4 * config.probe_s, self._relay_over, mine)

    def acked(self, sender: int, sequence: int) -> None:
        """An answer to one of our pings, from its target or by way of a helper."""
        probe = self._probes.get(sequence)
        if probe is not None and (sender == probe.target or sender in probe.helpers):
            del self._probes[sequence]
            self._local.ail(-1)
        relay = self._relays.get(sequence)
        if relay is not None and relay[2] == sender:
            del self._relays[sequence]
            self._opinions.send(relay[0], Kind.ACK, relay[1])

    def nacked(self, sender: int, sequence: int) -> None:
        """A helper has no answer yet, but is there: so our own line is well."""
        probe = self._probes.get(sequence)
        if probe is not None and sender in probe.helpers:
            probe.nacked.add(sender)

    def _round(self, _key: int) -> None:
        local = self._local
        local.timers.at(local.t + local.config.probe_s * local.patience, self._round)
        target = self._next_target()
        if target is not None:
            self.probes += 1
            sequence = self._open(target)
            self._opinions.send(target, Kind.PING, sequence)
            patience, config = local.patience, local.config
            local.timers.at(local.t + config.ack_s * patience, self._unanswered, sequence)
            local.timers.at(local.t + config.probe_s * patience, self._ended, sequence)
        self._reach_out()

    def _reach_out(self) -> None:
        """Greet nodes that are down: about one in the whole cluster per round; more at first and when alone."""
        roster, rng = self._opinions.roster, self._local.rng
        alone = len(roster.alive) == 0
        if not (alone or self._eager > 0 or rng.random() < 1 / max(5, len(roster.alive))):
            return
        self._eager = max(0, self._eager - 1)
        for number in roster.down.draw(rng, ALONE_TRIES if alone else 1):
            self.ping(number)

    def _next_target(self) -> int | None:
        """All of the living once in each lap, in an order drawn as it goes."""
        alive, rng = self._opinions.roster.alive, self._local.rng
        if not self._order:
            self._order = array("I", alive)
        while self._order:
            at = rng.randrange(len(self._order))
            number, last = self._order[at], self._order.pop()
            if at < len(self._order):
                self._order[at] = last
            if number in alive:
                return number
        return None

    def _open(self, target: int) -> int:
        sequence = self._next()
        self._probes[sequence] = _Probe(target)
        return sequence

    def _unanswered(self, sequence: int) -> None:
        probe = self._probes.get(sequence)
        if probe is None or probe.helpers:
            return
        helpers = self._local.config.helpers
        # a few more than needed, since suspects make poor helpers
        drawn = self._opinions.roster.alive.draw(self._local.rng, 2 * helpers, without=probe.target)
        well = [number for number in drawn if (member := self._opinions.peek(number)) and member.status is Status.ALIVE]
        chosen = well[:helpers]
        probe.helpers = frozenset(chosen)
        for number in chosen:
            self._opinions.send(number, Kind.ASK, sequence, probe.target)

    def _ended(self, sequence: int) -> None:
        probe = self._probes.pop(sequence, None)
        if probe is None:
            return
        self._local.ail(len(probe.helpers) - len(probe.nacked) if probe.helpers else 1)
        member = self._opinions.find(probe.target)
        if member is None or member.status not in (Status.ALIVE, Status.SUSPECT):
            return
        self.accusations += 1
        self._opinions.suspect(probe.target, member.incarnation, self._local.me)
        if probe.target not in self._pinging:
            self._pinging.add(probe.target)
            self._ask_again(probe.target)

    def _ask_again(self, number: int) -> None:
        """Tell a node we suspect so, again and again, until it objects or is lost: no one message may decide."""
        member = self._opinions.find(number)
        if member is None or member.status is not Status.SUSPECT:
            self._pinging.discard(number)
            return
        self.ping(number)
        self._local.timers.at(self._local.t + self._local.config.probe_s, self._ask_again, number)

    def _relay_late(self, sequence: int) -> None:
        relay = self._relays.get(sequence)
        if relay is not None:
            self._opinions.send(relay[0], Kind.NACK, relay[1])

    def _relay_over(self, sequence: int) -> None:
        self._relays.pop(sequence, None)

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return self._sequence
