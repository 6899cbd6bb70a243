"""What went to and came from each member, and what did not and why: a fixed set of numbers for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from omcore.types import Drop, Link, LinkState, NodeId


@dataclass(slots=True)
class Counters:
    """Of one member, since the start or since it became one."""

    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    dials: int = 0
    failures: int = 0
    error: str = ""
    heard: float | None = None  # monotonic
    dropped: dict[Drop, int] = field(default_factory=dict)

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count messages that were not delivered."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def link(self, state: LinkState, address: str, retry_s: float | None, now: float) -> Link:
        """The numbers with the connection's state, as faces see them."""
        return Link(
            state=state,
            address=address,
            retry_s=retry_s,
            heard_s=None if self.heard is None else max(0.0, now - self.heard),
            sent=self.sent,
            sent_bytes=self.sent_bytes,
            received=self.received,
            received_bytes=self.received_bytes,
            dials=self.dials,
            failures=self.failures,
            error=self.error,
            dropped=tuple(sorted(self.dropped.items())),
        )


class Tally:
    """The counters of all members; one more set for everybody else, so that strangers cost no memory."""

    def __init__(self) -> None:
        self.others = Counters()
        self._members: dict[NodeId, Counters] = {}

    def set_members(self, nodes: Iterable[NodeId]) -> None:
        """Keep counters of exactly these."""
        old = self._members
        self._members = {node: old.get(node) or Counters() for node in nodes}

    def of(self, node: NodeId) -> Counters:
        """The counters of a member, or those of everybody else."""
        return self._members.get(node, self.others)
