"""The load board: what this node knows of all nodes' loads, each entry with its age.

After MOSIX (Amar, Barak, Drezner & Okun 2009): once per interval, at a fixed phase drawn at random, every node
sends its own entry and the newest others it holds (a fixed window) to one other node; the receiver keeps the newer
of two entries.  Fixed phase and fixed window make the age of the news a known law: see `formulas`.

Which of two entries is newer: their owner's serial decides, because an age leaves out the time spent on the way and
so makes every copy a little younger than it is.  Only where the ages are further apart than RESTART_S they decide,
since a node that started anew counts from another serial.

Times inside are milliseconds of this node's clock; the wire carries ages.  State is about 80 bytes a node, in columns.
What a message costs depends on the window, not on the number of nodes: see `_newest`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from heapq import nlargest
from itertools import repeat
from math import inf
from operator import sub
from random import Random

from omcore.errors import LocalProtocolError
from omcore.gossip import codec, formulas
from omcore.gossip.cast import Cast, cast_with
from omcore.gossip.clock import EPSILON_S, Clock
from omcore.gossip.config import GossipConfig
from omcore.gossip.outputs import Output, Send
from omcore.gossip.roster import Roster
from omcore.types import LoadSample

RESTART_MS = 5000
EMPTIED_CORES = 4.0  # a node of this size that runs empty is news for everybody at once
BUSY_LOAD, EMPTY_LOAD = 0.5, 0.1  # what counts as having had work, and as empty, in tasks per core
RESENDS = 3  # after failed connects, per interval
PULL_PAUSE_S = 0.2  # between two answers to pulls: nobody makes us talk more than this
REST_MORE = 10  # intervals, and twice the sends: by then an urgent piece of news has died out everywhere
KEEP_LEAST_S = 60.0  # entries older than this, and than KEEP_AGES average ages, are neither sent nor taken
KEEP_AGES = 12.0
NEVER = -(1 << 62)  # ms; before all times
NOBODY = 1 << 62  # ms; the time of the slot behind the last, which stands for strangers: nothing is ever newer


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
        self._next = -inf
        self._cast = Cast((me,))
        self._own = 0  # slot
        self._born = array("q", [NEVER, NOBODY])
        self._serials = array("H", [rng.getrandbits(16), 0])
        self._figures: list[bytes] = [b"", b""]
        self._top: list[int] = []  # slots of the newest entries but one's own, newest first, as of the last send
        self._heard: set[int] = set()  # slots heard of since
        self._urgent: dict[int, int] = {}  # slot -> sends left
        self._rests: dict[int, int] = {}  # slot -> until when no urgent news of it is passed on again (ms)
        self._last_load = 0.0
        self._target: int | None = None
        self._resends = 0
        self._pull_ready = -inf

    @property
    def deadline(self) -> float:
        """When `tick` next has work, in the caller's time."""
        return self._clock.outer(self._next)

    @property
    def window(self) -> int:
        """Entries per message, W; with a window by age, how many that is on average."""
        n, config = len(self._cast), self._config
        if config.window_age_s and n > 1:
            return max(1, min(n, round(formulas.entries_within(n, config.window_age_s / config.interval_s))))
        return formulas.window_size(n, config.window_min, config.window_max)

    @property
    def _most(self) -> int:
        """Entries that a message may hold."""
        return min(len(self._cast), codec.WINDOW_LIMIT) if self._config.window_age_s else self.window

    @property
    def stale_after_s(self) -> float:
        """From which age on a figure counts as stale."""
        running, config = self._roster.running, self._config
        return formulas.stale_after(running, self.window, config.interval_s, config.stale_least_s)

    @property
    def numbers(self) -> tuple[int, ...]:
        """All nodes on the board, oneself first, then in order."""
        numbers, own = self._cast.numbers, self._own
        return (self.me, *numbers[:own], *numbers[own + 1 :])

    def set_members(self, numbers: Iterable[int] | Cast) -> None:
        """Make the board hold these nodes (and oneself); what is known of others is forgotten."""
        old, born, serials, figures = self._cast.slots, self._born, self._serials, self._figures
        cast = cast_with(self.me, numbers)
        self._cast, self._own = cast, cast.slots[self.me]
        slots = [old.get(number) for number in cast.numbers]
        self._born = array("q", [NEVER if at is None else born[at] for at in slots])
        self._born.append(NOBODY)
        self._serials = array("H", [0 if at is None else serials[at] for at in slots])
        self._serials.append(0)
        self._figures = [b"" if at is None else figures[at] for at in slots]
        self._figures.append(b"")
        self._urgent = {new: self._urgent[at] for new, at in enumerate(slots) if at in self._urgent}
        self._rests = {new: self._rests[at] for new, at in enumerate(slots) if at in self._rests}
        self._look_at_all()
        if self._owns_roster:
            for number in [number for number in self._roster.alive if number not in cast]:
                self._roster.remove(number)
            for number in cast.numbers:
                if number != self.me:
                    self._roster.raise_up(number)

    def fill(self, cast: Cast, born_ms: array[int], serials: array[int], sample: LoadSample, next_s: float) -> None:
        """Start with these entries, a column each in the cast's order: for the simulator, which knows their law.

        To be called once, instead of `set_members` and before the clock is read; the next message goes at `next_s`.
        """
        self._cast, self._own, self._next = cast, cast.slots[self.me], next_s
        self._born, self._serials = array("q", born_ms), array("H", serials)
        self._born.append(NOBODY)
        self._serials.append(0)
        self._figures = [codec.pack_figures(sample)] * (len(cast) + 1)
        self._look_at_all()

    def refresh(self, sample: LoadSample, now: float) -> None:
        """Put in what this node just measured of itself."""
        own = self._own
        self._figures[own] = codec.pack_figures(sample)
        self._serials[own] = (self._serials[own] + 1) & 0xFFFF
        self._born[own] = self._ms(self._time(now))
        if sample.cores >= EMPTIED_CORES and self._last_load >= BUSY_LOAD and sample.load <= EMPTY_LOAD:
            self.urge(self.me)
        if not EMPTY_LOAD < sample.load < BUSY_LOAD:  # in between neither busy nor empty: wait and see
            self._last_load = sample.load

    def urge(self, number: int) -> None:
        """Send this entry before others for as long as it takes until everybody has it."""
        slot = self._cast.slots.get(number)
        if slot is None:
            raise LocalProtocolError(f"node {number} is not on the board")
        self._urgent[slot] = formulas.urgent_sends(len(self._cast))

    def tick(self, now: float) -> list[Output]:
        """Send the window if it is time: one message per interval, to one node."""
        t = self._time(now)
        interval = self._config.interval_s
        if self._next == -inf:
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
        if sender == self.me or sender not in self._cast:
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
        slot = self._cast.slots.get(number)
        if slot is None or self._born[slot] == NEVER:
            return None
        return self._clock.peek(now) - self._born[slot] / 1000

    def sample(self, number: int) -> LoadSample | None:
        """The last known figures of `number`; None: never heard."""
        slot = self._cast.slots.get(number)
        return codec.unpack_figures(self._figures[slot]) if slot is not None and self._figures[slot] else None

    def entries(self, now: float) -> tuple[tuple[int, LoadSample, float], ...]:
        """All that is known, oneself included: (number, sample, age in seconds)."""
        t = self._clock.peek(now)
        return tuple(
            (number, codec.unpack_figures(figures), t - born / 1000)
            for number, figures, born in zip(self._cast.numbers, self._figures, self._born, strict=False)
            if figures
        )

    def ages(self, now: float) -> list[float]:
        """The ages of all others' entries, in seconds, in order of number; infinite where nothing was heard; cheap."""
        t, own = self._clock.peek(now), self._own
        others = self._born[:own] + self._born[own + 1 : -1]
        return [t - born * 0.001 if born != NEVER else inf for born in others]

    def _time(self, now: float) -> float:
        self._clock.read(now)
        return self._clock.t

    @staticmethod
    def _ms(t: float) -> int:
        return round(t * 1000)

    def _send(self, to: int | None, t: float, *, spend: bool) -> list[Output]:
        if to is None or not self._figures[self._own]:
            return []
        now = self._ms(t)
        chosen, urgent, own_urgent = self._choose(now, spend)
        data = codec.pack_window(
            map(sub, repeat(now), map(self._born.__getitem__, chosen)),
            map(self._cast.numbers.__getitem__, chosen),
            map(self._serials.__getitem__, chosen),
            list(map(self._figures.__getitem__, chosen)),
            urgent,
            own_urgent,
        )
        return [Send(to, data)]

    def _choose(self, now: int, spend: bool) -> tuple[Sequence[int], int, bool]:
        """Slots to send, how many after the own one are urgent, and whether the own one is."""
        size, born, own = self._most, self._born, self._own
        oldest = now - self._keep_ms()
        if self._config.window_age_s:
            oldest = max(oldest, now - self._ms(self._config.window_age_s))
        newest = self._newest(size)
        end = len(newest)
        while end and born[newest[end - 1]] < oldest:
            end -= 1
        urgent: list[int] = []
        if self._urgent:
            urgent = [slot for slot in self._urgent if slot != own and born[slot] >= oldest]
            urgent.sort(key=born.__getitem__, reverse=True)
            del urgent[max(0, size // 2) :]
        own_urgent = own in self._urgent
        if spend and self._urgent:
            self._spend([own, *urgent])
        taken = set(urgent)
        rest = [slot for slot in newest[:end] if slot not in taken] if taken else newest[:end]
        return [own, *urgent, *rest][:size], len(urgent), own_urgent

    def _newest(self, size: int) -> list[int]:
        """The `size` newest entries but one's own, newest first.

        Entries only get newer, so they are among the newest of the last time and those heard of since: no walk
        through all.  (One that a newer serial made seem older may stay where it was for up to RESTART_MS.)
        """
        if self._heard:
            self._heard.update(self._top)
            self._heard.discard(self._own)
            self._top = sorted(self._heard, key=self._born.__getitem__, reverse=True)
            self._heard.clear()
            del self._top[size:]
        return self._top

    def _look_at_all(self) -> None:
        """Members changed, and with them perhaps the window: the newest are to be found among all."""
        born, own = self._born, self._own
        known = [slot for slot in range(len(self._cast)) if born[slot] != NEVER and slot != own]
        self._top = nlargest(self._most, known, key=born.__getitem__)
        self._heard = set()

    def _spend(self, slots: Sequence[int]) -> None:
        for slot in slots:
            left = self._urgent.get(slot, 0) - 1
            if left > 0:
                self._urgent[slot] = left
            else:
                self._urgent.pop(slot, None)

    def _keep_ms(self) -> int:
        n = max(2, len(self._cast))
        age_s = formulas.average_age(n, self.window) * self._config.interval_s
        return int(max(KEEP_LEAST_S, KEEP_AGES * age_s) * 1000)

    def _merge(self, window: codec.Window, t: float) -> None:
        born, serials, figures, heard = self._born, self._serials, self._figures, self._heard.add
        now, own, size, told = self._ms(t), self._own, codec.FIGURES_SIZE, window.figures
        oldest = now - self._keep_ms()
        slots = map(self._cast.slots.get, window.numbers, repeat(-1))
        for index, (slot, serial, age_ms) in enumerate(zip(slots, window.serials, window.ages_ms, strict=True)):
            held, when = born[slot], now - age_ms
            step = (serial - serials[slot]) & 0xFFFF
            if when <= held:
                if not 0 < step < 0x8000 or when <= held - RESTART_MS:
                    continue
            elif (not step or (step >= 0x8000 and when <= held + RESTART_MS)) and held != NEVER:
                continue
            if when < oldest or slot == own:
                continue
            born[slot], serials[slot] = when, serial
            heard(slot)
            new = told[index * size : index * size + size]
            if figures[slot] != new:  # else the old object stays: equal ones are kept once
                figures[slot] = new
        if window.urgent or window.own_urgent:
            self._pass_on(window.numbers[0 if window.own_urgent else 1 : window.urgent + 1], now)

    def _pass_on(self, numbers: Sequence[int], now: int) -> None:
        """Make urgent news of others urgent here too: with fresh sends, but once for each piece of news.

        Which entry of the node carried it does not matter, newer ones do as well; so a time of rest and not a serial
        tells a new piece from the old one's echo.
        """
        sends = formulas.urgent_sends(len(self._cast))
        rest_ms = round(1000 * self._config.interval_s) * (2 * sends + REST_MORE)
        for number in numbers:
            slot = self._cast.slots.get(number, self._own)
            if slot != self._own and self._born[slot] != NEVER and now >= self._rests.get(slot, NEVER):
                self._urgent[slot] = sends
                self._rests[slot] = now + rest_ms
