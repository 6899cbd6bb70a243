"""A cluster of real engines on the loopback: how soon do all say that a killed one is lost?"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omcore.client import SocketClient, connect
from omcore.errors import OmError
from omcore.paths import find_paths
from omcore.types import ClusterView, NodeState

STARTED_S = 120.0
JOINED_S = 120.0
KNOWN_S = 60.0
REST_S = 15.0  # after everybody knows everybody


def known_everywhere(count: int) -> float:
    """Seconds from kill -9 of one of `count` engines until all others call it lost.

    Raises SystemExit where they do not come together, or do not notice.
    """
    with tempfile.TemporaryDirectory(prefix="om") as room:
        places = [_environment(Path(room) / str(number)) for number in range(count)]
        engines = [_start(number, env) for number, env in enumerate(places)]
        try:
            return asyncio.run(_watch(places, engines))
        except TimeoutError:
            raise SystemExit("the engines did not come together, or did not notice the death") from None
        finally:
            for engine, env in zip(engines, places, strict=True):
                engine.kill()
                engine.wait()
                shutil.rmtree(find_paths(env).images, ignore_errors=True)  # what a killed engine leaves elsewhere


def _environment(room: Path) -> dict[str, str]:
    names = {"XDG_RUNTIME_DIR": "r", "XDG_STATE_HOME": "s", "XDG_CONFIG_HOME": "c", "XDG_DATA_HOME": "d"}
    for name in names.values():
        (room / name).mkdir(parents=True, mode=0o700)
    return {**os.environ, **{key: str(room / name) for key, name in names.items()}}


def _start(number: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).parent / "omview")
    words = [program, "serve", "--name", f"n{number}", "--listen", f"127.0.0.{number + 1}"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, env=env, stdin=quiet, stdout=quiet, stderr=quiet)


async def _watch(places: list[dict[str, str]], engines: list[subprocess.Popen[bytes]]) -> float:
    async with asyncio.timeout(STARTED_S):
        faces = [await _reach(find_paths(env).socket) for env in places]
    async with asyncio.timeout(JOINED_S):
        for face in faces[1:]:
            await face.join(await faces[0].invite())
        count = len(faces)
        await asyncio.gather(*(_until(face, lambda view: _up(view) == count) for face in faces))
    await asyncio.sleep(REST_S)
    victim = count // 2
    killed = f"n{victim}"
    others = [
        asyncio.create_task(_until(face, lambda view: _state(view, killed) is NodeState.LOST))
        for number, face in enumerate(faces)
        if number != victim
    ]
    begun = time.monotonic()
    engines[victim].send_signal(signal.SIGKILL)
    async with asyncio.timeout(KNOWN_S):
        await asyncio.gather(*others)
    took = time.monotonic() - begun
    for face in faces:
        await face.close()
    return took


async def _reach(path: Path) -> SocketClient:
    while True:
        try:
            return await connect(path)
        except OmError:
            await asyncio.sleep(0.1)


async def _until(face: SocketClient, true: object) -> None:
    assert callable(true)
    async for view in face.snapshots():
        if true(view):
            return


def _up(view: ClusterView) -> int:
    return sum(node.state is NodeState.UP for node in view.nodes)


def _state(view: ClusterView, name: str) -> NodeState | None:
    return next((node.state for node in view.nodes if node.name == name), None)
