"""`make bench-gossip`: the gossip's numbers at full size, measured beside what was published or simulated elsewhere.

Prints a row a number, as it comes, and ends with 1 if one is out of its bounds.  About a quarter of an
hour, and 6 GB of memory, on two free cores.
bench_gossip.py [ages] [big] [spread] [crash] [faults] [cost] [serf]    only these

Sources: "published" are Levy, Barak et al. (ROSS 2014) and Amar, Barak et al. (2009); "reference" is an independent
simulation of the same rules; "promised" is this project's own bound.  u is one gossip interval, here a second.
"""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import inf
from random import Random
from statistics import fmean
from time import process_time

from omcore.gossip import Board, Gossip, GossipConfig, Send, Status, codec, formulas
from omcore.gossip.messages import Kind, Message, Record, pack
from omcore.gossip.suspicion import least_s
from omcore.sim import Plan, simulate
from omcore.sim.ages import Ages, measure
from omcore.sim.clusters import boards, gossips, members
from omcore.sim.net import SAMPLE, SimNet
from omcore.sim.trials import crash, first_probes, members_of, spread

CONFIG = GossipConfig()


@dataclass(frozen=True, slots=True)
class Row:
    """One number: what was measured, what it is held against, and the bounds it must keep."""

    check: int  # of the project's list of acceptance checks; 0: none
    what: str
    value: float
    reference: float
    low: float
    high: float
    source: str

    @property
    def kept(self) -> bool:
        """Whether it is within its bounds."""
        return self.low <= self.value <= self.high


def near(check: int, what: str, value: float, reference: float, part: float, source: str = "reference") -> Row:
    """Within this part of the reference."""
    return Row(check, what, value, reference, reference * (1 - part), reference * (1 + part), source)


def most(check: int, what: str, value: float, limit: float, source: str = "promised") -> Row:
    """Not over the limit."""
    return Row(check, what, value, limit, -inf, limit, source)


def aged(net: SimNet, warm_s: float, for_s: float) -> Ages:
    """Ages after warming up."""
    net.run(net.t + warm_s)
    return measure(net, for_s)


# --- ages -------------------------------------------------------------------------------------------------------


def ages_1024(window: int, average: float) -> list[Row]:
    """Check 1: the published table."""
    found = aged(boards(1024, window, filled=True), 10 + 1024 / window, 30)
    return [near(1, f"average age, n=1024 W={window}", found.average, average, 0.02, "published")]


def ages_small(n: int, window: int, average: float, greatest: float) -> list[Row]:
    """Check 2: small clusters."""
    parts = (0.08, 0.12) if n < 128 else (0.03, 0.08)
    found = aged(boards(n, window, filled=True), 10 + 4 * n / window, 600 if n < 128 else 120)
    return [
        near(2, f"average age, n={n} W={window}", found.average, average, parts[0]),
        near(2, f"oldest entry, n={n} W={window}", found.greatest, greatest, parts[1]),
    ]


def ages_big(window: int, average: float, greatest: float) -> list[Row]:
    """Checks 3 and 6: ten thousand nodes."""
    n = 10_000
    net = boards(n, window, filled=True)
    net.run(10.0 + n / window)
    sent, size, began = net.sent, net.bytes_sent, net.t
    before = [node.received for node in net.nodes]
    crowded = rounds = 0
    found: list[Ages] = []
    for _ in range(30):
        was = [node.received for node in net.nodes]
        found.append(measure(net, 1.0))  # one look
        net.run(began + len(found))
        rounds += 1
        crowded += max(node.received - had for node, had in zip(net.nodes, was, strict=True)) > 8
    got = fmean(node.received - had for node, had in zip(net.nodes, before, strict=True)) / rounds
    per_message = (net.bytes_sent - size) / (net.sent - sent)
    return [
        near(3, f"average age, n={n} W={window}", fmean(one.average for one in found), average, 0.02),
        near(3, f"oldest entry, n={n} W={window}", fmean(one.greatest for one in found), greatest, 0.06),
        near(6, f"sent per node and u, n={n} W={window}", (net.sent - sent) / n / rounds, 1.0, 0.0001),
        near(6, f"received per node and u, n={n} W={window}", got, 1.0, 0.01),
        most(6, f"u in which a node got over 8, of {rounds}", crowded, 3),
        most(6, f"bytes of a message, W={window}", per_message, 90 + 48 * window),
    ]


def ages_any(n: int, window: int) -> list[Row]:
    """Check 4: the formula holds for any n and W."""
    found = aged(boards(n, window, filled=True), 10 + 2 * n / window, 40)
    reference = formulas.average_age(n, window)
    return [near(4, f"average age, n={n} W={window}", found.average, reference, 0.025, "formula A_fit")]


