"""What is known of a lab: its frozen status, the file that holds it, and the lock that says whether it lives.

A lab owns one directory, DIR/NAME, with `lab.json` and `lock`.  The lock is held (flock) by the keeper and the
holder for as long as they live and by nobody else, so "is it there?" never depends on process numbers.
Whoever gets the lock while the directory is still there has found a dead lab and sweeps it up.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omcore.errors import LabError
from omcore.lab import cgroups

DEFAULT_NAME = "lab"
_RECORD = "lab.json"
_LOCK = "lock"
_LOCK_STEP_S = 0.01


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One host of a lab; process numbers are as seen from outside the lab."""

    name: str
    number: int  # from 1
    address: str
    pid: int = 0  # of the host's init; 0: not started, or gone
    started: int = 0  # when that init started (clock ticks since boot), to know it from a later process
    engine_pid: int = 0
    engine_alive: bool = False
    engine_exit: int | None = None  # status of an engine that ended; negative: by that signal
    cpu: float | None = None  # cores it may use; None: no limit
    cgroup: tuple[str, ...] = ()  # its control groups, one per hierarchy


@dataclass(frozen=True, slots=True)
class LabStatus:
    """A lab and its hosts."""

    name: str
    state: str = "starting"  # starting, up
    hosts: tuple[HostStatus, ...] = ()
    keeper: int = 0  # pid of the process that cleans up
    holder: int = 0  # pid of PID 1 of the lab: without it there is nothing
    uid: int = 0  # inside the hosts
    rootless: bool = False
    cpu: float | None = None
    note: str = ""  # a limit that could not be had
    engine_command: tuple[str, ...] = ()
    created_at: float = 0.0  # seconds since the epoch
    leftovers: tuple[str, ...] = field(default=())  # directories to remove when all is over

    def host(self, which: str) -> HostStatus:
        """The host of this name or number. Raises LabError."""
        for one in self.hosts:
            if which in (one.name, str(one.number)):
                return one
        names = ", ".join(one.name for one in self.hosts)
        raise LabError(f"lab {self.name} has no host {which!r}", f"its hosts are {names}")


def lab_directory(name: str) -> Path:
    """The private directory of the lab `name`; touches nothing. Raises LabError for a bad name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise LabError(f"{name!r} is no name for a lab", "lower-case letters, digits and '-', at most 31")
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    uid = os.geteuid()
    if os.path.isabs(given) and os.path.isdir(given):
        return Path(given) / "omview-lab" / name
    base = Path("/run/omview-lab") if uid == 0 else Path(f"/tmp/omview-lab-{uid}")
    return base / name


def demo_directory(name: str) -> Path:
    """Where the demo jobs of a lab keep their files: seen by all hosts alike, gone with the lab."""
    home = os.environ.get("HOME") or os.path.expanduser("~")
    return Path(home) / ".cache" / "omview" / f"lab-{name}-demo"


def all_labs() -> tuple[str, ...]:
    """The names of this user's labs, dead ones included."""
    base = lab_directory(DEFAULT_NAME).parent
    with suppress(OSError):
        return tuple(sorted(entry.name for entry in os.scandir(base) if entry.is_dir()))
    return ()


def claim(name: str) -> tuple[Path, int]:
    """Make the directory of a new lab and take its lock: (directory, descriptor). Sweeps up a dead one first.

    Raises LabError where a lab of this name is alive.
    """
    directory = lab_directory(name)
    while True:
        _make_private(directory.parent)
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
        except FileNotFoundError:
            continue  # the last lab of this user just went, and took the common directory with it
        fd = _lock(directory)
        if fd is None:
            raise LabError(f"lab {name} is already up", f"omview lab down --name {name}, or up with another --name")
        if fd < 0:
            continue  # somebody swept it up between the two calls
        if (directory / _RECORD).exists():
            sweep(directory)
            os.close(fd)
            continue
        return directory, fd


def is_alive(directory: Path) -> bool:
    """Whether somebody holds the lab's lock; a dead lab is swept up on the way."""
    fd = _lock(directory)
    if fd is None:
        return True
    if fd >= 0:
        sweep(directory)
        os.close(fd)
    return False


def wait_until_gone(directory: Path, timeout_s: float) -> bool:
    """Wait for the lab to end, and sweep up what it left; True when it is gone."""
    deadline = time.monotonic() + timeout_s
    while is_alive(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOCK_STEP_S)  # flock has no timeout of its own
    return True


def read(directory: Path) -> LabStatus | None:
    """What the keeper wrote last; None where there is nothing to be read yet."""
    try:
        raw = json.loads((directory / _RECORD).read_text())
    except (OSError, ValueError):
        return None
    return from_json(raw)


def from_json(raw: dict[str, Any]) -> LabStatus:
    """The inverse of `dataclasses.asdict`, for what was written by ourselves."""
    hosts = tuple(HostStatus(**{**one, "cgroup": tuple(one["cgroup"])}) for one in raw["hosts"])
    lists = {key: tuple(raw[key]) for key in ("engine_command", "leftovers")}
    return LabStatus(**{**raw, **lists, "hosts": hosts})


def write(directory: Path, status: LabStatus) -> None:
    """Replace the record in one step."""
    new = directory / (_RECORD + ".new")
    new.write_text(json.dumps(asdict(status), indent=1))
    new.replace(directory / _RECORD)


def sweep(directory: Path) -> None:
    """Remove what a lab that ended left on the machine; only for the one who holds its lock."""
    status = read(directory)
    for path in status.leftovers if status else ():
        cgroups.remove(path)
    demo = demo_directory(directory.name)
    for one in (demo, directory):
        shutil.rmtree(one, ignore_errors=True)
        with suppress(OSError):
            one.parent.rmdir()  # the last lab takes the common directory with it


def _lock(directory: Path) -> int | None:
    """A descriptor with the lab's lock; None: somebody else has it; -1: there is no such lab."""
    path = directory / _LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}", f"is {directory.parent} yours?") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    try:
        same = os.stat(path).st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        same = False
    if not same:  # swept up while we waited at the door
        os.close(fd)
        return -1
    return fd


def _make_private(path: Path) -> None:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    what = os.lstat(path)
    if not stat.S_ISDIR(what.st_mode) or what.st_uid != os.geteuid() or what.st_mode & 0o022:
        raise LabError(f"{path} is not a directory of ours alone", f"as its owner: rm -r {path}")
