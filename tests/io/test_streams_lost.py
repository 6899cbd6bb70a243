"""Small words about streams that the network loses: a reader that is gone."""

from __future__ import annotations

import asyncio
import os

import pytest

from omcore import messages, requests
from omcore.paths import SHARED_MEMORY
from omcore.types import NodeId
from tests.io.enginekit import Engine, ash, attached, birch, pair, root, spec

__all__ = ["ash", "birch", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


def lose_first(engine: Engine, kind: type, count: int = 1) -> list[object]:
    """Let the network lose the first messages of this kind."""
    post = engine.node.post
    lost: list[object] = []

    def lossy(node: NodeId, message: object) -> None:
        if isinstance(message, kind) and len(lost) < count and not getattr(message, "data", b""):
            lost.append(message)
        else:
            post(node, message)

    engine.node.post = lossy  # type: ignore[method-assign]
    return lost


async def test_a_reader_that_is_gone_ends_the_writer_though_the_word_was_lost(ash: Engine, birch: Engine) -> None:
    await pair(ash, birch)
    lost = lose_first(ash, messages.StreamClose)
    stream = ash.client.run(spec("sh", "-c", "yes; exit 7", on="birch"))
    await attached(stream)
    said = False
    async with asyncio.timeout(20):
        async for item in stream:
            if isinstance(item, requests.Output):
                stream.send(requests.Consumed(item.stream, item.offset + len(item.data)))
                if not said:
                    stream.send(requests.CloseOutput("out"))
                said = True
            elif isinstance(item, requests.JobEnded):
                assert item.status == 7
                assert len(lost) == 1
                return
