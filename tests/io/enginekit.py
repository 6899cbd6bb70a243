"""Real engines on the loopback, and what the tests do with them: start jobs, wait for what happens."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from omcore import requests
from omcore.audit import Value, read_audit
from omcore.client import SocketClient, Stream, connect
from omcore.config import Config
from omcore.node import Node
from omcore.paths import SHARED_MEMORY, Paths
from omcore.types import ClusterView, JobId, NodeState, RunSpec


@dataclass
class Engine:
    """One engine and a face of it."""

    places: Paths
    config: Config
    node: Node
    client: SocketClient

    @classmethod
    async def start(cls, root: Path, name: str, address: str, share: str = "work") -> Engine:
        home = root / name
        home.mkdir(mode=0o700, exist_ok=True)
        places = Paths(home / "state", home / "run", home / "config.toml", home / "data", home / "images")
        config = Config(name=name, listen=(address,), port=0, share=share)
        node = Node(places, config, "user")
        await node.start()
        return cls(places, config, node, await connect(places.socket))

    async def close(self) -> None:
        """End it, and the pods that it still has: nobody would find them again."""
        await self.client.close()
        pods = [pod for held in self.node.jobs.held.values() for pod in held.pods.values()]
        await asyncio.gather(*(pod.retire() for pod in pods))
        await self.node.close()

    async def again(self) -> None:
        """Start anew in the same places, as the service does."""
        await self.close()
        self.node = Node(self.places, self.config, "user")
        await self.node.start()
        self.client = await connect(self.places.socket)

    def audit(self) -> list[dict[str, Value]]:
        """What its audit log says."""
        return list(read_audit(self.places.state))

    async def until(self, true: Callable[[ClusterView], bool]) -> ClusterView:
        """Follow the cluster until it is as wished."""
        async with asyncio.timeout(30):
            async for view in self.client.snapshots():
                if true(view):
                    return view
        raise AssertionError("the engine stopped telling")

    async def names(self, *names: str) -> ClusterView:
        return await self.until(
            lambda view: (
                {node.name for node in view.nodes} == set(names)
                and all(node.state is NodeState.UP for node in view.nodes)
            )
        )


@pytest.fixture
async def root() -> AsyncIterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="omtwo", dir=SHARED_MEMORY))
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def ash(root: Path) -> AsyncIterator[Engine]:
    engine = await Engine.start(root, "ash", "127.0.0.1")
    yield engine
    await engine.close()


@pytest.fixture
async def birch(root: Path) -> AsyncIterator[Engine]:
    engine = await Engine.start(root, "birch", "127.0.0.2")
    yield engine
    await engine.close()


@pytest.fixture
async def cedar(root: Path) -> AsyncIterator[Engine]:
    engine = await Engine.start(root, "cedar", "127.0.0.3")
    yield engine
    await engine.close()


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
            await asyncio.sleep(0)


async def pair(one: Engine, other: Engine) -> None:
    await other.client.join(await one.client.invite())
    for engine in (one, other):
        await engine.names("ash", "birch")


async def meet(*engines: Engine) -> None:
    """All join the first one's cluster."""
    for engine in engines[1:]:
        await engine.client.join(await engines[0].client.invite())
    for engine in engines:
        await engine.names(*(other.config.name for other in engines))


async def seen(engine: Engine, true: Callable[[], bool]) -> None:
    """Wait until something is true that only the engine's inside shows; looked at whenever it has news, or a second."""
    async with asyncio.timeout(30):
        async for _ in engine.client.snapshots():
            if true():
                return


def heard(engine: Engine, kind: type | tuple[type, ...], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The messages of this kind about jobs that the engine hears from now on."""
    messages: list[Any] = []
    received = engine.node.jobs.received

    def spy(sender: Any, message: Any) -> None:
        if isinstance(message, kind):
            messages.append(message)
        received(sender, message)

    monkeypatch.setattr(engine.node.jobs, "received", spy)
    return messages
