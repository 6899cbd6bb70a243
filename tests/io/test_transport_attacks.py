"""The attack cases of SECURITY section 14 that concern the transport, on real loopback sockets."""

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from omcore.errors import NotTrusted, PeerUnreachable, TransportError
from omcore.transport import zmq_transport
from omcore.transport.addresses import default_listen, interface_addresses, is_private
from omcore.transport.ask import ask_once, join
from omcore.transport.base import Failure, Packet
from omcore.transport.zmq_transport import ZmqTransport
from omcore.trust.invites import decode_join, encode, handle_join
from omcore.trust.keys import NodeKey, generate_node_key
from omcore.trust.state import State, open_state
from omcore.trust.tokens import parse_token, split_address
from omcore.types import NodeId

NOW = 1_800_000_000.0
LOCAL = ["127.0.0.1:0"]


@contextlib.asynccontextmanager
async def running(key: NodeKey, listen: list[str] | None = None) -> AsyncIterator[tuple[ZmqTransport, str]]:
    transport = ZmqTransport(key)
    bound = await transport.start(LOCAL if listen is None else listen)
    try:
        async with asyncio.timeout(40):
            yield transport, bound[0] if bound else ""
    finally:
        await transport.close()


def next_failure(transport: ZmqTransport) -> Callable[[], "asyncio.Future[Failure]"]:
    queue: asyncio.Queue[Failure] = asyncio.Queue()
    transport.on_failed = queue.put_nowait
    return lambda: asyncio.ensure_future(queue.get())


def rss_bytes() -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]  # the kernel always has it


async def test_stranger_gets_400_and_not_a_byte() -> None:  # SECURITY case 1
    server = generate_node_key()
    async with running(server) as (transport, address):
        stranger = generate_node_key()
        with pytest.raises(NotTrusted, match="refused"):
            await ask_once(address, server.id, stranger, b"hello", 5)
        assert transport.stats.refused == 1
        assert [(r.key, r.address) for r in transport.refusals()] == [(stranger.id, "127.0.0.1")]
        assert transport.refusals() == ()
        assert transport.stats.received == 0


@pytest.mark.slow
async def test_right_key_and_wrong_server_key_is_silence_and_called_wrong_identity() -> None:  # SECURITY case 1
    server, client = generate_node_key(), generate_node_key()
    async with running(server) as (transport, address):
        transport.set_invitations([client.id])
        with pytest.raises(PeerUnreachable, match="wrong identity or not omview"):
            await ask_once(address, generate_node_key().id, client, b"hello", 8)
        assert transport.stats.received == transport.stats.refused == 0


@pytest.mark.slow
async def test_wrong_server_key_is_reported_by_the_mesh_too() -> None:  # SECURITY case 1
    server, client = generate_node_key(), generate_node_key()
    async with running(server) as (there, address), running(client) as (here, _):
        wrong = generate_node_key().id
        there.set_peers({client.id: []})
        here.set_peers({wrong: [address]})
        failed = next_failure(here)
        here.send(wrong, b"x")
        failure = await failed()
        assert (failure.refused, failure.text) == (False, "wrong identity or not omview")
        assert not here.send(wrong, b"x")  # a pause before the next dial


@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN"])
async def test_other_mechanisms_are_refused(mechanism: str) -> None:  # SECURITY case 2
    async with running(generate_node_key()) as (transport, address):
        context = zmq.Context()
        client = context.socket(zmq.DEALER)
        client.linger = 0
        if mechanism == "PLAIN":
            client.plain_username, client.plain_password = b"a", b"b"
        monitor = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        client.connect(f"tcp://{address}")
        client.send(b"data")
        event = int.from_bytes((await asyncio.to_thread(monitor.recv_multipart))[0][:2], "little")
        assert event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        assert transport.stats.received == 0
        client.disable_monitor()
        monitor.close(0)
        client.close(0)
        context.term()


