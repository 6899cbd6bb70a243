"""Losers of a move that do not know (any more) what they lost, and homes that must remember them."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from omcore.handoff.records import Duty, Epoch
from omcore.paths import SHARED_MEMORY
from omcore.types import NodeId
from tests.io.enginekit import Engine, ash, attached, birch, ended, pair, root, spec, until

__all__ = ["ash", "birch", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


@pytest.mark.parametrize("duty", Duty)
async def test_a_node_that_holds_nothing_says_so(ash: Engine, birch: Engine, duty: Duty) -> None:
    await pair(ash, birch)
    stream = ash.client.run(spec("cat"))
    home = ash.node.jobs.homes[await attached(stream)]
    machine = home.machine
    machine.journal = machine.book.with_leftover(Epoch(0, 2), birch.node.me, duty)
    home._tick_machine()
    await until(lambda: not machine.book.leftovers)
    assert home.id not in birch.node.jobs.held
    await ash.client.signal(home.id, 9)
    assert await ended(stream) == -9


async def test_a_home_is_not_forgotten_while_a_stopped_copy_waits_for_its_word(
    ash: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ash.client.run(spec("true"))
    job = await attached(stream)
    assert await ended(stream) == 0
    home = ash.node.jobs.homes[job]
    home.meta = replace(home.meta, ended=1.0)
    journal = home.machine.book
    home.machine.journal = journal.with_leftover(Epoch(0, 2), NodeId("f" * 64), Duty.RETIRE)
    looked, tick = [], ash.node.jobs.tick

    def look(now: float) -> None:
        tick(now)
        looked.append(now)

    monkeypatch.setattr(ash.node.jobs, "tick", look)
    await until(lambda: looked)
    assert job in ash.node.jobs.homes
    home.machine.journal = journal
    await until(lambda: job not in ash.node.jobs.homes)
