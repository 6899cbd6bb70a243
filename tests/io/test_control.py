"""The control socket, for real: who may serve it, who is served, and what a hostile face can do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from omcore import client as client_module
from omcore import control, requests
from omcore.client import SocketClient, Stream, connect
from omcore.control import HEAD, Channel, ControlServer, frame, read_frame
from omcore.errors import ConfigError, EngineUnreachable, NotMovable, NotTrusted, OmError, ProtocolError
from omcore.types import ClusterView, JobId, NodeId
from omcore.wire import PROTO

VIEW = ClusterView(NodeId("1" * 64), 1, "", "user", (), (), (), ())
JOB = JobId("a" * 32)


class Played:
    """A handler that does what the request's name suggests."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.heard: list[Any] = []

    async def handle(self, message: Any, channel: Channel) -> None:
        match message:
            case requests.Follow(once=True):
                await channel.send(VIEW)
            case requests.Follow():
                self.started.set()
                try:
                    while True:
                        await channel.send(VIEW)
                        await asyncio.sleep(0)
                finally:
                    self.cancelled.set()
            case requests.Lock():
                raise NotMovable("It is locked.", "Unlock it.")
            case requests.Signal():
                raise ValueError("a bug")
            case requests.Attach():
                while not isinstance(item := await channel.receive(), requests.Resize):
                    self.heard.append(item)
            case _:
                pass


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="omctl"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def played() -> Played:
    return Played()


@pytest.fixture
async def path(directory: Path, played: Played) -> AsyncIterator[Path]:
    server = ControlServer(directory / "engine.sock", played.handle)
    await server.start()
    yield directory / "engine.sock"
    await server.close()


