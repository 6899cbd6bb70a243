"""The image stream between real workers on loopback: it arrives whole, or nothing of it stays."""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from omcore.errors import TransportError
from omcore.transport.bulk import Account, Arrived, BulkReceiver, BulkSender, Sent, Ticket, new_ticket, reserve_bytes
from omcore.transport.bulk_worker import (
    DATA,
    END,
    HELLO,
    MANIFEST,
    MAX_FILES,
    READY,
    STREAM,
    TO_DEST,
    Frames,
    TransferError,
    check_manifest,
)

ROOM = 64 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir(mode=0o700)
    (path / "pages-1.img").write_bytes(os.urandom(3_000_001))
    (path / "core-7.img").write_bytes(b"core")
    (path / "empty.img").write_bytes(b"")
    return path


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    path = tmp_path / "dest"
    path.mkdir(mode=0o700)
    return path


FILES = ("empty.img", "core-7.img", "pages-1.img")


@contextlib.asynccontextmanager
async def receiving(dest: Path, ticket: Ticket, max_bytes: int = ROOM) -> AsyncIterator[tuple[BulkReceiver, int]]:
    receiver = BulkReceiver(dest, ticket, max_bytes)
    async with asyncio.timeout(60):
        try:
            yield receiver, await receiver.start()
        finally:
            await receiver.close()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def fill(directory: Path, account: Account) -> None:
    for name in FILES:
        (directory / name).write_text("image")
    for path in (directory, *directory.iterdir()):
        os.chown(path, account.uid, account.gid)


def proc(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


async def deliver(source: Path, dest: Path, extra: bytes) -> tuple[Sent, Arrived]:
    ticket = new_ticket()
    seen: list[tuple[int, int]] = []
    receiver = BulkReceiver(dest, ticket, ROOM, on_progress=lambda *p: seen.append(p))
    sender = BulkSender(source, f"127.0.0.1:{await receiver.start()}", ticket)
    try:
        async with asyncio.timeout(60):
            await sender.start()
            await receiver.connected()
            sent = await sender.go(FILES)
            await sender.seal(extra)
            arrived = await receiver.sealed()
            await sender.delivered()
    finally:
        await sender.close()
        await receiver.close()
    assert all(done <= total for done, total in seen)
    return sent, arrived


async def test_files_and_relay_state_arrive_whole(source: Path, dest: Path) -> None:
    extra = os.urandom(1 << 20)
    sent, arrived = await deliver(source, dest, extra)
    assert arrived.extra == extra
    assert sent.digest == arrived.digest
    assert arrived.size_bytes == sent.size_bytes == 3_000_005
    assert names(dest) == sorted(FILES)
    for name in FILES:
        assert (dest / name).read_bytes() == (source / name).read_bytes()
        assert (dest / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_worker_works_as_the_owner() -> None:
    account = Account(12345, 12346, (12347,))
    with tempfile.TemporaryDirectory() as room:  # pytest's own directories let nobody but root through
        os.chmod(room, 0o711)
        source, dest = Path(room, "source"), Path(room, "dest")
        for path in (source, dest):
            os.mkdir(path, 0o700)
        fill(source, account)
        os.chown(dest, account.uid, account.gid)
        ticket = new_ticket()
        receiver = BulkReceiver(dest, ticket, ROOM, account=account)
        sender = BulkSender(source, f"127.0.0.1:{await receiver.start()}", ticket, account=account)
        await sender.start()
        os.chown(source / "core-7.img", 0, 0)  # root's own file: the owner's worker cannot read it
        os.chmod(source / "core-7.img", 0o600)
        await sender.go(["pages-1.img"])
        await sender.seal()
        await receiver.sealed()
        await sender.close()
        await receiver.close()
        info = os.stat(dest / "pages-1.img")
        assert (info.st_uid, info.st_gid) == (account.uid, account.gid)
        receiver = BulkReceiver(dest, ticket, ROOM, account=account)
        sender = BulkSender(source, f"127.0.0.1:{await receiver.start()}", ticket, account=account)
        await sender.start()
        with pytest.raises(TransportError, match="Permission denied"):
            await sender.go(["core-7.img"])
        await sender.close()
        await receiver.close()


async def test_image_may_appear_after_the_connection_is_made(source: Path, dest: Path) -> None:
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, port):
        sender = BulkSender(source, f"127.0.0.1:{port}", ticket)
        await sender.start()
        await receiver.connected()
        (source / "late.img").write_bytes(b"made while frozen")
        await sender.go(("late.img",), b"given at go")
        await sender.seal()
        assert (await receiver.sealed()).extra == b"given at go"
        assert (dest / "late.img").read_bytes() == b"made while frozen"
        await sender.close()


async def test_without_the_seal_nothing_stays(source: Path, dest: Path) -> None:
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, port):
        sender = BulkSender(source, f"127.0.0.1:{port}", ticket)
        await sender.start()
        await receiver.connected()
        await sender.go(FILES)
        await sender.cancel()
        with pytest.raises(TransportError, match="cut before its end"):
            await receiver.sealed()
    assert names(dest) == []


