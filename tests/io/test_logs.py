"""Kept output told to a slow reader while the job goes on printing."""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

import pytest

from omcore import requests
from omcore.control import Channel
from omcore.faces import Faces
from omcore.paths import SHARED_MEMORY
from omcore.types import JobId
from tests.io.enginekit import Engine, ash, attached, ended, root, spec, until

__all__ = ["ash", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


class SlowReader:
    """A face that lets something happen after each item it is sent."""

    def __init__(self, meanwhile: Any) -> None:
        self.got: dict[str, dict[int, bytes]] = {"out": {}, "err": {}, "tty": {}}
        self._meanwhile = meanwhile

    def write(self, message: object) -> None:
        if isinstance(message, requests.Output):
            self.got[message.stream][message.offset] = message.data

    async def send(self, message: object) -> None:
        self.write(message)
        self._meanwhile()

    async def receive(self) -> object:
        return await asyncio.get_running_loop().create_future()

    def text(self, stream: str) -> bytes:
        text = b""
        for offset, data in sorted(self.got[stream].items()):
            assert offset == len(text), "a gap"
            text += data
        return text


async def printed(ash: Engine, job: JobId, script_output: int) -> None:
    await until(lambda: ash.node.jobs.homes[job].terminal.received("out") >= script_output)


async def test_what_is_printed_between_the_past_and_the_present_is_told_too(ash: Engine) -> None:
    stream = ash.client.run(spec("sh", "-c", "echo one; echo oops >&2; read x"))
    job = await attached(stream)
    await printed(ash, job, 4)
    terminal = ash.node.jobs.homes[job].terminal
    await until(lambda: terminal.received("err") == 5)

    def late() -> None:
        if reader.got["err"]:
            terminal.deliver("out", 4, b"two\n")

    reader = SlowReader(late)
    told = asyncio.create_task(
        Faces(ash.node)._logs(requests.AskLogs(job, follow=True), cast(Channel, reader)),
    )
    await until(lambda: 4 in reader.got["out"])
    told.cancel()
    assert reader.text("out") == b"one\ntwo\n"
    assert reader.text("err") == b"oops\n"
    await ash.client.signal(job, 9)
    assert await ended(stream) == -9


async def test_output_that_is_freed_while_it_is_told_is_left_out_and_not_told_as_zeros(ash: Engine) -> None:
    stream = ash.client.run(spec("sh", "-c", "yes | head -c 200000; read x"))
    job = await attached(stream)
    await printed(ash, job, 200_000)
    log = ash.node.jobs.homes[job].terminal.logs["out"]

    def free() -> None:
        log._keep = 4
        log.trim(log.end)

    reader = SlowReader(free)
    await Faces(ash.node)._logs(requests.AskLogs(job), cast(Channel, reader))
    assert log.floor > 100_000
    assert all(b"\0" not in data for data in reader.got["out"].values())
    await ash.client.signal(job, 9)
    assert await ended(stream) == -9
