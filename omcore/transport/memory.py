"""A network inside one process, for tests: the same promises as ZeroMQ's, and faults on request."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from omcore.errors import TransportError
from omcore.transport.base import MAX_PACKET_BYTES, Bounds, Failure, Packet, TransportStats
from omcore.transport.counters import Tally
from omcore.types import Drop, Link, LinkState, NodeId

_QUEUE = 64


class MemoryNetwork:
    """Joins transports by address; `loss` (0..1) and `cut_links` break it as a test wishes."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self.rng = rng or random.Random(1)
        self.loss = 0.0
        self.cut_links: set[frozenset[NodeId]] = set()
        self.at: dict[str, MemoryTransport] = {}
        self._port = 40_000

    def port(self) -> int:
        """A port nobody has."""
        self._port += 1
        return self._port


class MemoryTransport:
    """See `base.Transport`."""

    def __init__(self, network: MemoryNetwork, me: NodeId) -> None:
        self.stats = TransportStats()
        self.on_failed: Callable[[Failure], None] | None = None
        self.bound: tuple[str, ...] = ()
        self.me = me
        self._network = network
        self._peers: dict[NodeId, tuple[str, ...]] = {}
        self._invitations: frozenset[NodeId] = frozenset()
        self._inbox: deque[Packet] = deque()
        self._arrived = asyncio.Event()
        self._guests: dict[bytes, MemoryTransport] = {}
        self._closed = False
        self._tally = Tally()

    async def start(self, listen: Sequence[str] = ()) -> tuple[str, ...]:
        """Begin; see `Transport.start`."""
        return await self.listen(listen)

    async def listen(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Bind; see `Transport.listen`."""
        for address in addresses:
            host, _, port = address.rpartition(":")
            while port == "0" or f"{host}:{port}" in self._network.at:
                port = str(self._network.port())
            self._network.at[f"{host}:{port}"] = self
            self.bound = (*self.bound, f"{host}:{port}")
        return self.bound

    async def unlisten(self) -> None:
        """Close all ports."""
        for address in self.bound:
            del self._network.at[address]
        self.bound = ()

    def set_peers(self, peers: Mapping[NodeId, Sequence[str]]) -> None:
        """Swap the set of members."""
        self._peers = {node: tuple(addresses) for node, addresses in peers.items() if node != self.me}
        self._tally.set_members(self._peers)

    def set_invitations(self, keys: Iterable[NodeId]) -> None:
        """Swap the set of invitation keys."""
        self._invitations = frozenset(keys)

    def send(self, to: NodeId, data: bytes) -> bool:
        """See `Transport.send`."""
        if len(data) > MAX_PACKET_BYTES:
            raise ValueError(f"a packet of {len(data)} bytes; at most {MAX_PACKET_BYTES}")
        addresses = self._peers.get(to, ())
        counters = self._tally.of(to)
        if self._closed or not addresses:
            self.stats.unsent += 1
            counters.drop(Drop.WAITING if addresses else Drop.NO_ADDRESS)
            return False
        other = next((t for t in map(self._network.at.get, addresses) if t and t.me == to), None)
        if other is None or frozenset((self.me, to)) in self._network.cut_links:
            self._fail(Failure(to, False, "nothing answers at that address"))
        elif not other.admits(self.me):
            other.stats.refused += 1
            self._fail(Failure(to, True, "it refused this node's key"))
        elif self._network.rng.random() >= self._network.loss:
            other.deliver(self, data)
        self.stats.sent += 1
        self.stats.sent_bytes += len(data)
        counters.sent += 1
        counters.sent_bytes += len(data)
        return True

    def _fail(self, failure: Failure) -> None:
        self.stats.failed += 1
        counters = self._tally.of(failure.node)
        counters.failures += 1
        counters.error = failure.text
        counters.drop(Drop.CUT)
        if self.on_failed:
            asyncio.get_running_loop().call_soon(self.on_failed, failure)

    def admits(self, key: NodeId) -> bool:
        """Whether a connection with this key would be let in."""
        return not self._closed and (key in self._peers or key in self._invitations)

    def deliver(self, source: MemoryTransport, data: bytes) -> None:
        """Take a packet in from `source`."""
        if len(self._inbox) >= _QUEUE:
            return
        invited = source.me not in self._peers
        route = source.me.encode() if invited else b""
        if invited:
            self._guests[route] = source
        self._inbox.append(Packet(source.me, data, "127.0.0.1", invited, route))
        self._arrived.set()

    async def receive(self) -> Packet:
        """See `Transport.receive`."""
        while True:
            if self._closed:
                raise TransportError("the transport is closed")
            while self._inbox:
                packet = self._inbox.popleft()
                if not self.admits(packet.sender):
                    self.stats.dropped += 1
                    self._tally.others.drop(Drop.STRANGER)
                    continue
                self.stats.received += 1
                self.stats.received_bytes += len(packet.data)
                counters = self._tally.of(packet.sender)
                counters.received += 1
                counters.received_bytes += len(packet.data)
                counters.heard = asyncio.get_running_loop().time()
                return packet
            self._arrived.clear()
            await self._arrived.wait()

    def reply(self, packet: Packet, data: bytes, *, cut: bool = False) -> bool:
        """See `Transport.reply`: the guest finds the answer in its own `receive`."""
        guest = self._guests.get(packet.route)
        if guest is None:
            return False
        guest.deliver(self, data)
        if cut:
            self.cut(packet)
        return True

    def cut(self, packet: Packet) -> None:
        """See `Transport.cut`."""
        self._guests.pop(packet.route, None)

    def links(self) -> dict[NodeId, Link]:
        """See `Transport.links`: there are no connections here, so all are up that have an address."""
        now = asyncio.get_running_loop().time()
        return {
            node: self._tally.of(node).link(
                LinkState.UP if addresses else LinkState.NOWHERE, addresses[0] if addresses else "", None, now
            )
            for node, addresses in self._peers.items()
        }

    def bounds(self) -> Bounds:
        """See `Transport.bounds`."""
        return Bounds(0, 0, 0, 0)

    def dropped(self, node: NodeId, reason: Drop) -> None:
        """See `Transport.dropped`."""
        self._tally.of(node).drop(reason)

    def strangers(self) -> tuple[tuple[Drop, int], ...]:
        """See `Transport.strangers`."""
        return tuple(sorted(self._tally.others.dropped.items()))

    async def close(self) -> None:
        """End everything."""
        await self.unlisten()
        self._closed = True
        self._arrived.set()
