"""Who belongs to the cluster, in one place: what the board, the members and their pages all number by."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


class Cast:
    """The numbers of all members, oneself included, ascending; `slots` says where each stands.

    Never changed once made, so that all who need it share one (in the simulator: ten thousand nodes).
    """

    __slots__ = ("numbers", "slots")

    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers: tuple[int, ...] = tuple(sorted(set(numbers)))
        self.slots: dict[int, int] = {number: slot for slot, number in enumerate(self.numbers)}

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, number: int) -> bool:
        return number in self.slots

    def page(self, low: int, size: int) -> tuple[int, ...]:
        """Up to `size` numbers, from `low` on."""
        first = bisect_left(self.numbers, low)
        return self.numbers[first : first + size]


def cast_with(me: int, numbers: Iterable[int] | Cast) -> Cast:
    """The cast of these and oneself; one that is right already is taken as it is."""
    if isinstance(numbers, Cast) and me in numbers:
        return numbers
    return Cast((me, *(numbers.numbers if isinstance(numbers, Cast) else numbers)))
