"""The engine's side of an image stream: starts a worker for each end and waits for its word.

Source: `start()` (connects and proves the key, before the freeze), `go(files)`, write the record, `seal(extra)`.
Destination: `start()` gives the port for Accept, `connected()`, `sealed()`. Everything raises TransportError with a
sentence when it fails; `cancel()` always ends the worker, and the destination's deletes what it had written.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omcore.errors import TransportError
from omcore.trust.tokens import split_address

WORKER = Path(__file__).with_name("bulk_worker.py")
_LINE_BYTES = 4 * 1024 * 1024  # one line carries the relay state, 1 MiB, in base64
_START_S = 10.0
_END_S = 2.0
MANIFEST_ROOM_BYTES = 64 * 1024 * 1024

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Account:
    """As whom a worker works: the job's owner. It drops to this before it opens a file or a socket."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ticket:
    """What both ends of one transfer share; goes through the control channel, serves once."""

    transfer: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Arrived:
    """All images are here and whole. `digest` equals the sender's; `extra` is what its seal carried."""

    size_bytes: int
    files: tuple[tuple[str, int], ...]
    digest: str
    extra: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """All images have left; the seal has not. `digest` names exactly these images."""

    size_bytes: int
    digest: str


def new_ticket() -> Ticket:
    """A fresh transfer id and key."""
    return Ticket(secrets.token_bytes(16), secrets.token_bytes(32))


def reserve_bytes(rss_bytes: int) -> int:
    """How many bytes of images a destination accepts for a job of this size."""
    return rss_bytes * 5 // 4 + MANIFEST_ROOM_BYTES


class _Worker:
    """A worker process and what it says."""

    def __init__(self, account: Account | None, on_progress: OnProgress | None) -> None:
        self._account = account
        self._on_progress = on_progress
        self._process: Process | None = None

    async def start(self, task: dict[str, Any]) -> None:
        account = self._account
        identity = [account.uid, account.gid, list(account.groups)] if account else None
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(WORKER),
                stdin=PIPE,
                stdout=PIPE,
                env={},
                cwd="/",
                limit=_LINE_BYTES,
            )
        except OSError as error:
            raise TransportError(f"the transfer worker cannot be started: {error.strerror}") from error
        await self.tell({**task, "account": identity})

    async def tell(self, line: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise TransportError("this transfer was not started")
        with contextlib.suppress(ConnectionError):  # its last words, read next, say why
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            await self._process.stdin.drain()

    async def expect(self, event: str) -> dict[str, Any]:
        """Wait until the worker says `event`. Raises TransportError when it says that it failed, or dies."""
        if self._process is None or self._process.stdout is None:
            raise TransportError("this transfer was not started")
        while True:
            line = await self._process.stdout.readline()
            if not line.endswith(b"\n"):
                raise TransportError("the transfer worker died")
            said: dict[str, Any] = json.loads(line)
            if said["event"] == event:
                return said
            if said["event"] == "failed":
                raise TransportError(said["text"])
            if said["event"] == "progress" and self._on_progress:
                self._on_progress(said["done"], said["total"])

    async def stop(self) -> None:
        """End the process, politely for two seconds; it then has nothing left on disk that is not sealed."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                process.terminate()
        if process.stdin:  # tells it the same, also where an engine without CAP_KILL may not signal the owner's process
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                process.kill()
                await process.wait()


class BulkReceiver:
    """The destination of one transfer; `directory` is fresh, 0700, and belongs to `account`."""

    def __init__(
        self,
        directory: Path,
        ticket: Ticket,
        max_bytes: int,
        listen: str = "127.0.0.1:0",
        *,
        account: Account | None = None,
        on_progress: OnProgress | None = None,
        wait_s: float = 10.0,
        idle_s: float = 120.0,
        stall_s: float = 15.0,
    ) -> None:
        """`wait_s`: for the caller; `idle_s`: from its call to the first image; `stall_s`: for each next byte."""
        self._worker = _Worker(account, on_progress)
        self._task = {
            "role": "recv",
            "directory": str(directory),
            "transfer": ticket.transfer.hex(),
            "key": ticket.key.hex(),
            "max_bytes": max_bytes,
            "listen": split_address(listen),
            "wait_s": wait_s,
            "idle_s": idle_s,
            "stall_s": stall_s,
        }

    async def start(self) -> int:
        """Listen; returns the port for the Accept message."""
        async with asyncio.timeout(_START_S):
            await self._worker.start(self._task)
            return int((await self._worker.expect("port"))["port"])

    async def connected(self) -> None:
        """Wait until the source has called and shown the key (at most `wait_s`)."""
        await self._worker.expect("connected")

    async def sealed(self) -> Arrived:
        """Wait until all images and the seal are here and verified."""
        said = await self._worker.expect("sealed")
        files = tuple((str(name), int(size)) for name, size in said["files"])
        return Arrived(said["bytes"], files, said["digest"], base64.b64decode(said["extra"]))

    async def close(self) -> None:
        """End the worker. Before `sealed` this deletes what was written; after it, it deletes nothing."""
        await self._worker.stop()

    cancel = close


class BulkSender:
    """The source of one transfer."""

    def __init__(
        self,
        directory: Path,
        address: str,
        ticket: Ticket,
        *,
        account: Account | None = None,
        on_progress: OnProgress | None = None,
        stall_s: float = 15.0,
    ) -> None:
        self._worker = _Worker(account, on_progress)
        self._task = {
            "role": "send",
            "directory": str(directory),
            "transfer": ticket.transfer.hex(),
            "key": ticket.key.hex(),
            "address": split_address(address),
            "stall_s": stall_s,
        }

    async def start(self) -> None:
        """Connect, and see the other end show the key: all that takes time, before the job is frozen."""
        async with asyncio.timeout(_START_S + 10.0):
            await self._worker.start(self._task)
            await self._worker.expect("connected")

    async def go(self, files: Sequence[str], extra: bytes = b"") -> Sent:
        """Send these files of the directory; all but the seal. `extra` goes into the seal unless that names its own."""
        await self._worker.tell({"files": list(files), "extra": base64.b64encode(extra).decode()})
        said = await self._worker.expect("sent")
        return Sent(said["bytes"], said["digest"])

    async def seal(self, extra: bytes | None = None) -> None:
        """Send the last bytes: the source's vote. Write the record *before* this.

        A TransportError from here on does not say that the seal did not arrive.
        """
        await self._worker.tell({"seal": None if extra is None else base64.b64encode(extra).decode()})
        await self._worker.expect("sealed")

    async def delivered(self) -> None:
        """Wait until the destination says that everything is there and whole."""
        await self._worker.expect("delivered")

    async def close(self) -> None:
        """End the worker; without a seal the destination then deletes what it got."""
        await self._worker.stop()

    cancel = close
