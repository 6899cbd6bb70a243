"""Attack cases of SECURITY section 14 against whole engines, the numbers in the tests' first lines.

Elsewhere: 1-5, 7-10, 12 (transport) in `test_transport_attacks`; 8, 11 in `core/test_trust_tokens` and `_roster`; 13
and 17 in `test_turning`; 14 (look), 16 in `core/test_trust_guard` and `core/test_gossip_*`; 15 in
`core/test_handoff_sequences` and `sim/`; 32, 33 in `test_control` and `cli/test_places`; 34 in `core/test_text` and
`core/test_audit`; 38 in `core/test_trust_files` and `core/test_twin`; 41 in `test_signing` and `test_turning`; 42 also
in `core/test_messages`; 43 in `test_doctor_security`; 44 in `test_rules`.  35-37 concern ssh and the web, which do not
exist yet, the first half of 43 the system engine, 40 the announcement on the LAN.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from omcore import messages
from omcore.errors import NotTrusted, OmError, UsageError
from omcore.handoff import messages as handoff
from omcore.handoff.inputs import Received
from omcore.handoff.records import CopyState, End, Epoch, How
from omcore.messages import PEER
from omcore.paths import SHARED_MEMORY
from omcore.sensors.host import HostSensor
from omcore.transport.zmq_transport import ZmqTransport
from omcore.trust.guard import Verdict
from omcore.trust.keys import generate_cluster_key, generate_node_key
from omcore.trust.passes import Grant, Role, sign
from omcore.trust.tokens import split_address
from omcore.types import NodeInfo, RunSpec
from tests.core.test_handoff_sequences import JOB, D, Room, S
from tests.io.enginekit import Engine, ash, birch, cedar, meet, root

__all__ = ["ash", "birch", "cedar", "root"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs"),
]


# -- strangers


async def test_idle_strangers_delay_nobody_and_are_dropped() -> None:
    """SECURITY case 6, with 400 connections: a member joins at once, all strangers are gone after some seconds."""
    server, member = generate_node_key(), generate_node_key()
    there, here = ZmqTransport(server), ZmqTransport(member)
    (address,) = await there.start(["127.0.0.1:0"])
    await here.start([])
    try:
        strangers = [await asyncio.open_connection(*split_address(address)) for _ in range(400)]
        there.set_peers({member.id: []})
        here.set_peers({server.id: [address]})
        loop = asyncio.get_running_loop()
        began = loop.time()
        here.send(server.id, b"let me in")
        assert (await there.receive()).data == b"let me in"
        assert loop.time() - began < 2.0  # 1.3 ms on an idle machine
        async with asyncio.timeout(20):
            for reader, writer in strangers:
                with contextlib.suppress(ConnectionError):
                    while await reader.read(4096):
                        pass
                writer.close()
    finally:
        await here.close()
        await there.close()


def test_without_descriptors_the_own_figures_go_on() -> None:
    """SECURITY case 6, its second half: strangers may use up all descriptors, not those held open since the start."""
    sensor = HostSensor()
    sensor.sample(1.0, [], [])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hog = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        with contextlib.suppress(OSError):
            while True:
                hog.append(os.open("/dev/null", os.O_RDONLY))
        assert sensor.sample(2.0, [], []).mem_total_bytes
    finally:
        for fd in hog:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_token_that_another_used_is_refused_and_the_inviter_hears_of_it(
    ash: Engine, birch: Engine, cedar: Engine
) -> None:
    """SECURITY case 7: the alarm."""
    token = await ash.client.invite()
    await birch.client.join(token)
    with pytest.raises(NotTrusted, match="used by another node"):
        await cedar.client.join(token)
    view = await ash.until(lambda view: any(event.subject == "cedar" for event in view.events))
    assert any("used an invitation" in event.text for event in view.events)
    assert any("another node" in str(line.get("why")) for line in ash.audit())
    await ash.names("ash", "birch")


# -- members


async def test_a_member_that_passes_on_forged_entries_is_refused_and_counted(ash: Engine, birch: Engine) -> None:
    """SECURITY case 11."""
    await meet(ash, birch)
    roster = ash.node.state.roster
    before = roster.digest()
    forger = generate_cluster_key()
    good = Grant(generate_node_key().id, 9, Role.WORK, 99, 0, bytes(16))
    entry = roster.entry(birch.node.me)
    assert entry is not None
    altered = bytearray(entry.raw)
    altered[66] ^= 1  # a greater serial, so that it would win
    for entries in (sign(forger, roster.cluster, good).raw, bytes(altered), sign(forger, bytes(16), good).raw, b"x"):
        news = messages.TakeEntries(entries)
        with pytest.raises(OmError):
            await birch.node.calls.ask(ash.node.me, news, messages.Nothing, 5)
    assert roster.digest() == before
    assert ash.node.guard.dropped[birch.node.me, Verdict.MALFORMED] == 4


def test_for_a_job_that_is_not_its_a_member_moves_ends_and_starts_nothing() -> None:
    """SECURITY case 14: D is neither the job's home nor its peer; only PREPARE could make it one, and not here."""
    epoch, session = Epoch(0, 2), b"s" * 16
    common: dict[str, Any] = {"job": JOB, "epoch": epoch, "session": session}
    told: dict[type, dict[str, Any]] = {
        handoff.Prepare: {"source": S, "token": b"t"},
        handoff.Freeze: {"dest": D, "address": "a", "key": b"k"},
        handoff.Abort: {"dest": D},
        handoff.Ended: {"end": End(How.EXITED, 0)},
        handoff.Status: {"state": "sealed"},
        handoff.NoCopy: {"answers": "probe"},
        handoff.Voided: {"images": False},
        handoff.Prepared: {"address": "a", "key": b"k"},
        handoff.Superseded: {"authority": D, "token": b"t"},
    }
    room = Room()
    for kind in handoff.KINDS.values():
        message = kind(**common, **told.get(kind, {}))
        acts = room.parts[S].handle(Received(D, message), 0.0) if kind in handoff.TO_PARTICIPANT else []
        acts += room.home.handle(Received(D, message), 0.0) if kind in handoff.TO_HOME else []
        assert {type(act).__name__ for act in acts} <= {"Dropped", "Send"}, kind
    assert room.parts[S].state is CopyState.RUNNING


