"""A simulated gossip from beginning to end: who knows what of whom, how old, and how soon the dead are known.

Order of things: warm up; crash some nodes where asked, and wait until all others know; measure ages and traffic;
cut the network in two halves where asked, and heal it.  The machines are those of the engine, and so are all
settings but the window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf, isfinite, log2
from statistics import fmean

from omcore.errors import UsageError
from omcore.gossip import Gossip, GossipConfig, NodeLost, NodeSuspected, Output, formulas
from omcore.gossip.codec import KIND
from omcore.gossip.suspicion import Suspicion, least_s
from omcore.sim.ages import Ages, measure
from omcore.sim.clusters import fixed, gossips
from omcore.sim.net import SimNet

MOST_NODES = 20_000
MOST_ROUNDS = 100_000
MOST_LOSS = 0.9
MOST_DEAD = 0.9
MOST_SPLIT_S = 36_000.0
PATIENCE = 1.5  # how many times the longest time to object the crashed are waited for
WARM_S = 10.0  # and n/W more: the start is drawn from the law of ages, see `law`
HEAL_STEP_S = 0.5
HEAL_WITHIN_S = 300.0
AFTER_HEAL_S = 10.0
SUSPECTED_S = 2.0  # after a crash, with the default probe of 1 s

Say = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate; raises UsageError that says what is allowed.  Durations in seconds = intervals."""

    nodes: int
    window: int | None = None  # None: as the engine chooses
    rounds: int = 30  # measured
    seed: int = 1
    loss: float = 0.0  # share of the messages
    dead: float = 0.0  # share of the nodes that crash
    split_s: float = 0.0  # how long the network is cut in halves

    def __post_init__(self) -> None:
        _within("-n", self.nodes, 2, MOST_NODES)
        if self.window is not None:
            _within("-w", self.window, 1, min(self.nodes, 4096))
        _within("--rounds", self.rounds, 1, MOST_ROUNDS)
        _within("--loss", self.loss, 0.0, MOST_LOSS)
        _within("--dead", self.dead, 0.0, MOST_DEAD)
        _within("--split", self.split_s, 0.0, MOST_SPLIT_S)
        if self.dead and self.nodes - self.crashes < 2:
            raise UsageError(f"--dead {self.dead:g} leaves fewer than 2 of {self.nodes} nodes.")

    @property
    def crashes(self) -> int:
        """How many nodes crash."""
        return max(1, round(self.dead * self.nodes)) if self.dead else 0


@dataclass(frozen=True, slots=True)
class Detection:
    """How the crashed became known, in seconds after the crash; means are over the crashed."""

    crashed: int
    suspected_s: float  # by the first node, mean
    first_s: float  # first verdict, mean
    first_p95_s: float
    everybody_s: float  # last node's verdict, mean
    everybody_most_s: float
    predicted_first_s: float  # the least time to object, and 2 s until enough suspect it
    missed: int  # pairs (node, crashed node) without a verdict when we stopped waiting


