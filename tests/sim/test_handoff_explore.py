"""Everything that can happen to the real handoff machines within bounds: never two copies, never none, a quiet end."""

from __future__ import annotations

import os

import pytest

from tests.sim.handoff_explorer import Bounds, Explorer, Healer, sizes

# Ten seconds at most, each: `make test` is for every change.
SMALL = [
    Bounds(),
    Bounds(home="s"),
    Bounds(home="d"),
    Bounds(cancels=1),
    Bounds(home="s", exits=1, eager=True),
    Bounds(home="d", failures=1),
    Bounds(home="s", failures=1, eager=True),
    Bounds(home="d", deaths=1, eager=True),
    Bounds(home="s", sync_failures=1),
    Bounds(home="d", engine_crashes=1, eager=True),
    Bounds(home="d", node_crashes=1, crashing="s", eager=True, decisions=1),
]

# OMVIEW_EXPLORE=1 adds these, for changes of the protocol.
BIG = [
    Bounds(home="s", node_crashes=1, crashing="d", eager=True, decisions=1),
    Bounds(home="s", engine_crashes=1),
    Bounds(home="d", sync_failures=1, engine_crashes=1, eager=True),
    Bounds(engine_crashes=1),
    Bounds(home="s", engine_crashes=2),
    Bounds(node_crashes=1, crashing="h", eager=True),
    Bounds(node_crashes=1, crashing="s", eager=True, decisions=1),
    Bounds(node_crashes=1, crashing="d", eager=True, decisions=1),
    Bounds(home="s", node_crashes=1),
    Bounds(home="d", node_crashes=1),
    Bounds(sync_failures=1, node_crashes=1, crashing="h", eager=True),
    Bounds(exits=1, failures=1, engine_crashes=1, eager=True),
    Bounds(home="s", moves=("d", "s"), eager=True),
    Bounds(home="s", moves=("d", "s"), engine_crashes=1, eager=True),
    Bounds(home="s", node_crashes=2, decisions=1, eager=True),
]


def explore(bounds: Bounds) -> None:
    """All orders; then, from every combination of node states, an empty network and no more faults."""
    explorer = Explorer(bounds)
    worlds = explorer.run()
    healer = Healer(explorer)
    for world in {w._replace(net=0, left=()): w for w in worlds}.values():
        healer.check(world)
    assert sizes(worlds) > 100


def name(bounds: Bounds) -> str:
    shown = {k: v for k, v in vars(bounds).items() if v != getattr(Bounds(), k)}
    return "-".join(f"{k}={''.join(v) if isinstance(v, tuple) else v}" for k, v in shown.items()) or "plain"


@pytest.mark.slow
@pytest.mark.parametrize("bounds", SMALL, ids=name)
def test_no_order_of_events_breaks_an_invariant(bounds: Bounds) -> None:
    explore(bounds)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif("OMVIEW_EXPLORE" not in os.environ, reason="set OMVIEW_EXPLORE=1: minutes to hours")
@pytest.mark.parametrize("bounds", BIG, ids=name)
def test_no_order_of_events_breaks_an_invariant_at_length(bounds: Bounds) -> None:
    explore(bounds)
