"""Run in a mount namespace of its own: engines one of which cannot write its state any more; prints what it saw.

usage: fulldisk.py full|readonly DIRECTORY
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from omcore.client import connect
from omcore.config import Config
from omcore.errors import OmError
from omcore.node import Node
from omcore.paths import Paths
from omcore.types import ClusterView, NodeState


async def engine(root: Path, name: str, address: str) -> Node:
    home = root / name
    home.mkdir(mode=0o700, exist_ok=True)
    places = Paths(home / "state", home / "run", home / "config.toml", home / "data", home / "images")
    node = Node(places, Config(name=name, listen=(address,), port=0, discover=False), "user")
    await node.start()
    return node


async def until(node: Node, true: Callable[[ClusterView], bool]) -> None:
    async with asyncio.timeout(40), await connect(node.places.socket) as face:
        async for view in face.snapshots():
            if true(view):
                return


def up(*names: str) -> Callable[[ClusterView], bool]:
    return lambda view: {one.name for one in view.nodes if one.state is NodeState.UP} == set(names)


async def join(newcomer: Node, inviter: Node) -> str:
    try:
        async with await connect(inviter.places.socket) as face:
            token = await face.invite()
        async with await connect(newcomer.places.socket) as face:
            return await face.join(token)
    except OmError as error:
        return error.text


def small(state: Path) -> Path:
    """A file system of its own for this state."""
    state.mkdir(mode=0o700, parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "none", str(state)], check=True)
    return state


def spoil(state: Path, how: str) -> None:
    """From now on nothing can be written there."""
    if how == "readonly":
        # A second mount over the first: what is open for writing would forbid to make that one read-only.
        subprocess.run(["mount", "--bind", str(state), str(state)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(state)], check=True)
        return
    with open(state / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with contextlib.suppress(OSError):
        (state / "proof").write_bytes(b"x")
        raise SystemExit("the disk is not full")


async def main(how: str, root: Path) -> None:
    state = small(root / "birch" / "state")
    ash, birch, cedar = [await engine(root, n, f"127.4.0.{i}") for i, n in enumerate(("ash", "birch", "cedar"), 1)]
    await join(birch, ash)
    await until(birch, up("ash", "birch"))
    spoil(state, how)
    print("joined", await join(cedar, ash))
    for node in (ash, birch, cedar):  # birch hears of cedar and believes it, though it cannot write that down
        await until(node, up("ash", "birch", "cedar"))
    print("all see all")
    await birch.close()
    await until(ash, lambda view: not up("ash", "birch", "cedar")(view))
    birch = await engine(root, "birch", "127.4.0.2")  # also starts
    for node in (ash, birch, cedar):
        await until(node, up("ash", "birch", "cedar"))
    print("again")
    for node in (ash, birch, cedar):
        await node.close()


async def keyholder(how: str, root: Path) -> None:
    """The node that cannot write holds the cluster key: it admits nobody, and goes on."""
    state = small(root / "ash" / "state")
    ash, birch, cedar = [await engine(root, n, f"127.4.1.{i}") for i, n in enumerate(("ash", "birch", "cedar"), 1)]
    await join(birch, ash)
    async with await connect(ash.places.socket) as face:
        token = await face.invite()
    await until(ash, up("ash", "birch"))
    spoil(state, how)
    print("invited", await join(cedar, ash))
    try:
        async with await connect(cedar.places.socket) as face:
            print("joined", await face.join(token))
    except OmError as error:
        print("refused", error.text)
    seen = ash.gossip.board.age(2, ash.now())
    assert seen is not None
    await until(ash, lambda view: any(one.number == 2 and (one.age_s or 0) < 2 for one in view.nodes))
    await until(birch, up("ash", "birch"))
    print("gossip goes on")
    for node in (ash, birch, cedar):
        await node.close()


if __name__ == "__main__":
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
    asyncio.run(keyholder(sys.argv[1], Path(sys.argv[2]) / "second"))