async def test_a_member_types_into_and_signals_no_job_that_is_not_its(
    ash: Engine, birch: Engine, cedar: Engine
) -> None:
    """SECURITY case 14, streams: only the job's home types and signals, only its owner speaks for it."""
    await meet(ash, birch, cedar)
    job = await ash.node.jobs.run(RunSpec(("sleep", "600"), "/", (), detach=True, name="sleep", on="birch"))
    held = birch.node.jobs.held[job.id]
    assert held.pod is not None
    taken = held.pod.counters.signals_taken
    for message in (
        messages.StreamSignal(job.id, 1, 9),
        messages.StreamIn(job.id, 0, b"rm -rf /\n"),
        messages.StreamClose(job.id, "out"),
        handoff.Drop(job=job.id, epoch=Epoch(0, 9)),
    ):
        cedar.node.post(birch.node.me, message)
    for lie in (
        messages.StreamOut(job.id, 0, 1, "out", 0, b"hello"),
        messages.NotOwner(job.id),
        messages.Owner(job.id, 0, 9, 0, 0),
        handoff.Ended(job=job.id, epoch=Epoch(0, 1), end=End(How.EXITED, 0)),
    ):
        cedar.node.post(ash.node.me, lie)
    for engine in (ash, birch):  # what came before this answer has been worked on
        await cedar.node.calls.ask(engine.node.me, messages.AskJobs(), messages.Jobs, 5)
    assert held.pod.counters.signals_taken == taken
    assert job.end is None
    assert (job.owner, job.terminal.logs["out"].end) == (birch.node.me, 0)
    job.terminal.signal(9)
    async with asyncio.timeout(20):
        await job.ended.wait()


