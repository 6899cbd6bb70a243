"""The audit log: lines that anybody can read back, bounded, private, and never in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omcore.audit import AUDIT, Audit, read_audit


def test_a_line_says_when_and_what(tmp_path: Path) -> None:
    Audit(tmp_path, clock=lambda: 12.3456).note("joined", node="birch", number=2)
    assert (tmp_path / AUDIT).read_text() == '{"time": 12.346, "event": "joined", "node": "birch", "number": 2}\n'
    assert list(read_audit(tmp_path)) == [{"time": 12.346, "event": "joined", "node": "birch", "number": 2}]


def test_only_its_owner_reads_it_whatever_the_mode_was(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    audit.note("a")
    assert (tmp_path / AUDIT).stat().st_mode & 0o777 == 0o600
    (tmp_path / AUDIT).chmod(0o644)
    audit.note("b")
    assert (tmp_path / AUDIT).stat().st_mode & 0o777 == 0o600


def test_hostile_text_is_one_harmless_line(tmp_path: Path) -> None:  # SECURITY case 34
    Audit(tmp_path).note("joined", node='\x1b[2J\n{"event": "forged"}\u202e\x9b\x7f' + "x" * 10_000)
    data = (tmp_path / AUDIT).read_bytes()
    assert data.count(b"\n") == 1
    assert data.isascii()
    assert all(byte >= 0x20 and byte != 0x7F for byte in data[:-1])
    assert len(data) < 1000
    (line,) = read_audit(tmp_path)
    assert line["event"] == "joined"


def test_full_files_turn_and_the_oldest_goes(tmp_path: Path) -> None:
    audit = Audit(tmp_path, clock=lambda: 0.0, max_bytes=100, files=3)
    for number in range(20):
        audit.note("e", n=number)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names in ([AUDIT, f"{AUDIT}.1", f"{AUDIT}.2"], [f"{AUDIT}.1", f"{AUDIT}.2"])
    assert all(path.stat().st_size < 200 for path in tmp_path.iterdir())
    numbers = [line["n"] for line in read_audit(tmp_path, files=3)]
    assert numbers[-1] == 19
    assert numbers == list(range(20 - len(numbers), 20))


def test_what_strangers_cause_is_written_once_a_second(tmp_path: Path) -> None:
    now = [0.0]
    audit = Audit(tmp_path, clock=lambda: now[0])
    for at in (0.0, 0.1, 0.9, 1.1, 1.2):
        now[0] = at
        audit.note_seldom("refused", address="192.0.2.1")
    assert [line.get("left_out") for line in read_audit(tmp_path)] == [None, 2]


def test_a_directory_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit(tmp_path / "absent")
    audit.note("a")
    audit.note("b")
    assert [record.message.split()[0] for record in caplog.records] == ["audit"]
    assert list(read_audit(tmp_path / "absent")) == []


def test_a_planted_symlink_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / AUDIT).symlink_to(victim)
    Audit(tmp_path).note("a")
    assert victim.read_text() == "mine"


def test_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    good = {"time": 1.0, "event": "a"}
    text = "\n".join(["{", "[]", "7", '{"event": 7}', "\xff", json.dumps(good), '{"event": "cut'])
    (tmp_path / AUDIT).write_bytes(text.encode("latin-1"))
    assert list(read_audit(tmp_path)) == [good]
