"""Announcements on the loopback's multicast: members meet without an address, a stranger learns nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from omcore.client import connect
from omcore.config import Config
from omcore.discovery import names
from omcore.discovery.book import AddressBook
from omcore.discovery.lan import AGAIN_S, Lan, Situation
from omcore.errors import ConfigError, PeerUnreachable
from omcore.node import Node
from omcore.paths import SHARED_MEMORY, Paths
from omcore.trust.keys import generate_node_key
from omcore.trust.provision import provision
from omcore.types import ClusterView, NodeId, NodeState

pytestmark = pytest.mark.slow

GROUP, PORT = "224.0.0.251", 5353


class Ear:
    """A stranger on the same network who hears every mDNS packet."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind((GROUP, PORT))
        member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton("127.0.0.1"))
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        self.socket.setblocking(False)

    async def announcement(self, host: str) -> bytes:
        """The next packet from `host` that holds a TXT record of ours."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while True:
                data, sender = await loop.sock_recvfrom(self.socket, 9000)
                if sender[0] == host and b"\x03v=1" in data:
                    return data

    def drain(self) -> None:
        """Forget what has come so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.recv(9000)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def ear() -> Iterator[Ear]:
    try:
        made = Ear()
    except OSError as error:
        pytest.skip(f"no multicast on the loopback: {error}")
    yield made
    made.close()


class Hearing:
    """A `Lan` at work, and what it found."""

    def __init__(self, me: NodeId, clock: Callable[[], float] = time.time) -> None:
        self.found: asyncio.Queue[tuple[NodeId, tuple[str, ...]]] = asyncio.Queue()
        self.lan = Lan(me, lambda node, addresses: self.found.put_nowait((node, addresses)), clock)
        self.task = asyncio.create_task(self.lan.run())

    async def next(self) -> tuple[NodeId, tuple[str, ...]]:
        return await asyncio.wait_for(self.found.get(), 15)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def situation(host: str, *members: NodeId, invitations: tuple[NodeId, ...] = ()) -> Situation:
    return Situation((f"{host}:4632",), frozenset(members), frozenset(invitations))


def keys(count: int) -> list[NodeId]:
    return [generate_node_key().id for _ in range(count)]


async def test_members_hear_each_other_and_a_stranger_finds_nobody(ear: Ear) -> None:
    a, b, c = keys(3)
    ash, birch, stranger = Hearing(a), Hearing(b), Hearing(c)
    ash.lan.update(situation("127.3.0.1", b))
    birch.lan.update(situation("127.3.0.2", a))
    stranger.lan.update(situation("127.3.0.3", generate_node_key().id))
    assert await ash.next() == (b, ("127.3.0.2:4632",))
    assert await birch.next() == (a, ("127.3.0.1:4632",))
    assert await ear.announcement("127.3.0.3")
    assert stranger.found.empty()
    for one in (ash, birch, stranger):
        await one.close()


async def test_no_two_starts_announce_anything_alike_and_nothing_says_who_it_is(ear: Ear) -> None:
    """Attack case 40; the addresses are those that the packet's own header shows."""
    me, other, invitation = keys(3)
    now = time.time()
    heard = []
    for _ in range(2):
        one = Hearing(me, lambda: now)
        one.lan.update(situation("127.3.0.4", other, invitations=(invitation,)))
        heard.append(await ear.announcement("127.3.0.4"))
        await one.close()  # with a goodbye, which is the same packet again
        ear.drain()
    for word in (socket.gethostname().encode(), me.encode(), bytes.fromhex(me), bytes.fromhex(invitation)):
        assert not any(word in packet or word[:8] in packet for packet in heard)
    texts = [packet[packet.index(b"\x03v=1") + 4 :] for packet in heard]
    for at, field in ((0, b"t="), (23, b"i=")):
        values = [text[at + 1 : at + 23] for text in texts]
        assert all(value.startswith(field) for value in values)
        assert values[0] != values[1]
        assert len(longest_common(values[0][2:], values[1][2:])) < 8


