"""Engines that die in the middle of a move, as HANDOFF section 10 has it; real pods, real CRIU."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from omcore import messages, requests
from omcore.errors import MigrationError
from omcore.handoff.records import CopyState
from omcore.jobs.held import HeldJob
from omcore.jobs.pod import Pod
from omcore.paths import SHARED_MEMORY
from omcore.transport.bulk import BulkReceiver
from omcore.types import JobId
from tests.io.enginekit import Engine, ash, attached, birch, ended, heard, pair, root, spec, until
from tests.io.podkit import CRIU

__all__ = ["ash", "birch", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.criu,
    pytest.mark.skipif(CRIU is None, reason="no CRIU"),
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


async def until_state(engine: Engine, job: JobId, *states: CopyState) -> None:
    held = engine.node.jobs.held
    await until(lambda: job in held and held[job].machine.state in states)


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def restarted(engine: Engine, root: Path) -> None:
    """Its engine goes and comes again; what it held stays."""
    await engine.client.close()
    await engine.node.close()
    again = await Engine.start(root, "birch", "127.0.0.2")
    engine.node, engine.client = again.node, again.client


async def test_a_destination_that_restarts_while_it_restores_goes_on(
    root: Path, ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(ash, birch)
    stream = ash.client.run(spec("sh", "-c", "read x; exit $x"))
    job = await attached(stream)
    restore = Pod.restore

    async def never_ends(self: Pod, images: Path, timeout: float) -> float:
        await restore(self, images, timeout)
        await asyncio.get_running_loop().create_future()
        return 0.0

    monkeypatch.setattr(Pod, "restore", never_ends)
    moving = asyncio.create_task(ash.client.migrate(job, "birch"))
    await until_state(birch, job, CopyState.RESTORING)
    held = birch.node.jobs.held[job]
    await until(lambda: any(pod.phase == "restored" for pod in held.pods.values()))
    monkeypatch.setattr(Pod, "restore", restore)
    await restarted(birch, root)
    assert (await moving).ok
    stream.send(requests.Input(0, b"5\n"))
    assert await ended(stream) == 5


async def test_an_engine_that_starts_while_criu_works_in_a_pod_does_not_wait_for_it(
    root: Path, ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(ash, birch)
    stream = ash.client.run(spec("sh", "-c", "read x; exit $x", on="birch"))
    job = await attached(stream)
    find, may = Pod.find, asyncio.Event()

    async def busy(*args: Any) -> Pod | None:
        await may.wait()
        return await find(*args)

    monkeypatch.setattr(Pod, "find", busy)
    async with asyncio.timeout(10):
        await restarted(birch, root)
    await birch.names("ash", "birch")
    asked = heard(birch, messages.AskOwner, monkeypatch)
    ash.node.jobs.homes[job]._heard = 0.0
    await until(lambda: len(asked) > 1)  # home asks meanwhile; silence is no proof of anything
    assert ash.node.jobs.homes[job].end is None
    may.set()
    stream.send(requests.Input(0, b"7\n"))
    assert await ended(stream) == 7


async def test_an_invitation_that_is_taken_back_leaves_no_pod(
    ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(ash, birch)
    stream = ash.client.run(spec("sh", "-c", "read x; exit $x"))
    job = await attached(stream)
    create, made, may = HeldJob._create, [], asyncio.Event()

    async def slow(self: HeldJob, epoch: Any) -> Pod:
        await may.wait()
        made.append(await create(self, epoch))
        return made[-1]

    async def start(self: BulkReceiver) -> int:
        may.set()
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(HeldJob, "_create", slow)
    monkeypatch.setattr(BulkReceiver, "start", start)
    with pytest.raises(MigrationError):
        await ash.client.migrate(job, "birch")
    monkeypatch.undo()
    may.clear()
    monkeypatch.setattr(HeldJob, "_create", slow)
    moving = asyncio.create_task(ash.client.migrate(job, "birch"))
    await until_state(birch, job, CopyState.INVITED)
    ash.node.jobs.homes[job].cancel_move()
    with pytest.raises(MigrationError, match="cancelled"):
        await moving
    may.set()
    await until(lambda: len(made) == 2 and not any(lives(pod.shim_pid) for pod in made))
    stream.send(requests.Input(0, b"6\n"))
    assert await ended(stream) == 6
