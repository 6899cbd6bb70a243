"""What a member knows of itself, and the hands it works with: clock, timers, dice, outgoing data."""

from __future__ import annotations

from random import Random

from omcore.gossip.clock import Clock, Timers
from omcore.gossip.config import GossipConfig
from omcore.gossip.outputs import Output


class Local:
    """This node's own side of membership, shared by its parts.

    `health` is Lifeguard's local health: 0 well, up to `config.health_max`; one who misses answers that others get
    doubts itself first, and waits longer before it accuses anybody.
    """

    __slots__ = ("_outputs", "clock", "config", "health", "incarnation", "leaving", "me", "rng", "timers")

    def __init__(self, me: int, config: GossipConfig, rng: Random, incarnation: int) -> None:
        self.me = me
        self.config = config
        self.rng = rng
        self.incarnation = incarnation
        self.health = 0
        self.leaving = False
        self.clock = Clock()
        self.timers = Timers()
        self._outputs: list[Output] = []

    @property
    def t(self) -> float:
        """Inner time."""
        return self.clock.t

    @property
    def patience(self) -> int:
        """What to multiply waiting times with."""
        return 1 + self.health

    def ail(self, by: int) -> None:
        """Change the health by so much; negative is better."""
        self.health = max(0, min(self.config.health_max, self.health + by))

    def emit(self, output: Output) -> None:
        """Hand this back at the end of the call."""
        self._outputs.append(output)

    def collect(self) -> list[Output]:
        """What was emitted since the last time, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs
