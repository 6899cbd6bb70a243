"""Failure detection in virtual time: the dead are found, and nobody else."""

from __future__ import annotations

from random import Random
from statistics import fmean

import pytest

from omcore.gossip import Gossip, GossipConfig, Members, NodeBack, NodeJoined, NodeLeft, NodeSuspected
from omcore.gossip.suspicion import least_s
from omcore.sim import clusters
from omcore.sim.net import SimNet
from omcore.types import NodeState

CONFIG = GossipConfig()


def running(net: SimNet) -> list[int]:
    counts = []
    for node in net.nodes:
        assert isinstance(node.core, Members)
        counts.append(node.core.running)
    return counts


@pytest.mark.slow
def test_a_crash_is_known_to_all_and_nobody_else_is_lost() -> None:
    n, first, last = 16, [], []
    for seed in range(10):
        net = clusters.members(n, seed=seed)
        net.run(12.0 + seed * 0.3)
        assert running(net) == [n] * n
        crash_t = net.t
        net.crash(3)
        net.run(crash_t + 20.0)
        suspected = next(t for t, _, event in net.events if isinstance(event, NodeSuspected))
        lost = net.lost()
        assert {who for _, _, who in lost} == {3}
        assert len(lost) == n - 1
        assert lost[0][0] - suspected >= least_s(n, CONFIG) - 1e-6
        assert lost[-1][0] - lost[0][0] < 4.0
        first.append(lost[0][0] - crash_t)
        last.append(lost[-1][0] - crash_t)
    assert fmean(first) == pytest.approx(6.7, rel=0.15)
    assert fmean(last) < 8.5


@pytest.mark.slow
def test_nobody_is_wrongly_dead_with_five_percent_loss() -> None:
    net = clusters.members(16, seed=4, loss=0.05)
    net.run(300.0)
    assert net.lost() == []
    assert running(net) == [16] * 16
    assert net.bytes_sent / 16 / 300.0 < 300.0  # bytes per node per second, idle


def test_a_fast_connect_failure_makes_the_verdict_faster() -> None:
    net = clusters.members(8, seed=2)
    net.run(12.0)
    net.crash(3)
    for number in (0, 1, 2):  # their connections broke
        core = net.nodes[number].core
        assert isinstance(core, Members)
        net.perform(number, core.failed(3, net.t))
    net.run(30.0)
    assert net.lost()[0][0] - 12.0 == pytest.approx(0.5 + least_s(8, CONFIG), abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_a_node_frozen_for_three_seconds_is_never_lost(n: int) -> None:
    for seed in range(4):
        net = clusters.members(n, seed=seed, loss=0.05)
        net.run(10.0 + 0.23 * seed)
        net.freeze(1, 3.0)
        net.run(30.0)
        assert net.lost() == [], f"{n=} {seed=}"
        assert running(net) == [n] * n


@pytest.mark.slow
def test_starved_nodes_make_nobody_lost() -> None:
    net = clusters.members(16, seed=6)
    net.run(10.0)

    def starve(number: int) -> None:
        net.freeze(number, net.rng.uniform(0.3, 1.5))
        net.at(net.t + net.rng.uniform(1.5, 2.0), lambda: starve(number))

    for number in (3, 8):
        starve(number)
    net.run(100.0)
    assert net.lost() == []


@pytest.mark.slow
def test_a_partition_is_seen_and_heals() -> None:
    net = clusters.members(16, seed=3)
    net.run(15.0)
    net.part = lambda number: int(number < 8)
    net.run(75.0)
    assert running(net) == [8] * 16
    assert all((by < 8) != (who < 8) for _, by, who in net.lost())
    net.part = None
    verdicts = len(net.lost())
    while running(net) != [16] * 16:
        net.run(net.t + 0.5)
        assert net.t < 75.0 + 2 * 2.78 + CONFIG.digest_s, running(net)
    net.run(net.t + 40.0)
    assert running(net) == [16] * 16
    assert len(net.lost()) == verdicts


def test_one_node_cut_off_comes_back_to_all() -> None:
    net = clusters.members(8, seed=5)
    net.run(12.0)
    net.part = lambda number: int(number == 2)
    net.run(150.0)  # one who hears nobody doubts itself, and takes its time
    assert running(net) == [7, 7, 1, 7, 7, 7, 7, 7]
    net.part = None
    net.run(190.0)
    assert running(net) == [8] * 8


def test_a_node_that_leaves_is_not_lost_and_may_return() -> None:
    net = clusters.members(6, seed=1)
    net.run(12.0)
    core = net.nodes[2].core
    assert isinstance(core, Members)
    net.perform(2, core.leave(net.t))
    net.run(13.0)
    net.crash(2)
    assert {by for _, by, event in net.events if event == NodeLeft(2)} == {0, 1, 3, 4, 5}
    net.run(30.0)
    net.events.clear()
    reborn = Members(2, CONFIG, Random(9), incarnation=2)
    reborn.set_members(range(6))
    net.replace(2, reborn)
    net.run(36.0)
    assert running(net) == [6] * 6
    assert {by for _, by, event in net.events if event == NodeJoined(2)} == {0, 1, 3, 4, 5}
    assert net.lost() == []


@pytest.mark.parametrize("incarnation", [1, 7])
def test_a_crashed_node_comes_back_in_a_new_life(incarnation: int) -> None:
    """Even where it forgot its incarnation: it is told what is said of it, and outdoes that."""
    net = clusters.members(6, seed=1)
    net.run(12.0)
    net.crash(2)
    net.run(40.0)
    reborn = Members(2, CONFIG, Random(9), incarnation)
    reborn.set_members(range(6))
    net.replace(2, reborn)
    net.run(50.0)
    assert running(net) == [6] * 6
    assert {by for _, by, event in net.events if event == NodeBack(2, after_loss=True)} == {0, 1, 3, 4, 5}


@pytest.mark.slow
def test_whole_machines_show_each_other_up_and_a_crash_as_lost() -> None:
    net = clusters.gossips(8, seed=3)
    net.run(8.0)
    for number, node in enumerate(net.nodes):
        assert isinstance(node.core, Gossip)
        view = node.core.view(net.t)
        assert [state for _, state, _, _ in view] == [NodeState.UP] * 8
        assert view[0][0] == number
    net.crash(5)
    net.run(25.0)
    for node in net.nodes[:5]:
        assert isinstance(node.core, Gossip)
        view = node.core.view(net.t)
        assert {number for number, state, _, _ in view if state is NodeState.LOST} == {5}
        assert sum(state is NodeState.UP for _, state, _, _ in view) >= 6
