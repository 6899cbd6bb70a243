"""What the migrate dialog promises."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omcore.jobs.forecast import FIXED_S, Target, forecast, freeze_s, plan_targets, share
from omcore.messages import Examined
from omcore.types import LoadSample, Movable, NodeId, NodeInfo, NodeState, NodeView


def node(number: int, load: float = 0.0, cores: float = 4.0, speed: float = 1.0) -> NodeView:
    key = NodeId(f"{number:02x}" * 32)
    sample = LoadSample(load=load, cores=cores, speed=speed, mem_total_bytes=100, mem_used_bytes=30)
    return NodeView(
        key, number, f"n{number}", NodeState.UP, number == 1, 0.0, sample, NodeInfo(key, number, f"n{number}")
    )


def job(load: float = 0.25, rss: int = 0) -> Examined:
    return Examined(Movable.YES, (), b"", rss, load)


def look(
    to: NodeView, source: NodeView | None = None, *, here: bool = False, home: bool = False, reason: str = ""
) -> Target:
    return forecast(to, source or node(1, load=1.0), job(), here, home, reason, "hint" if reason else "")


def test_freeze_grows_with_memory() -> None:
    assert freeze_s(0) == FIXED_S
    assert freeze_s(1_200_000_000) == pytest.approx(FIXED_S + 2.0)


@pytest.mark.parametrize(("load", "speed", "got"), [(0.5, 1.0, 1.0), (2.0, 1.0, 0.5), (4.0, 2.0, 0.5)])
def test_share_of_a_core(load: float, speed: float, got: float) -> None:
    assert share(load, speed) == got


def test_verdicts() -> None:
    crowded = node(1, load=2.0)
    assert look(node(2), crowded).forecast.verdict == "gains 100% speed"
    assert look(node(2, load=0.2)).forecast.verdict == "as fast as here"
    assert look(node(2, load=3.0)).forecast.verdict == "slower: n2 gets crowded"
    assert look(node(2, cores=8.0, speed=0.5)).forecast.verdict == "slower: 8 cores only"
    assert look(node(1), here=True).forecast.verdict == "it is here"
    assert look(node(1), here=True, home=True).forecast.verdict == "it is here and at home"
    assert look(node(2), home=True).forecast.verdict == "as fast as here, its home"


def test_a_target_that_refuses_says_why_and_nothing_else() -> None:
    made = look(node(2), home=True, reason="no CRIU").forecast
    assert (made.ok, made.verdict, made.reason, made.hint) == (False, "", "no CRIU", "hint")


def test_the_load_there_includes_the_job() -> None:
    made = look(node(2, load=0.5, cores=2.0)).forecast  # 0.25 of 4 cores = 1 task = half of 2 cores
    assert (made.load_now, made.load_with) == (0.5, 1.0)
    assert made.mem_free_bytes == 70
    assert look(node(1, load=0.5), here=True).forecast.load_with == 0.5


def test_the_best_comes_first_then_where_it_is_then_who_refuses() -> None:
    crowded = node(1, load=2.0)
    targets = [
        look(node(5), crowded, reason="no CRIU"),
        look(crowded, crowded, here=True),
        look(node(3, load=1.5), crowded),
        look(node(4, load=0.1), crowded),
        look(node(2), crowded),
    ]
    found = plan_targets(targets)
    assert [made.node for made in found] == [2, 4, 3, 1, 5]
    assert found[0].verdict == "best: gains 100% speed"
    assert [made.verdict.startswith("best") for made in found].count(True) == 1
    assert plan_targets([]) == ()
    assert plan_targets(targets[:2])[0].verdict == "it is here"


def test_where_it_would_be_slower_nothing_is_called_best() -> None:
    source = node(1, load=0.5)
    (first, *_) = plan_targets([look(node(2, load=3.0), source), look(source, source, here=True)])
    assert first.verdict == "slower: n2 gets crowded"


numbers = st.floats(0, 1e9)


@given(numbers, numbers, numbers, numbers, st.booleans())
def test_no_figures_of_a_peer_break_it(load: float, cores: float, speed: float, other: float, known: bool) -> None:
    there, source = node(2, load, cores, speed), node(1, other, speed, cores) if known else None
    made = forecast(there, source, job(other), False, False, "", "")
    assert math.isfinite(made.gain)
    assert made.forecast.verdict
    assert made.forecast.load_with >= made.forecast.load_now
