"""The engine's control socket: frames, who may connect, and one task per request.

Authority comes from the kernel: both ends look at the peer's credentials, so a squatted path serves nobody and a
stranger is not served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from omcore.errors import ConfigError, OmError, RemoteProtocolError
from omcore.requests import CONTROL, Cancel, Done, Failed, Hello
from omcore.wire import MAX_CONTROL_BYTES, PROTO

log = logging.getLogger(__name__)

HEAD = struct.Struct(">II")
MAX_CONNECTIONS = 256
MAX_REQUESTS = 64
HELLO_S = 30.0
"""How long a face may take to greet."""
CREDENTIALS = struct.Struct("3i")


def peer_uid(sock: socket.socket) -> int:
    """The uid at the other end of a unix socket, as it was when that end connected."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    uid: int = CREDENTIALS.unpack(raw)[1]
    return uid


def peer_pid(sock: socket.socket) -> int:
    """The process at the other end, as it was when that end listened or connected: for people, it proves nothing."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid: int = CREDENTIALS.unpack(raw)[0]
    return pid


def frame(request: int, message: object) -> bytes:
    """One message as it crosses the control socket."""
    body = CONTROL.encode(message)
    return HEAD.pack(len(body), request) + body


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """The next (request, message); raises `RemoteProtocolError` on nonsense, `IncompleteReadError` at the end."""
    length, request = HEAD.unpack(await reader.readexactly(HEAD.size))
    if length > MAX_CONTROL_BYTES:
        raise RemoteProtocolError(f"a frame of {length} bytes")
    return request, CONTROL.decode(await reader.readexactly(length))


class Channel:
    """One request of one face: what it sends later comes out of `receive`, what the engine says goes into `send`."""

    def __init__(self, number: int, uid: int, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.uid = uid
        self._writer = writer
        self.inbox: asyncio.Queue[Any] = asyncio.Queue(256)
        self.task: asyncio.Task[None] | None = None

    def write(self, message: object) -> None:
        """Queue a message without waiting; for callers that bound what is outstanding themselves."""
        if not self._writer.is_closing():
            self._writer.write(frame(self.number, message))

    async def send(self, message: object) -> None:
        """Send a message; waits while the face is slow."""
        self.write(message)
        await self._writer.drain()

    async def receive(self) -> Any:
        """The next message of the face under this request."""
        return await self.inbox.get()


Handler = Callable[[Any, Channel], Awaitable[None]]


class ControlServer:
    """Listens on the control socket and runs `handler(message, channel)` as a task for each request."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Bind the socket; raises `ConfigError` when another engine answers on it."""
        if await self._answered():
            raise ConfigError(
                f"Another engine already answers on {self._path}.",
                "Use it: `omview` connects by itself. Or end it first: omview serve --stop",
            )
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            sock.bind(str(self._path))
        finally:
            os.umask(mask)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_CONTROL_BYTES)

    async def _answered(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self._path))
        except OSError:
            return False
        writer.close()
        return True

    async def close(self) -> None:
        """Stop listening and hang up on every face."""
        if self._server:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        for writer in tuple(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = peer_uid(writer.get_extra_info("socket"))
        if uid not in (os.getuid(), 0) or len(self._writers) >= MAX_CONNECTIONS:
            log.warning("control refused uid=%d connections=%d", uid, len(self._writers))
            writer.close()
            return
        self._writers.add(writer)
        channels: dict[int, Channel] = {}
        try:
            await self._talk(reader, writer, uid, channels)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        except RemoteProtocolError as error:
            log.warning("control nonsense uid=%d error=%s", uid, error)
        finally:
            self._writers.discard(writer)
            tasks = [channel.task for channel in channels.values() if channel.task]
            for task in tasks:
                task.cancel()
            writer.close()

    async def _talk(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        uid: int,
        channels: dict[int, Channel],
    ) -> None:
        _, hello = await asyncio.wait_for(read_frame(reader), HELLO_S)
        if not isinstance(hello, Hello) or hello.proto != PROTO:
            writer.write(frame(0, Failed("ProtocolError", "This engine speaks another version of omview.")))
            await writer.drain()
            return
        writer.write(frame(0, Hello()))
        while True:
            number, message = await read_frame(reader)
            channel = channels.get(number)
            if channel is None:
                if isinstance(message, Cancel):
                    continue  # the answer was under way already
                if len(channels) >= MAX_REQUESTS:
                    raise RemoteProtocolError("too many requests at once")
                channel = channels[number] = Channel(number, uid, writer)
                channel.task = asyncio.create_task(self._answer(message, channel, channels))
                channel.task.add_done_callback(partial(_answered, channel))
            elif isinstance(message, Cancel):
                if channel.task:
                    channel.task.cancel()
            else:
                await channel.inbox.put(message)

    async def _answer(self, message: Any, channel: Channel, channels: dict[int, Channel]) -> None:
        try:
            await self._handler(message, channel)
            await channel.send(Done())
        except OmError as error:
            with contextlib.suppress(ConnectionError):
                await channel.send(Failed(type(error).__name__, error.text, error.hint))
        except ConnectionError:
            pass
        finally:
            channels.pop(channel.number, None)


def _answered(channel: Channel, task: asyncio.Task[None]) -> None:
    """What nobody foresaw is logged, and the face that waits for the answer is told."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a request failed", exc_info=error)
        channel.write(
            Failed("OmError", f"The engine failed: {type(error).__name__}.", "Its log says more: omview doctor")
        )