def ages_by_age(n: int, limit_s: float) -> list[Row]:
    """Check 4: windows by age instead of by number."""
    reference = formulas.entries_within(n, limit_s)
    held, ages = [], []
    for seed in range(1, 6 if n < 1000 else 2):  # phases stay as they were drawn, so small clusters differ
        config = GossipConfig(window_age_s=limit_s)
        net = boards(n, round(reference), seed=seed, filled=True, config=config)
        net.run(10 + 4 * n / reference)
        sent, size = net.sent, net.bytes_sent
        ages.append(measure(net, 40).average)
        held.append(((net.bytes_sent - size) / (net.sent - sent) - codec.HEAD.size) / codec.ENTRY_SIZE)
    ode = formulas.ode_average_age(n, reference)
    return [
        near(4, f"entries in an age window, n={n} T={limit_s:g}", fmean(held), reference, 0.04, "formula X(T)"),
        near(4, f"average age, n={n} T={limit_s:g}", fmean(ages), ode, 0.03, "formula A_ode"),
    ]


def ages_lossy() -> list[Row]:
    """Check 5: loss, and dead targets."""
    n, window, for_s = 128, 32, 150.0
    clean = aged(boards(n, window, filled=True), 20, for_s).average
    rows = []
    for loss, factor in ((0.05, 1.05), (0.2, 1.26)):
        lossy = aged(boards(n, window, loss=loss, filled=True), 20, for_s).average
        rows.append(near(5, f"age with {loss:.0%} loss, times that without", lossy / clean, factor, 0.03))
    for known in (True, False):
        if known:
            net = gossips(2 * n, config=GossipConfig(window_min=window, window_max=window), filled=True)
        else:
            net = boards(2 * n, window, filled=True)
        for number in range(n, 2 * n):
            net.crash(number)
        got = aged(net, 60, 40).average / clean
        if known:
            rows.append(near(5, "age with half of the targets dead, and avoided", got, 1.0, 0.10))
        else:
            rows.append(Row(5, "age with half of the targets dead, not avoided", got, 2.05, 1.9, 2.2, "reference"))
    return rows


def ages_skewed() -> list[Row]:
    """Check 8: clocks that are off, drift, and are set back."""
    n, window = 128, 32
    plain, skewed = boards(n, window), boards(n, window)
    rng = Random(5)
    for node in skewed.nodes:
        node.skew_s, node.drift = rng.uniform(-3600, 3600), rng.uniform(-1e-4, 1e-4)
    ratio = aged(skewed, 30, 120).average / aged(plain, 30, 120).average
    plain.set_clock(3, -3600.0)
    plain.run(plain.t + 2 * formulas.average_age(n, window))
    oldest = max(max(node.board.ages(node.clock(plain.t))) for node in plain.nodes if node.board is not None)
    return [
        near(8, "age with clocks 1 h off and 100 ppm, ratio", ratio, 1.0, 0.01),
        most(8, "oldest entry anywhere after a step back of 1 h", oldest, 60.0),
    ]


# --- urgent news, crashes, faults -----------------------------------------------------------------------------------


def spread_at(n: int, reference: float) -> list[Row]:
    """Check 7: urgent news."""
    found = spread(n, formulas.window_size(n), 16 if n == 16 else 30)
    took = list(found.took_s)
    if n == 16:
        took += spread(n, 16, 14, seed=2).took_s
    bound = max(1.0, 0.1 * reference)
    mean = fmean(took)
    return [
        Row(
            7,
            f"urgent news everywhere, n={n}, mean",
            mean,
            reference,
            reference - bound,
            reference + bound,
            "reference",
        ),
        most(7, f"urgent news everywhere, n={n}, worst of 30", max(took), formulas.spread_time(n) + 8),
    ]


def spread_lossy() -> list[Row]:
    """Check 7: the urgent phase alone (a window of two carries hardly anything else), with loss."""
    found = [spread(n, 2, runs, loss=0.01, look_s=0.5) for n, runs in ((128, 120), (1024, 15))]
    share = sum(one.missed for one in found) / sum(one.asked for one in found)
    return [most(7, "nodes missed at 1 % loss, share", share, 1e-4, "reference")]


def crash_at(n: int, runs: int, each: int, first_s: float, last_s: float) -> list[Row]:
    """Check 9: from a crash to the verdict."""
    found = [one for seed in range(runs) for one in crash(n, each, seed=seed)]
    assert all(one.everybody for one in found), "somebody never heard of a crash, or somebody was lost wrongly"
    least = least_s(n, CONFIG)
    return [
        near(9, f"crash to first verdict, n={n}, mean", fmean(one.first_s for one in found), first_s, 0.15),
        Row(9, f"suspicion to first verdict, n={n}, least",
            min(one.first_s - one.suspected_s for one in found), least, least - 1e-3, inf, "promised"),
        most(9, f"first verdict to last, n={n}, worst", max(one.last_s - one.first_s for one in found), 4.0),
        most(9, f"crash known to all, n={n}, mean", fmean(one.last_s for one in found), last_s * 1.15, "reference"),
    ]  # fmt: skip


