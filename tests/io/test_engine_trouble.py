"""An engine in trouble: bad orders of peers, a full disk; what else it does must go on."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

import pytest

from omcore import messages, requests
from omcore.client import Stream
from omcore.paths import SHARED_MEMORY
from omcore.types import JobId, RunSpec
from tests.io.test_engines import Engine, ash, birch, root

__all__ = ["ash", "birch", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


def spec(*command: str, on: str = "", detach: bool = False) -> RunSpec:
    return RunSpec(command=command, cwd="/", env=tuple(f"{k}={v}" for k, v in os.environ.items()), on=on, detach=detach)


async def attached(stream: Stream) -> JobId:
    item = await anext(stream)
    assert isinstance(item, requests.Attached)
    return item.job


async def ended(stream: Stream) -> int | None:
    async with asyncio.timeout(20):
        async for item in stream:
            if isinstance(item, requests.JobEnded):
                return item.status
    raise AssertionError("the terminal closed")


async def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it is as wished."""
    async with asyncio.timeout(seconds):
        while True:
            if true():
                return
            await asyncio.sleep(0.01)


async def pair(one: Engine, other: Engine) -> None:
    await other.client.join(await one.client.invite())
    for engine in (one, other):
        await engine.names("ash", "birch")


async def test_an_order_that_cannot_be_carried_out_does_not_make_the_engine_deaf(ash: Engine, birch: Engine) -> None:
    await pair(ash, birch)
    stream = ash.client.run(spec("sleep", "60", on="birch"))
    job = await attached(stream)
    for nonsense in (
        messages.StreamSignal(job, 1, 1000),
        messages.StreamResize(job, -1, 5),
        messages.StreamIn(job, -7, b"x"),
        messages.StreamClose(job, "nowhere"),
    ):
        ash.node.post(birch.node.me, nonsense)
    await asyncio.sleep(0.2)
    await ash.client.signal(job, 15)
    assert await ended(stream) == -15


async def test_a_job_whose_end_cannot_be_noted_has_ended_all_the_same(
    ash: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ash.client.run(spec("sh", "-c", "read x; exit 3"))
    await attached(stream)

    def full(meta: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ash.node.jobs.homes_store, "save", full)
    stream.send(requests.Input(0, b"\n", True))
    assert await ended(stream) == 3


async def test_one_failing_second_is_not_the_last(ash: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (await ash.client.snapshot()).nodes[0].sample
    monkeypatch.setattr(ash.node.jobs, "tick", lambda now: 1 / 0)
    await asyncio.sleep(1.2)
    monkeypatch.undo()
    await ash.until(lambda view: view.nodes[0].sample is not before and (view.nodes[0].age_s or 0.0) < 1.0)
    assert not any(task.done() for task in ash.node._tasks)
    assert any("_tick" in repr(task.get_coro()) for task in ash.node._tasks)
