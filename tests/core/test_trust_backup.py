"""The sealed backup of a cluster key, and the renewal of a node's own key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omcore.errors import NotTrusted, UsageError
from omcore.handoff.records import first_journal
from omcore.jobs.rename import rename_node
from omcore.jobs.store import JOURNAL, HomeStore, JournalFile, Meta, new_job_id
from omcore.paths import Paths
from omcore.trust import backup, renewal
from omcore.trust.backup import Backup, check_pair, seal, unseal
from omcore.trust.keys import ClusterKey, generate_cluster_key, generate_node_key
from omcore.trust.state import open_state

NOW = 1_800_000_000.0
WORDS = "correct horse"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_COST", (4, 8, 1))


def test_only_the_passphrase_opens_a_backup() -> None:
    held = Backup(b"c" * 16, generate_cluster_key())
    data = seal(held, WORDS)
    assert unseal(data, WORDS) == held
    assert held.key.secret not in data
    assert held.key.public not in data
    assert seal(held, WORDS) != data
    with pytest.raises(NotTrusted, match="wrong"):
        unseal(data, WORDS + "!")
    with pytest.raises(UsageError, match="at least 8"):
        seal(held, "seven77")
    assert "secret" not in repr(held)


def test_an_altered_backup_is_refused_wherever_it_was_altered() -> None:
    data = seal(Backup(b"c" * 16, generate_cluster_key()), WORDS)
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1
        with pytest.raises((NotTrusted, UsageError)):
            unseal(bytes(bad), WORDS)


@given(st.binary(max_size=200))
def test_rubbish_is_no_backup(data: bytes) -> None:
    with pytest.raises(UsageError):
        unseal(data, WORDS)


def test_the_real_cost_is_what_the_document_says() -> None:
    import inspect

    assert "_COST = (17, 8, 1)" in inspect.getsource(backup)


def test_halves_that_do_not_belong_together_are_refused() -> None:
    one, other = generate_cluster_key(), generate_cluster_key()
    for key in (ClusterKey(one.public, other.secret), ClusterKey(one.public, b"")):
        with pytest.raises(NotTrusted):
            check_pair(key)


# -- another node key


def test_a_renewal_counts_only_once_it_is_committed(tmp_path: Path) -> None:
    home = tmp_path / "s"
    state = open_state(home, NOW)
    new = renewal.prepare(home)
    assert renewal.prepare(home) == new
    assert renewal.pending(home) is None
    renewal.drop(home)
    assert renewal.pending(home) is None
    assert open_state(home, NOW).me == state.me
    renewal.drop(tmp_path / "nothing")


def test_who_has_left_keeps_nothing_of_the_cluster(tmp_path: Path) -> None:
    home = tmp_path / "s"
    old = open_state(home, NOW)
    new = renewal.prepare(home)
    renewal.commit(home)
    assert renewal.pending(home) == (old.me, new.id)
    renewal.finish(home, NOW)
    assert renewal.pending(home) is None
    state = open_state(home, NOW)
    assert state.me == new.id
    assert state.roster.cluster != old.roster.cluster
    assert all(old.key.secret not in path.read_bytes() for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize("lost", ["roster", "cluster.key", "roster.ok"])
def test_a_renewal_that_a_crash_interrupted_is_finished(tmp_path: Path, lost: str) -> None:
    home = tmp_path / "s"
    open_state(home, NOW)
    new = renewal.prepare(home)
    renewal.commit(home)
    (home / lost).unlink()
    renewal.finish(home, NOW)
    assert open_state(home, NOW).me == new.id


def test_a_new_key_that_the_roster_admits_stays_in_the_cluster(tmp_path: Path) -> None:
    home = tmp_path / "s"
    state = open_state(home, NOW)
    key = state.cluster_key()
    assert key is not None
    new = renewal.prepare(home)
    state.roster.admit(key, new.id, state.me, NOW)
    state.roster.save(home)
    renewal.commit(home)
    renewal.finish(home, NOW)
    again = open_state(home, NOW)
    assert (again.me, again.roster.cluster) == (new.id, state.roster.cluster)
    assert again.cluster_key() == key


def test_the_papers_of_jobs_name_the_new_key(tmp_path: Path) -> None:
    old, new, other = (generate_node_key().id for _ in range(3))
    places = Paths(tmp_path / "s", tmp_path / "r", tmp_path / "c", tmp_path / "d", tmp_path / "i")
    for path in (places.state, places.runtime, places.images):
        path.mkdir()
    store = HomeStore(places.state)
    jobs = {owner: new_job_id() for owner in (old, other)}
    for owner, job in jobs.items():
        store.save(Meta(job, "x", ("x",), "ana", 1, "/", 0.0, ()))
        file = JournalFile(store.directory(job) / JOURNAL)
        file.write(first_journal(job, owner, bytes(16)))
        file.sync()
        file.close()
    for _ in range(2):
        rename_node(places, old, new)
    owners = []
    for job in jobs.values():
        file = JournalFile(store.directory(job) / JOURNAL)
        assert file.journal is not None
        owners.append(file.journal.owner)
        file.close()
    assert owners == [new, other]