def longest_common(a: bytes, b: bytes) -> bytes:
    best = b""
    for start in range(len(a)):
        while a[start : start + len(best) + 1] in b and start + len(best) < len(a):
            best = a[start : start + len(best) + 1]
    return best


async def test_who_is_alone_says_nothing_and_loads_nothing() -> None:
    script = """
import asyncio, sys, tempfile
from pathlib import Path
from omcore.config import Config
from omcore.node import Node
from omcore.paths import Paths
async def main():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as root:
        home = Path(root)
        places = Paths(home / "s", home / "r", home / "c", home / "d", home / "i")
        node = Node(places, Config(listen=("127.0.0.1",)), "user")
        await node.start()
        print(node.finder.state, "zeroconf" in sys.modules)
        await node.close()
asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    output, _ = await child.communicate()
    assert output.decode().strip() == "silent: there is nobody to be found False"


async def test_the_hour_and_a_new_invitation_change_what_is_said(ear: Ear) -> None:
    me, other, invitation = keys(3)
    clock = [time.time()]
    one = Hearing(me, lambda: clock[0])
    one.lan.update(situation("127.3.0.5", other))
    first = await ear.announcement("127.3.0.5")
    clock[0] += 3600
    one.lan.update(situation("127.3.0.5", other, invitations=(invitation,)))
    while (later := await ear.announcement("127.3.0.5")) == first or b"i=" not in later:
        pass
    assert b"i=" not in first
    assert longest_common(first, later) != first
    await one.close()


async def test_a_newcomer_finds_the_inviter_whose_address_changed(ear: Ear) -> None:
    me, invitation, other = keys(3)
    inviter, newcomer = Hearing(me), Hearing(other)
    inviter.lan.update(situation("127.3.0.6", invitations=(invitation,)))
    await ear.announcement("127.3.0.6")
    assert await newcomer.lan.seek(invitation, ("127.3.0.7:4632",), 10) == ("127.3.0.6:4632",)
    assert await newcomer.lan.seek(other, ("127.3.0.7:4632",), 0.2) == ()
    for one in (inviter, newcomer):
        await one.close()


async def test_an_address_without_multicast_is_told_and_tried_again() -> None:
    me, other = keys(2)
    lan = Lan(me, lambda node, addresses: None)
    lan.update(situation("203.0.113.7", other))  # TEST-NET-3: no address of this machine
    assert await lan._step() == AGAIN_S
    assert lan.state.startswith("failed: ")


# -- engines


class Room:
    """Engines with states of one cluster, which know no address of each other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: list[Node] = []

    def provision(self, *words: str) -> None:
        provision([self.root / word / "state" for word in words], time.time())

    async def engine(self, word: str, **settings: object) -> Node:
        home = self.root / word
        home.mkdir(mode=0o700, exist_ok=True)
        places = Paths(home / "state", home / "run", home / "config.toml", home / "data", home / "images")
        node = Node(places, Config(name=word, port=0, **settings), "user")  # type: ignore[arg-type]  # any of its keys
        await node.start()
        self.nodes.append(node)
        return node


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    root = Path(tempfile.mkdtemp(prefix="omlan", dir=SHARED_MEMORY))
    made = Room(root)
    yield made
    for node in made.nodes:
        await node.close()
    shutil.rmtree(root)


async def until(node: Node, true: Callable[[ClusterView], bool]) -> ClusterView:
    async with asyncio.timeout(40), await connect(node.places.socket) as client:
        async for view in client.snapshots():
            if true(view):
                return view
    raise AssertionError("the engine stopped telling")


def all_up(names: set[str]) -> Callable[[ClusterView], bool]:
    return lambda view: (
        {node.name for node in view.nodes} == names and all(node.state is NodeState.UP for node in view.nodes)
    )


async def test_engines_that_know_no_address_meet_on_the_lan(room: Room, ear: Ear) -> None:
    room.provision("ash", "birch")
    ash = await room.engine("ash", listen=("127.3.1.1",))
    birch = await room.engine("birch", listen=("127.3.1.2",))
    for node in (ash, birch):
        await until(node, all_up({"ash", "birch"}))
    assert ash.finder.state == "on 127.3.1.1"


