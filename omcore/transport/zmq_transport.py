"""Packets over ZeroMQ with CURVE: one ROUTER that listens, one DEALER for each peer we talk to.

The sender of a packet is the key that libzmq proved and our authenticator named (User-Id), never a field of the
message. At idle nothing runs: the loop wakes for a packet or for the end of a connection, and a lost peer is dialled
again by the next `send` after its pause, so there is no timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import random
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import zmq

from omcore.errors import TransportError, UsageError
from omcore.transport.base import MAX_PACKET_BYTES, Bounds, Failure, Packet, TransportStats
from omcore.transport.counters import Tally
from omcore.transport.inbound import Inbound
from omcore.transport.sockets import (
    Socket,
    client_socket,
    endpoint,
    new_context,
    next_event,
    plain_host,
    server_socket,
    watch,
)
from omcore.transport.zap import Refusal, Zap
from omcore.trust.keys import NodeKey
from omcore.trust.tokens import join_address, split_address
from omcore.types import Drop, Link, LinkState, NodeId

MAX_DIALS = 64  # a full mesh up to here; beyond it the least recently used connection goes
REDIAL_S = (0.5, 60.0)
_PORTS_TRIED = 14
_BURST = 16  # packets handed out before other tasks of the loop get a turn
_MAX_GUESTS = 32
_DIAL_S = 10.0  # libzmq's own limits are shorter; this is for the failures it never tells of
_CUT_AFTER_S = 0.2  # an answer needs this long to leave before its connection ends


@dataclass(slots=True)
class _Dial:
    """One DEALER, its event socket, and what was sent before the handshake was done."""

    socket: Socket
    monitor: Socket
    fd: int
    since: float  # monotonic
    address: str
    up: bool = False
    early: deque[bytes] = field(default_factory=lambda: deque(maxlen=8))


@dataclass(slots=True)
class _Peer:
    """A member: where to dial, and how that went."""

    addresses: tuple[str, ...]
    next_address: int = 0
    failures: int = 0
    not_before: float = 0.0  # monotonic


class ZmqTransport:
    """See `base.Transport`. `clock` (monotonic seconds) and `rng` are for the pauses between dials."""

    def __init__(
        self, key: NodeKey, clock: Callable[[], float] = time.monotonic, rng: random.Random | None = None
    ) -> None:
        self.stats = TransportStats()
        self.on_failed: Callable[[Failure], None] | None = None
        self.bound: tuple[str, ...] = ()
        self._key = key
        self._clock = clock
        self._rng = rng or random.Random()
        self._peers: dict[NodeId, _Peer] = {}
        self._invitations: frozenset[NodeId] = frozenset()
        self._dials: OrderedDict[NodeId, _Dial] = OrderedDict()
        self._guests: OrderedDict[bytes, socket.socket] = OrderedDict()
        self._waiter: asyncio.Future[None] | None = None
        self._taken = 0
        self._closed = False
        self._context = new_context()
        self._tally = Tally()
        self._inbound = Inbound(plain_host)
        self._zap = Zap(self._context, self.stats)
        self._router = server_socket(self._context, key)

    # --- beginning and end

    async def start(self, listen: Sequence[str] = ()) -> tuple[str, ...]:
        """Begin on this loop; see `Transport.start`."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._router.fileno(), self._readable)
        return await self.listen(listen)

    async def listen(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Bind; returns everything bound now. Raises TransportError naming the address that failed."""
        for address in addresses:
            self.bound = (*self.bound, self._bind(address))
        self._inbound.ports = frozenset(split_address(address)[1] for address in self.bound)
        self._readable()
        return self.bound

    def _bind(self, address: str) -> str:
        host, port = split_address(address)
        if port and self.bound:
            port = max(port, split_address(self.bound[-1])[1])  # one port for all addresses, if it can be
        for candidate in range(port, port + (_PORTS_TRIED if port else 1)):
            try:
                self._router.bind(endpoint(join_address(host, candidate)))
            except zmq.ZMQError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise TransportError(f"cannot listen at {address}: {error.strerror}") from error
            last = self._router.getsockopt(zmq.LAST_ENDPOINT)
            assert isinstance(last, bytes)
            bound_host, bound_port = split_address(last.rstrip(b"\0").decode().removeprefix("tcp://"))
            return join_address(plain_host(bound_host), bound_port)
        raise TransportError(f"cannot listen at {address}: the port is taken", "name another port")

    async def unlisten(self) -> None:
        """Close all ports; see `Transport.unlisten`."""
        for address in self.bound:
            host, port = split_address(address)
            try:
                self._router.unbind(endpoint(address))
            except zmq.ZMQError:  # bound under its IPv6-mapped name
                self._router.unbind(f"tcp://[::ffff:{host}]:{port}")
        self.bound = ()
        self._readable()

    async def close(self) -> None:
        """End everything; a waiting `receive` raises TransportError. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._router.fileno())
        for node in tuple(self._dials):
            self._hang_up(node)
        for guest in self._guests.values():
            guest.close()
        self._guests.clear()
        self._router.close(0)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
        await asyncio.to_thread(self._context.term)  # waits for the authenticator's thread: milliseconds

    # --- who may talk

    def set_peers(self, peers: Mapping[NodeId, Sequence[str]]) -> None:
        """Swap the set of members; see `Transport.set_peers`."""
        for node in self._peers.keys() - peers.keys():
            self._hang_up(node)
        members: dict[NodeId, _Peer] = {}
        for node, addresses in peers.items():
            if node == self._key.id:
                continue
            known = self._peers.get(node)
            if known is None or known.addresses != tuple(addresses):
                known = _Peer(tuple(addresses))
            members[node] = known
        self._peers = members
        self._tally.set_members(members)
        self._admit()

    def set_invitations(self, keys: Iterable[NodeId]) -> None:
        """Swap the set of invitation keys."""
        self._invitations = frozenset(keys)
        self._admit()

    def _admit(self) -> None:
        self._zap.keys = frozenset(bytes.fromhex(node) for node in (*self._peers, *self._invitations))

    def refusals(self) -> tuple[Refusal, ...]:
        """The last keys that were refused, oldest first, for the audit log; each is told once."""
        told = []
        while self._zap.refusals:
            refusal = self._zap.refusals.popleft()
            told.append(Refusal(refusal.key, plain_host(refusal.address)))
        return tuple(told)

    def links(self) -> dict[NodeId, Link]:
        """Each member with what went between us; see `Transport.links`."""
        now = self._clock()
        return {node: self._link(node, peer, now) for node, peer in self._peers.items()}

    def _link(self, node: NodeId, peer: _Peer, now: float) -> Link:
        dial = self._dials.get(node)
        waits = peer.not_before - now
        address = peer.addresses[peer.next_address % len(peer.addresses)] if peer.addresses else ""
        if dial is not None:
            state = LinkState.UP if dial.up else LinkState.DIALLING
            return self._tally.of(node).link(state, dial.address, None, now)
        state = LinkState.NOWHERE if not address else LinkState.WAITING if waits > 0 else LinkState.IDLE
        return self._tally.of(node).link(state, address, waits if waits > 0 else None, now)

    def bounds(self) -> Bounds:
        """Connections made and taken, each with its limit; see `Transport.bounds`."""
        return Bounds(len(self._dials), MAX_DIALS, self._inbound.count(), self._inbound.most)

    def dropped(self, node: NodeId, reason: Drop) -> None:
        """Count a message that was no use; see `Transport.dropped`."""
        self._tally.of(node).drop(reason)

    def strangers(self) -> tuple[tuple[Drop, int], ...]:
        """What was dropped of nobody known."""
        return tuple(sorted(self._tally.others.dropped.items()))

    # --- sending

    def send(self, to: NodeId, data: bytes) -> bool:
        """See `Transport.send`. Raises ValueError for more than `MAX_PACKET_BYTES`."""
        if len(data) > MAX_PACKET_BYTES:
            raise ValueError(f"a packet of {len(data)} bytes; at most {MAX_PACKET_BYTES}")
        peer = self._peers.get(to)
        dial = self._dials.get(to)
        if dial is not None and not dial.up and self._clock() - dial.since > _DIAL_S:
            self._hang_up(to)
            self._failed(Failure(to, False, "nothing answers at that address"), dial)
            dial = self._dials.get(to)
        if peer is not None and dial is None:
            dial = self._dial(to, peer)
        counters = self._tally.of(to)
        if dial is None or self._closed:
            self.stats.unsent += 1
            counters.drop(Drop.WAITING if peer and peer.addresses else Drop.NO_ADDRESS)
            return False
        self._dials.move_to_end(to)
        try:
            dial.socket.send(data, zmq.NOBLOCK)
        except zmq.ZMQError:  # queue full, or the connection is ending
            self.stats.unsent += 1
            counters.drop(Drop.QUEUE_FULL)
            return False
        if not dial.up:
            dial.early.append(data)
        self.stats.sent += 1
        self.stats.sent_bytes += len(data)
        counters.sent += 1
        counters.sent_bytes += len(data)
        return True

    def _dial(self, node: NodeId, peer: _Peer) -> _Dial | None:
        if self._closed or not peer.addresses or self._clock() < peer.not_before:
            return None
        if len(self._dials) >= MAX_DIALS:
            self._hang_up(next(iter(self._dials)))
        for _ in peer.addresses:
            dial = self._connect(node, peer.addresses[peer.next_address])
            if dial:
                self._dials[node] = dial
                self._tally.of(node).dials += 1
                self._loop.add_reader(dial.fd, self._watched, node, dial)
                # libzmq's descriptor wakes only a reader that has once found it empty; later, so that `send` is done
                self._loop.call_soon(self._watched, node, dial)
                return dial
            peer.next_address = (peer.next_address + 1) % len(peer.addresses)
        self._pause(peer, Failure(node, False, "none of its addresses can be dialled"))
        return None

    def _connect(self, node: NodeId, address: str) -> _Dial | None:
        try:
            ipaddress.ip_address(split_address(address)[0])  # libzmq would resolve a name on its I/O thread
        except (UsageError, ValueError):
            return None
        dealer = client_socket(self._context, self._key, node)
        monitor = watch(self._context, dealer)
        dial = _Dial(dealer, monitor, monitor.fileno(), self._clock(), address)
        try:
            dealer.connect(endpoint(address))
        except zmq.ZMQError:
            _close(dial)
            return None
        return dial

    def _hang_up(self, node: NodeId) -> None:
        dial = self._dials.pop(node, None)
        if dial:
            self._loop.remove_reader(dial.fd)
            _close(dial)

    def _watched(self, node: NodeId, dial: _Dial) -> None:
        while self._dials.get(node) is dial:
            event = next_event(dial.monitor, dial.up)
            if event is None:
                return
            if event.up:
                dial.up = True
                dial.early.clear()
                if peer := self._peers.get(node):
                    peer.failures = 0
            else:
                self._hang_up(node)
                self._failed(Failure(node, event.refused, event.text), dial)

    def _failed(self, failure: Failure, dial: _Dial) -> None:
        """Try the peer's next address at once; when all have failed, pause and tell the engine."""
        self.stats.failed += 1
        peer = self._peers.get(failure.node)
        if peer is None:
            return
        counters = self._tally.of(failure.node)
        counters.failures += 1
        counters.error = failure.text
        if not dial.up:
            if peer.addresses:  # they may have been forgotten meanwhile
                peer.next_address = (peer.next_address + 1) % len(peer.addresses)
            if peer.next_address and dial.early:
                for data in dial.early:
                    self.send(failure.node, data)
                return
            counters.drop(Drop.CUT, len(dial.early))
        self._pause(peer, failure)

    def _pause(self, peer: _Peer, failure: Failure) -> None:
        peer.failures += 1
        longest = min(REDIAL_S[1], REDIAL_S[0] * 2.0**peer.failures)
        peer.not_before = self._clock() + self._rng.uniform(REDIAL_S[0], longest)
        if self.on_failed:
            self.on_failed(failure)

    # --- receiving

    async def receive(self) -> Packet:
        """See `Transport.receive`."""
        while True:
            if self._taken >= _BURST:
                self._taken = 0
                await asyncio.sleep(0)
            if self._closed:
                raise TransportError("the transport is closed")
            self._taken += 1
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self._taken = 0
                waiter = self._waiter = self._loop.create_future()
                try:
                    await waiter
                finally:
                    if self._waiter is waiter:  # a cancelled call ends after the next one began
                        self._waiter = None
                continue
            packet = self._accept(frames)
            if packet is not None:
                return packet

    def _readable(self) -> None:
        # libzmq's descriptor tells only of changes: reading EVENTS takes the change in, so it must not be missed.
        # It is read also while nobody waits, or the loop would spin until somebody does.
        ready = int(self._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN
        if ready and self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _accept(self, frames: list[zmq.Frame]) -> Packet | None:
        body = frames[-1]
        try:
            sender = NodeId(str(body.get("User-Id")))
            address = plain_host(str(body.get("Peer-Address")))
        except zmq.ZMQError:  # nobody proved who sent this
            self.stats.dropped += 1
            self._tally.others.drop(Drop.STRANGER)
            return None
        invited = sender in self._invitations
        peer = self._peers.get(sender)
        if len(frames) != 2 or (peer is None and not invited):
            self.stats.dropped += 1
            self._tally.of(sender).drop(Drop.STRANGER if peer is None else Drop.MALFORMED)
            connection = _connection(body, address)
            if connection:
                _shut(connection)
            return None
        self.stats.received += 1
        self.stats.received_bytes += len(body)
        if peer is not None:
            peer.not_before = 0.0  # it lives, so it may be dialled again at once
            counters = self._tally.of(sender)
            counters.received += 1
            counters.received_bytes += len(body)
            counters.heard = self._clock()
            self._inbound.heard(int(body.get(zmq.SRCFD)), address)
            return Packet(sender, body.bytes, address)
        route = frames[0].bytes
        self._remember(route, _connection(body, address))
        return Packet(sender, body.bytes, address, invitation=True, route=route)

    # --- guests with an invitation

    def _remember(self, route: bytes, connection: socket.socket | None) -> None:
        old = self._guests.pop(route, None)
        if old:
            old.close()
        if connection:
            self._guests[route] = connection
        while len(self._guests) > _MAX_GUESTS:
            _shut(self._guests.popitem(last=False)[1])

    def reply(self, packet: Packet, data: bytes, *, cut: bool = False) -> bool:
        """See `Transport.reply`."""
        if not packet.invitation or self._closed:
            return False
        try:
            self._router.send_multipart([packet.route, data], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        if cut:
            self._loop.call_later(_CUT_AFTER_S, self.cut, packet)
        self._readable()
        return True

    def cut(self, packet: Packet) -> None:
        """See `Transport.cut`."""
        connection = self._guests.pop(packet.route, None)
        if connection:
            _shut(connection)


def _close(dial: _Dial) -> None:
    dial.socket.disable_monitor()
    dial.monitor.close(0)
    dial.socket.close(0)


def _connection(frame: zmq.Frame, address: str) -> socket.socket | None:
    """Our own handle of the TCP connection a frame came by; None if it is gone.

    libzmq's thread may have closed the descriptor meanwhile and another file may have its number: hence the comparison.
    """
    try:
        connection = socket.socket(fileno=os.dup(int(frame.get(zmq.SRCFD))))
    except (OSError, zmq.ZMQError):
        return None
    try:
        if (
            connection.family in (socket.AF_INET, socket.AF_INET6)
            and plain_host(connection.getpeername()[0]) == address
        ):
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _shut(connection: socket.socket) -> None:
    # shutdown, never close of libzmq's own descriptor: that crashes it. Ours is a duplicate.
    with connection, contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
