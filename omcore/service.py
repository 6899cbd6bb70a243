"""Starting an engine: in the foreground, in the background, inside the app; and finding the one that runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from omcore import paths
from omcore.client import SocketClient, connect
from omcore.config import Config, load_config
from omcore.errors import EngineUnreachable, OmError

START_S = 10.0
STOP_S = 10.0
"""How long a new engine may take until it answers."""


def log_to(path: Path | None, level: str) -> None:
    """Send the engine's log to a file (or standard error), one line an event."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler()
    else:
        from logging.handlers import RotatingFileHandler

        handler = RotatingFileHandler(path, maxBytes=5_000_000, backupCount=2)
        os.chmod(path, 0o600)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger("omcore")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def settings(name: str = "", listen: tuple[str, ...] = ()) -> tuple[paths.Paths, Config]:
    """The places and the configuration, with what the command line overrides; makes the private directories."""
    import msgspec

    places = paths.find_paths()
    config = load_config(places.config)
    if name:
        config = msgspec.structs.replace(config, name=name)
    if listen:
        config = msgspec.structs.replace(config, listen=listen)
    paths.make_private(places.state)
    paths.make_private(places.runtime)
    return places, config


class _Lives:
    """One engine through its lives: whoever leaves a cluster begins anew, in the same process."""

    def __init__(self, places: paths.Paths, config: Config, kind: str) -> None:
        self._new = (places, config, kind)
        self._alive = False
        self._over = False

    async def start(self) -> None:
        """Begin a life."""
        from omcore.node import Node

        self.node = Node(*self._new)
        await self.node.start()
        self._alive = True

    async def run(self) -> None:
        """Live until somebody stops the engine."""
        while True:
            await self.node.stopping.wait()
            if not self.node.restarting or self._over:
                return
            await self.close()
            await self.start()
            if self._over:  # asked to end between two lives
                return

    def stop(self) -> None:
        """End soon, whichever life it is in."""
        self._over = True
        self.node.stopping.set()

    async def close(self) -> None:
        """End, if it lives."""
        if self._alive:
            self._alive = False
            await self.node.close()


async def _serve(places: paths.Paths, config: Config, kind: str) -> None:
    lives = _Lives(places, config, kind)
    await lives.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lives.stop)
    try:
        await lives.run()
    finally:
        await lives.close()


def serve(name: str = "", listen: tuple[str, ...] = (), daemon: bool = False) -> None:
    """Run an engine until SIGTERM or ^C; with `daemon` return once one answers in the background.

    Raises `OmError` in the foreground; in the background `EngineUnreachable` with the end of its log.
    """
    if daemon:
        asyncio.run(_start_background(name, listen))
        return
    places, config = settings(name, listen)
    log_to(None if sys.stderr.isatty() else places.engine_log, config.log_level)
    asyncio.run(_serve(places, config, "user"))


def _spawn(log_path: Path, name: str, listen: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], int]:
    """Start `omview serve` in a session of its own; also where its log begins."""
    words = [sys.executable, "-c", "from omview.__main__ import main; main()", "serve"]
    words += ["--name", name] if name else []
    for address in listen:
        words += ["--listen", address]
    with open(log_path, "ab") as output:
        mark = output.tell()
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    return child, mark


async def _start_background(name: str = "", listen: tuple[str, ...] = ()) -> SocketClient:
    places, _ = settings(name, listen)
    child, mark = _spawn(places.engine_log, name, listen)
    deadline = time.monotonic() + START_S
    again = True
    while time.monotonic() < deadline:
        with contextlib.suppress(EngineUnreachable):
            return await connect(places.socket)
        if child.poll() is not None and not _locked(places.state):
            if not again:
                break
            # It may have met another one: either that one answers now, or it was on its way out and ours can start.
            child, mark = _spawn(places.engine_log, name, listen)
            again = False
        await asyncio.sleep(0.05)
    lines = places.engine_log.read_bytes()[mark:].decode(errors="replace").strip().splitlines()
    said = [line.removeprefix("omview: ") for line in lines if line.startswith("omview: ")] or lines
    raise EngineUnreachable(f"The engine did not start: {' '.join(said[-1:])[-300:]}", f"Its log: {places.engine_log}")


async def wait_until_ended() -> None:
    """Return when the engine that was told to stop has let go of everything, so that another one can start."""
    places = paths.find_paths()
    deadline = time.monotonic() + STOP_S
    while _locked(places.state):
        if time.monotonic() > deadline:
            raise OmError("The engine has not ended yet.", f"Its log: {places.engine_log}")
        await asyncio.sleep(0.02)


def _locked(state: Path) -> bool:
    """Whether an engine holds this state directory."""
    try:
        with open(state / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


async def connect_or_start() -> SocketClient:
    """The engine that runs, or a new one in the background."""
    try:
        return await connect()
    except EngineUnreachable:
        return await _start_background()


@contextlib.asynccontextmanager
async def engine() -> AsyncIterator[str]:
    """Make sure that an engine answers while the block runs: "user" if there was one, else "embedded" in us."""
    try:
        await (await connect()).close()
    except EngineUnreachable:
        pass
    else:
        yield "user"
        return
    places, config = settings()
    log_to(places.engine_log, config.log_level)
    lives = _Lives(places, config, "embedded")
    await lives.start()
    living = asyncio.create_task(lives.run())
    try:
        yield "embedded"
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await lives.close()
