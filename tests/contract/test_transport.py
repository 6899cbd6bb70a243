"""What every transport promises; the same cases run over ZeroMQ on loopback and in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from omcore.errors import TransportError
from omcore.transport.base import MAX_PACKET_BYTES, Failure, Transport
from omcore.transport.memory import MemoryNetwork, MemoryTransport
from omcore.transport.zmq_transport import ZmqTransport
from omcore.trust.keys import generate_node_key
from omcore.types import NodeId


class Room:
    """Makes transports of one kind and closes them all."""

    def __init__(self, kind: str) -> None:
        self._network = MemoryNetwork()
        self._kind = kind
        self.made: list[Transport] = []

    async def node(self, listen: tuple[str, ...] = ("127.0.0.1:0",)) -> tuple[NodeId, Transport, tuple[str, ...]]:
        key = generate_node_key()
        transport: Transport
        transport = ZmqTransport(key) if self._kind == "zmq" else MemoryTransport(self._network, key.id)
        self.made.append(transport)
        return key.id, transport, await transport.start(listen)


@pytest.fixture(params=["zmq", "memory"])
async def room(request: pytest.FixtureRequest) -> AsyncIterator[Room]:
    made = Room(request.param)
    async with asyncio.timeout(30):
        yield made
    for transport in made.made:
        await transport.close()


def failures(transport: Transport) -> Callable[[], "asyncio.Future[Failure]"]:
    """A function that gives the next failure."""
    queue: asyncio.Queue[Failure] = asyncio.Queue()
    transport.on_failed = queue.put_nowait
    return lambda: asyncio.ensure_future(queue.get())


async def test_sender_is_the_proven_key(room: Room) -> None:
    (a, ta, at_a), (b, tb, at_b) = await room.node(), await room.node()
    ta.set_peers({b: at_b, a: at_a})
    tb.set_peers({a: at_a})
    assert ta.send(b, b"hello")
    packet = await tb.receive()
    assert (packet.sender, packet.data, packet.invitation) == (a, b"hello", False)
    assert packet.address == "127.0.0.1"
    assert tb.send(a, b"x" * MAX_PACKET_BYTES)
    assert len((await ta.receive()).data) == MAX_PACKET_BYTES
    assert (ta.stats.sent, ta.stats.received, tb.stats.received_bytes) == (1, 1, 5)


async def test_packets_of_one_sender_arrive_in_order(room: Room) -> None:
    (a, ta, at_a), (b, tb, at_b) = await room.node(), await room.node()
    ta.set_peers({b: at_b})
    tb.set_peers({a: at_a})
    for number in range(40):
        assert ta.send(b, bytes([number]))
    assert [(await tb.receive()).data[0] for _ in range(40)] == list(range(40))


async def test_more_than_a_packet_may_hold_is_our_own_bug(room: Room) -> None:
    (_, ta, _), (b, _, at_b) = await room.node(), await room.node()
    ta.set_peers({b: at_b})
    with pytest.raises(ValueError):
        ta.send(b, b"x" * (MAX_PACKET_BYTES + 1))


async def test_nothing_is_sent_to_a_stranger(room: Room) -> None:
    (_, ta, _), (b, _, _) = await room.node(), await room.node()
    assert not ta.send(b, b"x")
    assert ta.stats.unsent == 1


async def test_key_that_is_not_in_the_roster_is_refused_and_told_so(room: Room) -> None:
    (_, ta, _), (b, tb, at_b) = await room.node(), await room.node()
    tb.set_peers({})
    ta.set_peers({b: at_b})
    failed = failures(ta)
    ta.send(b, b"let me in")
    failure = await failed()
    assert (failure.node, failure.refused) == (b, True)
    assert tb.stats.received == 0
    assert tb.stats.refused == 1


async def test_forgotten_node_is_cut_and_refused_and_may_come_back(room: Room) -> None:
    (a, ta, at_a), (b, tb, at_b), (c, tc, at_c) = await room.node(), await room.node(), await room.node()
    ta.set_peers({b: at_b})
    tc.set_peers({b: at_b})
    tb.set_peers({a: at_a, c: at_c})
    ta.send(b, b"1")
    tc.send(b, b"1")
    assert {(await tb.receive()).sender for _ in range(2)} == {a, c}
    failed = failures(ta)
    tb.set_peers({c: at_c})
    ta.send(b, b"still here?")
    tc.send(b, b"2")
    assert (await tb.receive()).sender == c  # the forgotten one's is never handed out, the other goes on undisturbed
    tc.send(b, b"3")
    assert (await tb.receive()).data == b"3"
    waiting = asyncio.ensure_future(tb.receive())  # an engine always waits: the forgotten one's may come only now
    assert (await failed()).node == b
    waiting.cancel()
    assert not tb.send(a, b"no")
    tb.set_peers({a: at_a, c: at_c})
    tb.send(a, b"come back")  # a, too, may now be dialled
    ta.set_peers({b: at_b})
    assert (await ta.receive()).sender == b
    ta.send(b, b"here")
    assert (await tb.receive()).sender == a


async def test_address_where_nobody_answers_is_reported(room: Room) -> None:
    (_, ta, _), (b, tb, at_b) = await room.node(), await room.node()
    await tb.close()
    ta.set_peers({b: at_b})
    failed = failures(ta)
    ta.send(b, b"x")
    failure = await failed()
    assert (failure.node, failure.refused) == (b, False)


async def test_invitation_key_is_marked_and_answered(room: Room) -> None:
    (x, tx, at_x), (b, tb, at_b) = await room.node(), await room.node()
    tb.set_invitations([x])
    tx.set_peers({b: at_b})
    tx.send(b, b"join")
    packet = await tb.receive()
    assert (packet.sender, packet.invitation) == (x, True)
    tb.set_invitations([])
    failed = failures(tx)
    waiting = asyncio.ensure_future(tb.receive())  # an engine always waits: so it notices the message it must not take
    tx.send(b, b"again")
    assert (await failed()).node == b
    waiting.cancel()
    assert tb.stats.received == 1
    assert at_x


async def test_waiting_receive_ends_when_the_transport_closes(room: Room) -> None:
    _, transport, _ = await room.node()
    waiting = asyncio.ensure_future(transport.receive())
    await asyncio.sleep(0)
    await transport.close()
    with pytest.raises(TransportError):
        await waiting
    await transport.close()


async def test_cancelled_receive_loses_nothing(room: Room) -> None:
    (a, ta, at_a), (b, tb, at_b) = await room.node(), await room.node()
    ta.set_peers({b: at_b})
    tb.set_peers({a: at_a})
    waiting = asyncio.ensure_future(tb.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    ta.send(b, b"kept")
    assert (await tb.receive()).data == b"kept"


async def test_listening_later_and_at_several_addresses(room: Room) -> None:
    (a, ta, nowhere), (b, tb, at_b) = await room.node(()), await room.node()
    assert nowhere == ()
    bound = await ta.listen(["127.0.0.1:0", "[::1]:0"])
    assert len(bound) == 2
    for address in bound:
        tb.set_peers({})
        tb.set_peers({a: [address]})
        ta.set_peers({b: at_b})
        tb.send(a, address.encode())
        assert (await ta.receive()).data == address.encode()
    await ta.unlisten()
    failed = failures(tb)
    tb.set_peers({})
    tb.set_peers({a: bound})
    tb.send(a, b"x")
    assert not (await failed()).refused


async def test_peer_that_goes_away_is_noticed_without_sending(room: Room) -> None:
    (a, ta, at_a), (b, tb, at_b) = await room.node(), await room.node()
    if isinstance(ta, MemoryTransport):
        pytest.skip("a memory network has no connections that could end")
    ta.set_peers({b: at_b})
    tb.set_peers({a: at_a})
    ta.send(b, b"x")
    await tb.receive()
    failed = failures(ta)
    await tb.close()
    assert (await failed()).text == "the connection ended"
