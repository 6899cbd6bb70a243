"""What a right gossip should show: average and greatest age of a load entry, in gossip intervals (u).

n is the number of nodes (self included), W the window (entries per message), X the entries younger than T.
`published_*` are the formulas of Amar, Barak, Drezner & Okun (CPE 21:1907, 2009) as their code has them
(libgossip/gossiplib.c); `*_ode` and `*_fit` are our own mean-field derivation (logistic growth up to the age
limit, exponential tail after it), fitted to a reference simulation.
"""

from __future__ import annotations

from math import ceil, exp, log

EULER = 0.5772156649
CHANCE = 1e-4  # of a figure that is well to look stale


def window_size(n: int, low: int = 32, high: int = 512) -> int:
    """How many entries a message carries: an eighth of the nodes, at least `low`, at most `high`, never over n.

    Source: own choice; an eighth costs 5.4 u over the full vector, less than a sixteenth makes age grow as n/W.
    """
    if n < 1:
        raise ValueError(f"{n=}")
    return min(n, max(low, min(high, ceil(n / 8))))


def entries_within(n: int, age: float) -> float:
    """X(T): entries a node holds that are at most `age` u old, itself included (2009)."""
    _need(n, 1)
    growth = exp(n * age / (n - 1))
    return n * growth / (n - 1 + growth)


def age_limit(n: int, window: int) -> float:
    """T(W): the age limit, in u, that lets through as many entries as a fixed window of W < n (2009)."""
    _need(n, window)
    if window >= n:
        raise ValueError(f"{window=} must be less than {n=}")
    return (n - 1) / n * log(window * (n - 1) / (n - window))


def published_window_age(n: int, window: int) -> float:
    """A_w: average age in u of the entries inside the window (2009)."""
    limit = age_limit(n, window)
    growth = exp(n * limit / (n - 1))
    return limit - (n - 1) / entries_within(n, limit) * (log(n - 1 + growth) - log(n))


def published_average_age(n: int, window: int) -> float:
    """A_v: average age in u of the whole vector (2009); good only for W <= 0.2 n, up to 20 % high above."""
    hit = 1 - (1 - 1 / (n - 1)) ** entries_within(n, age_limit(n, window))
    return float(1 / hit) + published_window_age(n, window)


def published_greatest_age(n: int, window: int) -> float:
    """A_max: expected age in u of the oldest entry at a node (2009)."""
    return -(log(n) + EULER) / (entries_within(n, age_limit(n, window)) * log(1 - 1 / (n - 1)))


def entries_up_to(n: int, window: int, age: float) -> float:
    """N(<=t): entries at most `age` u old, for ages beyond the window's own limit T(W) (2009)."""
    limit = age_limit(n, window)
    if age <= limit:
        raise ValueError(f"{age=} must be over {limit=}")
    miss = (1 - 1 / (n - 1)) ** (entries_within(n, limit) * (age - published_window_age(n, window)))
    return float(n * (1 - miss))


def ode_average_age(n: int, window: float) -> float:
    """A_ode: average age in u for age windows (exact to 2 %), a lower bound for fixed ones (own derivation)."""
    _need(n, window)
    return (1 - 1 / n) * (log(window) + n / window - 1)


def average_age(n: int, window: int) -> float:
    """A_fit: average age in u with a fixed window W: the figure to expect.

    Error <= 0.2 % for n >= 1024, 0.5 % at n=128, -2..-4 % at n=16.  Own derivation, fitted to simulation.
    """
    share = window / n
    return ode_average_age(n, window) + 0.085 + (1 - share) * (0.18 + 0.40 * (1 - share))


def greatest_age(n: int, window: int) -> float:
    """A_max_fit: expected age in u of a node's oldest entry; within 3 % for W <= 0.6 n (own fit)."""
    inside = entries_within(n, age_limit(n, window))
    tail = age_limit(n, window) + (log(n - inside) + EULER) * (n - 1) / inside
    return (published_greatest_age(n, window) + tail) / 2


def spread_time(n: int) -> float:
    """2 ln n: u until an urgent item is known everywhere, nodes unsynchronised (simulated; the authors' constant)."""
    return 2 * log(n)


def urgent_sends(n: int) -> int:
    """How often each holder puts an urgent item first: ceil(2 ln n) + 3 (no node missed in 640 simulated runs)."""
    return ceil(2 * log(max(1, n))) + 3


def stale_after(n: int, window: int, interval_s: float, least_s: float = 3.0) -> float:
    """Seconds after which a load figure counts as stale: an age that chance alone gives one entry in 10,000.

    Beyond the average the ages fall off exponentially, by the share of the others that one message tells of in each
    interval (own derivation; simulated q99.99 at n = 3, 16, 64: 8.0, 11.1, 21.6 u; this gives 10.0, 11.9, 22.8).
    """
    if n < 3:  # the only other node is told each time
        return least_s
    window = min(window, n)
    told = min(window, n - 1) / (n - 1)
    return max(least_s, (average_age(n, window) - log(CHANCE) / told) * interval_s)


def _need(n: int, window: float) -> None:
    if n < 2 or not 1 <= window <= n:
        raise ValueError(f"{n=} {window=}")
