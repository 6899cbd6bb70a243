"""What every transport promises; the same cases run over ZeroMQ on loopback and in memory."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from omcore.errors import TransportError
from omcore.transport import zmq_transport
from omcore.transport.base import MAX_PACKET_BYTES, Failure, Transport
from omcore.transport.inbound import Inbound
from omcore.transport.memory import MemoryNetwork, MemoryTransport
from omcore.transport.sockets import plain_host
from omcore.transport.zmq_transport import ZmqTransport
from omcore.trust.keys import generate_node_key
from omcore.types import Drop, LinkState, NodeId


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


async def test_what_went_and_what_did_not_is_counted_for_each_member(room: Room) -> None:
    (a, ta, at_a), (b, tb, at_b), (c, tc, at_c) = await room.node(), await room.node(), await room.node()
    await tc.close()
    ta.set_peers({b: at_b, c: at_c})
    tb.set_peers({a: ()})
    ta.send(b, b"hello")
    await tb.receive()
    failed = failures(ta)
    ta.send(c, b"lost")
    await failed()
    assert not tb.send(a, b"where?")
    tb.dropped(a, Drop.MALFORMED)
    up, down = ta.links()[b], ta.links()[c]
    assert (up.state, up.address, up.sent, up.sent_bytes, up.dropped) == (LinkState.UP, at_b[0], 1, 5, ())
    assert (down.failures, down.dropped) == (1, ((Drop.CUT, 1),))
    assert down.error
    back = tb.links()[a]
    assert (back.state, back.received, back.received_bytes) == (LinkState.NOWHERE, 1, 5)
    assert back.heard_s is not None
    assert dict(back.dropped) == {Drop.MALFORMED: 1, Drop.NO_ADDRESS: 1}
    assert at_a


async def test_counters_are_kept_for_members_only(room: Room) -> None:
    (a, ta, _), (b, tb, at_b) = await room.node(), await room.node()
    for _ in range(3):
        stranger = generate_node_key().id
        assert not ta.send(stranger, b"x")
        ta.dropped(stranger, Drop.MALFORMED)
    assert ta.links() == {}
    assert dict(ta.strangers()) == {Drop.MALFORMED: 3, Drop.NO_ADDRESS: 3}
    ta.set_peers({b: at_b})
    tb.set_peers({a: ()})
    ta.send(b, b"x")
    await tb.receive()
    ta.set_peers({})
    ta.set_peers({b: at_b})
    assert ta.links()[b].sent == 0


# -- what only connections have


class Dice(random.Random):
    """Always the longest pause, or the shortest."""

    longest = True

    def uniform(self, a: float, b: float) -> float:
        return b if self.longest else a


async def test_a_node_that_does_not_answer_is_dialled_ever_more_seldom_with_jitter() -> None:
    now, dice = [1000.0], Dice()
    transport = ZmqTransport(generate_node_key(), clock=lambda: now[0], rng=dice)
    gone = ZmqTransport(generate_node_key())
    await transport.start()
    bound = await gone.start(["127.0.0.1:0"])
    await gone.close()
    other = generate_node_key().id
    transport.set_peers({other: bound})
    failed = failures(transport)
    pauses = []
    for _ in range(9):
        assert transport.send(other, b"x")
        await failed()
        link = transport.links()[other]
        assert link.state is LinkState.WAITING
        assert link.retry_s is not None
        pauses.append(link.retry_s)
        now[0] += link.retry_s * 0.99
        assert not transport.send(other, b"too early")
        now[0] += link.retry_s * 0.02
    assert [round(pause, 6) for pause in pauses] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    dice.longest = False
    assert transport.send(other, b"x")
    await failed()
    assert transport.links()[other].retry_s == 0.5  # somewhere between this and the longest
    assert transport.links()[other].dials == 10
    assert dict(transport.links()[other].dropped) == {Drop.WAITING: 9, Drop.CUT: 10}
    await transport.close()


async def test_who_speaks_to_us_is_dialled_again_at_once() -> None:
    """An idle or broken connection comes back by itself as soon as there is something to say."""
    a, b = generate_node_key(), generate_node_key()
    ta, tb = ZmqTransport(a), ZmqTransport(b)
    at_a, at_b = await ta.start(["127.0.0.1:0"]), await tb.start(["127.0.0.1:0"])
    ta.set_peers({b.id: at_b})
    tb.set_peers({a.id: at_a})
    failed = failures(ta)
    ta.send(b.id, b"1")
    await tb.receive()
    await tb.close()
    await failed()
    assert not ta.send(b.id, b"pause")
    again = ZmqTransport(b)
    await again.start(list(at_b))
    again.set_peers({a.id: at_a})
    again.send(a.id, b"I am back")
    assert (await ta.receive()).sender == b.id
    assert ta.send(b.id, b"2")
    assert (await again.receive()).data == b"2"
    for one in (ta, again):
        await one.close()


async def test_over_ipv6_as_over_ipv4() -> None:
    a, b = generate_node_key(), generate_node_key()
    ta, tb = ZmqTransport(a), ZmqTransport(b)
    try:
        at_a, at_b = await ta.start(["[::1]:0"]), await tb.start(["[::1]:0"])
    except TransportError as error:
        pytest.skip(f"no IPv6 here: {error.text}")
    assert at_a[0].startswith("[::1]:")
    ta.set_peers({b.id: at_b})
    tb.set_peers({a.id: at_a})
    ta.send(b.id, b"there")
    packet = await tb.receive()
    assert (packet.sender, packet.address) == (a.id, "::1")
    tb.send(a.id, b"and back")
    assert (await ta.receive()).data == b"and back"
    assert (tb.bounds().dials, tb.bounds().inbound) == (1, 1)
    failed = failures(ta)
    tb.set_peers({})
    tb_receives = asyncio.ensure_future(tb.receive())
    ta.send(b.id, b"no more")  # forgotten: cut, over IPv6, too
    assert (await failed()).node == b.id
    tb_receives.cancel()
    for one in (ta, tb):
        await one.close()


async def test_dials_stay_bounded_and_the_one_used_longest_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_transport, "MAX_DIALS", 3)
    hub, others = generate_node_key(), [generate_node_key() for _ in range(6)]
    center = ZmqTransport(hub)
    await center.start()
    ends = [ZmqTransport(key) for key in others]
    at = [await end.start(["127.0.0.1:0"]) for end in ends]
    center.set_peers({key.id: address for key, address in zip(others, at, strict=True)})
    for end in ends:
        end.set_peers({hub.id: ()})
    for round_ in range(2):
        for key, end in zip(others, ends, strict=True):
            center.send(key.id, bytes([round_]))
            assert (await end.receive()).data == bytes([round_])
            assert center.bounds().dials <= 3
    links = center.links()
    connected = [links[key.id].state in (LinkState.UP, LinkState.DIALLING) for key in others]
    assert connected == [False] * 3 + [True] * 3
    assert all(links[key.id].failures == 0 for key in others)
    for one in (center, *ends):
        await one.close()


async def test_what_comes_in_stays_bounded_too_and_may_come_again() -> None:
    hub, others = generate_node_key(), [generate_node_key() for _ in range(4)]
    center = ZmqTransport(hub)
    center._inbound.most = 2
    at = await center.start(["127.0.0.1:0", "127.0.0.2:0"])
    center.set_peers({key.id: () for key in others})
    ends = [ZmqTransport(key) for key in others]
    ended = []
    for end in ends:
        await end.start()
        end.set_peers({hub.id: at})
        ended.append(failures(end)())
        end.send(hub.id, b"x")
        await center.receive()
        assert center.bounds().inbound <= 2
    assert [(await one).text for one in ended[:2]] == ["the connection ended"] * 2
    assert not any(one.done() for one in ended[2:])
    for end in ends[2:]:
        end.send(hub.id, b"still here")
        assert (await center.receive()).data == b"still here"
    ends[0]._peers[hub.id].not_before = 0.0  # its pause is over
    ends[0].send(hub.id, b"again")
    assert (await center.receive()).sender == others[0].id
    assert center.bounds().inbound <= 2
    for one in (center, *ends):
        await one.close()


async def test_a_descriptor_that_is_something_else_now_is_left_alone() -> None:
    inbound = Inbound(plain_host, most=1)
    left, right = socket.socketpair()
    with left, right, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        inbound.ports = frozenset({port + 1})  # not one of ours
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as taken:
            for fd in (left.fileno(), taken.fileno(), 10_000, left.fileno()):
                inbound.heard(fd, "127.0.0.1")
            client.send(b"x")
            assert taken.recv(1) == b"x"
            left.send(b"y")
            assert right.recv(1) == b"y"
            assert inbound.count() == 0
            inbound.ports = frozenset({port})
            inbound.heard(taken.fileno(), "127.0.0.2")  # from elsewhere
            inbound.heard(taken.fileno() + 1, "127.0.0.1")
            client.send(b"z")
            assert taken.recv(1) == b"z"


async def test_addresses_forgotten_during_a_dial_are_no_crash() -> None:
    transport, gone = ZmqTransport(generate_node_key()), ZmqTransport(generate_node_key())
    await transport.start()
    bound = await gone.start(["127.0.0.1:0"])
    await gone.close()
    other = generate_node_key().id
    failed = failures(transport)
    transport.set_peers({other: bound})
    transport.send(other, b"x")
    transport.set_peers({other: ()})
    assert (await failed()).node == other
    assert transport.links()[other].state is LinkState.NOWHERE
    await transport.close()
