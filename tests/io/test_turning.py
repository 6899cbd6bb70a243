"""Other keys between real engines: rotation, rival keys, heads, and a start with an old roster (SECURITY section 6)."""

from __future__ import annotations

import os

import pytest

from omcore import messages
from omcore.client import connect
from omcore.confirming import MARK, RECENT_S
from omcore.errors import NotTrusted, RemoteProtocolError, UsageError
from omcore.node import Node
from omcore.paths import SHARED_MEMORY
from omcore.trust.heads import parse_head
from omcore.trust.keys import CLUSTER_KEY, generate_cluster_key, generate_node_key, load_cluster_key
from omcore.trust.turns import sign_turn
from omcore.turning import FROZEN
from omcore.types import ProcKey
from tests.io.enginekit import Engine, ash, birch, cedar, meet, root, seen

__all__ = ["ash", "birch", "cedar", "root"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


def secret(engine: Engine) -> bytes:
    return (engine.places.state / CLUSTER_KEY).read_bytes()[40:72]


async def test_a_new_cluster_key_without_a_pause(ash: Engine, birch: Engine, cedar: Engine) -> None:
    await meet(ash, birch, cedar)
    await ash.client.share_key("birch")
    before = await ash.client.keys()
    old = secret(ash)
    assert "The cluster key is now" in await ash.client.rotate_key()
    after = await ash.client.keys()
    assert (after.epoch, after.members) == (1, 3)
    assert after.cluster != before.cluster
    assert [holder.name for holder in after.keyholders] == ["ash", "birch"]
    assert secret(ash) == secret(birch) != old
    for engine in (ash, birch, cedar):
        await engine.names("ash", "birch", "cedar")
        await seen(engine, lambda engine=engine: not engine.node.state.roster.open)  # type: ignore[misc]
        assert (await engine.client.keys()).cluster == after.cluster
    for path in cedar.places.state.rglob("*"):  # SECURITY case 41
        if path.is_file():
            assert not {old, secret(ash)} & {path.read_bytes()[at : at + 32] for at in range(path.stat().st_size)}
    await birch.client.forget_node("cedar")
    await ash.names("ash", "birch")


async def test_a_keyholder_is_forgotten_after_a_rotation(ash: Engine, birch: Engine, cedar: Engine) -> None:
    """SECURITY case 17, its second half."""
    await meet(ash, birch, cedar)
    await ash.client.share_key("birch")
    await cedar.client.forget_node("birch")
    for engine in (ash, cedar):
        await engine.names("ash", "cedar")
        assert engine.node.state.roster.epoch == 1
    assert [holder.name for holder in (await cedar.client.keys()).keyholders] == ["ash"]
    stolen = load_cluster_key(birch.places.state)
    assert stolen is not None
    assert stolen.public != ash.node.state.roster.cluster_public
    with pytest.raises(NotTrusted):
        ash.node.state.roster.admit(stolen, generate_node_key().id, birch.node.me, 0.0)


async def test_two_new_cluster_keys_freeze_everything_until_a_person_decides(ash: Engine, birch: Engine) -> None:
    """SECURITY case 17."""
    await meet(ash, birch)
    stolen = ash.node.state.cluster_key()
    assert stolen is not None
    await ash.client.rotate_key()
    right = (await ash.client.keys()).cluster
    thiefs = sign_turn(stolen, generate_cluster_key(), ash.node.state.roster.cluster, 1, 0.0)
    news = messages.TakeEntries(b"", thiefs.raw)
    await birch.node.calls.ask(ash.node.me, news, messages.Nothing, 5)
    for engine in (ash, birch):
        view = await engine.until(lambda view: FROZEN in view.warnings)
        assert any(event.subject == "cluster key" for event in view.events)
        assert set((await engine.client.keys()).turns) == {right, thiefs.fingerprint}
    for act in (ash.client.forget_node("birch"), ash.client.rotate_key(), birch.client.forget_node("ash")):
        with pytest.raises(UsageError):
            await act
    with pytest.raises(UsageError, match="frozen"):
        await ash.node.signing.mark_keyholder(birch.node.me)
    await ash.again()
    assert FROZEN in (await ash.client.snapshot()).warnings
    for engine in (ash, birch):
        assert right in await engine.client.accept_key(right)
        assert FROZEN not in (await engine.client.snapshot()).warnings
        assert (await engine.client.keys()).turns == ()
    await ash.names("ash", "birch")
    await ash.client.forget_node("birch")
    assert {"rotated", "frozen", "accepted"} <= {line["event"] for line in ash.audit()}


async def test_a_node_gets_a_new_key_and_keeps_its_number(ash: Engine, birch: Engine) -> None:
    await meet(ash, birch)
    old = birch.node.me
    assert "key is now" in await birch.client.rotate_key(node=True)
    await birch.node.stopping.wait()
    await birch.again()
    for engine in (ash, birch):
        view = await engine.names("ash", "birch")
        assert {node.number for node in view.nodes} == {1, 2}
        assert old not in {node.id for node in view.nodes}
    old = ash.node.me
    await ash.client.rotate_key(node=True)  # a keyholder signs for itself
    await ash.node.stopping.wait()
    await ash.again()
    for engine in (ash, birch):
        view = await engine.names("ash", "birch")
        assert old not in {node.id for node in view.nodes}
    assert [holder.me for holder in (await ash.client.keys()).keyholders] == [True]


async def test_a_keyholder_says_each_minute_what_the_roster_is(ash: Engine, birch: Engine, cedar: Engine) -> None:
    await meet(ash, birch, cedar)
    await seen(ash, lambda: bool(ash.node.confirming.head))
    ash.node.membership.greet([birch.node.me])
    await seen(birch, lambda: birch.node.confirming.head == ash.node.confirming.head)
    assert (await birch.client.keys()).roster_age_s is not None
    head = ash.node.confirming.head
    cedar.node.confirming._head = None
    digest = cedar.node.state.roster.digest()
    forged = bytearray(head)
    forged[50] ^= 1
    with pytest.raises(RemoteProtocolError, match="did not sign"):
        cedar.node.confirming.heard(birch.node.me, digest, bytes(forged))
    with pytest.raises(RemoteProtocolError):
        cedar.node.confirming.heard(birch.node.me, digest, b"x")
    cedar.node.confirming.heard(birch.node.me, b"", head)  # a member may pass it on
    assert cedar.node.confirming.head == head
    assert parse_head(head).count == 3


async def test_a_node_that_slept_obeys_nobody_before_it_has_heard_of_removals(
    ash: Engine, birch: Engine, cedar: Engine
) -> None:
    """SECURITY case 13: cedar was forgotten while birch slept, and is the first that birch meets."""
    await meet(ash, birch, cedar)
    await birch.client.close()
    await birch.node.close()
    roster, ash_send = cedar.node.state.roster.export(), ash.node.transport.send
    ash.node.transport.send = lambda to, data: False  # type: ignore[method-assign]  # ash is off the net, too
    ash.node.transport.set_peers({})
    long_ago = os.stat(birch.places.state / MARK).st_mtime - RECENT_S - 1
    os.utime(birch.places.state / MARK, (long_ago, long_ago))
    birch.node = Node(birch.places, birch.config, "user")
    await birch.node.start()
    birch.client = await connect(birch.places.socket)
    assert not birch.node.guard.sure
    assert cedar.node.state.roster.export() == roster
    await birch.until(lambda view: sum(node.sample.mem_total_bytes > 0 for node in view.nodes) >= 2)  # it looks
    with pytest.raises(NotTrusted, match="does not know yet whether its roster is current"):
        await cedar.client.signal_process(ProcKey(2, os.getpid(), 0), 0)
    ash.node.transport.send = ash_send  # type: ignore[method-assign]
    await ash.client.forget_node("cedar")
    birch.node.transport._peers[ash.node.me].not_before = 0.0  # the pause between dials is over
    birch.node.membership.greet([ash.node.me])
    await birch.until(lambda view: len(view.nodes) == 2)
    await seen(birch, lambda: birch.node.guard.sure)
    assert not birch.node.state.roster.is_member(cedar.node.me, 0)
