"""The few system calls that Python 3.11 does not have: unshare, setns, mount, umount, prctl."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_PR_SET_NAME = 15
_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def unshare(flags: int) -> None:
    """Give this process namespaces of its own (for pid: its children). Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """Join the namespace behind `fd`, which must be of the kind `flags`. Raises OSError."""
    _check(_libc.setns(fd, flags), "setns")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    arguments = os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode()
    _check(_libc.mount(*arguments), target)


def unmount(target: str) -> None:
    """Take a mount away, at once even while something in it is still open. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def name_process(name: str, arguments: str = "") -> None:
    """The name that top shows for this process (at most 15 bytes), and with `arguments` its command line in ps."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
    with open("/proc/self/stat", "rb") as file:
        start, end = map(int, file.read().rpartition(b")")[2].split()[45:47])
    room = end - start
    title = f"{name} {arguments}".strip().encode()[: room - 2]
    if start and room > 2:
        # the kernel takes a last byte that is not zero as the sign that the text ends at the first zero
        ctypes.memmove(start, title.ljust(room - 1, b"\0") + b".", room)


def may_administer() -> bool:
    """Whether this process may make namespaces and links without a user namespace (root outside containers)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                held = int(line.split()[1], 16)
                return bool(held >> _CAP_SYS_ADMIN & 1 and held >> _CAP_NET_ADMIN & 1)
    return False


def enter_user_namespace(inside_uid: int, inside_gid: int) -> None:
    """A new user namespace in which our user and group have these numbers, and all capabilities until exec.

    Raises OSError (EPERM, ENOSPC) where the machine forbids it.
    """
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")  # or the kernel refuses the group map of an ordinary user
    _write("/proc/self/uid_map", f"{inside_uid} {uid} 1")
    _write("/proc/self/gid_map", f"{inside_gid} {gid} 1")


def why_no_user_namespaces() -> tuple[str, str]:
    """A reason and a hint for a machine that refuses user namespaces to ordinary users."""
    for path, forbidden, command in (
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ):
        try:
            with open(path, encoding="ascii") as file:
                value = file.read().strip()
        except OSError:
            continue
        if value == forbidden:
            return f"{path} is {value}", f"as root: {command}"
    return "the kernel or the container around us refuses them", "run the lab as root, or outside the container"


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
