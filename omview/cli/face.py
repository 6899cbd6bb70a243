"""`omview` alone: the terminal app, on the engine that runs, or with one inside it."""

from __future__ import annotations

import asyncio
import sys

from omcore.errors import UsageError


def open_app() -> int:
    """Open the app and stay in it; its exit code is returned. Raises UsageError where there is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("The app needs a terminal.", "for scripts: omview nodes --json; all verbs: omview --help")
    return asyncio.run(_open())


async def _open() -> int:
    from omcore.client import connect
    from omcore.service import engine
    from omview.app import OmView

    async with engine(), await connect() as client:
        app = OmView(client, connect=connect)
        code = await app.run_async()
        return code if code is not None else app.return_code or 0