async def test_a_member_speaks_for_nobody_else(ash: Engine, birch: Engine, cedar: Engine) -> None:
    """SECURITY case 16: what it says of a third one is hearsay, of itself bounded; nonsense is counted."""
    await meet(ash, birch, cedar)
    number = ash.node.cluster.number(cedar.node.me)
    before = ash.node.cluster.infos[cedar.node.me]
    far = 2**62
    for info in (
        NodeInfo(cedar.node.me, number, "evil", ("192.0.2.1:1",), serial=far),
        NodeInfo(cedar.node.me, 77, "evil", ("192.0.2.1:1",), serial=before.serial + 1),
        NodeInfo(generate_node_key().id, 78, "evil", ("192.0.2.1:1",), serial=5),
    ):
        birch.node.post(ash.node.me, messages.Hello(birch.node.info, (info,)))
    await birch.node.calls.ask(ash.node.me, messages.AskJobs(), messages.Jobs, 5)
    assert ash.node.cluster.infos[cedar.node.me].name == "cedar"
    assert len(ash.node.cluster.infos) == 3
    for data in (b"\0B" + bytes(10**5), b"\0M" + b"\xff" * 50, bytes((1,)) + b"\xc1"):
        birch.node.transport.send(ash.node.me, data)
    await birch.node.calls.ask(ash.node.me, messages.AskJobs(), messages.Jobs, 5)
    assert ash.node.guard.dropped[birch.node.me, Verdict.MALFORMED] == 3
    await ash.names("ash", "birch", "cedar")


async def test_spoilt_messages_of_every_kind_change_nothing(ash: Engine, birch: Engine) -> None:
    """SECURITY case 42: an engine that is told nonsense stays as it was, and goes on."""
    await meet(ash, birch)
    node, rng = ash.node, random.Random(42)
    node.guard.on_cut = lambda key: None

    def state() -> tuple[object, ...]:
        return node.state.roster.export(), set(node.cluster.infos), dict(node.cluster.numbers), len(node.jobs.held)

    before = state()
    for kind in (0, *PEER.kinds):
        for size in (0, 1, 8, 48, 300):
            node._take(birch.node.me, bytes((kind,)) + rng.randbytes(size))
            body = bytes((kind,)) + rng.randbytes(size)
            node._take(birch.node.me, PEER.encode(messages.Call(rng.randrange(2**31), body)))
        node.guard._keys.clear()  # or most of it would only be too much
    assert (
        node.state.roster.export(),
        set(node.cluster.infos),
        dict(node.cluster.numbers),
        len(node.jobs.held),
    ) == before
    await birch.node.calls.ask(node.me, messages.AskJobs(), messages.Jobs, 5)


# -- keys and ports


async def test_one_key_at_two_places_is_said_and_the_later_one_stops(ash: Engine, birch: Engine) -> None:
    """SECURITY case 38: ash has heard birch, and then another engine under birch's key."""
    await meet(ash, birch)
    twin = NodeInfo(birch.node.me, 2, "birch", ("127.0.0.9:1",), serial=birch.node.info.serial + 5)
    mine = birch.node.info
    for known in (mine, twin):
        ash.node.post(birch.node.me, messages.Hello(ash.node.info, (known,)))
    view = await birch.until(lambda view: any("uses this node's key" in text for text in view.warnings))
    assert any("127.0.0.9:1" in event.text for event in view.events)
    assert not birch.node.stopping.is_set()
    earlier = NodeInfo(birch.node.me, 2, "birch", ("127.0.0.9:1",), serial=1)
    ash.node.post(birch.node.me, messages.Hello(ash.node.info, (earlier,)))
    async with asyncio.timeout(20):
        await birch.node.stopping.wait()


async def test_a_machine_with_public_addresses_only_asks(
    root: Path, ash: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SECURITY case 39, its last part."""
    from omcore import membership

    monkeypatch.setattr(membership, "default_listen", lambda port: ())
    monkeypatch.setattr(membership, "public_addresses", lambda: ("8.8.8.8",))
    object.__setattr__(ash.node, "config", type(ash.config)(name="ash"))
    with pytest.raises(UsageError, match="listens nowhere"):
        await ash.client.invite()
    assert ash.node.membership.listening == ()
    assert any("only public addresses (8.8.8.8)" in text for text in (await ash.client.snapshot()).warnings)
