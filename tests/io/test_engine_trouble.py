"""An engine in trouble: bad orders of peers, a full disk; what else it does must go on."""

from __future__ import annotations

import errno
import os

import pytest

from omcore import messages, requests
from omcore.paths import SHARED_MEMORY
from tests.io.enginekit import Engine, ash, attached, birch, ended, pair, root, spec, until

__all__ = ["ash", "birch", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


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
    failed = []

    def fail(now: float) -> None:
        failed.append(now)
        raise ZeroDivisionError

    monkeypatch.setattr(ash.node.jobs, "tick", fail)
    await until(lambda: failed)
    monkeypatch.undo()
    await ash.until(lambda view: view.nodes[0].sample is not before and (view.nodes[0].age_s or 0.0) < 1.0)
    assert not any(task.done() for task in ash.node._tasks)
    assert any("_tick" in repr(task.get_coro()) for task in ash.node._tasks)
