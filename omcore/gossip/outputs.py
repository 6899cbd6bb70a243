"""What the gossip cores hand back: data to send, and facts about other nodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Send:
    """Command: give `data` to the transport for node number `to`; loss is allowed, order does not matter."""

    to: int
    data: bytes


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """Event: `number` runs; it was never heard of before, or had left."""

    number: int


@dataclass(frozen=True, slots=True)
class NodeSuspected:
    """Event: `number` does not answer; its time to object runs."""

    number: int


@dataclass(frozen=True, slots=True)
class NodeBack:
    """Event: `number` is well after all; `after_loss` tells a node declared lost from one only suspected."""

    number: int
    after_loss: bool


@dataclass(frozen=True, slots=True)
class NodeLost:
    """Event: `number` was declared dead."""

    number: int


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """Event: `number` said goodbye."""

    number: int


Output = Send | NodeJoined | NodeSuspected | NodeBack | NodeLost | NodeLeft
