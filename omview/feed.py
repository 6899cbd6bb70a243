"""From the client's streams to messages: the only part of the face that waits for the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from textual.message import Message

from omcore.errors import OmError
from omcore.types import ClusterView, ProcDelta, Series

if TYPE_CHECKING:
    from omcore.client import Client

Connect = Callable[[], Awaitable["Client"]]
RETRIES_S = (1.0, 2.0, 3.0, 5.0)


@dataclass
class SnapshotArrived(Message):
    """The engine's latest view of the cluster."""

    view: ClusterView

    def can_replace(self, message: Message) -> bool:
        """A slow terminal skips pictures, it does not lag."""
        return isinstance(message, SnapshotArrived)


@dataclass
class HistoryArrived(Message):
    """What the engine remembers of the loads."""

    history: tuple[Series, ...]


@dataclass
class EngineGone(Message):
    """The engine stopped answering; the next try comes in `retry_s`, None: there is no way to try."""

    reason: str
    retry_s: float | None


class Feed:
    """Follows the engine and, when it is gone, tries again and again; `client` is the one in use."""

    def __init__(self, client: Client, connect: Connect | None, post: Callable[[Message], object]) -> None:
        self.client = client
        self._connect = connect
        self._post = post
        self._now = asyncio.Event()

    def try_now(self) -> None:
        """Do not wait for the next try."""
        self._now.set()

    async def follow(self) -> None:
        """Run for as long as the app does."""
        failures = 0
        while True:
            reason = "it closed the connection"
            try:
                self._post(HistoryArrived(await self.client.history()))
                async with aclosing(cast(Any, self.client.snapshots())) as views:
                    async for view in views:
                        failures = 0
                        self._post(SnapshotArrived(view))
            except OmError as error:
                reason = error.text
            if self._connect is None:
                self._post(EngineGone(reason, None))
                return
            while True:
                retry = RETRIES_S[min(failures, len(RETRIES_S) - 1)]
                failures += 1
                self._post(EngineGone(reason, retry))
                await self._wait(retry)
                try:
                    self.client = await self._connect()
                    break
                except OmError as error:
                    reason = error.text

    async def _wait(self, seconds: float) -> None:
        self._now.clear()
        try:
            await asyncio.wait_for(self._now.wait(), seconds)
        except TimeoutError:
            return

    async def processes(self, nodes: tuple[int, ...], take: Callable[[ProcDelta], None]) -> None:
        """Hand every difference of these nodes' process lists to `take`, until cancelled or the engine goes."""
        try:
            async with aclosing(cast(Any, self.client.processes(nodes))) as deltas:
                async for delta in deltas:
                    take(delta)
            reason = "the engine ended it."
        except OmError as error:
            reason = error.text
        self._post(ListFailed(reason))


@dataclass
class ListFailed(Message):
    """The process list ended with an error."""

    reason: str
