"""Other nodes' answers: their trouble is not that of who asks."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from omcore import faces
from omcore.errors import ConfigError, PeerUnreachable
from omcore.node import Node
from omcore.paths import SHARED_MEMORY
from tests.io.enginekit import Engine, ash, attached, birch, ended, pair, root, spec

__all__ = ["ash", "birch", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


async def test_a_node_that_cannot_tell_its_jobs_does_not_hide_the_others(
    ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(ash, birch)
    stream = birch.client.run(spec("cat"))
    job = await attached(stream)
    answer = Node._answer

    async def broken(self: Node, sender: Any, question: Any) -> object:
        if self is ash.node:
            raise ConfigError("its disk is full")
        return await answer(self, sender, question)

    monkeypatch.setattr(ash.node.calls, "_answer", broken.__get__(ash.node))
    view = await birch.client.snapshot()
    assert [one.id for one in view.jobs] == [job]
    await birch.client.signal(job, 9)
    assert await ended(stream) == -9


async def test_a_signal_does_not_wait_ten_minutes_for_a_home_that_is_silent(
    ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(ash, birch)
    stream = ash.client.run(spec("cat"))
    job = await attached(stream)
    await birch.until(lambda view: bool(view.jobs))
    monkeypatch.setattr(faces, "ANSWER_S", 1.0)
    monkeypatch.setattr(ash.node.calls, "received", lambda sender, message: None)
    async with asyncio.timeout(5):
        with pytest.raises(PeerUnreachable):
            await birch.client.signal(job, 9)
    await ash.client.signal(job, 9)
    assert await ended(stream) == -9
