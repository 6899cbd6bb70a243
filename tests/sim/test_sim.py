"""The simulator itself: what it starts from, what it reports, that it tells the same twice."""

from __future__ import annotations

from random import Random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omcore.errors import UsageError
from omcore.gossip import GossipConfig, Status, formulas
from omcore.gossip.cast import Cast, cast_with
from omcore.gossip.suspicion import least_s
from omcore.sim import Plan, clusters, simulate
from omcore.sim.clusters import AllBut
from omcore.sim.gossip import predicted, published
from omcore.sim.law import AgeLaw
from omcore.sim.trials import crash, first_probes, members_of, spread


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 11)), max_size=60), st.integers(0, 99), st.integers(0, 5))
def test_all_but_a_few_is_a_set_with_a_fair_draw(steps: list[tuple[bool, int]], seed: int, k: int) -> None:
    pool, model = AllBut(Cast(range(10)), 3), set(range(10)) - {3}
    for add, number in steps:
        if number < 10:
            (pool.add if add else pool.discard)(number)
            (model.add if add else model.discard)(number)
        else:
            pool.discard(number)
    assert set(pool) == model
    assert len(pool) == len(model)
    assert all((number in pool) == (number in model) for number in range(12))
    drawn = pool.draw(Random(seed), k, without=5)
    assert len(drawn) == len(set(drawn)) == min(k, len(model - {5}))
    assert set(drawn) <= model - {5}
    if model:
        assert pool.pick(Random(seed)) in model


def test_a_cast_is_taken_as_it_is_where_it_holds_oneself() -> None:
    cast = Cast([5, 1, 9, 5])
    assert cast.numbers == (1, 5, 9)
    assert cast_with(5, cast) is cast
    assert cast_with(7, cast).numbers == cast_with(7, [1, 5, 9]).numbers == (1, 5, 7, 9)
    assert (cast.page(2, 2), cast.page(10, 2)) == ((5, 9), ())


@pytest.mark.parametrize(("n", "window"), [(16, 4), (128, 32), (128, 128), (1024, 128)])
def test_the_law_of_ages_has_the_mean_it_should(n: int, window: int) -> None:
    law = AgeLaw(n, window)
    assert fmean(law.draw(Random(1), 20_000)) == pytest.approx(formulas.average_age(n, window), rel=0.05)
    assert law.quantile(0.0) == 0.0
    assert law.quantile(0.2) < law.quantile(0.6) < law.quantile(1.0) < 100 * n / window


def test_filled_machines_know_each_other_and_objections_still_work() -> None:
    net = clusters.members(12, filled=True)
    for number, one in enumerate(members_of(net)):
        assert one.running == 12
        assert one.status((number + 1) % 12) is Status.ALIVE
    net.freeze(4, 3.0)
    net.run(30.0)
    assert net.lost() == []
    assert all(one.running == 12 for one in members_of(net))


@pytest.mark.slow
def test_the_same_seed_tells_the_same_and_another_seed_another() -> None:
    plan = Plan(24, 8, rounds=5, seed=7, loss=0.05, dead=0.1, split_s=20.0)
    first = simulate(plan)
    assert first == simulate(plan)
    assert first.ages != simulate(Plan(24, 8, rounds=5, seed=8, loss=0.05, dead=0.1, split_s=20.0)).ages


@pytest.mark.slow
def test_a_report_tells_of_crash_and_cut() -> None:
    said: list[tuple[str, float]] = []
    report = simulate(Plan(32, rounds=10, dead=0.05, split_s=60.0), lambda *what: said.append(what))
    assert report.window == 32
    assert report.ages.average == pytest.approx(report.predicted.average or 0.0, rel=0.08)
    assert report.ages.p50 < report.ages.p90 < report.ages.p99
    assert report.traffic.board_messages == pytest.approx(1.0, abs=0.05)
    assert report.traffic.board_bytes <= 1.05 * (90 + 48 * 32)
    assert report.traffic.messages > report.traffic.board_messages
    assert report.detection is not None
    assert report.detection.crashed == 2
    assert least_s(32, GossipConfig()) < report.detection.first_s < report.detection.everybody_s
    assert report.detection.everybody_most_s < 15.0
    assert (report.detection.missed, report.false_deaths) == (0, 0)
    assert report.split is not None
    assert report.split.ages.average == pytest.approx(report.split.predicted.average or 0.0, rel=0.15)
    assert report.split.heal_s is not None
    assert report.split.heal_s <= formulas.spread_time(32) + GossipConfig().digest_s
    assert all(0.0 <= part <= 1.0 for _, part in said)


