"""The load board: what this node knows of all nodes' loads, each entry with its age.

After MOSIX (Amar, Barak, Drezner & Okun 2009): once per interval, at a fixed phase drawn at random, every node
sends its own entry and the newest others it holds (a fixed window) to one other node; the receiver keeps the newer
of two entries.  Fixed phase and fixed window make the age of the news a known law: see `formulas`.

Which of two entries is newer: their owner's serial decides, because an age leaves out the time spent on the way and
so makes every copy a little younger than it is.  Only where the ages are further apart than RESTART_S they decide,
since a node that started anew counts from another serial.

Times inside are those of this node's clock; the wire carries ages.  State is about 130 bytes a node, in arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from math import inf
from random import Random

from omcore.errors import LocalProtocolError
from omcore.gossip import codec, formulas
from omcore.gossip.clock import EPSILON_S, Clock
from omcore.gossip.config import GossipConfig
from omcore.gossip.outputs import Output, Send
from omcore.gossip.roster import Roster
from omcore.types import LoadSample

RESTART_S = 5.0
EMPTIED_CORES = 4.0  # a node of this size that runs empty is news for everybody at once
BUSY_LOAD, EMPTY_LOAD = 0.5, 0.1  # what counts as having had work, and as empty, in tasks per core
RESENDS = 3  # after failed connects, per interval
PULL_PAUSE_S = 0.2  # between two answers to pulls: nobody makes us talk more than this
KEEP_LEAST_S = 60.0  # entries older than this, and than KEEP_AGES average ages, are neither sent nor taken
KEEP_AGES = 12.0
NEVER = -inf


class Board:
    """One node's board.  Call `refresh` right before `tick`, so that what is sent is fresh.

    `roster` is shared with the failure detector, which moves nodes up and down in it; without one, everybody
    counts as alive.
    """

    def __init__(self, me: int, config: GossipConfig, rng: Random, roster: Roster | None = None) -> None:
        self.me = me
        self._config = config
        self._rng = rng
        self._owns_roster = roster is None
        self._roster = Roster() if roster is None else roster
        self._clock = Clock()
        self._next = NEVER
        self._slots: dict[int, int] = {me: 0}
        self._numbers = array("L", [me])
        self._born = array("d", [NEVER])
        self._serials = array("H", [rng.getrandbits(16)])
        self._bodies: list[bytes] = [b""]
        self._order: list[int] = []  # slots heard of but one's own; newest first once sorted
        self._urgent: dict[int, int] = {}  # slot -> sends left
        self._last_load = 0.0
        self._target: int | None = None
        self._resends = 0
        self._pull_ready = NEVER

    @property
    def deadline(self) -> float:
        """When `tick` next has work, in the caller's time."""
        return self._clock.outer(self._next)

    @property
    def window(self) -> int:
        """Entries per message, W."""
        return formulas.window_size(len(self._numbers), self._config.window_min, self._config.window_max)

    @property
    def stale_after_s(self) -> float:
        """From which age on a figure counts as stale."""
        running, config = self._roster.running, self._config
        return formulas.stale_after(running, self.window, config.interval_s, config.stale_least_s)

    @property
    def numbers(self) -> tuple[int, ...]:
        """All nodes on the board, oneself first, then in order."""
        return tuple(self._numbers)

    def set_members(self, numbers: Iterable[int]) -> None:
        """Make the board hold these nodes (and oneself); what is known of others is forgotten."""
        wanted = set(numbers) - {self.me}
        old, born, serials, bodies = self._slots, self._born, self._serials, self._bodies
        kept = [self.me, *sorted(wanted)]
        slots = [old.get(number) for number in kept]
        self._slots = {number: slot for slot, number in enumerate(kept)}
        self._numbers = array("L", kept)
        self._born = array("d", [NEVER if at is None else born[at] for at in slots])
        self._serials = array("H", [0 if at is None else serials[at] for at in slots])
        self._bodies = [b"" if at is None else bodies[at] for at in slots]
        self._order = [slot for slot in range(1, len(kept)) if self._born[slot] != NEVER]
        self._urgent = {new: self._urgent[at] for new, at in enumerate(slots) if at in self._urgent}
        if self._owns_roster:
            for number in [number for number in self._roster.alive if number not in wanted]:
                self._roster.remove(number)
            for number in wanted:
                self._roster.raise_up(number)

    def refresh(self, sample: LoadSample, now: float) -> None:
        """Put in what this node just measured of itself."""
        serial = (self._serials[0] + 1) & 0xFFFF
        self._bodies[0] = codec.pack_body(self.me, serial, sample)
        self._serials[0] = serial
        self._born[0] = self._time(now)
        if sample.cores >= EMPTIED_CORES and self._last_load >= BUSY_LOAD and sample.load <= EMPTY_LOAD:
            self.urge(self.me)
        if not EMPTY_LOAD < sample.load < BUSY_LOAD:  # in between neither busy nor empty: wait and see
            self._last_load = sample.load

    def urge(self, number: int) -> None:
        """Send this entry before others for as long as it takes until everybody has it."""
        slot = self._slots.get(number)
        if slot is None:
            raise LocalProtocolError(f"node {number} is not on the board")
        self._urgent[slot] = formulas.urgent_sends(len(self._numbers))

    def tick(self, now: float) -> list[Output]:
        """Send the window if it is time: one message per interval, to one node."""
        t = self._time(now)
        interval = self._config.interval_s
        if self._next == NEVER:
            self._next = t + self._rng.random() * interval
        if t < self._next - EPSILON_S:
            return []
        self._next += interval * (1 + (t - self._next + EPSILON_S) // interval)  # keep the phase
        self._resends = 0
        self._target = self._roster.target(self._rng)
        return self._send(self._target, t, spend=True)

    def failed(self, number: int, now: float) -> list[Output]:
        """A connect or send to `number` failed: the message goes to another node at once."""
        t = self._time(now)
        if number != self._target or self._resends >= RESENDS:
            return []
        self._resends += 1
        other = self._roster.alive.draw(self._rng, 1, without=number)
        self._target = other[0] if other else None
        return self._send(self._target, t, spend=False)

    def pull(self, number: int) -> list[Output]:
        """Ask `number` for its window: after joining, or when a partition healed."""
        return [Send(number, codec.pack_pull())]

    def receive(self, data: bytes, sender: int, now: float) -> list[Output]:
        """Take in a message.  Raises RemoteProtocolError, and changes nothing, where it is not a right one."""
        window = codec.unpack_message(data, sender)
        t = self._time(now)
        if sender == self.me or sender not in self._slots:
            return []
        if window is not None:
            self._merge(window, t)
            return []
        if t < self._pull_ready:
            return []
        self._pull_ready = t + PULL_PAUSE_S
        return self._send(sender, t, spend=False)

    def age(self, number: int, now: float) -> float | None:
        """Seconds since the figures of `number` were measured; None: never heard."""
        slot = self._slots.get(number)
        if slot is None or self._born[slot] == NEVER:
            return None
        return self._clock.peek(now) - self._born[slot]

    def sample(self, number: int) -> LoadSample | None:
        """The last known figures of `number`; None: never heard."""
        slot = self._slots.get(number)
        return codec.unpack_body(self._bodies[slot]) if slot is not None and self._bodies[slot] else None

    def entries(self, now: float) -> tuple[tuple[int, LoadSample, float], ...]:
        """All that is known, oneself included: (number, sample, age in seconds)."""
        t = self._clock.peek(now)
        return tuple(
            (number, codec.unpack_body(body), t - born)
            for number, body, born in zip(self._numbers, self._bodies, self._born, strict=True)
            if body
        )

    def ages(self, now: float) -> list[float]:
        """The ages of all others' entries, in seconds, in no order; cheap.  Papers average over these."""
        t = self._clock.peek(now)
        return [t - born for born in self._born[1:] if born != NEVER]

    def _time(self, now: float) -> float:
        self._clock.read(now)
        return self._clock.t

    def _send(self, to: int | None, t: float, *, spend: bool) -> list[Output]:
        if to is None or not self._bodies[0]:
            return []
        chosen, urgent, own_urgent = self._choose(t, spend)
        born = self._born
        ages_ms = [int((t - born[slot]) * 1000) for slot in chosen]
        bodies = self._bodies
        return [Send(to, codec.pack_window(ages_ms, [bodies[slot] for slot in chosen], urgent, own_urgent))]

    def _choose(self, t: float, spend: bool) -> tuple[Sequence[int], int, bool]:
        """Slots to send, how many after the own one are urgent, and whether the own one is."""
        size, born = self.window, self._born
        self._order.sort(key=born.__getitem__, reverse=True)  # nearly sorted already: about n comparisons
        oldest = t - self._keep_s()
        urgent = [slot for slot in self._urgent if slot and born[slot] >= oldest]
        urgent.sort(key=born.__getitem__, reverse=True)
        del urgent[max(0, size // 2) :]
        own_urgent = 0 in self._urgent
        if spend:
            self._spend([0, *urgent])
        taken = set(urgent)
        rest = [slot for slot in self._order[:size] if slot not in taken and born[slot] >= oldest]
        return [0, *urgent, *rest][:size], len(urgent), own_urgent

    def _spend(self, slots: Sequence[int]) -> None:
        for slot in slots:
            left = self._urgent.get(slot, 0) - 1
            if left > 0:
                self._urgent[slot] = left
            else:
                self._urgent.pop(slot, None)

    def _keep_s(self) -> float:
        n = max(2, len(self._numbers))
        return max(KEEP_LEAST_S, KEEP_AGES * formulas.average_age(n, self.window) * self._config.interval_s)

    def _merge(self, window: codec.Window, t: float) -> None:
        slots, born, serials, bodies = self._slots, self._born, self._serials, self._bodies
        oldest, size = t - self._keep_s(), codec.BODY_SIZE
        last_urgent, fresh = window.urgent, formulas.urgent_sends(len(self._numbers))
        for index, ((number, serial), age_ms) in enumerate(zip(window.heads(), window.ages_ms, strict=True)):
            slot = slots.get(number)
            when = t - age_ms * 0.001
            if not slot or when < oldest:  # no member, or oneself
                continue
            held = born[slot]
            step = (serial - serials[slot]) & 0xFFFF
            if held == NEVER:
                self._order.append(slot)
            elif not step or when <= (held - RESTART_S if step < 0x8000 else held + RESTART_S):
                continue
            born[slot], serials[slot] = when, serial
            bodies[slot] = window.bodies[index * size : index * size + size]
            if index <= last_urgent and (index or window.own_urgent):
                self._urgent[slot] = fresh
