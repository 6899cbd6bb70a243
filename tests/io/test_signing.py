"""Membership by a keyholder: members ask it to sign, leave, and share its key (SECURITY sections 5 and 6)."""

from __future__ import annotations

import os

import pytest

from omcore import messages
from omcore.errors import NotTrusted, OmError, PeerUnreachable, UsageError
from omcore.paths import SHARED_MEMORY
from omcore.trust.keys import CLUSTER_KEY, NODE_KEY
from omcore.types import ClusterView
from tests.io.enginekit import Engine, ash, birch, cedar, meet, root, seen

__all__ = ["ash", "birch", "cedar", "root"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]
PASSPHRASE = "correct horse"


def alone(view: ClusterView) -> bool:
    return len(view.nodes) == 1


async def test_a_member_invites_and_the_keyholder_signs(ash: Engine, birch: Engine, cedar: Engine) -> None:
    await meet(ash, birch)
    assert "node 3" in await cedar.client.join(await birch.client.invite())
    for engine in (ash, birch, cedar):
        await engine.names("ash", "birch", "cedar")
    assert ash.audit()[-1]["via"] == "birch"
    await birch.client.forget_node("cedar")
    for engine in (ash, birch):
        await engine.names("ash", "birch")
    assert (ash.audit()[-1]["event"], ash.audit()[-1]["via"]) == ("forgotten", "birch")


async def test_all_that_a_node_brought_goes_with_it(ash: Engine, birch: Engine, cedar: Engine) -> None:
    await meet(ash, birch)
    await cedar.client.join(await birch.client.invite())
    await ash.names("ash", "birch", "cedar")
    assert "birch, cedar are removed" in await ash.client.forget_node("birch", with_invited=True)
    await ash.until(alone)


async def test_without_a_keyholder_a_sentence_says_who_is_missing(ash: Engine, birch: Engine, cedar: Engine) -> None:
    await meet(ash, birch, cedar)
    ash_id = ash.node.me
    birch.node.transport.send = lambda to, data: to != ash_id and True  # type: ignore[method-assign]  # the line is cut
    with pytest.raises(PeerUnreachable, match="ash holds the cluster key and is down"):
        await birch.client.forget_node("cedar")
    birch.node.signing.is_up = lambda key: key != ash_id  # type: ignore[method-assign]
    with pytest.raises(PeerUnreachable, match="ash holds the cluster key and is down"):
        await birch.client.invite()


async def test_a_keyholder_signs_five_times_an_hour_for_a_member(ash: Engine, birch: Engine) -> None:
    await meet(ash, birch)
    for number in range(5):
        question = messages.AskAdmit(f"{number:064x}", 2)  # type: ignore[arg-type]
        await birch.node.calls.ask(ash.node.me, question, messages.RosterPage, 5)
    with pytest.raises(UsageError, match="has signed 5 times"):
        await birch.node.calls.ask(ash.node.me, messages.AskAdmit("9" * 64, 2), messages.RosterPage, 5)  # type: ignore[arg-type]
    again = messages.AskAdmit(f"{0:064x}", 2)  # type: ignore[arg-type]  # the answer was lost: no new signature
    await birch.node.calls.ask(ash.node.me, again, messages.RosterPage, 5)
    assert ash.audit()[-1]["what"] == "signing"


async def test_what_a_keyholder_does_not_sign(ash: Engine, birch: Engine) -> None:
    await meet(ash, birch)
    for question in (
        messages.AskForget(ash.node.me),
        messages.AskForget(birch.node.me),
        messages.AskForget("x" * 64),  # type: ignore[arg-type]
        messages.AskAdmit("A" * 64, 2),  # type: ignore[arg-type]
        messages.AskAdmit("a" * 64, 3),  # type: ignore[arg-type]
    ):
        with pytest.raises(OmError):
            await birch.node.calls.ask(ash.node.me, question, messages.RosterPage, 5)
    assert len(ash.node.state.roster) == 2


