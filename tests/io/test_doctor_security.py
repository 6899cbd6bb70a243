"""`omview doctor --security`: right on a real engine, and not silent where something is wrong."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from omcore import doctor_security as doctor
from omcore.doctor_security import security_lines
from omcore.paths import SHARED_MEMORY, Paths, filesystem
from omcore.trust.guard import Verdict
from omcore.types import DoctorLine, Dropped, Keyholder, KeysView, NodeId, SecurityView
from tests.io.enginekit import Engine, ash, birch, root

__all__ = ["ash", "birch", "root"]  # fixtures

VIEW = SecurityView(NodeId("a" * 64), "user", (), "work", "members", True, 0, ())
ASH, BIRCH = Keyholder("ash", "AAAA", True), Keyholder("birch", "BBBB", True, me=True)
KEYS = KeysView("NNNN", "CCCC", 0, (ASH, BIRCH), 3, 0, 0, True, 30.0)


def worst(lines: tuple[DoctorLine, ...] | list[DoctorLine]) -> set[tuple[str, str]]:
    return {(line.level, line.subject) for line in lines if line.level != "ok"}


@pytest.mark.slow
@pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs")
async def test_a_real_engine_alone_and_with_another(ash: Engine, birch: Engine) -> None:
    lines = await asyncio.to_thread(security_lines, ash.places)
    assert not [line for line in lines if line.level == "bad"]
    assert DoctorLine("ok", "roster", "1 members, 0 removed") in lines
    await birch.client.join(await ash.client.invite())
    await ash.names("ash", "birch")
    lines = await asyncio.to_thread(security_lines, ash.places)
    assert not [
        line for line in lines if line.level == "bad" and line.subject != "ports"
    ]  # birch lives in this process
    (stray,) = (line for line in lines if line.subject == "stray key")
    assert (stray.level, stray.text) == ("ok", f"refused at {ash.node.membership.listening[0]}")
    assert {("warn", "keyholders"), ("warn", "backup")} <= worst(lines)
    assert all(line.fix for line in lines if line.level != "ok")


@pytest.mark.slow
@pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="images need a tmpfs")
async def test_a_stray_key_that_gets_in_is_bad(ash: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await ash.client.invite()

    async def answered(*_: object) -> bytes:
        return b"hello"

    monkeypatch.setattr(doctor, "ask_once", answered)
    lines = await asyncio.to_thread(security_lines, ash.places)
    assert ("bad", "stray key") in worst(lines)
    assert DoctorLine("ok", "invitations", "1 open; each admits one machine, within 15 minutes") in lines


async def test_without_an_engine_nothing_listens(root: Path) -> None:
    lines = await asyncio.to_thread(security_lines, _places(root))
    assert DoctorLine("ok", "engine", "none runs, so nothing listens") in lines
    assert DoctorLine("ok", "keys", "none yet; the first start makes them") in lines


def _places(root: Path) -> Paths:
    return Paths(root / "state", root / "run", root / "config", root / "data", root / "images")


def test_keys_and_files_that_others_can_read_are_bad(root: Path) -> None:
    places = _places(root)
    places.state.mkdir(mode=0o755)
    key = places.state / "node.key"
    key.write_bytes(bytes(80))
    key.chmod(0o644)
    (places.state / "invites").touch(0o644)
    found = list(doctor.file_lines(places))
    assert [line.fix for line in found if line.level == "bad"] == [
        f"chmod 600 {key}",
        f"chmod 600 {places.state / 'invites'}",
        f"chmod 700 {places.state}",
    ]


def test_sockets_are_read_from_the_kernel_and_compared() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        found = doctor.listening(os.getpid())
        assert found is not None
        assert port in found
        view = replace(VIEW, listening=(f"127.0.0.1:{port}",))
        assert worst(list(doctor.port_lines(view, frozenset((port,))))) == set()
        assert worst(list(doctor.port_lines(VIEW, frozenset((port,))))) == {("bad", "ports")}
    assert doctor.listening(2**22 + 1) is None
    assert worst(list(doctor.port_lines(VIEW, None))) == {("warn", "ports")}


@pytest.mark.parametrize(
    ("address", "level"),
    [("8.8.8.8:4632", "warn"), ("0.0.0.0:4632", "warn"), ("192.168.1.5:4632", "ok"), ("[fd00::1]:4632", "ok")],
)
def test_a_port_that_the_internet_reaches_is_told(address: str, level: str) -> None:
    lines = list(doctor.port_lines(replace(VIEW, listening=(address,)), frozenset((4632,))))
    assert lines[-1].level == level


def test_what_members_sent_that_was_not_taken_is_told() -> None:
    view = replace(VIEW, dropped=(Dropped("birch", Verdict.MALFORMED.value, 7),))
    assert worst(list(doctor.engine_lines(view, uid=1000))) == {("warn", "members")}
    assert worst(list(doctor.engine_lines(VIEW, uid=0))) == {("warn", "engine")}


@pytest.mark.parametrize(
    ("view", "found"),
    [
        (KEYS, set()),
        (replace(KEYS, keyholders=(ASH,)), {("warn", "keyholders")}),
        (replace(KEYS, keyholders=(BIRCH,), backup=False), {("warn", "keyholders"), ("warn", "backup")}),
        (replace(KEYS, keyholders=(ASH, ASH), roster_age_s=900.0), {("warn", "roster")}),
        (replace(KEYS, keyholders=(ASH, ASH), roster_age_s=None), {("warn", "roster")}),
        (replace(KEYS, turns=("X", "Y")), {("bad", "cluster key")}),
        (replace(KEYS, keyholders=(BIRCH,), members=1, backup=False), set()),
    ],
)
def test_what_is_said_of_keys_and_roster(view: KeysView, found: set[tuple[str, str]]) -> None:
    assert worst(list(doctor.key_lines(view))) == found


@pytest.mark.parametrize(
    ("swaps", "level"), [("", "ok"), ("/dev/zram0 x\n", "ok"), ("/dev/dm-1 x\n", "ok"), ("/swapfile x\n", "warn")]
)
def test_swap_in_clear_is_told(tmp_path: Path, swaps: str, level: str) -> None:
    (tmp_path / "swaps").write_text("Filename Type\n" + swaps)
    (tmp_path / "cpuinfo").write_text("flags : fpu aes")
    assert [line.level for line in doctor.memory_lines(tmp_path)] == [level, "ok"]


def test_an_old_libzmq_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:  # SECURITY case 43, its second half
    for version, curve in (((4, 3, 4), True), ((4, 3, 5), False)):
        monkeypatch.setattr(doctor, "library", lambda version=version, curve=curve: (version, curve))
        assert worst(list(doctor.library_lines())) == {("bad", "libzmq")}


def test_a_state_directory_on_the_network_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = _places(root)
    places.state.mkdir(mode=0o700)
    monkeypatch.setattr(doctor, "filesystem", lambda path: "nfs4")
    assert worst(list(doctor.file_lines(places))) == {("warn", "files")}
    assert filesystem(Path("/proc")) == "proc"
