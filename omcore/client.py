"""The one typed API that faces import: everything a terminal app or a verb may ask of the engine.

    async with await connect() as client:
        async for view in client.snapshots():
            print([node.name for node in view.nodes])

`Client` is the protocol; `connect()` gives the one that talks to the engine's control socket (an embedded engine is
reached the same way).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from omcore import errors, paths, requests
from omcore.control import frame, peer_pid, peer_uid, read_frame
from omcore.errors import EngineUnreachable, NotTrusted, OmError, ProtocolError
from omcore.types import (
    BoardView,
    ClusterView,
    JobId,
    KeysView,
    MovePlan,
    MoveResult,
    NetView,
    ProcDelta,
    ProcKey,
    RunSpec,
    SecurityView,
    Series,
)
from omcore.wire import MAX_CONTROL_BYTES

__all__ = ["Client", "SocketClient", "Stream", "connect"]

T = TypeVar("T")


class Client(Protocol):
    """What a face may ask. Every call may raise `OmError` with a sentence and a hint."""

    def snapshots(self) -> AsyncIterator[ClusterView]:
        """Follow the cluster: one view at once, then one whenever something changed, at most once a second
        (at once for the steps of a move)."""
        ...

    def processes(self, nodes: tuple[int, ...] = ()) -> AsyncIterator[ProcDelta]:
        """Follow the process lists of these node numbers (none named: all), once a second, as differences."""
        ...

    async def history(self) -> tuple[Series, ...]:
        """Load of every node over the last ten minutes, as this engine heard it."""
        ...

    def boards(self, everybody: bool = False) -> AsyncIterator[BoardView]:
        """What this node knows of all nodes and how old it is; with `everybody` then the others' boards, as they
        answer, or with an `error` where one does not."""
        ...

    async def net(self) -> NetView:
        """What went to and came from each member, how the connections are, what was dropped and why."""
        ...

    async def plan(self, job: JobId) -> MovePlan:
        """Where the job could go and what would happen; touches nothing."""
        ...

    async def migrate(self, job: JobId, to: str) -> MoveResult:
        """Move a job to a node (name, number or "home") and wait for the end, good or bad."""
        ...

    async def lock(self, job: JobId, locked: bool) -> None:
        """Forbid or allow that the job moves."""
        ...

    async def signal(self, job: JobId, signum: int) -> None:
        """Send a signal to a job's whole foreground tree, wherever it runs; applied exactly once."""
        ...

    async def signal_process(self, key: ProcKey, signum: int) -> None:
        """Send a signal to any process on any node, as the calling user."""
        ...

    async def close(self) -> None:
        """Hang up; the engine and the jobs go on."""
        ...


def _error(failed: requests.Failed) -> OmError:
    kind = getattr(errors, failed.kind, OmError)
    if not (isinstance(kind, type) and issubclass(kind, OmError)):
        kind = OmError
    return kind(failed.text, failed.hint)


class Stream:
    """The engine's items under one request; further frames may be sent under it (an attached terminal)."""

    def __init__(self, client: SocketClient, number: int) -> None:
        self._client = client
        self._number = number
        self.inbox: asyncio.Queue[Any] = asyncio.Queue(64)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        item = await self.inbox.get()
        if isinstance(item, requests.Done):
            self._client.forget(self._number)
            raise StopAsyncIteration
        if isinstance(item, requests.Failed):
            self._client.forget(self._number)
            raise _error(item)
        return item

    def send(self, message: object) -> None:
        """Send a further frame under this request."""
        self._client.write(self._number, message)

    async def drain(self) -> None:
        """Wait until what was sent is on its way."""
        await self._client.drain()

    def cancel(self) -> None:
        """Tell the engine that nobody listens any more; nothing once the request is answered."""
        if self._client.forget(self._number):
            self._client.write(self._number, requests.Cancel())


