"""Ages of the board's entries in virtual time, against the tables (u = 1 s); all sizes: `make bench-gossip`."""

from __future__ import annotations

from collections import Counter
from math import log
from statistics import fmean

import pytest

from omcore.gossip import Board, formulas
from omcore.sim import clusters
from omcore.sim.ages import measure
from omcore.sim.net import SimNet
from omcore.sim.trials import spread


def board(net: SimNet, number: int) -> Board:
    found = net.nodes[number].board
    assert found is not None
    return found


def ages(net: SimNet, warm_s: float, for_s: float) -> tuple[float, float]:
    net.run(net.t + warm_s)
    found = measure(net, for_s)
    assert found.unknown == 0.0
    return found.average, found.greatest


@pytest.mark.slow
@pytest.mark.parametrize(("window", "average", "greatest"), [(4, 4.65, 12.6), (8, 3.29, 7.1), (16, 2.81, 4.3)])
def test_ages_at_16_nodes_meet_the_table(window: int, average: float, greatest: float) -> None:
    got, oldest = ages(clusters.boards(16, window, filled=True), 25.0, 300.0)
    assert got == pytest.approx(average, rel=0.08)
    assert oldest == pytest.approx(greatest, rel=0.12)


@pytest.mark.slow
@pytest.mark.parametrize(("window", "average", "greatest"), [(32, 6.88, 22.8), (128, 4.92, 7.4)])
def test_ages_at_128_nodes_meet_the_table_and_the_formula(window: int, average: float, greatest: float) -> None:
    got, oldest = ages(clusters.boards(128, window, filled=True), 4 * 128 / window, 20.0)
    assert got == pytest.approx(average, rel=0.03)
    assert got == pytest.approx(formulas.average_age(128, window), rel=0.03)
    assert oldest == pytest.approx(greatest, rel=0.08)


@pytest.mark.slow
def test_a_start_drawn_from_the_law_is_where_a_long_run_ends() -> None:
    """And the machines keep it there: they were not told the law."""
    at_once = measure(clusters.boards(256, 32, filled=True), 1.0)
    later, _ = ages(clusters.boards(256, 32, filled=True), 20.0, 5.0)
    assert at_once.average == pytest.approx(formulas.average_age(256, 32), rel=0.05)
    assert later == pytest.approx(formulas.average_age(256, 32), rel=0.03)


@pytest.mark.slow
def test_loss_makes_news_older_by_its_share() -> None:
    clean, _ = ages(clusters.boards(16, 16), 10.0, 100.0)
    lossy, _ = ages(clusters.boards(16, 16, loss=0.2), 10.0, 100.0)
    assert lossy / clean == pytest.approx(1.26, rel=0.08)


@pytest.mark.slow
def test_the_dead_slow_nobody_down_once_they_are_known() -> None:
    """Half of 64 crash: the rest is as fresh as a cluster of 32, though the window is that of 64."""
    net = clusters.gossips(64, seed=2, filled=True)
    for number in range(32, 64):
        net.crash(number)
    net.run(45.0)
    got, oldest = ages(net, 0.0, 20.0)
    assert got == pytest.approx(formulas.average_age(32, 32), rel=0.10)
    assert oldest < 2 * got


def test_clocks_that_are_off_and_drift_change_nothing() -> None:
    net = clusters.boards(16, 16)
    skewed = clusters.boards(16, 16)
    for number, node in enumerate(skewed.nodes):
        node.skew_s, node.drift = (number - 8) * 450.0, (number - 8) * 1.2e-5
    plain, _ = ages(net, 10.0, 60.0)
    off, _ = ages(skewed, 10.0, 60.0)
    assert off == pytest.approx(plain, rel=0.05)


def test_a_clock_that_steps_back_loses_nobody() -> None:
    net = clusters.boards(16, 16)
    net.run(20.0)
    net.set_clock(3, -3600.0)
    net.run(20.0 + 2 * formulas.average_age(16, 16))
    for number in range(16):
        assert max(board(net, number).ages(net.nodes[number].clock(net.t))) < 15.0


def test_every_node_sends_one_message_per_interval_and_no_more_bytes_than_agreed() -> None:
    net = clusters.boards(16, 8)
    net.run(1.0)
    sent, size = net.sent, net.bytes_sent
    net.run(21.0)
    assert net.sent - sent == 16 * 20
    assert (net.bytes_sent - size) / (net.sent - sent) <= 90 + 48 * 8


def test_a_refused_connect_costs_one_message_more() -> None:
    net = clusters.boards(16, 16)  # boards alone never learn who is dead
    net.refused = True
    for number in range(8, 16):
        net.crash(number)
    net.run(1.0)
    sent, received = net.sent, Counter({number: node.received for number, node in enumerate(net.nodes)})
    net.run(51.0)
    got = sum(net.nodes[number].received - received[number] for number in range(8))
    assert got == pytest.approx(8 * 50, rel=0.12)  # three tries more, half of them in vain
    assert net.sent - sent <= 2 * 8 * 50


def test_a_message_that_comes_twice_changes_nothing() -> None:
    once, twice = clusters.boards(8, 8), clusters.boards(8, 8)
    twice.doubled = 1.0
    once.run(30.0)
    twice.run(30.0)
    for number in range(8):
        assert board(twice, number).ages(30.0) == board(once, number).ages(30.0)


@pytest.mark.slow
def test_urgent_news_reaches_everybody_in_two_ln_n() -> None:
    found = spread(64, 32, runs=10)
    assert found.missed == 0
    assert fmean(found.took_s) == pytest.approx(2 * log(64), abs=1.0)
    assert max(found.took_s) <= 2 * log(64) + 8


@pytest.mark.slow
def test_urgent_news_dies_out() -> None:
    """Newer entries of the same node, which come all the time, must not keep it going."""
    net = clusters.boards(64, 16, filled=True)
    net.run(3.0)
    board(net, 0).urge(0)
    net.run(14.0)
    assert sum(0 in board(net, number)._urgent for number in range(64)) > 32
    net.run(3.0 + 2 * formulas.urgent_sends(64) + 10)
    assert not any(board(net, number)._urgent for number in range(64))
    board(net, 0).urge(0)
    net.run(net.t + 12.0)
    assert sum(0 in board(net, number)._urgent for number in range(64)) > 32


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_a_cluster_that_is_well_looks_well(n: int) -> None:
    net = clusters.boards(n, n)
    net.run(10.0)
    stale = seen = 0
    while net.t < 1500.0:
        net.run(net.t + 0.73)
        for number, node in enumerate(net.nodes):
            found = board(net, number).ages(node.clock(net.t))
            seen += len(found)
            stale += sum(age > board(net, number).stale_after_s for age in found)
    assert seen > 2000
    assert stale / seen < 5e-4