async def test_a_map_and_a_name_are_enough_without_the_lan(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.provision("ash", "birch", "cedar")
    ash = await room.engine("ash", listen=("127.3.2.1",), discover=False)
    port = ash.membership.listening[0].rpartition(":")[2]

    async def found(name: str) -> tuple[str, ...]:
        assert name == f"ash.example:{port}"
        return (f"127.3.2.1:{port}",)

    monkeypatch.setattr(names, "look_up", found)
    birch = await room.engine("birch", listen=("127.3.2.2",), discover=False, peers=(f"ash.example:{port}",))
    # The map gives hosts only, its port is this node's own: so this one listens where the first one does.
    (room.root / "cedar" / "room.map").write_text("1 127.3.2.1 1\n")
    home = room.root / "cedar"
    places = Paths(home / "state", home / "run", home / "config.toml", home / "data", home / "images")
    config = Config(name="cedar", listen=("127.3.2.3",), port=int(port), discover=False, map="room.map")
    cedar = Node(places, config, "user")
    await cedar.start()
    room.nodes.append(cedar)
    for node in (ash, birch, cedar):  # birch and cedar hear of each other from ash
        await until(node, all_up({"ash", "birch", "cedar"}))
        assert node.finder.state == "off"
        assert {one.number for one in (await until(node, lambda view: True)).nodes} == {1, 2, 3}


async def test_a_wrong_line_in_the_map_stops_the_start_and_is_named(room: Room) -> None:
    room.provision("ash")
    (room.root / "ash" / "room.map").write_text("1 10.0.0.1 1\n1 10.0.0.2 1\n")
    with pytest.raises(ConfigError, match=r"room\.map, line 2: node 1 is in line 1 already"):
        await room.engine("ash", map="room.map")
    assert not (room.root / "ash" / "run").exists()


async def test_joining_finds_the_inviter_at_its_new_address(room: Room, ear: Ear) -> None:
    ash = await room.engine("ash", listen=("127.3.3.1",))
    birch = await room.engine("birch", listen=("127.3.3.2",))
    client = await connect(ash.places.socket)
    token = await client.invite()
    await client.close()
    await ear.announcement("127.3.3.1")
    await ash.transport.unlisten()
    ash.membership.listening = ()
    await ash.membership._listen()  # elsewhere: the port is drawn anew
    await ash.membership.changed()
    async with await connect(birch.places.socket) as face:
        assert "node 2" in await face.join(token)
    await until(ash, all_up({"ash", "birch"}))


async def test_an_inviter_that_is_nowhere_stays_unreachable(room: Room, ear: Ear) -> None:
    ash = await room.engine("ash", listen=("127.3.4.1",))
    async with await connect(ash.places.socket) as face:
        token = await face.invite()
    room.nodes.remove(ash)
    await ash.close()
    birch = await room.engine("birch", listen=("127.3.4.2",))
    async with await connect(birch.places.socket) as face:
        with pytest.raises(PeerUnreachable):
            await face.join(token)


# -- names


async def test_names_are_looked_up_off_the_loop_and_a_missing_one_harms_none(monkeypatch: pytest.MonkeyPatch) -> None:
    book = AddressBook(["nowhere.invalid:1", "localhost:4632"])
    answers = {"nowhere.invalid": OSError("no such name"), "localhost": [(2, 1, 6, "", ("127.0.0.1", 4632))]}

    async def getaddrinfo(host: str, port: int, **more: object) -> object:
        answer = answers[host]
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    changed = asyncio.Event()
    task = asyncio.create_task(names.keep_resolved(book, changed.set, random.Random(1)))
    await asyncio.wait_for(changed.wait(), 5)
    assert book.names == ("nowhere.invalid:1", "localhost:4632")
    assert book._numeric(book.names) == ("127.0.0.1:4632",)
    task.cancel()


async def test_without_names_nothing_runs() -> None:
    await asyncio.wait_for(names.keep_resolved(AddressBook(["10.0.0.1:1"]), print, None), 1)  # type: ignore[arg-type]