async def test_without_its_authenticator_nobody_is_admitted() -> None:  # SECURITY case 3
    server, client = generate_node_key(), generate_node_key()
    async with running(server) as (transport, address):
        transport.set_invitations([client.id])
        zap = transport._zap
        killer = transport._context.socket(zmq.REQ)  # a malformed request ends no thread, so the thread is ended here
        killer.connect("inproc://zeromq.zap.01")
        zap._judge = lambda request: (_ for _ in ()).throw(zmq.ZMQError(zmq.ETERM))  # type: ignore[method-assign]
        killer.send(b"")
        await asyncio.to_thread(zap._thread.join, 5)
        assert not zap._thread.is_alive()
        killer.close(0)
        with pytest.raises((NotTrusted, PeerUnreachable)):
            await ask_once(address, server.id, client, b"hello", 5)
        assert transport.stats.received == 0


async def test_message_without_user_id_is_dropped() -> None:  # SECURITY case 3
    server = generate_node_key()
    async with running(server) as (transport, _):
        open_socket = transport._context.socket(zmq.ROUTER)  # as if libzmq had let somebody in unasked
        port = open_socket.bind_to_random_port("tcp://127.0.0.1")
        client = transport._context.socket(zmq.DEALER)
        client.connect(f"tcp://127.0.0.1:{port}")
        client.send(b"no proof")
        frames = await asyncio.to_thread(open_socket.recv_multipart, 0, False)
        assert transport._accept(frames) is None
        assert transport.stats.dropped == 1
        client.close(0)
        open_socket.close(0)


class Proxy:
    """A man in the middle who may spoil what the client says."""

    def __init__(self, target: str) -> None:
        self._target = split_address(target)
        self.spoil: Callable[[bytes], list[bytes]] = lambda data: [data]
        self.recorded: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, out = await asyncio.open_connection(*self._target)

        async def up() -> None:
            while data := await reader.read(65536):
                self.recorded.append(data)
                for piece in self.spoil(data):
                    out.write(piece)
            out.close()

        async def down() -> None:
            while data := await back.read(65536):
                writer.write(data)
            writer.close()

        for direction in (up(), down()):
            task = asyncio.ensure_future(direction)
            self._tasks.add(task)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: [data[:-1] + bytes([data[-1] ^ 1])],
        lambda data: [data, data],
        lambda data: [data[:-3] + b"\0\0\0"],
    ],
    ids=["flipped", "doubled", "overwritten"],
)
async def test_altered_traffic_ends_the_connection_and_nothing_altered_arrives(
    spoil: Callable[[bytes], list[bytes]],
) -> None:  # SECURITY case 4
    a, b = generate_node_key(), generate_node_key()
    async with running(a) as (ta, _), running(b) as (tb, at_b):
        proxy = Proxy(at_b)
        async with proxy as between:
            ta.set_peers({b.id: [between]})
            tb.set_peers({a.id: []})
            failed = next_failure(ta)
            ta.send(b.id, b"good")
            assert (await tb.receive()).data == b"good"
            proxy.spoil = spoil
            ta.send(b.id, b"transfer 100 to ana")
            await failed()
            proxy.spoil = lambda data: [data]
            ta.set_peers({})
            ta.set_peers({b.id: [between]})
            ta.send(b.id, b"after")
            got: list[bytes] = []
            while not got or got[-1] != b"after":
                got.append((await tb.receive()).data)
            assert got in ([b"after"], [b"transfer 100 to ana", b"after"])  # doubled: the first is genuine


async def test_recorded_session_replayed_is_refused() -> None:  # SECURITY case 4
    a, b = generate_node_key(), generate_node_key()
    async with running(a) as (ta, _), running(b) as (tb, at_b):
        proxy = Proxy(at_b)
        async with proxy as between:
            ta.set_peers({b.id: [between]})
            tb.set_peers({a.id: []})
            ta.send(b.id, b"once")
            await tb.receive()
        reader, writer = await asyncio.open_connection(*split_address(at_b))
        writer.write(b"".join(proxy.recorded))
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):  # until they cut it
                pass
        writer.close()
        assert tb.stats.received == 1


async def test_huge_frame_announced_before_login_takes_no_memory() -> None:  # SECURITY case 5
    async with running(generate_node_key()) as (transport, address):
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
        before = rss_bytes()
        writers = []
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*split_address(address))
            writer.write(greeting + b"\x06" + (100 << 20).to_bytes(8, "big") + bytes(1000))
            writers.append((reader, writer))
        for reader, writer in writers:
            with contextlib.suppress(ConnectionError):
                while await reader.read(4096):
                    pass
            writer.close()
        assert rss_bytes() - before < (1 << 20)
        assert transport.stats.received == 0


