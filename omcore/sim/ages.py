"""How old the news on the boards of a simulated cluster is, measured while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import compress
from math import inf
from statistics import fmean

from omcore.sim.net import SimNet

STEP_S = 0.73  # between two looks: no divisor of the interval, so that no phase is preferred
ENTRIES_A_LOOK = 2_000_000  # of more nodes than that a part is looked at, another one each time
POOL = 400_000  # ages kept for the percentiles


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds; `greatest` is the mean over nodes of the oldest entry, `unknown` the share of entries never heard."""

    average: float
    greatest: float
    p50: float
    p90: float
    p99: float
    unknown: float


def measure(
    net: SimNet, for_s: float, among: Iterable[int] | None = None, say: Callable[[float], None] = lambda part: None
) -> Ages:
    """Ages of what the nodes `among` (all that run) know of each other, over `for_s` seconds from now.

    `say` is told which part of it is done.
    """
    chosen = net.live() if among is None else list(among)
    mask = [False] * len(net.nodes)
    for number in chosen:
        mask[number] = True
    everybody = all(mask)
    looked = min(len(chosen), max(64, ENTRIES_A_LOOK // len(net.nodes)))
    looks = max(1, int(for_s / STEP_S))
    stride = max(1, looks * looked * len(chosen) // POOL)
    averages: list[float] = []
    oldest: list[float] = []
    pool: list[float] = []
    known = 0
    for look in range(looks):
        say(look / looks)
        net.run(net.t + STEP_S)
        for number in net.rng.sample(chosen, looked):
            node = net.nodes[number]
            assert node.board is not None
            ages = node.board.ages(node.clock(net.t))
            if not everybody:
                ages = list(compress(ages, mask[:number] + mask[number + 1 :]))
            found = ages if max(ages) < inf else [age for age in ages if age < inf]
            known += len(found)
            if found:
                averages.append(fmean(found))
                oldest.append(max(found))
                pool += found[net.rng.randrange(stride) :: stride]
    pool.sort()
    return Ages(
        average=fmean(averages),
        greatest=fmean(oldest),
        p50=_quantile(pool, 0.5),
        p90=_quantile(pool, 0.9),
        p99=_quantile(pool, 0.99),
        unknown=1 - known / (looks * looked * max(1, len(chosen) - 1)),
    )


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