async def test_cancelled_destination_deletes_and_the_source_is_told(source: Path, dest: Path) -> None:
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, port):
        sender = BulkSender(source, f"127.0.0.1:{port}", ticket)
        await sender.start()
        await receiver.connected()
        await sender.go(("core-7.img",))
        await receiver.cancel()
        with contextlib.suppress(TransportError):  # it may be noticed here or only at the answer
            await sender.seal()
        with pytest.raises(TransportError):
            await sender.delivered()
        await sender.close()
    assert names(dest) == []


async def test_source_with_another_key_or_transfer_is_not_heard(source: Path, dest: Path) -> None:
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, port):
        for wrong in (Ticket(ticket.transfer, bytes(32)), Ticket(bytes(16), ticket.key)):
            sender = BulkSender(source, f"127.0.0.1:{port}", wrong)
            with pytest.raises(TransportError):
                await sender.start()
            await sender.close()
        right = BulkSender(source, f"127.0.0.1:{port}", ticket)
        await right.start()
        await receiver.connected()
        await right.close()


async def test_strangers_at_the_port_do_not_keep_the_source_out(source: Path, dest: Path) -> None:
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, port):
        with contextlib.ExitStack() as stack:
            for _ in range(12):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sender = BulkSender(source, f"127.0.0.1:{port}", ticket)
            await sender.start()
            await receiver.connected()
            await sender.close()


async def test_nobody_calls(dest: Path) -> None:
    receiver = BulkReceiver(dest, new_ticket(), ROOM, wait_s=0.2)
    await receiver.start()
    with pytest.raises(TransportError, match="nobody called"):
        await receiver.connected()
    await receiver.close()


async def test_source_is_told_when_nothing_answers(source: Path) -> None:
    sender = BulkSender(source, "127.0.0.1:1", new_ticket())
    with pytest.raises(TransportError, match="does not answer"):
        await sender.start()
    await sender.close()


class Peer:
    """A source written for these tests: it has the key and says what it likes."""

    def __init__(self, port: int, ticket: Ticket) -> None:
        self.out = Frames(ticket.key, ticket.transfer, TO_DEST)
        self._back = Frames(ticket.key, ticket.transfer, 1)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(ticket.transfer + bytes([STREAM]) + self.frame(HELLO, b""))

    def frame(self, kind: int, plain: bytes) -> bytes:
        return bytes(self.out.seal(kind, plain))

    def say(self, *frames: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # they may have hung up at an earlier frame
            self.socket.sendall(b"".join(frames))


Attack = Callable[[Peer], None]
MANIFEST_OK = b'[["pages-1.img", 8]]'


def repeated(peer: Peer) -> None:
    data = peer.frame(DATA, b"aaaa")
    peer.say(data, data)


def reordered(peer: Peer) -> None:
    first, second = peer.frame(DATA, b"aaaa"), peer.frame(DATA, b"bbbb")
    peer.say(second, first)


def flipped(peer: Peer) -> None:
    data = peer.frame(DATA, b"aaaa")
    peer.say(data[:6] + bytes([data[6] ^ 1]) + data[7:])


def retyped(peer: Peer) -> None:
    data = peer.frame(DATA, b"aaaa")
    peer.say(data[:4] + bytes([END]) + data[5:])


def cut(peer: Peer) -> None:
    peer.say(peer.frame(DATA, b"aaaabbbb"))
    peer.socket.shutdown(socket.SHUT_WR)


def too_much(peer: Peer) -> None:
    peer.say(peer.frame(DATA, b"a" * 9))


def early_end(peer: Peer) -> None:
    peer.say(peer.frame(DATA, b"aaaa"))
    peer.say(peer.frame(END, (4).to_bytes(8, "big") + peer.out.digest.digest()))


def wrong_digest(peer: Peer) -> None:
    peer.say(peer.frame(DATA, b"aaaabbbb"), peer.frame(END, (8).to_bytes(8, "big") + bytes(32)))


def short_end(peer: Peer) -> None:
    peer.say(peer.frame(DATA, b"aaaabbbb"), peer.frame(END, b"x"))


def huge_frame(peer: Peer) -> None:
    peer.say((0xFFFFFFFF).to_bytes(4, "big") + bytes([DATA]))


@pytest.mark.parametrize(
    "attack",
    [repeated, reordered, flipped, retyped, cut, too_much, early_end, wrong_digest, short_end, huge_frame],
    ids=lambda attack: attack.__name__,
)
async def test_spoilt_stream_is_refused_and_leaves_nothing(dest: Path, attack: Attack) -> None:
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, port):
        peer = await asyncio.to_thread(Peer, port, ticket)
        await receiver.connected()
        peer.say(peer.frame(MANIFEST, MANIFEST_OK))
        attack(peer)
        with pytest.raises(TransportError):
            await receiver.sealed()
        peer.socket.close()
        assert names(dest) == []