def probes_at(n: int, runs: int, each: int) -> list[Row]:
    """Check 9: from a crash to the first probe of the dead node."""
    found = [one for seed in range(runs) for one in first_probes(n, each, seed=seed)]
    mean = fmean(found)
    return [Row(9, f"crash to first probe, n={n}, {len(found)} crashes", mean, 1.0, 0.85, 1.15, "reference")]


def false_blame() -> list[Row]:
    """Check 10: a million probes with 5 % loss."""
    net, lost = members(64, loss=0.05, filled=True), 0
    while sum(one.probes for one in members_of(net)) < 1_000_000:
        net.run(net.t + 100.0)
        lost += len(net.lost())
        net.events.clear()
    probes, accusations = (sum(getattr(one, what) for one in members_of(net)) for what in ("probes", "accusations"))
    return [
        near(10, "false suspicion per probe at 5 % loss", accusations / probes, 6.2e-4, 0.25, "formula"),
        most(10, "false deaths in a million probes", lost, 0),
    ]


def frozen() -> list[Row]:
    """Check 10: frozen and starved nodes."""
    lost = starved_lost = 0
    for n, seed in [(16, seed) for seed in range(40)] + [(128, seed) for seed in range(6)]:
        net = members(n, seed=seed, loss=0.05, filled=True)
        net.run(5.0 + 0.23 * seed)
        net.freeze(1, 3.0)
        net.run(net.t + 30.0)
        lost += len(net.lost())
    net = members(60, seed=6, filled=True)
    starving = set(net.rng.sample(range(60), 6))

    def starve(number: int) -> None:
        net.freeze(number, net.rng.uniform(0.3, 1.5))
        net.at(net.t + net.rng.uniform(1.5, 2.0), lambda: starve(number))

    for number in starving:
        starve(number)
    net.run(600.0)
    starved_lost = sum(number not in starving for _, _, number in net.lost())
    return [
        most(10, "nodes frozen for 3 s declared dead, of 46", lost, 0),
        most(10, "healthy ones declared dead beside 10 % starved", starved_lost, 0),
    ]