async def serve_joins(state: State, transport: ZmqTransport, alarms: list[str]) -> None:
    """What the engine does with packets from invitation keys."""
    while True:
        packet = await transport.receive()
        assert packet.invitation
        try:
            asked = decode_join(packet.data)
        except Exception:  # noqa: BLE001  # any rubbish: cut, as the engine does for RemoteProtocolError
            transport.cut(packet)
            continue
        answer = handle_join(state.roster, state.invites, state.cluster_key(), state.me, packet.sender, asked, NOW)
        refused = type(answer).__name__ == "JoinRefused"
        if refused:
            alarms.append(answer.text)  # type: ignore[union-attr]  # it is a JoinRefused
        transport.reply(packet, encode(answer), cut=refused)  # type: ignore[arg-type]  # the inviter is a keyholder


@contextlib.asynccontextmanager
async def inviting(directory: Path) -> AsyncIterator[tuple[State, ZmqTransport, str, list[str]]]:
    state = open_state(directory, NOW)
    alarms: list[str] = []
    async with running(state.key) as (transport, address):
        token = state.invites.make(state.roster, state.me, (address,), NOW)
        transport.set_invitations(state.invites.live(NOW))
        serving = asyncio.ensure_future(serve_joins(state, transport, alarms))
        try:
            yield state, transport, token, alarms
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def test_token_serves_one_node_again_and_again_and_no_other(tmp_path: Path) -> None:  # SECURITY case 7
    async with inviting(tmp_path / "inviter") as (state, _, text, alarms):
        token = parse_token(text, NOW)
        first, second = open_state(tmp_path / "first", NOW), open_state(tmp_path / "second", NOW)
        assert await join(first, token, "first", "0", (), NOW) == token.addresses[0]
        assert first.roster.digest() == state.roster.digest()
        lost = open_state(tmp_path / "lost", NOW)  # the same node, whose first answer was lost
        lost.key = first.key
        await join(lost, token, "first", "0", (), NOW)
        assert lost.roster.digest() == first.roster.digest()
        with pytest.raises(NotTrusted, match="another node"):
            await join(second, token, "second", "0", (), NOW)
        assert len(alarms) == 1
        assert second.roster.members(NOW)[0].id == second.me
        assert second.cluster_key() is not None


async def test_invitation_key_that_asks_for_anything_else_is_cut(tmp_path: Path) -> None:  # SECURITY case 9
    async with inviting(tmp_path / "inviter") as (state, transport, text, _):
        token = parse_token(text, NOW)
        with pytest.raises(PeerUnreachable, match="ended"):
            await ask_once(token.addresses[0], state.me, token.key, b"give me the board", 5)
        assert len(state.roster) == 1
        assert transport.stats.received == 1


async def test_joining_in_a_foreign_name_gives_the_sender_nothing(tmp_path: Path) -> None:  # SECURITY case 10
    async with inviting(tmp_path / "inviter") as (state, transport, text, _):
        token = parse_token(text, NOW)
        thief, victim = open_state(tmp_path / "thief", NOW), generate_node_key()
        own = thief.key
        thief.key = NodeKey(victim.id, own.secret)  # claims a key whose secret it lacks
        await join(thief, token, "x", "0", (), NOW)
        transport.set_peers({m.id: [] for m in state.roster.members(NOW)})
        for key in (own, NodeKey(victim.id, own.secret)):
            with pytest.raises((NotTrusted, PeerUnreachable)):
                await ask_once(token.addresses[0], state.me, key, b"hello", 5)


async def test_expired_invitation_is_refused_at_the_door(tmp_path: Path) -> None:  # SECURITY case 8
    async with inviting(tmp_path / "inviter") as (state, transport, text, _):
        token = parse_token(text, NOW)
        transport.set_invitations(state.invites.live(NOW + 901))
        with pytest.raises(NotTrusted, match="refused"):
            await join(open_state(tmp_path / "late", NOW), token, "late", "0", (), NOW)


