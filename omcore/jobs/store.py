"""Where jobs are written down: what a job is, its journal (on disk, at home) and its record (on tmpfs, where it runs).

A record dies with the node that it speaks of, since it lies on the same tmpfs as the pod's socket and the images; a
journal survives, since it alone says who owns the job.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from omcore.errors import RemoteProtocolError
from omcore.handoff.journal import FILE_BYTES, Slots, decode_file, encode_slot
from omcore.handoff.records import Journal, Record
from omcore.types import JobId
from omcore.wire import from_json, pack, to_json, unpack

META = "job.json"
JOURNAL = "journal"
RECORD = "record"
INCARNATION = "incarnation"
GONE = ".gone"


@dataclass(frozen=True, slots=True)
class Meta:
    """What a job is, for people and for starting its terminal again; written at its home."""

    id: JobId
    name: str
    command: tuple[str, ...]
    user: str
    uid: int
    cwd: str
    started: float  # seconds since 1970, by home's clock
    tty: tuple[int, ...]
    locked: bool = False
    moves: int = 0
    ended: float = 0.0  # 0: not yet


def new_job_id() -> JobId:
    """A fresh name for a job."""
    return JobId(secrets.token_hex(16))


def valid_job_id(word: str) -> bool:
    """Whether a word from outside can be a job's id; it becomes part of a path."""
    return len(word) == 32 and all(char in "0123456789abcdef" for char in word)


class JournalFile:
    """Two slots in one preallocated file; a torn write leaves the other slot valid (HANDOFF section 3)."""

    def __init__(self, path: Path) -> None:
        fresh = not path.exists()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if fresh:
            os.pwrite(self._fd, bytes(FILE_BYTES), 0)
            os.fsync(self._fd)
            directory = os.open(path.parent, os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)
        self.journal: Journal | None = None
        self._sequence = 0
        self._slots = Slots()
        found = decode_file(os.pread(self._fd, FILE_BYTES, 0))
        if found is not None:
            slot, self._sequence, payload = found
            self._slots = Slots(slot)
            with contextlib.suppress(RemoteProtocolError):
                self.journal = unpack(payload, Journal)

    def write(self, journal: Journal) -> None:
        """One `pwrite` into the slot that is not the last synced one; raises OSError."""
        self._sequence += 1
        slot = encode_slot(self._sequence, pack(journal))
        if os.pwrite(self._fd, slot, self._slots.next_offset()) != len(slot):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.journal = journal

    def sync(self) -> None:
        """Wait until the disk has what was written (call it in a thread); raises OSError when that is not certain."""
        os.fdatasync(self._fd)
        self._slots.confirm()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class HomeStore:
    """Jobs whose home is here, on disk: one directory each."""

    def __init__(self, state: Path) -> None:
        self.root = state / "jobs"
        self.root.mkdir(mode=0o700, exist_ok=True)

    def directory(self, job: JobId) -> Path:
        """The job's directory, made if it is new."""
        path = self.root / job
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def save(self, meta: Meta) -> None:
        """Write what the job is."""
        _replace(self.directory(meta.id) / META, to_json(meta))

    def load(self) -> Iterator[Meta]:
        """Every job written down; directories without a readable meta are left alone."""
        for path in sorted(self.root.iterdir()):
            with contextlib.suppress(OSError, RemoteProtocolError):
                meta = from_json((path / META).read_bytes(), Meta)
                if meta.id == path.name:
                    yield meta

    def forget(self, job: JobId) -> None:
        """Remove an ended job with its kept output."""
        shutil.rmtree(self.root / job, ignore_errors=True)


class RecordStore:
    """What this node holds, on tmpfs: one directory for each job that runs here or is on its way."""

    def __init__(self, runtime: Path, images: Path) -> None:
        self.root = runtime / "jobs"
        self.root.mkdir(mode=0o700, exist_ok=True)
        self.image_root = images

    def directory(self, job: JobId, epoch: tuple[int, int]) -> Path:
        """The directory of one pod of a job: its socket and its lock."""
        path = self.root / job / f"{epoch[0]}.{epoch[1]}"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def images(self, job: JobId, epoch: tuple[int, int]) -> Path:
        """Where the images of one move lie; the directory is made fresh."""
        path = self.image_root / f"{job}-{epoch[0]}.{epoch[1]}"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def put_away_images(self, job: JobId, epoch: tuple[int, int]) -> Path | None:
        """Take the images of one move out of sight at once; who asks deletes what is returned, 0.2 s a GiB."""
        path = self.image_root / f"{job}-{epoch[0]}.{epoch[1]}"
        gone = path.with_name(path.name + GONE)
        try:
            path.rename(gone)
        except FileNotFoundError:
            return None
        except OSError:
            return path
        return gone

    def whole_images(self, job: JobId) -> tuple[int, int] | None:
        """Epoch of the newest images of this job here; None: there are none."""
        names = (path.name.rpartition("-")[2].partition(".") for path in self.image_root.glob(f"{job}-*"))
        return max(((int(a), int(b)) for a, _, b in names if a.isdecimal() and b.isdecimal()), default=None)

    def drop_pod(self, job: JobId, epoch: tuple[int, int]) -> None:
        """Forget one pod's socket and lock."""
        shutil.rmtree(self.root / job / f"{epoch[0]}.{epoch[1]}", ignore_errors=True)

    def sweep_images(self, jobs: set[JobId]) -> None:
        """At the start of an engine: delete images of jobs that have no record here, and what was being deleted."""
        for path in self.image_root.iterdir():
            job, dash, _ = path.name.partition("-")
            if dash and (job not in jobs or path.name.endswith(GONE)):  # records may lie here, too
                shutil.rmtree(path, ignore_errors=True)

    def tidy(self) -> None:
        """At the end of an engine: what lies empty in memory goes; what waits for the next engine stays."""
        with contextlib.suppress(OSError):
            self.root.rmdir()
            if self.root.parent == self.image_root:
                (self.image_root / INCARNATION).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.image_root.rmdir()

    def write(self, record: Record) -> None:
        """Replace the job's record; no sync: it dies with the node, as its pod does."""
        directory = self.root / record.job
        directory.mkdir(mode=0o700, exist_ok=True)
        _replace(directory / RECORD, pack(record))

    def load(self) -> Iterator[Record]:
        """Every record here."""
        for path in sorted(self.root.iterdir()):
            with contextlib.suppress(OSError, RemoteProtocolError):
                record = unpack((path / RECORD).read_bytes(), Record)
                if record.job == path.name:
                    yield record

    def drop(self, job: JobId) -> None:
        """Forget a job that has left for good."""
        shutil.rmtree(self.root / job, ignore_errors=True)


def incarnation(runtime: Path) -> str:
    """This run of this node: the kernel's boot and a random word on tmpfs (lab hosts share a kernel)."""
    path = runtime / INCARNATION
    try:
        word = path.read_text()
    except FileNotFoundError:
        word = secrets.token_hex(8)
        path.write_text(word)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{word}"


def relocked(meta: Meta, locked: bool) -> Meta:
    """The same job, locked or not."""
    return replace(meta, locked=locked)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
    os.replace(temporary, path)
