"""Thousands of nodes in virtual time: the engine's own machines, without an engine, a network or a clock.

    report = simulate(Plan(nodes=1024, window=128, loss=0.05))

`clusters` and `net` are its parts, for tests and benches.
"""

from omcore.sim.ages import Ages
from omcore.sim.gossip import Detection, Expected, Plan, Report, Split, Traffic, simulate

__all__ = ["Ages", "Detection", "Expected", "Plan", "Report", "Split", "Traffic", "simulate"]
