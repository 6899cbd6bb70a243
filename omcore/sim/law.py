"""The law of ages, to start a big cluster as if it had run for long: burning in takes 4 n/W intervals otherwise.

Own derivation, as `formulas.ode_average_age`: in the window news grows logistically up to the age limit T, beyond
it each message tells of W of n at random.  Stretched so that its mean is `formulas.average_age`.
"""

from __future__ import annotations

from math import log
from random import Random

from omcore.gossip import formulas

GREATEST = 1 - 1e-9  # share; what is rarer is not drawn


class AgeLaw:
    """Ages, in intervals, of others' entries at a node of a cluster that runs for long."""

    def __init__(self, n: int, window: int, loss: float = 0.0) -> None:
        self._n = n
        self._share = min(window, n) / n
        self._limit = formulas.age_limit(n, window) if window < n else 0.0
        mean = formulas.ode_average_age(n, min(window, n))
        self._stretch = formulas.average_age(n, min(window, n)) / max(mean, 0.5) / (1 - loss)

    def quantile(self, part: float) -> float:
        """The age that `part` (0 to 1) of the entries do not exceed."""
        n, share = self._n, self._share
        part = min(part, GREATEST)
        if part <= share or share >= 1:
            age = (n - 1) / n * log(max(1.0, part * (n - 1) / (1 - part)))
        else:
            age = self._limit - log((1 - part) / (1 - share)) / share
        return age * self._stretch

    def draw(self, rng: Random, count: int) -> list[float]:
        """So many ages at random."""
        return [self.quantile(rng.random()) for _ in range(count)]