class SocketClient:
    """A `Client` over the engine's control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._gone = False
        self._task = asyncio.create_task(self._read())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _read(self) -> None:
        try:
            while True:
                number, message = await read_frame(self._reader)
                stream = self._streams.get(number)
                if stream is not None:
                    await stream.inbox.put(message)
        except (asyncio.IncompleteReadError, ConnectionError, ProtocolError):
            pass
        finally:
            self._gone = True
            for stream in self._streams.values():
                # A full inbox has room again as soon as its reader goes on; the end must not be lost.
                if stream.inbox.full():
                    stream.inbox.get_nowait()
                stream.inbox.put_nowait(_GONE)

    def write(self, number: int, message: object) -> None:
        """Queue one frame under a request."""
        if not self._gone:
            self._writer.write(frame(number, message))

    async def drain(self) -> None:
        """Wait while the engine is slow to read."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def forget(self, number: int) -> bool:
        """Drop what still comes under this request, and what came: nobody else shall wait behind it.

        False when it was dropped before.
        """
        stream = self._streams.pop(number, None)
        while stream is not None and not stream.inbox.empty():
            stream.inbox.get_nowait()
        return stream is not None

    def open(self, message: object) -> Stream:
        """Begin a request; raises `EngineUnreachable` when the engine is gone."""
        if self._gone:
            raise EngineUnreachable("The engine does not answer.", "omview serve --daemon")
        number, self._next = self._next, self._next + 1
        stream = self._streams[number] = Stream(self, number)
        self.write(number, message)
        return stream

    async def _one(self, message: object, kind: type[T]) -> T:
        answer: T | None = None
        async for item in self._items(message, kind):
            answer = item
        if answer is None:
            raise ProtocolError("The engine did not answer the question.", "Is it of another version?")
        return answer

    async def _done(self, message: object) -> None:
        async for _ in self._items(message, object):
            pass

    async def _items(self, message: object, kind: type[T]) -> AsyncIterator[T]:
        stream = self.open(message)
        try:
            async for item in stream:
                if isinstance(item, kind):
                    yield item
        finally:
            stream.cancel()

    def snapshots(self) -> AsyncIterator[ClusterView]:
        """See `Client.snapshots`."""
        return self._items(requests.Follow(), ClusterView)

    async def snapshot(self) -> ClusterView:
        """One view of the cluster."""
        return await self._one(requests.Follow(once=True), ClusterView)

    def processes(self, nodes: tuple[int, ...] = (), once: bool = False) -> AsyncIterator[ProcDelta]:
        """See `Client.processes`; `once` ends after one full list of each node."""
        return self._items(requests.FollowProcesses(nodes, once), ProcDelta)

    async def history(self) -> tuple[Series, ...]:
        """See `Client.history`."""
        return (await self._one(requests.AskHistory(), requests.Histories)).series

    def boards(self, everybody: bool = False) -> AsyncIterator[BoardView]:
        """See `Client.boards`."""
        return self._items(requests.AskBoards(everybody), BoardView)

    async def net(self) -> NetView:
        """See `Client.net`."""
        return await self._one(requests.AskNet(), NetView)

    async def plan(self, job: JobId) -> MovePlan:
        """See `Client.plan`."""
        return await self._one(requests.AskPlan(job), MovePlan)

    async def migrate(self, job: JobId, to: str) -> MoveResult:
        """See `Client.migrate`."""
        return await self._one(requests.Migrate(job, to), MoveResult)

    async def lock(self, job: JobId, locked: bool) -> None:
        """See `Client.lock`."""
        await self._done(requests.Lock(job, locked))

    async def signal(self, job: JobId, signum: int) -> None:
        """See `Client.signal`."""
        await self._done(requests.Signal(job, signum))

    async def signal_process(self, key: ProcKey, signum: int) -> None:
        """See `Client.signal_process`."""
        await self._done(requests.SignalProcess(key, signum))

    def run(self, spec: RunSpec) -> Stream:
        """Start a job: `Attached` first, then its terminal unless `spec.detach`."""
        return self.open(requests.Run(spec))

    def attach(self, request: requests.Attach) -> Stream:
        """Connect a terminal to a job."""
        return self.open(request)

    def logs(self, job: JobId, follow: bool = False) -> Stream:
        """Kept output of a job as `Output` items."""
        return self.open(requests.AskLogs(job, follow))

    async def invite(self, look: bool = False) -> str:
        """A token that admits one more node; with `look` it may see figures only."""
        return (await self._one(requests.Invite(look), requests.Text)).text

    async def join(self, token: str) -> str:
        """Join the cluster of a token; answers a sentence."""
        return (await self._one(requests.Join(token), requests.Text)).text

    async def forget_node(self, node: str, with_invited: bool = False) -> str:
        """Remove a node from the cluster, or all that it brought as well; answers a sentence."""
        return (await self._one(requests.Forget(node, with_invited), requests.Text)).text

    async def leave(self, anyway: bool = False) -> str:
        """Leave the cluster; answers a sentence, then the engine starts anew and this connection ends."""
        return (await self._one(requests.Leave(anyway), requests.Text)).text

    async def keys(self) -> KeysView:
        """Who this node is and who may change the membership."""
        return await self._one(requests.AskKeys(), KeysView)

    async def rotate_key(self, node: bool = False) -> str:
        """Replace the cluster key, or this node's own; answers a sentence."""
        return (await self._one(requests.RotateKey(node), requests.Text)).text

    async def accept_key(self, fingerprint: str) -> str:
        """Decide between two rival new cluster keys; answers a sentence."""
        return (await self._one(requests.AcceptKey(fingerprint), requests.Text)).text

    async def security(self) -> SecurityView:
        """What the engine lets others do, where it listens, and what it refused."""
        return await self._one(requests.AskSecurity(), SecurityView)

    def peer_pid(self) -> int:
        """The engine's process ID, for looking at it."""
        return peer_pid(self._writer.get_extra_info("socket"))

    async def export_key(self, passphrase: str) -> bytes:
        """The cluster key, sealed with a passphrase."""
        return (await self._one(requests.ExportKey(passphrase), requests.Sealed)).data

    async def import_key(self, data: bytes, passphrase: str) -> str:
        """Become a keyholder by a backup; answers a sentence."""
        return (await self._one(requests.ImportKey(data, passphrase), requests.Text)).text

    async def share_key(self, node: str) -> str:
        """Make another node a keyholder; answers a sentence."""
        return (await self._one(requests.ShareKey(node), requests.Text)).text

    async def stop_engine(self) -> None:
        """End the engine; jobs go on under their shims until an engine comes back."""
        await self._done(requests.Stop())

    async def close(self) -> None:
        """See `Client.close`."""
        self._task.cancel()
        self._writer.close()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await self._task


_GONE = requests.Failed("EngineUnreachable", "The engine went away.", "Start it again: omview serve --daemon")


async def connect(path: Path | None = None) -> SocketClient:
    """Connect to this user's engine.

    Raises `EngineUnreachable` when none answers and `NotTrusted` when the socket belongs to somebody else.
    """
    path = path or paths.find_paths().socket
    try:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_CONTROL_BYTES)
    except OSError as error:
        raise EngineUnreachable("No engine runs here.", "Start one: omview serve --daemon (or just: omview)") from error
    uid = peer_uid(writer.get_extra_info("socket"))
    if uid not in (os.getuid(), 0):
        writer.close()
        raise NotTrusted(f"{path} is served by uid {uid}, not by you.", f"Remove it: rm {path}")
    writer.write(frame(0, requests.Hello()))
    try:
        _, answer = await asyncio.wait_for(read_frame(reader), 10)
        if isinstance(answer, requests.Failed):
            raise _error(answer)
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
        writer.close()
        raise EngineUnreachable("The engine hung up.", "See its log: omview doctor") from error
    except OmError:
        writer.close()
        raise
    return SocketClient(reader, writer)
