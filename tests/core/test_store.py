"""What is written down of jobs: journals that survive torn writes, records and images that go with the node."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omcore.handoff.journal import FILE_BYTES, SLOT_BYTES
from omcore.handoff.records import Journal, first_journal, first_record
from omcore.jobs.store import (
    HomeStore,
    JournalFile,
    Meta,
    RecordStore,
    incarnation,
    new_job_id,
    relocked,
    valid_job_id,
)
from omcore.types import JobId, NodeId

JOB = JobId("a" * 32)
NODE = NodeId("1" * 64)


def journal(last: int = 0) -> Journal:
    return replace(first_journal(JOB, NODE, b"t" * 16), last=last)


def reopened(path: Path) -> Journal | None:
    file = JournalFile(path)
    file.close()
    return file.journal


def test_ids() -> None:
    assert valid_job_id(new_job_id())
    assert new_job_id() != new_job_id()
    for word in ("", "a" * 31, "A" * 32, "../" * 10 + "aa", "a" * 33, "g" * 32, "²" * 32):
        assert not valid_job_id(word)


# -- the journal


def test_the_newest_journal_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    file = JournalFile(path)
    assert file.journal is None
    assert path.stat().st_size == FILE_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    for last in range(7):
        file.write(journal(last))
        file.sync()
        assert reopened(path) == journal(last)
    file.close()
    again = JournalFile(path)
    again.write(journal(8))
    again.sync()
    again.close()
    assert reopened(path) == journal(8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, SLOT_BYTES), junk=st.binary(max_size=8), synced=st.integers(0, 5), unsynced=st.integers(1, 3))
def test_a_torn_write_leaves_the_last_synced_journal(
    tmp_path: Path, cut: int, junk: bytes, synced: int, unsynced: int
) -> None:
    path = tmp_path / os.urandom(8).hex()
    file = JournalFile(path)
    for last in range(synced + 1):
        file.write(journal(last))
        file.sync()
    good = path.read_bytes()
    for more in range(unsynced):
        file.write(journal(100 + more))
    file.close()
    bad = path.read_bytes()
    slot = 0 if bad[:SLOT_BYTES] != good[:SLOT_BYTES] else SLOT_BYTES
    torn = bytearray(good)  # the disk took only a part of the slot, and perhaps spoilt what comes next
    torn[slot : slot + cut] = bad[slot : slot + cut]
    torn[slot + cut : slot + cut + len(junk)] = junk
    path.write_bytes(bytes(torn[:FILE_BYTES]) if slot else bytes(torn[:SLOT_BYTES]) + good[SLOT_BYTES:])
    found = reopened(path)
    assert found is not None
    assert found.last in (synced, 100 + unsynced - 1)
    file = JournalFile(path)
    file.write(journal(200))
    file.sync()
    file.close()
    assert reopened(path) == journal(200)


@pytest.mark.parametrize("content", [b"", b"x", bytes(FILE_BYTES), b"omJ1" + b"\xff" * FILE_BYTES])
def test_a_journal_that_is_none_is_empty_and_can_be_written(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    file = JournalFile(path)
    assert file.journal is None
    file.write(journal(1))
    file.sync()
    file.close()
    assert reopened(path) == journal(1)


def test_a_write_that_the_disk_cuts_short_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = JournalFile(tmp_path / "journal")
    file.write(journal(1))
    file.sync()
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: len(data) - 1)
    with pytest.raises(OSError, match="No space"):
        file.write(journal(2))
    assert file.journal == journal(1)
    file.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "journal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        JournalFile(tmp_path / "journal")
    assert not (tmp_path / "elsewhere").exists()


# -- jobs whose home is here


def meta(job: JobId = JOB) -> Meta:
    return Meta(job, "calc", ("calc", "-x"), "ann", 1000, "/home/ann", 5.0, (0, 1, 2))


def test_jobs_are_found_again_but_nothing_else(tmp_path: Path) -> None:
    store = HomeStore(tmp_path)
    other = JobId("b" * 32)
    store.save(meta())
    store.save(relocked(meta(other), True))
    (store.root / ("c" * 32)).mkdir()
    (store.root / ("d" * 32)).mkdir()
    (store.root / ("d" * 32) / "job.json").write_bytes((store.root / JOB / "job.json").read_bytes())
    (store.root / ("e" * 32)).mkdir()
    (store.root / ("e" * 32) / "job.json").write_text("{")
    (store.root / "file").write_text("x")
    found = list(HomeStore(tmp_path).load())
    assert found == [meta(), relocked(meta(other), True)]
    assert (store.root / JOB / "job.json").stat().st_mode & 0o777 == 0o600
    store.forget(JOB)
    store.forget(JOB)
    assert [one.id for one in store.load()] == [other]


# -- what this node holds


@pytest.fixture
def records(tmp_path: Path) -> RecordStore:
    for name in ("run", "images"):
        (tmp_path / name).mkdir()
    return RecordStore(tmp_path / "run", tmp_path / "images")


def test_records_are_found_again(records: RecordStore, tmp_path: Path) -> None:
    record = first_record(JOB, NODE, b"t" * 16)
    records.write(record)
    records.write(replace(record, generation=3))
    (records.root / ("b" * 32)).mkdir()
    (records.root / ("b" * 32) / "record").write_bytes(b"\xc1")
    (records.root / ("c" * 32)).mkdir()
    (records.root / ("c" * 32) / "record").write_bytes((records.root / JOB / "record").read_bytes())
    again = RecordStore(tmp_path / "run", tmp_path / "images")
    assert list(again.load()) == [replace(record, generation=3)]
    records.drop(JOB)
    assert list(again.load()) == []


def test_pods_and_images_of_an_epoch(records: RecordStore) -> None:
    pod = records.directory(JOB, (0, 2))
    assert pod == records.directory(JOB, (0, 2))
    assert pod.stat().st_mode & 0o777 == 0o700
    records.drop_pod(JOB, (0, 2))
    assert not pod.exists()
    assert records.whole_images(JOB) is None
    for epoch in ((0, 2), (0, 10), (0, 4)):
        (records.images(JOB, epoch) / "core-1.img").write_bytes(b"x")
    assert records.whole_images(JOB) == (0, 10)
    records.images(JobId("b" * 32), (9, 9))
    gone = records.put_away_images(JOB, (0, 10))
    assert gone is not None
    assert (gone / "core-1.img").exists()
    assert records.put_away_images(JOB, (0, 10)) is None
    assert records.whole_images(JOB) == (0, 4)
    records.sweep_images({JOB})  # an engine that died while it deleted
    assert not gone.exists()
    assert records.whole_images(JOB) == (0, 4)


@pytest.mark.parametrize("name", ["x", "1", "1.2.3", "a.b", "1.", ".", "²."])
def test_names_that_are_no_epoch_are_passed_over(records: RecordStore, name: str) -> None:
    (records.image_root / f"{JOB}-{name}").mkdir()
    records.images(JOB, (0, 2))
    assert records.whole_images(JOB) == (0, 2)


def test_images_without_a_record_are_swept(records: RecordStore) -> None:
    other = JobId("b" * 32)
    kept, gone = records.images(JOB, (0, 2)), records.images(other, (0, 2))
    (gone / "pages-1.img").write_bytes(b"secret")
    records.sweep_images({JOB})
    assert kept.exists()
    assert not gone.exists()


def test_an_incarnation_lasts_as_long_as_its_tmpfs(tmp_path: Path) -> None:
    first = incarnation(tmp_path)
    assert incarnation(tmp_path) == first
    (tmp_path / "incarnation").unlink()
    assert incarnation(tmp_path) != first


def test_an_engine_that_holds_nothing_leaves_no_empty_directory(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    store = RecordStore(images, images)  # where the runtime directory is on a disk
    incarnation(images)
    record = first_record(JOB, NodeId("a" * 64), bytes(16))
    store.write(record)
    store.tidy()
    assert list(store.load()) == [record]
    store.drop(JOB)
    store.tidy()
    assert not images.exists()
