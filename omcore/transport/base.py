"""What every transport offers: authenticated packets, lost now and then, never altered or doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from omcore.types import Drop, Link, NodeId

MAX_PACKET_BYTES = 256 * 1024
MAX_FRAME_BYTES = MAX_PACKET_BYTES + 64  # CURVE adds 33 bytes to each


@dataclass(frozen=True, slots=True)
class Packet:
    """One message. `sender` is the key the other end proved, never something the message says.

    `invitation`: the sender has shown an invitation key, not a member's; only a Join may be taken from it.
    `address`: where the connection came from, for people; it proves nothing.
    """

    sender: NodeId
    data: bytes
    address: str
    invitation: bool = False
    route: bytes = field(default=b"", repr=False)  # the transport's own handle of the connection, for `reply`


@dataclass(slots=True)
class TransportStats:
    """Counters since start; `refused` are connections whose key nobody admitted."""

    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    dropped: int = 0  # arrived, but not delivered: no proven key, forgotten, malformed
    unsent: int = 0  # `send` said no
    refused: int = 0
    failed: int = 0  # dials and connections that ended


@dataclass(frozen=True, slots=True)
class Failure:
    """A connection to `node` could not be made, or ended. `refused`: it does not know our key (ask for the roster)."""

    node: NodeId
    refused: bool
    text: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many connections there are, and may be; `inbound` are those by which a member's message came."""

    dials: int
    dials_most: int
    inbound: int
    inbound_most: int


class Transport(Protocol):
    """Order of calls: `start`, `set_peers`, then anything; `close` once at the end."""

    stats: TransportStats
    on_failed: Callable[[Failure], None] | None  # called on the loop; the engine may send elsewhere

    async def start(self, listen: Sequence[str] = ()) -> tuple[str, ...]:
        """Begin; returns the bound "host:port"s. An empty `listen` opens no port."""
        ...

    async def listen(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Bind more addresses (port 0: any; a port that is taken: the next free one). Raises TransportError."""
        ...

    async def unlisten(self) -> None:
        """Close all ports, and the connections that came in through them (the last invitation expired)."""
        ...

    def set_peers(self, peers: Mapping[NodeId, Sequence[str]]) -> None:
        """The members other than us, with the addresses to dial. A key that is no longer in it is cut off at once."""
        ...

    def set_invitations(self, keys: Iterable[NodeId]) -> None:
        """The invitation keys to admit now."""
        ...

    def send(self, to: NodeId, data: bytes) -> bool:
        """Give `data` (at most 256 KiB) to the network; never blocks. False: not sent. True promises nothing."""
        ...

    async def receive(self) -> Packet:
        """The next packet; one caller at a time, safe to cancel. Raises TransportError once closed."""
        ...

    def reply(self, packet: Packet, data: bytes, *, cut: bool = False) -> bool:
        """Answer on the connection an *invitation* packet came by; with `cut` it ends 0.2 s later."""
        ...

    def cut(self, packet: Packet) -> None:
        """End the connection an invitation packet came by, without an answer."""
        ...

    def links(self) -> Mapping[NodeId, Link]:
        """Each member with what went between us since the start, and how our connection to it is."""
        ...

    def bounds(self) -> Bounds:
        """How many connections there are."""
        ...

    def dropped(self, node: NodeId, reason: Drop) -> None:
        """Note that a packet of this node was of no use."""
        ...

    def strangers(self) -> tuple[tuple[Drop, int], ...]:
        """How much was dropped of those who are no members."""
        ...

    async def close(self) -> None:
        """End all connections and listeners. A waiting `receive` raises TransportError."""
        ...