async def test_good_stream_of_the_same_hand_is_taken(dest: Path) -> None:
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, port):
        peer = await asyncio.to_thread(Peer, port, ticket)
        peer.say(peer.frame(MANIFEST, MANIFEST_OK), peer.frame(DATA, b"aaaabbbb"))
        peer.say(peer.frame(END, (8).to_bytes(8, "big") + peer.out.digest.digest() + b"rest"))
        assert (await receiver.sealed()).extra == b"rest"
        peer.socket.close()
    assert (dest / "pages-1.img").read_bytes() == b"aaaabbbb"


BAD_MANIFESTS = [
    b'[["../x.img", 1]]',
    b'[["/etc/x.img", 1]]',
    b'[["x.img/y", 1]]',
    b'[["x.img\\n", 1]]',
    b'[[".img", 1]]',
    b'[["X.img", 1]]',
    b'[["a.img", 1], ["a.img", 1]]',
    b'[["a.img", -1]]',
    b'[["a.img", 1.5]]',
    b'[["a.img", true]]',
    b'[["a.img", 1000000000000000]]',
    b"[" + b",".join(b'["f-%d.img",0]' % n for n in range(MAX_FILES + 1)) + b"]",
    b'[["a.img", 1' + b"0" * 5000 + b"]]",
    b"[" * 100_000,
    b"[]",
    b"{}",
    b"\xff",
    b'["ab", 3]',
]


@pytest.mark.parametrize("manifest", BAD_MANIFESTS, ids=range(len(BAD_MANIFESTS)))
def test_bad_manifest_is_refused(manifest: bytes) -> None:
    with pytest.raises(TransferError):
        check_manifest(manifest, ROOM)


async def test_bad_manifest_writes_nothing(dest: Path) -> None:
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, port):
        peer = await asyncio.to_thread(Peer, port, ticket)
        peer.say(peer.frame(MANIFEST, b'[["a.img", 1], ["../x.img", 1]]'))
        with pytest.raises(TransportError, match="no image's"):
            await receiver.sealed()
        peer.socket.close()
    assert list(dest.parent.rglob("*.img")) == []


async def test_planted_symlink_is_not_followed(source: Path, dest: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (dest / "pages-1.img").symlink_to(victim)
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, port):
        sender = BulkSender(source, f"127.0.0.1:{port}", ticket)
        await sender.start()
        await receiver.connected()
        going = asyncio.ensure_future(sender.go(FILES))
        with pytest.raises(TransportError, match="already"):
            await receiver.sealed()
        await asyncio.gather(going, return_exceptions=True)
        await sender.close()
    assert victim.read_bytes() == b"precious"
    assert names(dest) == ["pages-1.img"]


async def test_directory_of_others_is_refused(source: Path, dest: Path) -> None:
    os.chmod(dest, 0o755)
    receiver = BulkReceiver(dest, new_ticket(), ROOM)
    with pytest.raises(TransportError, match="used by others"):
        await receiver.start()
    await receiver.close()


async def test_worker_shows_no_secret(source: Path, dest: Path) -> None:
    ticket = new_ticket()
    async with receiving(dest, ticket) as (receiver, _):
        process = receiver._worker._process
        assert process is not None
        shown = proc(process.pid, "cmdline") + proc(process.pid, "environ")
        assert ticket.key.hex().encode() not in shown
        assert b"Max core file size        0 " in proc(process.pid, "limits")


def test_reserved_size() -> None:
    assert reserve_bytes(16 << 20) == (20 << 20) + (64 << 20)


async def test_the_destination_proves_itself_before_anything_is_sent(source: Path) -> None:
    said: list[bytes] = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.readexactly(17 + 21))
        writer.write(b"\0\0\0\0" + bytes([READY]) + bytes(16))
        said.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(impostor, "127.0.0.1", 0)
    sender = BulkSender(source, f"127.0.0.1:{server.sockets[0].getsockname()[1]}", new_ticket())
    with pytest.raises(TransportError, match="altered"):
        await sender.start()
    await sender.close()
    server.close()
    await server.wait_closed()
    assert b"".join(said[1:]) == b""
