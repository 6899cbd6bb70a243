"""What a job's tree holds, as /proc tells: everything that "can it move?" depends on. Touches nothing."""

from __future__ import annotations

import os
import re
import stat as st
from collections.abc import Iterable
from dataclasses import dataclass, field

from omcore.checkpoint.elf import build_id
from omcore.checkpoint.sockets import Sock, SocketReader
from omcore.sensors.proc import PAGE_BYTES, Stat, parse_stat, read_bytes, tree, visible_pids

_FIRST_USER_NAMESPACE = "user:[4026531837]"  # PROC_USER_INIT_INO
_NAMESPACES = ("mnt", "pid", "user", "net", "ipc", "uts")
_HARMLESS_DEVICES = re.compile(r"/dev/(null|zero|full|random|urandom|tty|console|ptmx|pts/.*|shm/.*)$")
_TERMINALS = ("/dev/pts/", "/dev/tty", "/dev/console", "/dev/ptmx")
_KNOWN_ANON = {"eventfd", "eventpoll", "timerfd", "signalfd", "inotify", "fanotify", "pidfd"}
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Task:
    """One process of the tree."""

    pid: int
    name: str
    threads: int
    session: int
    uids: tuple[int, ...]  # real, effective, saved, file system
    gid: int
    tracer: str = ""  # "strace 4711" while another process traces it
    seccomp: bool = False


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A file of which the job has memory mappings."""

    path: str
    size: int  # -1: could not be read
    mode: int
    dev_inode: str  # "fd:01 4711" as in /proc/PID/maps
    build_id: str = ""  # hexadecimal, ELF files only
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file, directory or FIFO with a name."""

    owner: str  # "tail 4711"
    path: str
    flags: int  # as of open(2)
    size: int
    mode: int  # type and permission bits
    deleted: bool = False
    foreign_mount: bool = False  # opened in another mount namespace: CRIU cannot look it up

    @property
    def writable(self) -> bool:
        """Opened for writing: its size is not compared at the destination."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY


@dataclass(frozen=True, slots=True)
class Held:
    """A thing that stands in the way, and who has it."""

    owner: str  # "blender 31290"
    thing: str  # a path, a kind of namespace, the name of another process


@dataclass(slots=True)
class Findings:
    """All that was seen of one job's tree at one moment. Strings are as the kernel gave them: not clean."""

    root_pid: int
    name: str = ""
    alive: bool = False
    in_pod: bool = False  # its parent is a PID 1: the shim
    rootless: bool = False  # in a user namespace: what needs real root cannot be dumped
    arch: str = ""
    rss_bytes: int = 0
    tasks: list[Task] = field(default_factory=list)
    mapped: list[MappedFile] = field(default_factory=list)
    files: list[OpenFile] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)  # working directories
    sockets: list[Sock] = field(default_factory=list)
    devices: list[Held] = field(default_factory=list)
    io_uring: list[Held] = field(default_factory=list)
    notify: list[Held] = field(default_factory=list)  # inotify and fanotify
    strange: list[Held] = field(default_factory=list)  # descriptors of kinds CRIU does not know
    namespaces: list[Held] = field(default_factory=list)  # others than the pod's
    chroots: list[Held] = field(default_factory=list)
    strays: list[Held] = field(default_factory=list)  # in the pod, not below the root
    sharers: list[Held] = field(default_factory=list)  # outside, with memory of the job
    sysv: list[Held] = field(default_factory=list)  # System V memory in the engine's own IPC namespace
    unreadable: list[Held] = field(default_factory=list)

    @property
    def threads(self) -> int:
        """Threads of all processes."""
        return sum(task.threads for task in self.tasks)


def examine(root_pid: int) -> Findings:
    """Look at the tree of `root_pid`: blocking, about 4 ms for a small program and 2 ms per further process.

    Never raises for a process that ends meanwhile: then `alive` is False, or it is just not in the list. Who may
    not read a process (ptrace rule) finds it in `unreadable`.
    """
    return _Examination(root_pid).run()


