"""How the shim becomes PID 1 of a pod: own user, mount and PID namespaces, own /proc and /run, masks over the rest.

Order matters: descriptors for host paths (`Host`) and the lock are opened before the namespaces, everything that a
job may inherit is opened after (CRIU cannot dump a descriptor of a foreign mount namespace).
"""

from __future__ import annotations

import fcntl
import os
import resource

from . import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEEP_IN_RUN = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd")
"""Name resolution lives here; everything else of /run is hidden."""
_NESTED = ("user", "mnt", "net", "pid", "uts", "ipc", "cgroup")


class Host:
    """Paths of the host, reached through a descriptor of its root opened before the pod's own mounts."""

    def __init__(self) -> None:
        self._root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open an absolute path of the host; close-on-exec."""
        return os.open(path.lstrip("/") or ".", flags | os.O_CLOEXEC, mode, dir_fd=self._root)

    def read(self, path: str) -> bytes:
        """The whole of a small file; b"" if there is none."""
        try:
            fd = self.open(path, os.O_RDONLY)
        except OSError:
            return b""
        with open(fd, "rb") as file:
            return file.read()

    def replace(self, path: str, data: bytes) -> None:
        """Write a file atomically; a node that cannot keep it goes without."""
        temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}"
        try:
            fd = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError:
            return
        with open(fd, "wb") as file:
            file.write(data)
        names = [name.lstrip("/") for name in (temporary, path)]
        os.replace(names[0], names[1], src_dir_fd=self._root, dst_dir_fd=self._root)


class Hardening:
    """What the job must lose and keep: `userns` says whether privileges are given up; `core` is its own limit."""

    def __init__(self, userns: bool, core: tuple[int, int]) -> None:
        self.userns = userns
        self.core = core


def lock(directory: str) -> int:
    """Hold `pod.lock`: the sign of a living pod, for as long as any process has the descriptor."""
    fd = os.open(os.path.join(directory, "pod.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def enter(config: dict[str, Any]) -> tuple[Host, Hardening]:
    """Daemonise into fresh namespaces; returns in PID 1 only.  Raises OSError with the failing step named."""
    host = Host()
    uid, gid = os.getuid(), os.getgid()
    for path in config["cgroups"]:
        with open(host.open(path + "/cgroup.procs", os.O_WRONLY), "wb") as file:
            file.write(b"0")
    core = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, core[1]))
    userns = uid != 0
    if userns:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    _mounts(config["masks"], uid)
    if userns:
        for name in _NESTED:
            _write(f"/proc/sys/user/max_{name}_namespaces", "0")
        syscalls.raise_ambient()
    syscalls.set_undumpable()
    syscalls.set_name(b"omview-pod")
    return host, Hardening(userns, core)


def _mounts(masks: list[str], uid: int) -> None:
    """Private mounts: own /proc, an empty /run but for name resolution, empty read-only masks."""
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    kept = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in _KEEP_IN_RUN if os.path.isdir(path)]
    hidden = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in masks if os.path.isdir(path)]
    for fd in hidden:
        flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("omview-mask", f"/proc/self/fd/{fd}", "tmpfs", flags, "size=4k,mode=555")
        os.close(fd)
    syscalls.mount("omview-run", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    for path, fd in kept:
        os.makedirs(path, 0o755)
        syscalls.mount(f"/proc/self/fd/{fd}", path, flags=syscalls.MS_BIND | syscalls.MS_REC)
        os.close(fd)
    os.makedirs(f"/run/user/{uid}", 0o755)
    os.chmod(f"/run/user/{uid}", 0o700)
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", "/proc", "proc", flags)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
