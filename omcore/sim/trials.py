"""Little experiments, made often: how fast urgent news spreads, how soon a crash is known, who is blamed wrongly."""

from __future__ import annotations

from dataclasses import dataclass

from omcore.gossip import Board, GossipConfig, Members, NodeLost, NodeSuspected, formulas
from omcore.gossip.messages import KIND, Kind
from omcore.gossip.suspicion import least_s
from omcore.sim import clusters
from omcore.sim.net import SAMPLE, SimNet

LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds until each urgent item was everywhere, and how many nodes it never reached while it was urgent."""

    took_s: tuple[float, ...]
    missed: int
    asked: int  # items times nodes


@dataclass(frozen=True, slots=True)
class Crash:
    """Seconds after one crash: the first probe of the dead node, first suspicion, first and last verdict."""

    probed_s: float
    suspected_s: float
    first_s: float
    last_s: float
    everybody: bool


def spread(n: int, window: int, runs: int, *, seed: int = 1, loss: float = 0.0, look_s: float = LOOK_S) -> Spread:
    """Let `runs` nodes of a running cluster have urgent news, one after the other; wait as long as it is urgent."""
    net = clusters.boards(n, window, seed=seed, loss=loss, filled=True)
    net.run(2.0)
    every_s = 4 * (formulas.spread_time(n) + 8) / window  # so that urgent items take a quarter of a window
    limit_s = 2.0 * formulas.spread_time(n) + 10.0
    items: dict[int, float] = {}
    waiting: dict[int, set[int]] = {}
    took: list[float] = []
    missed, due = 0, net.t
    origins = net.rng.sample(range(n), runs)
    while origins or waiting:
        if origins and net.t >= due:
            number = origins.pop()
            due += every_s
            items[number] = net.t
            waiting[number] = set(range(n)) - {number}
            board = _board(net, number)
            board.refresh(SAMPLE, net.t)  # the news itself: what is newer than this has it
            board.urge(number)
        net.run(net.t + look_s)
        for number, since in list(items.items()):
            left = waiting[number]
            left -= {by for by in left if _heard_since(net, by, number, since)}
            if not left:
                took.append(net.t - look_s / 2 - since)
            elif net.t > since + limit_s:
                missed += len(left)
            else:
                continue
            del items[number], waiting[number]
    return Spread(tuple(took), missed, runs * (n - 1))


def crash(n: int, crashes: int, *, seed: int = 1, loss: float = 0.0, within_s: float = 1.0) -> list[Crash]:
    """Crash some nodes of a running cluster of failure detectors, at random times in `within_s`; wait for all."""
    net = clusters.members(n, seed=seed, loss=loss, filled=True)
    net.run(2.0)
    rng, config = net.rng, GossipConfig()
    at = {number: net.t + rng.random() * within_s for number in rng.sample(range(n), crashes)}
    probed: dict[int, float] = {}
    for number, when in at.items():
        net.at(when, lambda number=number: net.crash(number))  # type: ignore[misc]  # a lambda with a default

    def watch(by: int, to: int, data: bytes) -> None:
        if to in at and to not in probed and net.t >= at[to] and data[:2] == bytes((KIND, Kind.PING)):
            probed[to] = net.t - at[to]

    net.watch = watch
    net.run(net.t + within_s)
    until = net.t + 6 * least_s(n, config) + 20.0
    while net.t < until and len(net.lost()) < crashes * (n - crashes):
        net.run(net.t + 0.5)
    suspected: dict[int, float] = {}
    verdicts: dict[int, list[float]] = {number: [] for number in at}
    for t, by, event in net.events:
        if by in at or not isinstance(event, NodeSuspected | NodeLost):
            continue
        if isinstance(event, NodeSuspected):
            suspected.setdefault(event.number, t)
        else:
            verdicts.setdefault(event.number, []).append(t)
    return [
        Crash(
            probed_s=probed.get(number, until - when),
            suspected_s=suspected.get(number, until) - when,
            first_s=min(verdicts[number], default=until) - when,
            last_s=max(verdicts[number], default=until) - when,
            everybody=len(verdicts[number]) >= n - crashes and set(verdicts) == set(at),
        )
        for number, when in at.items()
    ]


def first_probes(n: int, crashes: int, *, seed: int = 1, for_s: float = 12.0) -> list[float]:
    """Seconds from a crash to the first probe of the dead node; a few crash at once, at a random time."""
    net = clusters.members(n, seed=seed, filled=True)
    net.run(2.0 + net.rng.random())
    began, dead = net.t, net.rng.sample(range(n), crashes)
    probed: dict[int, float] = {}

    def watch(by: int, to: int, data: bytes) -> None:
        if to in left and data[:2] == bytes((KIND, Kind.PING)):
            left.discard(to)
            probed[to] = net.t - began

    left = set(dead)
    for number in dead:
        net.crash(number)
    net.watch = watch
    while left and net.t < began + for_s:
        net.run(net.t + 0.25)
    return [probed.get(number, for_s) for number in dead]


def members_of(net: SimNet) -> list[Members]:
    """The failure detectors of a net of them."""
    return [node.core for node in net.nodes if isinstance(node.core, Members)]


def _board(net: SimNet, number: int) -> Board:
    board = net.nodes[number].board
    assert board is not None
    return board


def _heard_since(net: SimNet, by: int, number: int, since: float) -> bool:
    age = _board(net, by).age(number, net.t)
    return age is not None and net.t - age >= since - 0.002  # ages are whole milliseconds