@pytest.mark.parametrize(
    ("plan", "flag"),
    [
        ({"nodes": 1}, "-n"),
        ({"nodes": 10**9}, "-n"),
        ({"nodes": 9, "window": 0}, "-w"),
        ({"nodes": 9, "window": 10}, "-w"),
        ({"nodes": 9, "rounds": 0}, "--rounds"),
        ({"nodes": 9, "loss": 1.0}, "--loss"),
        ({"nodes": 9, "loss": float("nan")}, "--loss"),
        ({"nodes": 9, "dead": -0.1}, "--dead"),
        ({"nodes": 4, "dead": 0.8}, "--dead"),
        ({"nodes": 9, "split_s": float("inf")}, "--split"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_by_name(plan: dict[str, float], flag: str) -> None:
    with pytest.raises(UsageError, match=f"^{flag} "):
        Plan(**plan)  # type: ignore[arg-type]  # floats where integers belong are part of the test


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "window"), [(2, 1), (2, 2), (3, 1), (5, 4)])
def test_the_smallest_clusters_can_be_simulated(nodes: int, window: int) -> None:
    report = simulate(Plan(nodes, window, rounds=20))
    assert 0.3 < report.ages.average < 2.0 * nodes / window
    assert report.false_deaths == 0


def test_the_formulas_say_nothing_where_they_do_not_hold() -> None:
    assert published(128, 128).average is None
    assert published(2, 1).greatest is None
    assert predicted(100, 80).greatest is None
    assert predicted(128, 128).greatest == pytest.approx(7.2)
    assert predicted(128, 32, 0.2).average == pytest.approx(1.25 * formulas.average_age(128, 32))


@pytest.mark.slow
def test_a_dead_node_is_probed_after_one_period() -> None:
    found = [took for seed in range(100) for took in first_probes(16, 1, seed=seed)]
    assert fmean(found) == pytest.approx(1.0, abs=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "runs", "first_s"), [(16, 12, 6.7), (128, 1, 10.5)])
def test_crashes_are_known_in_the_time_of_the_table(n: int, runs: int, first_s: float) -> None:
    found = [one for seed in range(runs) for one in crash(n, 1 + n // 64, seed=seed)]
    assert all(one.everybody for one in found)
    assert fmean(one.first_s for one in found) == pytest.approx(first_s, rel=0.15)
    for one in found:
        assert one.first_s - one.suspected_s >= least_s(n, GossipConfig()) - 1e-6
        assert one.last_s - one.first_s <= 4.0


@pytest.mark.slow
def test_false_suspicions_are_as_seldom_as_the_formula_says_and_nobody_is_lost() -> None:
    """(1-(1-p)^2)(1-(1-p)^4)^3 per probe: at 20 % loss 7.4 %."""
    net = clusters.members(16, loss=0.2, filled=True)
    net.run(200.0)
    probes = sum(one.probes for one in members_of(net))
    accusations = sum(one.accusations for one in members_of(net))
    assert accusations / probes == pytest.approx((1 - 0.8**2) * (1 - 0.8**4) ** 3, rel=0.25)
    assert net.lost() == []


@pytest.mark.slow
def test_urgent_news_misses_nobody_with_loss_even_without_the_ordinary_window() -> None:
    found = spread(16, 2, 12, loss=0.01)
    assert found.missed == 0
    assert len(found.took_s) == 12
