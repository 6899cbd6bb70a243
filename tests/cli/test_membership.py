"""The verbs about who belongs, without an engine: what they ask, refuse, and print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from omcore.audit import Audit
from omcore.paths import find_paths
from omcore.types import Keyholder, KeysView
from omview.cli.key import roster_age
from tests.cli.fake import Omview

KEYS = KeysView("NNNN", "CCCC", 2, (Keyholder("ash", "AAAA", False),), 3, 1, 1, False, 30.0)


class Membership:
    """An engine that answers about keys, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.view = KEYS

    async def __aenter__(self) -> Membership:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def keys(self) -> KeysView:
        return self.view

    async def leave(self, anyway: bool) -> str:
        self.told.append(("leave", anyway))
        return "left"

    async def export_key(self, passphrase: str) -> bytes:
        self.told.append(("export", passphrase))
        return b"sealed"

    async def import_key(self, data: bytes, passphrase: str) -> str:
        self.told.append(("import", data, passphrase))
        return "imported"

    async def share_key(self, node: str) -> str:
        self.told.append(("share", node))
        return "shared"

    async def rotate_key(self, node: bool) -> str:
        self.told.append(("rotate", node))
        return "rotated"

    async def accept_key(self, fingerprint: str) -> str:
        self.told.append(("accept", fingerprint))
        return "accepted"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Membership:
    made = Membership()

    async def connect() -> Membership:
        return made

    monkeypatch.setattr("omview.cli.key.connect", connect)
    monkeypatch.setattr("omview.cli.membership.connect", connect)
    return made


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A passphrase comes through a pipe."""
    path = tmp_path / "typed"
    path.write_text("correct horse\n")
    with open(path) as lines:
        monkeypatch.setattr("sys.stdin", lines)
        yield


def test_a_token_as_an_argument_is_refused_with_the_reason(omview: Omview) -> None:  # SECURITY case 8
    said = omview("join", "omv1.abcdefgh")
    assert said.code == 1
    assert "could be read by every user" in said.err
    assert "--token-file" in said.err


def test_nobody_leaves_without_a_yes(omview: Omview, engine: Membership, typed: None) -> None:
    said = omview("leave")
    assert said.code == 1
    assert engine.told == []
    assert omview("leave", "--yes").out == "left\n"
    omview("leave", "--yes", "--anyway")
    assert engine.told == [("leave", False), ("leave", True)]


def test_keys_are_shown_and_never_a_secret(omview: Omview, engine: Membership) -> None:
    said = omview("key", "show")
    for word in ("NNNN", "CCCC", "epoch 2", "AAAA  ash, down", "3 members, 1 removed", "30 s ago", "1 open"):
        assert word in said.out
    engine.view = replace(KEYS, turns=("XXXX", "YYYY"))
    assert "new key?      XXXX" in omview("key", "show").out
    found = json.loads(omview("key", "show", "--json").out)
    assert found["keyholders"] == [{"name": "ash", "fingerprint": "AAAA", "up": False, "me": False}]
    assert found["turns"] == ["XXXX", "YYYY"]


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (replace(KEYS, members=1), "nobody else"),
        (replace(KEYS, keyholders=(Keyholder("me", "M", True, me=True),)), "kept here"),
        (replace(KEYS, roster_age_s=None), "not confirmed"),
        (KEYS, "confirmed by a keyholder 30 s ago"),
    ],
)
def test_the_roster_age_in_words(view: KeysView, words: str) -> None:
    assert words in roster_age(view)


def test_a_backup_is_a_new_private_file(omview: Omview, engine: Membership, typed: None, tmp_path: Path) -> None:
    path = tmp_path / "key.bak"
    assert omview("key", "export", str(path)).code == 0
    assert path.read_bytes() == b"sealed"
    assert path.stat().st_mode & 0o777 == 0o600
    assert engine.told == [("export", "correct horse")]
    said = omview("key", "export", str(path))
    assert (said.code, "is there already" in said.err) == (1, True)
    assert omview("key", "export", str(tmp_path / "no" / "where")).code == 1


def test_a_backup_is_given_back_whole(omview: Omview, engine: Membership, typed: None, tmp_path: Path) -> None:
    path = tmp_path / "key.bak"
    path.write_bytes(b"sealed")
    assert omview("key", "import", str(path)).out == "imported\n"
    assert engine.told == [("import", b"sealed", "correct horse")]


def test_the_other_verbs_of_keys(omview: Omview, engine: Membership) -> None:
    for words in (("share", "birch"), ("rotate",), ("rotate", "--node"), ("accept", "XXXX")):
        assert omview("key", *words).code == 0
    assert engine.told == [("share", "birch"), ("rotate", False), ("rotate", True), ("accept", "XXXX")]


def test_the_audit_log_is_read_without_an_engine(
    omview: Omview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert omview("audit").out == "Nothing is written down yet.\n"
    state = find_paths().state
    state.mkdir(parents=True)
    audit = Audit(state, clock=lambda: 1_800_000_000.5)
    for number in range(3):
        audit.note("joined", node=f"node{number}", key="AAAA")
    said = omview("audit", "-n", "2")
    assert [line.split()[2:] for line in said.out.splitlines()[1:]] == [
        ["joined", "node=node1", "key=AAAA"],
        ["joined", "node=node2", "key=AAAA"],
    ]
    assert [line["node"] for line in json.loads(omview("audit", "--json").out)] == ["node0", "node1", "node2"]
