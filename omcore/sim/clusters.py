"""Whole clusters of the real machines, ready to run: boards alone, failure detectors alone, or both as in an engine.

With `filled` they start as if they had run for long: all know each other to run, and the boards hold news of the
ages that the law predicts.  Filled nodes share what is alike at all of them, so that ten thousand fit in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from operator import sub
from random import Random

from omcore.gossip import Board, Gossip, GossipConfig, Members, formulas
from omcore.gossip.cast import Cast
from omcore.gossip.roster import Pool, Roster
from omcore.sim.law import AgeLaw
from omcore.sim.net import SAMPLE, SimNet

LAN_S = (0.001, 0.005)
SERIAL = 30000  # of everybody's newest sample at the start
DECK = 1_000_000  # ages drawn in advance; each node takes a stretch of them


class AllBut(Pool):
    """The numbers of a cast but a few: a set kept as what is missing.  Good while most are in it."""

    __slots__ = ("_cast", "_missing")

    def __init__(self, cast: Cast, missing: int) -> None:
        super().__init__()
        self._cast = cast
        self._missing = {missing}

    def __len__(self) -> int:
        return len(self._cast) - len(self._missing)

    def __contains__(self, number: int) -> bool:
        return number not in self._missing and number in self._cast

    def __iter__(self) -> Iterator[int]:
        return (number for number in self._cast.numbers if number not in self._missing)

    def add(self, number: int) -> None:
        """Put it in."""
        self._missing.discard(number)

    def discard(self, number: int) -> None:
        """Take it out."""
        if number in self._cast:
            self._missing.add(number)

    def pick(self, rng: Random) -> int:
        """One of them at random; there must be one."""
        numbers, missing = self._cast.numbers, self._missing
        while (number := numbers[int(rng.random() * len(numbers))]) in missing:
            pass
        return number

    def draw(self, rng: Random, k: int, without: int | None = None) -> list[int]:
        """Up to `k` different numbers at random, none of them `without`."""
        if 2 * (k + 1) >= len(self):
            rest = [number for number in self if number != without]
            rng.shuffle(rest)
            return rest[:k]
        drawn: list[int] = []
        while len(drawn) < k:
            number = self.pick(rng)
            if number != without and number not in drawn:
                drawn.append(number)
        return drawn


class Start:
    """What a filled cluster of `n` begins with: the cast, each node's phase, and its entries."""

    def __init__(self, n: int, window: int, rng: Random, loss: float = 0.0) -> None:
        self.cast = Cast(range(n))
        self.phases = [rng.random() for _ in range(n)]
        law = AgeLaw(n, window, loss)
        size = max(2 * n, min(DECK, 200 * n))
        deck = [int(age) for age in law.draw(rng, size)]  # whole intervals before the owner's newest sample
        self._behind_ms = array("q", [1000 * behind for behind in deck])
        self._serials = array("H", [(SERIAL - behind) & 0xFFFF for behind in deck])
        self._newest_ms = [round(1000 * (phase - 1)) for phase in self.phases]
        self._rng = rng

    def fill(self, board: Board) -> None:
        """Give one board its entries; the first message goes at the node's phase."""
        n, me = len(self.cast), board.me
        first = self._rng.randrange(len(self._behind_ms) - n + 1)
        born = array("q", map(sub, self._newest_ms, self._behind_ms[first : first + n]))
        serials = self._serials[first : first + n]
        born[me], serials[me] = self._newest_ms[me], SERIAL
        board.fill(self.cast, born, serials, SAMPLE, self.phases[me])


def fixed(window: int) -> GossipConfig:
    """A window of just this size, whatever n."""
    return GossipConfig(window_min=window, window_max=window)


def boards(
    n: int,
    window: int,
    *,
    seed: int = 1,
    loss: float = 0.0,
    filled: bool = False,
    config: GossipConfig | None = None,
) -> SimNet:
    """Boards alone, with a window of exactly `window`, nobody down, and messages that take no time.

    Another `config` counts instead of `window`, which then says only from which law to fill the boards.
    """
    window = min(window, n)
    settings, start = config or fixed(window), Start(n, window, Random(seed), loss) if filled else None

    def make(number: int, rng: Random) -> Board:
        if start is not None:
            board = Board(number, settings, rng, Roster(AllBut(start.cast, number)))
            start.fill(board)
        else:
            board = Board(number, settings, rng)
            board.set_members(range(n))
        return board

    return SimNet(n, make, seed=seed, loss=loss)


def members(
    n: int, *, seed: int = 1, loss: float = 0.0, config: GossipConfig | None = None, filled: bool = False
) -> SimNet:
    """Failure detectors alone, on a LAN of 1 to 5 ms."""
    settings, cast = config or GossipConfig(), Cast(range(n))

    def make(number: int, rng: Random) -> Members:
        if filled:
            machine = Members(number, settings, rng, roster=Roster(AllBut(cast, number)))
            machine.fill(cast)
        else:
            machine = Members(number, settings, rng)
            machine.set_members(cast)
        return machine

    return SimNet(n, make, seed=seed, loss=loss, delay_s=LAN_S)


def gossips(
    n: int, *, seed: int = 1, loss: float = 0.0, config: GossipConfig | None = None, filled: bool = False
) -> SimNet:
    """Whole gossip machines, as in an engine, on a LAN of 1 to 5 ms."""
    settings = config or GossipConfig()
    start: Start | None = None
    if filled:
        window = formulas.window_size(n, settings.window_min, settings.window_max)
        start = Start(n, window, Random(seed), loss)

    def make(number: int, rng: Random) -> Gossip:
        if start is None:
            machine = Gossip(number, settings, rng)
            machine.set_members(range(n))
            return machine
        machine = Gossip(number, settings, rng, roster=Roster(AllBut(start.cast, number)))
        machine.members.fill(start.cast)
        start.fill(machine.board)
        return machine

    return SimNet(n, make, seed=seed, loss=loss, delay_s=LAN_S)