class _Examination:
    """State of one look at a tree."""

    def __init__(self, root_pid: int) -> None:
        self.found = Findings(root_pid, arch=os.uname().machine)
        self._pids: set[int] = set()
        self._mount_ids: set[str] = set()
        self._space: dict[str, str] = {}
        self._root_dir = "/"
        self._mapped: dict[str, tuple[int, str, bool]] = {}
        self._shared: dict[str, str] = {}
        self._inodes: dict[int, tuple[int, int, str]] = {}
        self._seen_files: set[tuple[str, int]] = set()

    def run(self) -> Findings:
        found, root = self.found, self.found.root_pid
        pids = tree(root)
        self._pids = set(pids)
        try:
            self._look_around(root)
        except (FileNotFoundError, ProcessLookupError):
            return found
        except PermissionError:
            pass  # each process of it says so below
        for pid in pids:
            try:
                self._process(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked
        found.alive = any(task.pid == root for task in found.tasks)
        self._mapped_files()
        found.sockets = SocketReader(self._inodes, self._pids).read()
        if self._shared:
            self._find_sharers()
        return found

    def _look_around(self, root: int) -> None:
        """The pod of the root: its namespaces, its mounts, and processes in it that are not below the root."""
        found = self.found
        stat = _stat(root)
        found.name = stat.comm
        parent = _status(stat.ppid) if stat.ppid else {}
        numbers = parent.get("NSpid", "").split()
        found.in_pod = len(numbers) > 1 and numbers[-1] == "1"
        found.rootless = os.readlink(f"/proc/{root}/ns/user") != _FIRST_USER_NAMESPACE
        reference = stat.ppid if found.in_pod else root
        # IPC and network may be the job's alone, made by the pod for the root.
        self._space = _namespaces(root) | _namespaces(reference, ("mnt", "pid", "user"))
        self._root_dir = os.readlink(f"/proc/{reference}/root")
        mounts = read_bytes(f"/proc/{root}/mountinfo", 1 << 20) or b""
        self._mount_ids = {line.split(b" ", 1)[0].decode() for line in mounts.splitlines() if line}
        if found.in_pod:
            for pid in tree(stat.ppid, skip=self._pids)[1:]:
                data = read_bytes(f"/proc/{pid}/stat", 1024)
                stray = parse_stat(data) if data else None
                if stray is not None and stray.state not in "ZX":
                    found.strays.append(Held(f"{stray.comm} {pid}", "outside the job's tree"))

    def _process(self, pid: int) -> None:
        found = self.found
        stat = _stat(pid)
        status = _status(pid)
        who = f"{stat.comm} {pid}"
        tracer = int(status.get("TracerPid", "0"))
        found.tasks.append(
            Task(
                pid=pid,
                name=stat.comm,
                threads=stat.threads,
                session=stat.session,
                uids=tuple(map(int, status.get("Uid", "").split())),
                gid=int((status.get("Gid", "").split() or ["0"])[0]),
                tracer=_name(tracer) if tracer else "",
                seccomp=status.get("Seccomp", "0").strip() == "2",
            )
        )
        found.rss_bytes += stat.rss_pages * PAGE_BYTES
        if stat.state in "ZX":
            return  # a zombie has nothing but its exit status, which CRIU keeps
        try:
            self._surroundings(pid, who)
            self._maps(pid, who)
            self._descriptors(pid, who)
        except PermissionError:
            found.unreadable.append(Held(who, f"uid {status.get('Uid', '?').split()[0]}"))

    def _surroundings(self, pid: int, who: str) -> None:
        spaces = _namespaces(pid)
        for kind, name in spaces.items():
            if name != self._space.get(kind, name):
                self.found.namespaces.append(Held(who, kind))
        if os.readlink(f"/proc/{pid}/root") != self._root_dir:
            self.found.chroots.append(Held(who, os.readlink(f"/proc/{pid}/root")))
        cwd = os.readlink(f"/proc/{pid}/cwd")
        if not cwd.endswith(_DELETED) and cwd not in self.found.directories:
            self.found.directories.append(cwd)

    # -- memory -------------------------------------------------------------------------------------------

    def _maps(self, pid: int, who: str) -> None:
        with open(f"/proc/{pid}/maps", "rb") as file:
            data = file.read()
        for line in data.splitlines():
            fields = line.split(None, 5)
            if len(fields) < 6 or fields[4] == b"0":
                continue  # anonymous, stack, vdso
            perms, device, inode = fields[1], fields[3].decode(), fields[4].decode()
            self._mapping(pid, who, perms, f"{device} {inode}", os.fsdecode(fields[5]))

    def _mapping(self, pid: int, who: str, perms: bytes, key: str, path: str) -> None:
        found = self.found
        if path.startswith("anon_inode:[io_uring]"):
            _add(found.io_uring, Held(who, "io_uring"))
            return
        if path.startswith(("anon_inode:", "/[aio]", "socket:")):
            return
        deleted = path.endswith(_DELETED)
        if path.startswith("/SYSV"):
            if self._space.get("ipc") == os.readlink("/proc/self/ns/ipc"):
                _add(found.sysv, Held(who, path.removesuffix(_DELETED)))
        elif not deleted and path.startswith("/dev/") and not _HARMLESS_DEVICES.match(path):
            _add(found.devices, Held(who, path))
            return
        if perms[3:4] == b"s" and (deleted or b"w" in perms or path.startswith(("/dev/shm/", "/memfd:"))):
            self._shared.setdefault(key, path)
        if not deleted and not path.startswith(("/dev/", "/memfd:")):
            code = b"x" in perms
            old = self._mapped.get(key)
            self._mapped[key] = (pid, path, code or (old is not None and old[2]))

    def _mapped_files(self) -> None:
        for key, (pid, path, code) in self._mapped.items():
            inside = f"/proc/{pid}/root{path}"
            try:
                s = os.stat(inside)
            except OSError:
                self.found.mapped.append(MappedFile(path, -1, 0, key))
                continue
            identity = build_id(inside, s) if code else ""
            self.found.mapped.append(MappedFile(path, s.st_size, s.st_mode, key, identity, s.st_mtime_ns))

    def _find_sharers(self) -> None:
        """Processes outside with a mapping of the same memory: CRIU makes two copies of it without a word."""
        keys = {f" {key} ".encode(): path for key, path in self._shared.items()}
        for pid in visible_pids():
            if pid in self._pids:
                continue
            try:
                with open(f"/proc/{pid}/maps", "rb") as file:
                    data = file.read()
            except OSError:
                continue  # ended, or another user's: he has none of this memory unless he was given it
            for key, path in keys.items():
                if key in data and _maps_shared(data, key):
                    self.found.sharers.append(Held(_name(pid), path.removesuffix(_DELETED)))
                    break

    # -- descriptors --------------------------------------------------------------------------------------

    def _descriptors(self, pid: int, who: str) -> None:
        base = f"/proc/{pid}/fd"
        for name in os.listdir(base):
            try:
                target = os.readlink(f"{base}/{name}")
                if target.startswith("socket:["):
                    self._inodes.setdefault(int(target[8:-1]), (pid, int(name), who))
                elif target.startswith("anon_inode:"):
                    self._anonymous(who, target.removeprefix("anon_inode:").strip("[]"))
                elif target.startswith("/") and not target.startswith("/memfd:"):
                    self._file(pid, who, name, target)
            except FileNotFoundError:
                continue  # closed while we looked

    def _anonymous(self, who: str, kind: str) -> None:
        found = self.found
        if kind == "io_uring":
            _add(found.io_uring, Held(who, kind))
        elif kind in ("inotify", "fanotify"):
            _add(found.notify, Held(who, kind))
        elif kind not in _KNOWN_ANON:
            _add(found.strange, Held(who, kind))

    def _file(self, pid: int, who: str, fd: str, target: str) -> None:
        s = os.stat(f"/proc/{pid}/fd/{fd}")
        device = st.S_ISCHR(s.st_mode) or st.S_ISBLK(s.st_mode)
        if device and not _HARMLESS_DEVICES.match(target):
            _add(self.found.devices, Held(who, target))
            return
        if device and target.startswith(_TERMINALS):
            return  # handed over by the shim, wherever it was opened
        info = _fields(read_bytes(f"/proc/{pid}/fdinfo/{fd}", 1024))
        flags = int(info.get("flags", "0"), 8)
        key = target, flags
        foreign = bool(self._mount_ids) and info.get("mnt_id", "").strip() not in self._mount_ids
        if (device and not foreign) or key in self._seen_files:
            return
        self._seen_files.add(key)
        deleted = target.endswith(_DELETED) and s.st_nlink == 0
        path = target.removesuffix(_DELETED) if deleted else target
        self.found.files.append(OpenFile(who, path, flags, s.st_size, s.st_mode, deleted, foreign))


def _add(held: list[Held], item: Held) -> None:
    if item not in held:
        held.append(item)


def _maps_shared(data: bytes, key: bytes) -> bool:
    return any(key in line and line.split(None, 2)[1][3:4] == b"s" for line in data.splitlines())


def _namespaces(pid: int, kinds: Iterable[str] = _NAMESPACES) -> dict[str, str]:
    spaces = {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds}
    if "pid" in spaces:
        # unshare without a fork: the namespace of its children differs from its own.
        later = os.readlink(f"/proc/{pid}/ns/pid_for_children")
        spaces["pid"] = later or spaces["pid"]
    return spaces


def _stat(pid: int) -> Stat:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return parse_stat(file.read())


def _status(pid: int) -> dict[str, str]:
    return _fields(read_bytes(f"/proc/{pid}/status", 8192))


def _fields(data: bytes | None) -> dict[str, str]:
    lines = (data or b"").decode(errors="surrogateescape").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def _name(pid: int) -> str:
    """ "name pid" of any process, for people."""
    comm = read_bytes(f"/proc/{pid}/comm", 64)
    return f"{comm.decode(errors='surrogateescape').rstrip()} {pid}" if comm else f"process {pid}"
