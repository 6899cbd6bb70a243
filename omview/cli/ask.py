"""What every verb does first: reach the engine and look once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from omcore import client as engine
from omcore.client import Client
from omcore.errors import EngineUnreachable
from omcore.types import ClusterView

T = TypeVar("T")


def with_client(act: Callable[[Client], Awaitable[T]]) -> T:
    """Connect to the engine, act, hang up. Raises EngineUnreachable where none answers."""

    async def session() -> T:
        client: Client = await engine.connect()
        try:
            return await act(client)
        finally:
            await client.close()

    return asyncio.run(session())


async def first_view(client: Client) -> ClusterView:
    """The cluster as it is now."""
    return await first(client.snapshots())


async def first(stream: AsyncIterator[T]) -> T:
    """The first item of a stream, which is then closed."""
    try:
        return await anext(stream)
    except StopAsyncIteration:
        raise EngineUnreachable("The engine hung up.", "Try again; omview doctor looks at it.") from None
    finally:
        await close_stream(stream)


async def close_stream(stream: AsyncIterator[T]) -> None:
    """Tell the engine that nobody listens to this stream any more."""
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