async def test_forgotten_node_that_streams_is_cut_within_its_next_message_and_refused_after() -> None:
    # SECURITY case 12
    a, b = generate_node_key(), generate_node_key()
    clock = [0.0]
    streamer = ZmqTransport(a, clock=lambda: clock[0])
    async with running(b) as (tb, at_b):
        await streamer.start()
        try:
            streamer.set_peers({b.id: [at_b]})
            tb.set_peers({a.id: []})
            failed = next_failure(streamer)
            streamer.send(b.id, b"1")
            await tb.receive()
            tb.set_peers({})
            waiting = asyncio.ensure_future(tb.receive())
            streamer.send(b.id, b"2")
            assert (await failed()).text == "the connection ended"
            assert tb.stats.dropped == 1
            clock[0] += 1000.0
            assert streamer.send(b.id, b"3")
            assert (await failed()).refused
            assert not waiting.done()
            waiting.cancel()
        finally:
            await streamer.close()


async def test_all_addresses_of_a_peer_are_tried_before_it_counts_as_failed() -> None:
    a, b = generate_node_key(), generate_node_key()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        async with running(a) as (ta, _), running(b) as (tb, at_b):
            tb.set_peers({a.id: []})
            ta.set_peers({b.id: [dead, "no.such.host.invalid:1", at_b]})
            ta.on_failed = lambda failure: pytest.fail(str(failure))
            ta.send(b.id, b"found you")
            assert (await tb.receive()).data == b"found you"


def listening_ports() -> set[int]:
    """Ports this process listens on."""
    inodes = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f"/proc/self/fd/{fd}").removeprefix("socket:[").rstrip("]"))
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


async def test_lone_engine_opens_no_port() -> None:  # SECURITY case 39
    before = listening_ports()
    async with running(generate_node_key(), []) as (transport, _):
        assert listening_ports() == before
        bound = await transport.listen(LOCAL)
        assert listening_ports() - before == {split_address(bound[0])[1]}


async def test_taken_port_gives_the_next_and_a_bad_address_a_sentence() -> None:
    async with running(generate_node_key()) as (_, address), running(generate_node_key(), [address]) as (_, other):
        assert 0 < split_address(other)[1] - split_address(address)[1] < 14
    async with running(generate_node_key(), []) as (transport, _):
        with pytest.raises(TransportError, match="cannot listen at 192.0.2.77:0"):
            await transport.listen(["192.0.2.77:0"])


def test_default_addresses_are_private_and_not_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    # SECURITY case 39
    from omcore.transport import addresses

    assert ("lo", "127.0.0.1") in interface_addresses()
    seen = [
        ("lo", "127.0.0.1"), ("eth0", "192.168.1.5"), ("eth0", "8.8.8.8"), ("eth0", "fd00::5"), ("eth0", "fe80::1"),
        ("docker0", "172.17.0.1"), ("tailscale0", "100.64.1.2"), ("vethab12", "10.9.9.9"), ("wlan0", "169.254.3.3"),
        ("eth1", "2001:4860:4860::8888"), ("down0", "10.1.1.1"),
    ]  # fmt: skip
    monkeypatch.setattr(addresses, "interface_addresses", lambda: tuple(seen))
    monkeypatch.setattr(addresses, "_is_up", lambda name: name != "down0")
    assert default_listen(7) == ("192.168.1.5:7", "[fd00::5]:7", "100.64.1.2:7", "169.254.3.3:7")
    assert addresses.public_addresses() == ("8.8.8.8", "2001:4860:4860::8888")
    assert not is_private("172.32.0.1")


async def test_dials_are_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_transport, "MAX_DIALS", 2)
    hub = generate_node_key()
    peers = [generate_node_key() for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        transport, _ = await stack.enter_async_context(running(hub))
        others = [await stack.enter_async_context(running(key)) for key in peers]
        transport.set_peers({key.id: [address] for key, (_, address) in zip(peers, others, strict=True)})
        for key, (other, _) in zip(peers, others, strict=True):
            other.set_peers({hub.id: []})
            transport.send(key.id, b"x")
            packet: Packet = await other.receive()
            assert packet.sender == hub.id
        assert list(transport._dials) == [NodeId(key.id) for key in peers[1:]]


def test_keys_are_what_zeromq_calls_them() -> None:
    key = generate_node_key()
    assert zmq.curve_public(z85.encode(key.secret)) == z85.encode(key.public)
