"""What dies with the node lies on a tmpfs; what is not a job's business it does not see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from omcore import requests
from omcore.jobs import manager
from omcore.paths import SHARED_MEMORY
from tests.io.enginekit import Engine, ash, attached, ended, root, spec

__all__ = ["ash", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


async def test_records_lie_where_the_images_do_if_the_runtime_directory_is_on_a_disk(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "is_tmpfs", lambda path: path.name != "run")
    engine = await Engine.start(root, "ash", "127.0.0.1")
    try:
        stream = engine.client.run(spec("sh", "-c", "read x; exit 3"))
        job = await attached(stream)
        assert (engine.places.images / "jobs" / job / "record").exists()
        assert not (engine.places.runtime / "jobs").exists()
        await engine.client.close()
        await engine.node.close()
        engine = await Engine.start(root, "ash", "127.0.0.1")  # and are found there again
        assert engine.node.jobs.homes[job].end is None
        again = engine.client.attach(requests.Attach(job, (0, 0, 0)))
        assert await attached(again) == job
        await engine.client.signal(job, 15)
        assert await ended(again) == -15
    finally:
        await engine.close()


async def test_a_job_sees_neither_socket_nor_images_nor_keys(ash: Engine) -> None:
    places = ash.places
    script = 'for place; do ls -A "$place"; done'
    stream = ash.client.run(spec("sh", "-c", script, "sh", *map(str, (places.state, places.runtime, places.images))))
    await attached(stream)
    text = b""
    async for item in stream:
        if isinstance(item, requests.Output):
            text += item.data
        elif isinstance(item, requests.JobEnded):
            assert (item.status, text) == (0, b"")
            return
