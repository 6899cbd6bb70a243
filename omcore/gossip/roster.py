"""Who is thought to run and who is not, ready for drawing one at random without a walk through all."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


class Pool:
    """A set of node numbers with a random draw in constant time."""

    __slots__ = ("_at", "_items")

    def __init__(self) -> None:
        self._items: list[int] = []
        self._at: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, number: int) -> bool:
        return number in self._at

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)

    def add(self, number: int) -> None:
        """Put it in; nothing happens where it is in already."""
        if number not in self._at:
            self._at[number] = len(self._items)
            self._items.append(number)

    def discard(self, number: int) -> None:
        """Take it out where it is in; the last one takes its place."""
        at = self._at.pop(number, None)
        if at is None:
            return
        last = self._items.pop()
        if last != number:
            self._items[at] = last
            self._at[last] = at

    def pick(self, rng: Random) -> int:
        """One of them at random; there must be one."""
        return self._items[rng.randrange(len(self._items))]

    def draw(self, rng: Random, k: int, without: int | None = None) -> list[int]:
        """Up to `k` different numbers at random, none of them `without`."""
        if k >= len(self._items) - (without in self._at):
            rest = [number for number in self._items if number != without]
            rng.shuffle(rest)
            return rest
        drawn = rng.sample(self._items, min(len(self._items), k + 1))
        return [number for number in drawn if number != without][:k]


class Roster:
    """All members but oneself, split into alive (suspects included) and down (never heard, dead, left)."""

    __slots__ = ("alive", "down")

    def __init__(self, alive: Pool | None = None) -> None:
        self.alive = Pool() if alive is None else alive
        self.down = Pool()

    def __len__(self) -> int:
        return len(self.alive) + len(self.down)

    @property
    def running(self) -> int:
        """Nodes thought to run, oneself included."""
        return len(self.alive) + 1

    def raise_up(self, number: int) -> None:
        """From now on it counts as alive."""
        self.down.discard(number)
        self.alive.add(number)

    def lower(self, number: int) -> None:
        """From now on it counts as down."""
        self.alive.discard(number)
        self.down.add(number)

    def remove(self, number: int) -> None:
        """It is no member any more."""
        self.alive.discard(number)
        self.down.discard(number)

    def target(self, rng: Random) -> int | None:
        """The node to gossip to, by the rule `mindead` of gossimon; None where there is nobody.

        An alive one; with probability 1/max(5, alive) any, so that about one message per interval in the whole
        cluster tries a dead node and finds a healed partition.
        """
        alive, total = len(self.alive), len(self)
        if total == 0:
            return None
        if alive == 0 or rng.random() < 1 / max(5, alive):
            return (self.alive if rng.randrange(total) < alive else self.down).pick(rng)
        return self.alive.pick(rng)
