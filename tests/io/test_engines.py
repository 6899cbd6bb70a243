"""Two real engines on the loopback: invite, join, see each other, and be cut off for good."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from omcore import messages
from omcore.client import connect
from omcore.config import Config
from omcore.errors import ConfigError, OmError, PeerUnreachable, UsageError
from omcore.gossip import Output
from omcore.node import Node
from omcore.paths import SHARED_MEMORY, Paths
from omcore.types import NodeState
from tests.io.enginekit import Engine, ash, birch, root

__all__ = ["ash", "birch", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


async def test_join_see_each_other_and_forget(ash: Engine, birch: Engine) -> None:
    token = await ash.client.invite()
    assert await birch.client.join(token) == "This machine is now node 2 of that cluster."
    for engine in (ash, birch):
        view = await engine.names("ash", "birch")
        assert {node.number for node in view.nodes} == {1, 2}
        assert all(node.sample.mem_total_bytes for node in view.nodes)
        found = {
            row.key.node: row.key.pid async for delta in engine.client.processes(once=True) for row in delta.changed
        }
        assert set(found) == {1, 2}
    with pytest.raises(UsageError, match="already a member"):
        await ash.client.join(token)
    with pytest.raises(UsageError, match="forget itself"):
        await ash.client.forget_node("ash")
    with pytest.raises(UsageError, match="ash alone holds the cluster key"):
        await birch.client.forget_node("ash")
    assert "birch is removed" in await ash.client.forget_node("birch")
    view = await ash.until(lambda view: len(view.nodes) == 1)
    assert view.events[0].kind == "left"
    with pytest.raises(PeerUnreachable):
        await birch.node.calls.ask(ash.node.me, messages.AskRoster(0), messages.RosterPage, 1.0)
    assert len((await ash.client.snapshot()).nodes) == 1


async def test_members_find_each_other_again_after_a_restart(root: Path, ash: Engine, birch: Engine) -> None:
    await birch.client.join(await ash.client.invite())
    await ash.names("ash", "birch")
    await birch.names("ash", "birch")
    await birch.close()
    await ash.until(lambda view: any(node.state is not NodeState.UP for node in view.nodes))
    again = await Engine.start(root, "birch", "127.0.0.2")
    try:
        for engine in (ash, again):
            await engine.names("ash", "birch")
        assert again.node.info.number == 2
    finally:
        await again.close()
        birch.node = await _stand_in(root, "x")
        birch.client = await connect(birch.node.places.socket)


async def _stand_in(root: Path, name: str) -> Node:
    """An engine of its own, for a fixture to close."""
    return (await Engine.start(root, name, "127.0.0.3")).node


@pytest.mark.parametrize("token", ["", "nonsense", "omview1-" + "a" * 200, "\x1b[2J" * 100, "é" * 300])
async def test_what_is_no_token_is_refused_and_changes_nothing(birch: Engine, token: str) -> None:
    before = birch.node.state.roster.digest()
    with pytest.raises(OmError) as caught:
        await birch.client.join(token)
    assert "\x1b" not in caught.value.text
    assert birch.node.state.roster.digest() == before


async def test_a_lone_engine_opens_no_port(ash: Engine) -> None:
    assert ash.node.membership.listening == ()
    await ash.client.invite()
    assert len(ash.node.membership.listening) == 1
    assert all(address.startswith("127.0.0.1:") for address in ash.node.membership.listening)


async def test_a_second_engine_of_the_same_user_is_refused(root: Path, ash: Engine) -> None:
    with pytest.raises(ConfigError, match="already runs"):
        await Engine.start(root, "ash", "127.0.0.1")
    assert (await ash.client.snapshot()).number == 1


async def test_a_greeting_in_anothers_name_teaches_nothing(ash: Engine, birch: Engine) -> None:
    await birch.client.join(await ash.client.invite())
    await ash.names("ash", "birch")
    lie = messages.Hello(ash.node.info, (), True)
    birch.node.post(ash.node.me, lie)
    with pytest.raises(OmError, match="another's name"):
        ash.node.membership.hello(birch.node.me, lie)
    assert (await ash.names("ash", "birch")).number == 1


async def test_pages_of_a_roster_that_are_not_there(ash: Engine) -> None:
    assert ash.node.membership.roster_page(0).pages == 1
    for page in (-1, 1, 10**9):
        with pytest.raises(UsageError):
            ash.node.membership.roster_page(page)


class HurriedGossip:
    """A gossip machine that has nothing to do for an hour, until something comes."""

    def __init__(self) -> None:
        self.deadline = float("inf")
        self.ticked = asyncio.Event()

    def tick(self, now: float) -> list[Output]:
        if now >= self.deadline:
            self.ticked.set()
        return []


async def test_news_that_comes_brings_the_next_tick_forward(root: Path) -> None:
    """Else it would wait for the old deadline, and the machine would take that for a stall of its own."""
    places = Paths(root / "state", root / "run", root / "config.toml", root / "data", root / "images")
    node, gossip = Node(places, Config(name="ash"), "user"), HurriedGossip()
    gossip.deadline = node.now() + 3600
    node.gossip = gossip  # type: ignore[assignment]  # a stand-in
    looping = node.spawn(node._gossip_loop())
    await asyncio.wait({looping}, timeout=0)
    gossip.deadline = node.now() + 0.05
    node._perform([])
    async with asyncio.timeout(10):
        await gossip.ticked.wait()
    looping.cancel()
