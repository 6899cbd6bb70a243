"""Members say what is not theirs to say, or too much of it (SECURITY section 14, cases 14 and 42)."""

from __future__ import annotations

import os

import pytest

from omcore import messages
from omcore.handoff import messages as handoff
from omcore.handoff.journal import PAYLOAD_LIMIT
from omcore.handoff.records import FIRST, Duty, End, Epoch, How, first_journal
from omcore.jobs.home import HomeJob
from omcore.paths import SHARED_MEMORY
from omcore.types import JobId, NodeId
from omcore.wire import pack
from tests.io.enginekit import Engine, ash, attached, birch, ended, heard, pair, root, spec, until

__all__ = ["ash", "birch", "root"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


async def test_output_of_a_node_that_has_nothing_to_do_with_the_job(
    ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair(ash, birch)
    stream = ash.client.run(spec("sh", "-c", "read x; exit 2"))
    job = await attached(stream)
    monkeypatch.setattr(HomeJob, "moving", True)
    told = heard(ash, messages.StreamOut, monkeypatch)
    birch.node.post(ash.node.me, messages.StreamOut(job, 0, 1, "out", 0, b"rm -rf /\n"))
    await until(lambda: told)
    monkeypatch.undo()
    assert ash.node.jobs.homes[job].terminal.received("out") == 0
    await ash.client.signal(job, 9)
    assert await ended(stream) == -9


async def test_an_end_with_too_many_words_fits_the_journal(ash: Engine, birch: Engine) -> None:
    await pair(ash, birch)
    stream = ash.client.run(spec("cat", on="birch"))
    job = await attached(stream)
    end = End(How.EXITED, 6, (0, 0, 0) + (9,) * 1000, "é" * 3000)
    birch.node.post(ash.node.me, handoff.Ended(job=job, epoch=FIRST, end=end))
    assert await ended(stream) == 6
    birch.node.jobs.held[job]._kill(FIRST)


def test_the_largest_journal_fits_its_slot() -> None:
    node = NodeId("f" * 64)
    journal = first_journal(JobId("0" * 32), node, bytes(16))
    for number in range(9):
        journal = journal.with_leftover(Epoch(2**31, 2**31 + number), node, Duty.DISCARD)
    full = End(How.SUPERSEDED, -(2**31), (2**62,) * 9, "\u20ac" * 9000).cut()
    assert len(pack((journal, full))) < PAYLOAD_LIMIT
