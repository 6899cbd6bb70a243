"""How long a suspected node has to object: Lifeguard's shrinking timer (arXiv 1707.00788, memberlist)."""

from __future__ import annotations

from math import ceil, log, log10

from omcore.gossip.config import GossipConfig


def least_s(running: int, config: GossipConfig) -> float:
    """The shortest time to object, in seconds, with `running` nodes (memberlist: 4 * max(1, log10 n) * probe)."""
    return config.suspicion_mult * max(1.0, log10(max(1, running))) * config.probe_s


def retransmits(running: int, config: GossipConfig) -> int:
    """How often each holder passes a piece of membership news on: 4 * ceil(log10(n + 1))."""
    return config.retransmit_mult * ceil(log10(running + 1))


class Suspicion:
    """One node's time to object: long while one node alone suspects it, shorter with each that agrees.

    `deadline` = start + max - (max - least) * ln(c + 1) / ln(k + 1) after c of k independent confirmations.
    """

    __slots__ = ("_confirmed_by", "first", "_k", "_least_s", "_most_s", "start")

    def __init__(self, by: int, t: float, running: int, config: GossipConfig) -> None:
        self.start = t
        self.first = by
        self._confirmed_by: set[int] = set()
        self._least_s = least_s(running, config)
        self._most_s = self._least_s * config.suspicion_max_mult
        # too few others to confirm anything: do not wait for them
        self._k = config.confirmations if running - 2 >= config.confirmations else 0

    @property
    def deadline(self) -> float:
        """When the time is over, unless the node objects."""
        if self._k == 0:
            return self.start + self._least_s
        part = log(len(self._confirmed_by) + 1) / log(self._k + 1)
        return self.start + self._most_s - (self._most_s - self._least_s) * min(1.0, part)

    def confirm(self, by: int) -> bool:
        """Note that `by` suspects it too; True where that shortens the time."""
        if by == self.first or by in self._confirmed_by or len(self._confirmed_by) >= self._k:
            return False
        self._confirmed_by.add(by)
        return True

    def settle(self) -> None:
        """Somebody's time is over already: ours becomes the least."""
        self._k = 0