@pytest.fixture
async def client(path: Path) -> AsyncIterator[SocketClient]:
    async with await connect(path) as made:
        yield made


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the engine hangs up (a reset counts)."""
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        pass
    return True


async def filled(stream: Stream) -> None:
    """Wait until nothing more fits into a stream that nobody reads."""
    for _ in range(100_000):
        if stream.inbox.full():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never filled")


# -- who serves and who is served


def test_only_its_owner_may_open_the_socket(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_second_engine_is_refused_and_the_first_goes_on(path: Path, client: SocketClient) -> None:
    with pytest.raises(ConfigError, match="already answers"):
        await ControlServer(path, Played().handle).start()
    assert await client.snapshot() == VIEW


async def test_a_socket_that_nobody_answers_on_is_replaced(directory: Path) -> None:
    path = directory / "engine.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(EngineUnreachable):
        await connect(path)
    server = ControlServer(path, Played().handle)
    await server.start()
    async with await connect(path) as client:
        assert await client.snapshot() == VIEW
    await server.close()
    assert not path.exists()
    with pytest.raises(EngineUnreachable, match="No engine"):
        await connect(path)


@pytest.mark.skipif(os.getuid() != 0, reason="needs another uid")
async def test_a_path_squatted_by_another_user_is_refused(directory: Path) -> None:
    """SECURITY case 32: the kernel says who bound it."""
    os.chmod(directory, 0o777)
    path = directory / "engine.sock"
    ready, told = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover
        os.setgid(65534)
        os.setuid(65534)
        squatter = socket.socket(socket.AF_UNIX)
        squatter.bind(str(path))
        squatter.listen()
        os.write(told, b".")
        signal.pause()
    try:
        assert await asyncio.to_thread(os.read, ready, 1) == b"."
        with pytest.raises(NotTrusted, match="served by uid 65534"):
            await connect(path)
    finally:
        os.kill(child, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, child, 0)
        os.close(ready)
        os.close(told)


@pytest.mark.parametrize(("mine", "theirs", "served"), [(1000, 1000, True), (1000, 0, True), (1000, 1001, False)])
async def test_the_engine_serves_its_user_and_root(
    directory: Path, played: Played, monkeypatch: pytest.MonkeyPatch, mine: int, theirs: int, served: bool
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: mine)
    monkeypatch.setattr(control, "peer_uid", lambda sock: theirs)
    monkeypatch.setattr(client_module, "peer_uid", lambda sock: mine)
    server = ControlServer(directory / "engine.sock", played.handle)
    await server.start()
    if served:
        await (await connect(directory / "engine.sock")).close()
    else:
        with pytest.raises(EngineUnreachable, match="hung up"):
            await connect(directory / "engine.sock")
    await server.close()


async def test_a_face_of_another_version_is_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PROTO", PROTO + 1)
    with pytest.raises(ProtocolError, match="another version"):
        await connect(path)


async def test_what_is_no_engine_is_refused(directory: Path) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(garbage, str(directory / "engine.sock"))
    with pytest.raises(ProtocolError):
        await connect(directory / "engine.sock")
    server.close()


# -- requests


async def test_errors_come_back_as_what_they_are(client: SocketClient) -> None:
    with pytest.raises(NotMovable) as caught:
        await client.lock(JOB, True)
    assert (caught.value.text, caught.value.hint) == ("It is locked.", "Unlock it.")
    with pytest.raises(OmError, match="The engine failed: ValueError"):
        await client.signal(JOB, 9)
    assert await client.snapshot() == VIEW


@pytest.mark.parametrize("kind", ["OmError", "NotMovable", "annotations", "Exception", "__builtins__", ""])
def test_only_our_own_errors_are_made_of_a_peers_word(kind: str) -> None:
    error = client_module._error(requests.Failed(kind, "text", "hint"))
    assert isinstance(error, OmError)


async def test_leaving_a_stream_ends_its_task_in_the_engine(client: SocketClient, played: Played) -> None:
    views = client.snapshots()
    assert await anext(views) == VIEW
    await views.aclose()  # type: ignore[attr-defined]
    await played.cancelled.wait()
    assert await client.snapshot() == VIEW


async def test_giving_up_a_question_ends_it_in_the_engine(client: SocketClient, played: Played) -> None:
    stream = client.open(requests.Follow())
    await played.started.wait()
    stream.cancel()
    await played.cancelled.wait()
    stream.cancel()
    assert await client.snapshot() == VIEW


async def test_nobody_waits_behind_a_stream_that_nobody_reads(client: SocketClient, played: Played) -> None:
    stream = client.open(requests.Follow())
    await filled(stream)
    stream.cancel()
    assert await client.snapshot() == VIEW


async def test_late_words_of_an_answered_request_change_nothing(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(frame(0, requests.Hello()) + frame(1, requests.Follow(once=True)))
    kinds = [type((await read_frame(reader))[1]) for _ in range(3)]
    assert kinds == [requests.Hello, ClusterView, requests.Done]
    writer.write(frame(1, requests.Cancel()) + frame(2, requests.Follow(once=True)))
    assert await read_frame(reader) == (2, VIEW)
    writer.close()


async def test_frames_reach_the_request_they_belong_to(client: SocketClient, played: Played) -> None:
    stream = client.attach(requests.Attach(JOB))
    for number in range(500):  # more than an inbox holds
        stream.send(requests.Input(number, b"x"))
    stream.send(requests.Resize(1, 1))
    await stream.drain()
    assert [item async for item in stream] == []
    assert [item.offset for item in played.heard] == list(range(500))


async def test_when_the_engine_goes_everybody_who_waits_is_told(directory: Path, played: Played) -> None:
    server = ControlServer(directory / "engine.sock", played.handle)
    await server.start()
    client = await connect(directory / "engine.sock")
    terminal = client.attach(requests.Attach(JOB))
    full = client.open(requests.Follow())
    await filled(full)
    await server.close()
    for stream in (full, terminal):
        with pytest.raises(EngineUnreachable):
            async for _ in stream:
                pass
    with pytest.raises(EngineUnreachable):
        await client.snapshot()
    await client.close()


# -- SECURITY case 33


ATTACKS = {
    "1 GB announced": HEAD.pack(1 << 30, 0),
    "4 GB announced": HEAD.pack(0xFFFFFFFF, 0),
    "no kind": HEAD.pack(0, 0),
    "unknown kind": HEAD.pack(1, 0) + b"\xfe",
    "not MessagePack": HEAD.pack(3, 0) + b"\x01\xc1\xc1",
    "a request before Hello": frame(1, requests.Follow(once=True)),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("hello", [False, True])
@pytest.mark.parametrize("attack", list(ATTACKS))
async def test_nonsense_is_hung_up_on_and_others_are_served(
    path: Path, client: SocketClient, attack: str, hello: bool
) -> None:
    if hello and attack == "a request before Hello":
        return
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write((frame(0, requests.Hello()) if hello else b"") + ATTACKS[attack])
    assert await closed(reader)
    writer.close()
    assert await client.snapshot() == VIEW


async def test_too_many_requests_at_once_are_hung_up_on(path: Path, client: SocketClient) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(frame(0, requests.Hello()))
    for number in range(control.MAX_REQUESTS + 1):
        writer.write(frame(number, requests.Attach(JOB)))
    assert await closed(reader)
    writer.close()
    assert await client.snapshot() == VIEW


async def test_who_says_nothing_or_half_a_word_is_hung_up_on(
    path: Path, client: SocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "HELLO_S", 0.01)
    for start in (b"", HEAD.pack(100, 0), HEAD.pack(100, 0) + b"\x01", struct.pack(">H", 0)):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(start)
        assert await closed(reader)
        writer.close()
    assert await client.snapshot() == VIEW


async def test_connections_are_counted(path: Path, client: SocketClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CONNECTIONS", 10)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(9):
            await stack.enter_async_context(await connect(path))
        with pytest.raises(EngineUnreachable, match="hung up"):
            await connect(path)
        assert await client.snapshot() == VIEW
    for _ in range(100):  # each leaves its place to the next
        try:
            async with await connect(path) as again:
                assert await again.snapshot() == VIEW
            return
        except EngineUnreachable:
            continue
    raise AssertionError("no place became free")