async def test_who_leaves_begins_anew_and_the_others_cut_it_off(ash: Engine, birch: Engine) -> None:
    await meet(ash, birch)
    old = birch.node.me
    secret = birch.node.state.key.secret
    assert "left" in await birch.client.leave()
    await birch.node.stopping.wait()
    assert birch.node.restarting
    await birch.again()
    view = await birch.until(alone)
    assert view.me != old
    assert view.number == 1
    assert birch.node.state.cluster_key() is not None
    assert birch.node.membership.listening == ()
    assert all(secret not in path.read_bytes() for path in birch.places.state.rglob("*") if path.is_file())
    await ash.until(alone)
    assert old not in ash.node.transport._peers
    await meet(ash, birch)  # and it may come back, as another


async def test_the_last_keyholder_does_not_leave_by_mistake(ash: Engine, birch: Engine) -> None:
    await meet(ash, birch)
    key = (ash.places.state / NODE_KEY).read_bytes()
    with pytest.raises(UsageError, match="ash alone holds the cluster key"):
        await ash.client.leave()
    assert not ash.node.restarting
    await ash.again()
    assert (ash.places.state / NODE_KEY).read_bytes() == key
    await ash.names("ash", "birch")
    await ash.client.leave(anyway=True)
    await birch.until(alone)
    with pytest.raises(UsageError, match="alone in its cluster"):
        await birch.client.leave()


async def test_a_shared_key_signs_and_only_keyholders_share_it(ash: Engine, birch: Engine, cedar: Engine) -> None:
    await meet(ash, birch, cedar)
    keys = await cedar.client.keys()
    assert [(holder.name, holder.up, holder.me) for holder in keys.keyholders] == [("ash", True, False)]
    stolen = messages.TakeKey(bytes(32), bytes(32))
    with pytest.raises(NotTrusted, match="Only a keyholder"):
        await cedar.node.calls.ask(birch.node.me, stolen, messages.Nothing, 5)
    with pytest.raises(UsageError, match="does not hold the cluster key"):
        await birch.client.share_key("cedar")
    assert await ash.client.share_key("birch") == "birch holds the cluster key too."
    with pytest.raises(UsageError, match="already"):
        await ash.client.share_key("birch")
    await seen(birch, lambda: len(birch.node.state.roster.keyholders(0)) == 2)
    assert [holder.name for holder in (await birch.client.keys()).keyholders] == ["ash", "birch"]
    assert (birch.places.state / CLUSTER_KEY).stat().st_mode & 0o777 == 0o600
    await birch.client.forget_node("cedar")  # with its own signature
    await ash.names("ash", "birch")
    secret = (ash.places.state / CLUSTER_KEY).read_bytes()[40:72]
    files = [path for path in cedar.places.state.rglob("*") if path.is_file()]
    assert files
    assert all(secret not in path.read_bytes() for path in files)  # SECURITY case 41


async def test_a_backup_makes_a_keyholder_and_nothing_else_does(ash: Engine, birch: Engine) -> None:
    with pytest.raises(UsageError, match="at least 8"):
        await ash.client.export_key("short")
    assert not (await ash.client.keys()).backup
    data = await ash.client.export_key(PASSPHRASE)
    assert (await ash.client.keys()).backup
    with pytest.raises(UsageError, match="another cluster"):
        await birch.client.import_key(data, PASSPHRASE)
    await meet(ash, birch)
    with pytest.raises(NotTrusted, match="passphrase"):
        await birch.client.import_key(data, "wrong horse")
    assert "holds the cluster key now" in await birch.client.import_key(data, PASSPHRASE)
    assert [holder.name for holder in (await birch.client.keys()).keyholders] == ["ash", "birch"]
    await seen(ash, lambda: len(ash.node.state.roster.keyholders(0)) == 2)
    assert {"key exported"} <= {line["event"] for line in ash.audit()}
    text = (ash.places.state / "audit.log").read_text() + (birch.places.state / "audit.log").read_text()
    assert PASSPHRASE not in text
