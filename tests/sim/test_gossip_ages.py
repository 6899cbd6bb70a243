"""Ages of the board's entries in virtual time, against the tables (u = 1 s)."""

from __future__ import annotations

from math import log
from statistics import fmean

import pytest

from omcore.gossip import Board, formulas
from tests.sim import gossip_net


def board(net: gossip_net.SimNet, number: int) -> Board:
    core = net.nodes[number].core
    assert isinstance(core, Board)
    return core


@pytest.mark.slow
@pytest.mark.parametrize(("window", "average", "greatest"), [(4, 4.65, 12.6), (8, 3.29, 7.1), (16, 2.81, 4.3)])
def test_ages_at_16_nodes_meet_the_table(window: int, average: float, greatest: float) -> None:
    got, oldest = gossip_net.measure_ages(gossip_net.boards(16, window), 25.0, 120.0)
    assert got == pytest.approx(average, rel=0.08)
    assert oldest == pytest.approx(greatest, rel=0.12)


@pytest.mark.slow
@pytest.mark.parametrize(("window", "average", "greatest"), [(32, 6.88, 22.8), (128, 4.92, 7.4)])
def test_ages_at_128_nodes_meet_the_table_and_the_formula(window: int, average: float, greatest: float) -> None:
    got, oldest = gossip_net.measure_ages(gossip_net.boards(128, window), 22.0, 10.0)
    assert got == pytest.approx(average, rel=0.04)
    assert got == pytest.approx(formulas.average_age(128, window), rel=0.04)
    assert oldest == pytest.approx(greatest, rel=0.10)


@pytest.mark.slow
def test_loss_makes_news_older_by_its_share() -> None:
    clean, _ = gossip_net.measure_ages(gossip_net.boards(16, 16), 10.0, 100.0)
    lossy, _ = gossip_net.measure_ages(gossip_net.boards(16, 16, loss=0.2), 10.0, 100.0)
    assert lossy / clean == pytest.approx(1.26, rel=0.08)


def test_clocks_that_are_off_and_drift_change_nothing() -> None:
    net = gossip_net.boards(16, 16)
    skewed = gossip_net.boards(16, 16)
    for number, node in enumerate(skewed.nodes):
        node.skew_s, node.drift = (number - 8) * 450.0, (number - 8) * 1.2e-5
    plain, _ = gossip_net.measure_ages(net, 10.0, 60.0)
    off, _ = gossip_net.measure_ages(skewed, 10.0, 60.0)
    assert off == pytest.approx(plain, rel=0.05)


def test_a_clock_that_steps_back_loses_nobody() -> None:
    net = gossip_net.boards(16, 16)
    net.run(20.0)
    net.nodes[3].skew_s -= 3600.0
    net.run(20.0 + 2 * formulas.average_age(16, 16))
    for number in range(16):
        ages = board(net, number).ages(net.nodes[number].clock(net.t))
        assert len(ages) == 15
        assert max(ages) < 15.0


def test_every_node_sends_one_message_per_interval_and_no_more_bytes_than_agreed() -> None:
    net = gossip_net.boards(16, 8)
    net.run(1.0)
    sent, size = net.sent, net.bytes
    net.run(21.0)
    assert net.sent - sent == 16 * 20
    assert (net.bytes - size) / (net.sent - sent) <= 90 + 48 * 8


@pytest.mark.slow
def test_urgent_news_reaches_everybody_in_two_ln_n() -> None:
    n, took = 64, []
    for seed in range(5):
        net = gossip_net.boards(n, 8, seed=seed)
        net.run(5.0)
        board(net, 0).urge(0)
        while min(known(net)) < 5.0:
            net.run(net.t + 0.25)
        took.append(net.t - 5.0)
    # 0.5 u until the news is first sent, and steps of 0.25 u
    assert fmean(took) == pytest.approx(2 * log(n) + 0.6, abs=1.2)
    assert max(took) <= 2 * log(n) + 8


def known(net: gossip_net.SimNet) -> list[float]:
    """When the youngest sample of node 0 that each other node has was measured."""
    ages = [board(net, number).age(0, net.t) for number in range(1, len(net.nodes))]
    return [-1.0 if age_s is None else net.t - age_s for age_s in ages]


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_a_cluster_that_is_well_looks_well(n: int) -> None:
    net = gossip_net.boards(n, n)
    net.run(10.0)
    stale = seen = 0
    while net.t < 1500.0:
        net.run(net.t + 0.73)
        for number, node in enumerate(net.nodes):
            ages = board(net, number).ages(node.clock(net.t))
            seen += len(ages)
            stale += sum(age > board(net, number).stale_after_s for age in ages)
    assert seen > 2000
    assert stale / seen < 5e-4
