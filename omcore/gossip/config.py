"""The numbers gossip runs by, checked once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite

from omcore.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GossipConfig:
    """Settings of the board and of the failure detector; durations in seconds.

    The defaults suit a LAN from 2 to 10,000 nodes.  Raises ConfigError that names the key and what it allows.
    """

    interval_s: float = 1.0  # one board message per node
    window_min: int = 32
    window_max: int = 512
    window_age_s: float = 0.0  # 0: the window is fixed; else it holds all entries at most this old instead
    stale_least_s: float = 3.0
    probe_s: float = 1.0
    ack_s: float = 0.5  # then `helpers` others are asked to try
    helpers: int = 3
    suspicion_mult: float = 4.0  # least time to object = mult * max(1, log10 n) * probe_s
    suspicion_max_mult: float = 6.0  # greatest = this many times the least
    confirmations: int = 2  # independent suspicions that bring it down to the least
    health_max: int = 8
    news_s: float = 0.2  # while there is news: to `news_fanout` nodes each
    news_fanout: int = 3
    retransmit_mult: int = 4
    digest_s: float = 30.0
    page: int = 256

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            may_be_none = field.name == "window_age_s"
            if not isfinite(value) or value < 0 or (value == 0 and not may_be_none):
                raise ConfigError(f"gossip.{field.name} = {value}", "it must be greater than 0")
        if self.window_min > self.window_max or self.window_max > 4096:
            raise ConfigError(
                f"gossip.window_max = {self.window_max}", f"allowed: {self.window_min} (window_min) to 4096"
            )
        if self.ack_s >= self.probe_s:
            raise ConfigError(f"gossip.ack_s = {self.ack_s}", f"it must be less than probe_s ({self.probe_s})")
        if self.suspicion_max_mult < 1:
            raise ConfigError(f"gossip.suspicion_max_mult = {self.suspicion_max_mult}", "it must be at least 1")
        if self.page > 256:
            raise ConfigError(f"gossip.page = {self.page}", "allowed: 1 to 256")