def split() -> list[Row]:
    """Check 21: the network is cut in halves for a minute."""
    n, window = 256, 32
    found = simulate(Plan(n, window, rounds=5, split_s=60.0)).split
    assert found is not None
    limit, reference = formulas.spread_time(n) + CONFIG.digest_s, formulas.average_age(n // 2, window)
    return [
        near(21, f"average age in a half of {n}, W={window}", found.ages.average, reference, 0.03, "formula A_fit"),
        most(21, f"all known alive after the heal, n={n}", inf if found.heal_s is None else found.heal_s, limit),
    ]


# --- cost -----------------------------------------------------------------------------------------------------------


def cost() -> list[Row]:
    """Check 20: CPU and memory at ten thousand nodes."""
    n = 10_000
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    node = Gossip(0, CONFIG, Random(1))
    node.set_members(range(n))
    rng, figures = Random(2), codec.pack_figures(SAMPLE)
    node.tick(0.0)
    for low in range(1, n, 250):
        numbers = range(low, min(n, low + 250))
        page = tuple(Record(Status.ALIVE, number, 1, number) for number in numbers)
        node.receive(pack(Message(Kind.PAGE, 1, low, numbers[-1], page)), 1, 0.0)
        ages = [0, *(int(rng.expovariate(1 / 20000)) for _ in numbers[1:])]
        node.receive(codec.pack_window(ages, numbers, [7] * len(numbers), [figures] * len(numbers), 0, False), low, 0.0)
    assert node.members.running == n
    assert len(node.board.entries(0.0)) == n - 1
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    del node
    net = boards(n, 512, filled=True)
    spent: list[float] = []
    sending: list[float] = []
    sender, receiver = net.nodes[0].board, net.nodes[1].board
    assert isinstance(sender, Board)
    assert isinstance(receiver, Board)
    others = [net.nodes[2 + at].board for at in range(24)]
    now = 1.0
    for other in others:
        assert other is not None
        now += 1.0
        other.refresh(SAMPLE, now)
        told = [out.data for out in other.tick(now) if isinstance(out, Send)][-1]
        sender.receive(told, other.me, now)
        begun = process_time()
        sender.refresh(SAMPLE, now)
        data = [out.data for out in sender.tick(now) if isinstance(out, Send)][-1]
        sending.append(process_time() - begun)
        begun = process_time()
        receiver.receive(data, 0, now)
        spent.append(process_time() - begun)
    merge, send = sorted(spent)[len(spent) // 2], sorted(sending)[len(sending) // 2]
    return [
        most(20, "merging a message, n=10000 W=512, ms", 1000 * merge, 5.0),
        most(20, "a second's gossip: refresh, send, merge, ms", 1000 * (merge + send), 10.0),
        most(20, "state of a node, n=10000, MB", size / 1e6, 5.0),
    ]


def against_serf(n: int) -> list[Row]:
    """Not a check of the list: how soon a killed node of `n` is known to all, real engines beside serf, right here."""
    from tools import engines, serf

    simulated = fmean(one.last_s for seed in range(30) for one in crash(n, 1, seed=seed))
    ours, theirs = engines.known_everywhere(n), serf.known_everywhere(n)
    if theirs is None:
        print("serf is not installed (Debian: apt-get install serf): no side-by-side", flush=True)
        theirs = inf
    return [
        most(0, f"killed, known to all, {n} real engines, s", ours, theirs, f"serf, {n} agents, here, now"),
        most(0, "the same, simulated (a host that vanishes)", simulated, theirs, f"serf, {n} agents, here, now"),
    ]


Job = Callable[[], list[Row]]
GROUPS: dict[str, list[Job]] = {
    "big": [partial(ages_big, *row) for row in ((1024, 16.25, 98), (512, 25.4, 191), (256, 44.2, 377))],
    "ages": [
        *(partial(ages_1024, *row) for row in ((102, 14.21), (205, 9.77), (512, 7.49), (1024, 7.01))),
        *(partial(ages_small, 16, *row) for row in ((4, 4.65, 12.6), (8, 3.29, 7.1), (16, 2.81, 4.3))),
        *(
            partial(ages_small, 128, *row)
            for row in ((8, 17.57, 85), (16, 10.27, 43.8), (32, 6.88, 22.8), (64, 5.42, 12.7), (128, 4.92, 7.4))
        ),
        *(partial(ages_any, *row) for row in ((128, 12), (200, 8), (300, 300), (512, 33), (777, 97), (2048, 128))),
        *(partial(ages_by_age, *row) for row in ((128, 3.0), (128, 4.0), (1024, 5.0), (1024, 6.0))),
        ages_lossy,
        ages_skewed,
    ],
    "spread": [
        *(partial(spread_at, *row) for row in ((10000, 18.8), (16, 5.9), (128, 9.8), (1024, 13.6))),
        spread_lossy,
    ],
    "crash": [
        partial(crash_at, 10000, 1, 5, 18.0, 20.4),
        partial(crash_at, 1024, 4, 3, 14.1, 15.9),
        partial(crash_at, 128, 15, 2, 10.5, 11.9),
        partial(crash_at, 16, 60, 1, 6.7, 7.6),
        partial(probes_at, 10000, 6, 50),
        partial(probes_at, 1024, 30, 10),
        partial(probes_at, 128, 150, 2),
        partial(probes_at, 16, 300, 1),
    ],
    "faults": [false_blame, frozen, split],
    "cost": [cost],
    "serf": [partial(against_serf, 16), partial(against_serf, 32)],
}


def found_by(jobs: list[Job]) -> Iterator[Row]:
    """The rows of all jobs, as they come; as many at once as there are cores."""
    with ProcessPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        for future in as_completed([pool.submit(job) for job in jobs]):
            yield from future.result()


def main() -> int:
    """Measure what was asked for, print the table."""
    chosen = sys.argv[1:] or list(GROUPS)
    if unknown := [name for name in chosen if name not in GROUPS]:
        print(f"there is no {unknown[0]!r}; there are: {' '.join(GROUPS)}", file=sys.stderr)
        return 2
    print(f"{'':4}  {'check':>5}  {'':48}{'measured':>11}{'beside':>11}{'allowed':>22}  source", flush=True)
    alone = [job for name in chosen if name in ("cost", "serf") for job in GROUPS[name]]  # these measure the machine
    broken = 0
    rows = found_by([job for name in chosen if name not in ("cost", "serf") for job in GROUPS[name]])
    for row in chain(rows, (row for job in alone for row in job())):
        broken += not row.kept
        low = "" if row.low == -inf else f"{row.low:.6g}"
        allowed = f"{low} .. {'' if row.high == inf else f'{row.high:.6g}'}"
        verdict, check = "ok" if row.kept else "OUT", row.check or ""
        print(
            f"{verdict:4}  {check:>5}  {row.what:48}{row.value:11.5g}{row.reference:11.5g}{allowed:>22}  {row.source}",
            flush=True,
        )
    print(f"{broken} out of bounds" if broken else "all within bounds")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
