"""A job that is being started: neither lost nor doubled, whoever hangs up, asks, or does not answer meanwhile."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from omcore import messages
from omcore.client import connect
from omcore.errors import PeerUnreachable
from omcore.handoff import messages as handoff
from omcore.jobs import manager
from omcore.jobs.held import HeldJob
from omcore.paths import SHARED_MEMORY
from omcore.types import JobState
from tests.io.enginekit import Engine, ash, attached, birch, heard, pair, root, spec, until

__all__ = ["ash", "birch", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


async def test_a_face_that_hangs_up_leaves_no_job_half_begun(ash: Engine) -> None:
    face = await connect(ash.places.socket)
    face.run(spec("sh", "-c", "exit 4"))
    await face.drain()
    while True:  # the very moment that it begins
        if ash.node.jobs.homes:
            break
        await asyncio.sleep(0)
    await face.close()
    view = await ash.until(lambda view: bool(view.jobs) and view.jobs[0].state is JobState.ENDED)
    assert view.jobs[0].status == 4


async def test_a_question_about_a_job_that_is_being_started_is_not_denied(
    ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(ash, birch)
    create, may = HeldJob._create, asyncio.Event()

    async def slow(self: HeldJob, epoch: Any) -> Any:
        await may.wait()
        return await create(self, epoch)

    monkeypatch.setattr(HeldJob, "_create", slow)
    asked = heard(birch, (messages.AskOwner, handoff.Probe), monkeypatch)
    starting = asyncio.create_task(attached(ash.client.run(spec("sleep", "60", on="birch"))))
    await until(lambda: birch.node.jobs.held)
    (home,) = ash.node.jobs.homes.values()
    ash.node.post(birch.node.me, messages.AskOwner(home.id))
    ash.node.post(birch.node.me, handoff.Probe(job=home.id, epoch=home.epoch, nonce=7))
    await until(lambda: len(asked) == 2)
    may.set()
    job = await starting
    assert ash.node.jobs.homes[job].end is None
    assert birch.node.jobs.held[job].record is not None
    await ash.client.signal(job, 15)
    view = await ash.until(lambda view: view.jobs[0].state is JobState.ENDED)
    assert view.jobs[0].status == -15


async def test_a_job_whose_start_is_not_answered_is_found_again(
    ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(ash, birch)
    monkeypatch.setattr(manager, "LAUNCH_S", 2.0)
    post = birch.node.post

    def lossy(node: Any, message: object) -> None:
        if not isinstance(message, messages.Answer):
            post(node, message)

    birch.node.calls._send = lossy
    stream = ash.client.run(spec("sleep", "60", on="birch"))
    with pytest.raises(PeerUnreachable, match="nobody knows"):
        await attached(stream)
    (job,) = ash.node.jobs.homes
    await ash.until(lambda view: bool(view.jobs) and view.jobs[0].state is JobState.RUNNING)
    await ash.client.signal(job, 15)
    await ash.until(lambda view: view.jobs[0].state is JobState.ENDED)


async def test_a_job_that_never_started_is_lost_not_there_for_ever(
    ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(ash, birch)
    monkeypatch.setattr(manager, "LAUNCH_S", 1.0)
    received = birch.node.calls.received
    monkeypatch.setattr(birch.node.calls, "received", lambda sender, message: None)
    stream = ash.client.run(spec("sleep", "60", on="birch"))
    with pytest.raises(PeerUnreachable, match="nobody knows"):
        await attached(stream)
    monkeypatch.setattr(birch.node.calls, "received", received)
    await ash.until(lambda view: bool(view.jobs) and view.jobs[0].state is JobState.LOST)