@dataclass(frozen=True, slots=True)
class Split:
    """What a cut in two halves did; ages are those within the halves in its second half."""

    for_s: float
    ages: Ages
    predicted: Expected  # for a cluster of half the size
    heal_s: float | None  # until each knows again that all run; None: not within HEAL_WITHIN_S


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one node sends in a second, on average; bytes of messages, without what the transport adds."""

    messages: float
    bytes: float
    board_messages: float
    board_bytes: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What the formulas say of these ages; None where they say nothing.  Loss makes all ages 1/(1-loss) greater."""

    average: float | None
    greatest: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found."""

    plan: Plan
    window: int
    ages: Ages
    predicted: Expected  # own formulas
    published: Expected  # those of 2009
    traffic: Traffic
    detection: Detection | None
    split: Split | None
    false_suspicions: int  # of nodes that ran and could be reached, counted at each node
    false_deaths: int


def predicted(n: int, window: int, loss: float = 0.0) -> Expected:
    """A_fit and A_max_fit; with a full window the oldest entry is about log2 n old (simulated: +0.0 to 0.35)."""
    window, scale = min(window, n), 1 / (1 - loss)
    greatest = (
        log2(n) + 0.2 if window == n else formulas.greatest_age(n, window) if n > 2 and window <= 0.6 * n else None
    )
    return Expected(scale * formulas.average_age(n, window), None if greatest is None else scale * greatest)


def published(n: int, window: int, loss: float = 0.0) -> Expected:
    """A_v and A_max of 2009, which know no full window (good for W <= 0.2 n)."""
    if window >= n or n < 3:
        return Expected(None, None)
    scale = 1 / (1 - loss)
    return Expected(
        scale * formulas.published_average_age(n, window), scale * formulas.published_greatest_age(n, window)
    )


def simulate(plan: Plan, say: Say = lambda what, part: None) -> Report:
    """Run it.  `say` is told what goes on and which part of it is done."""
    return _Run(plan, say).report()


class _Run:
    def __init__(self, plan: Plan, say: Say) -> None:
        config = GossipConfig() if plan.window is None else fixed(plan.window)
        self.plan = plan
        self.window = formulas.window_size(plan.nodes, config.window_min, config.window_max)
        self._say = say
        say("making the nodes", 0.0)
        self.net: SimNet = gossips(plan.nodes, seed=plan.seed, loss=plan.loss, config=config, filled=True)
        self._suspicions = 0
        self._deaths = 0

    def report(self) -> Report:
        plan, net = self.plan, self.net
        self._pass("warming up", WARM_S + plan.nodes / self.window)
        self._judge()
        detection = self._crash() if plan.crashes else None
        messages, octets = net.messages.copy(), net.octets.copy()
        began, live = net.t, len(net.live())
        ages = self._measure("measuring", plan.rounds)
        self._judge()
        messages.subtract(net.messages)
        octets.subtract(net.octets)
        each = -1 / (live * (net.t - began))
        traffic = Traffic(each * messages.total(), each * octets.total(), each * messages[KIND], each * octets[KIND])
        split = self._cut() if plan.split_s else None
        law = (live, self.window, plan.loss)
        return Report(
            plan=plan,
            window=self.window,
            ages=ages,
            predicted=predicted(*law),
            published=published(*law),
            traffic=traffic,
            detection=detection,
            split=split,
            false_suspicions=self._suspicions,
            false_deaths=self._deaths,
        )

    def _measure(self, what: str, for_s: float, among: list[int] | None = None) -> Ages:
        return measure(self.net, for_s, among, lambda part: self._say(what, part))

    def _pass(self, what: str, for_s: float) -> None:
        steps = max(1, ceil(for_s))
        for step in range(steps):
            self._say(what, step / steps)
            self.net.run(self.net.t + for_s / steps)

    def _judge(self) -> list[tuple[float, int, Output]]:
        """Count the false verdicts among the events so far, and hand back the others."""
        right = []
        part = self.net.part
        for event in self.net.events:
            _, by, what = event
            if not isinstance(what, NodeSuspected | NodeLost):
                continue
            crashed = not self.net.nodes[what.number].alive
            if crashed or (part is not None and part(by) != part(what.number)):
                right.append(event)
            elif isinstance(what, NodeLost):
                self._deaths += 1
            else:
                self._suspicions += 1
        self.net.events.clear()
        return right

    def _crash(self) -> Detection:
        net, plan = self.net, self.plan
        began, config = net.t, GossipConfig()
        crashed = net.rng.sample(range(plan.nodes), plan.crashes)
        for number in crashed:
            net.crash(number)
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        suspected: dict[int, float] = {}
        left = verdicts = plan.crashes * len(net.live())
        until = began + PATIENCE * Suspicion(0, 0.0, plan.nodes, config).deadline
        while left > 0 and net.t < until:
            self._say("waiting until all know of the crashes", 1 - left / verdicts)
            net.run(net.t + 1.0)
            for t, _, what in self._judge():
                if isinstance(what, NodeSuspected):
                    suspected.setdefault(what.number, t - began)
                elif isinstance(what, NodeLost):
                    first.setdefault(what.number, t - began)
                    last[what.number] = t - began
                    left -= 1
        ordered = sorted(first.values()) or [inf]
        return Detection(
            crashed=plan.crashes,
            suspected_s=fmean(suspected.values()) if suspected else inf,
            first_s=fmean(ordered),
            first_p95_s=ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
            everybody_s=fmean(last.values()) if last else inf,
            everybody_most_s=max(last.values(), default=inf),
            predicted_first_s=least_s(plan.nodes, config) + SUSPECTED_S,
            missed=left,
        )

    def _cut(self) -> Split:
        net, plan = self.net, self.plan
        middle = plan.nodes // 2
        net.part = lambda number: int(number < middle)
        half = plan.split_s / 2
        self._pass("cut in two", half)
        sides = (
            [number for number in net.live() if number < middle],
            [number for number in net.live() if number >= middle],
        )
        side = max(sides, key=len)
        ages = self._measure("cut in two, measuring", half, side)
        self._judge()
        net.part = None
        healed, heal_s = net.t, None
        live = net.live()
        while net.t < healed + HEAL_WITHIN_S:
            if all(self._running(number) >= len(live) for number in live):
                heal_s = net.t - healed
                break
            self._say("healing", 0.0)
            net.run(net.t + HEAL_STEP_S)
        net.events.clear()  # suspicions of the other side that were on their way are nobody's fault
        self._pass("healed", AFTER_HEAL_S)
        self._judge()
        return Split(plan.split_s, ages, predicted(len(side), self.window, plan.loss), heal_s)

    def _running(self, number: int) -> int:
        core = self.net.nodes[number].core
        assert isinstance(core, Gossip)
        return core.members.running


def _within(flag: str, value: float, low: float, high: float) -> None:
    if not isfinite(value) or not low <= value <= high:
        raise UsageError(f"{flag} must be from {low:g} to {high:g}, not {value:g}.")
