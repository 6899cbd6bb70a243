"""Rights, bounds and the audit log between real engines (SECURITY sections 7, 12, 13)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from omcore import messages
from omcore.errors import NotTrusted
from omcore.handoff.messages import Go
from omcore.handoff.records import FIRST
from omcore.paths import SHARED_MEMORY
from omcore.trust.guard import BAD_LIMIT, Verdict
from omcore.types import JobId, ProcKey
from tests.io.enginekit import Engine, ash, birch, root

__all__ = ["ash", "birch", "root"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


async def meet(ash: Engine, birch: Engine, look: bool = False) -> None:
    await birch.client.join(await ash.client.invite(look))
    for engine in (ash, birch):
        await engine.names("ash", "birch")


def started(pid: int) -> int:
    """Start time of a process, as a `ProcKey` wants it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


async def test_a_look_member_sees_figures_and_orders_nothing(ash: Engine, birch: Engine) -> None:
    """SECURITY case 14, its second half."""
    await meet(ash, birch, look=True)
    view = await birch.names("ash", "birch")
    assert all(node.sample.mem_total_bytes for node in view.nodes)
    with pytest.raises(NotTrusted, match="ash lets your node look only"):
        await birch.client.signal_process(ProcKey(1, os.getpid(), 0), 0)
    seen = {row.key.node async for delta in birch.client.processes(once=True) for row in delta.changed}
    assert seen == {2}
    seen = {row.key.node async for delta in ash.client.processes(once=True) for row in delta.changed}
    assert seen == {1, 2}
    for message in (Go(job=JobId("0" * 32), epoch=FIRST), messages.StreamSignal(JobId("0" * 32), 1, 9)):
        birch.node.post(ash.node.me, message)
    await birch.node.calls.ask(ash.node.me, messages.AskRoster(0), messages.RosterPage, 5.0)
    assert ash.node.guard.dropped[birch.node.me, Verdict.ROLE] == 3


async def test_a_node_may_share_its_figures_only(root: Path, ash: Engine) -> None:
    birch = await Engine.start(root, "birch", "127.0.0.2", share="look")
    try:
        await meet(ash, birch)
        with pytest.raises(NotTrusted, match="birch lets other nodes look only"):
            await ash.client.signal_process(ProcKey(2, os.getpid(), 0), 0)
        assert await ash.node.calls.ask(birch.node.me, messages.AskJobs(), messages.Jobs, 5.0)
    finally:
        await birch.close()


async def test_who_sends_nonsense_again_and_again_is_cut_off_for_a_minute(ash: Engine, birch: Engine) -> None:
    await meet(ash, birch)
    for _ in range(BAD_LIMIT):
        birch.node.transport.send(ash.node.me, b"\xffwhat?")
    view = await ash.until(lambda view: any(event.kind == "error" for event in view.events))
    assert "cut off for a minute" in next(event.text for event in view.events if event.kind == "error")
    assert ash.node.guard.is_cut(birch.node.me, ash.node.now())
    assert birch.node.me not in ash.node.transport._peers
    ash.node.trail.tick()
    assert {line["event"] for line in ash.audit()} >= {"limit", "dropped"}
    ash.node.guard._keys[birch.node.me].cut_until = 0.0  # the minute is over
    ash.node.membership.tick(ash.node.now() + 60)
    await ash.names("ash", "birch")


async def test_what_happens_is_written_down_without_secrets(ash: Engine, birch: Engine) -> None:
    token = await ash.client.invite()
    await birch.client.join(token)
    await ash.names("ash", "birch")
    child = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    try:
        await birch.client.signal_process(ProcKey(1, child.pid, started(child.pid)), 15)
    finally:
        await child.wait()
    await ash.client.forget_node("birch")
    ash_says = ash.audit()
    assert [line["event"] for line in ash_says] == ["key made", "invited", "joined", "order", "forgotten"]
    order = ash_says[3]
    assert (order["what"], order["via"], order["result"]) == ("signal", "birch", "done")
    assert order["key"] == ash.node.trail.key(birch.node.me)
    birch_says = [line for line in birch.audit() if line["event"] != "refused"]  # ash may dial before it is known
    assert [line["event"] for line in birch_says] == ["key made", "joined", "order"]
    assert birch_says[2]["actor"] == f"uid {os.getuid()}"
    for engine in (ash, birch):
        text = (engine.places.state / "audit.log").read_text()
        for secret in (token, token[:40], engine.node.state.key.secret.hex()):
            assert secret not in text
