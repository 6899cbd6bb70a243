"""Pictures of the real app on the real cluster it finds: `make screenshots` runs this on a host of the demo.

screenshots.py DIR    writes DIR/NAME.svg for every shot below
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from omcore.client import SocketClient, connect
from omcore.types import ClusterView
from omview.app import OmView

SETTLE_S = 300.0  # so that the charts have something to show
OURS = tuple("/!omview !shim !tools")  # hides what is of omview itself, with the paths of who takes the pictures
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: the size of the terminal, the keys pressed before it, the theme."""

    name: str
    keys: tuple[str, ...] = ()
    size: tuple[int, int] = (120, 36)
    theme: str = "om-night"


SHOTS = (
    Shot("cluster"),
    Shot("cluster-day", theme="om-day"),
    Shot("cluster-80x24", size=(80, 24)),
    Shot("processes", ("3", *OURS, "enter"), (140, 36)),
    Shot("processes-80x24", ("3", *OURS, "enter"), (80, 24)),
    Shot("migrate", ("3", "v", "m")),
    Shot("migrations", ("4",)),
    Shot("help", ("question_mark",)),
)


async def prepare(client: SocketClient) -> None:
    """Send a job or two away, so that homes and guests are seen."""
    view = await client.snapshot()
    jobs = {job.name: job.id for job in view.jobs}
    for name, node in (("squares", "node3"), ("primes", "node2")):
        result = await client.migrate(jobs[name], node)
        if not result.ok:
            raise SystemExit(f"{name} was not moved: {result.error}")


async def complete(client: SocketClient) -> ClusterView:
    """Wait until figures of all nodes are there."""
    async with asyncio.timeout(READY_S):
        async for view in client.snapshots():
            if len(view.nodes) > 2 and all(node.age_s is not None for node in view.nodes):
                return view
    raise SystemExit("the engine hung up")


async def take(shot: Shot, folder: Path) -> None:
    """Start the app, press the keys, keep the picture."""
    async with await connect() as client:
        app = OmView(client, connect=connect, theme=shot.theme)
        async with app.run_test(size=shot.size) as pilot:
            await complete(client)
            await pilot.pause(2.5)
            for key in shot.keys:
                await pilot.press(key)
                await pilot.pause(0.05 if len(key) == 1 and not key.isdigit() else 1.5)
            await pilot.pause(1.5)
            (folder / f"{shot.name}.svg").write_text(app.export_screenshot(title=f"omview · {shot.name}"))


async def main(folder: Path) -> None:
    """Take them all."""
    async with await connect() as client:
        await complete(client)
        await prepare(client)
    await asyncio.sleep(SETTLE_S)
    for shot in SHOTS:
        await take(shot, folder)
        print(f"{shot.name}.svg")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(exist_ok=True)
    asyncio.run(main(target))
