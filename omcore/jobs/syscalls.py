"""The few Linux calls that the pod's shim needs and Python 3.11 has not, through ctypes.

Shared by the shim alone.  It runs with `python -I -S` and must stay small: no `socket`, no `signal`, no `typing`
(0.5-1 MiB and several milliseconds each).  All functions raise OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_CAP_SETGID, _CAP_SETUID = 6, 7
_CAPABILITY_VERSION_3 = 0x20080522

SIGCHLD = 17  # the same number on every architecture CRIU runs on
_SIG_SETMASK = 2
_SFD_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000
_SOCK_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000
_SOL_SOCKET, _SO_PEERCRED = 1, 17

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str = "") -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what or None)
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); an empty string stands for NULL."""
    args = [os.fsencode(text) if text else None for text in (source, target, kind, data)]
    _check(_libc.mount(args[0], args[1], args[2], ctypes.c_ulong(flags), args[3]), target)


def _prctl(option: int, second: int = 0, third: int = 0) -> int:
    return int(_libc.prctl(option, *(ctypes.c_ulong(value) for value in (second, third, 0, 0))))


def set_name(name: bytes) -> None:
    """Name of this process in `ps` (15 bytes)."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)


def set_undumpable() -> None:
    """Nobody may trace this process or read its memory, and it leaves no core."""
    _check(_prctl(_PR_SET_DUMPABLE, 0))


def become_subreaper() -> None:
    """Daemons started below this process become its children instead of PID 1's."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1))


def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def _set_inheritable(all_permitted: bool) -> None:
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, sets), "capget")
    words = list(struct.unpack("6I", sets.raw))
    words[2], words[5] = (words[1], words[4]) if all_permitted else (0, 0)
    _check(_libc.capset(header, struct.pack("6I", *words)), "capset")


def raise_ambient() -> None:
    """Let programs started by this process keep its capabilities, all but changing uid and gid (for criu)."""
    _set_inheritable(True)
    for cap in range(_last_capability() + 1):
        if cap not in (_CAP_SETGID, _CAP_SETUID):
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, cap)  # EPERM: we do not have it either


def give_up_privileges() -> None:
    """Before exec of a job in a user namespace: no capability of any set, no set-uid effect, for ever."""
    _check(_prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL))
    for cap in range(_last_capability() + 1):
        _check(_prctl(_PR_CAPBSET_DROP, cap))
    _set_inheritable(False)
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1))


def watch_children() -> int:
    """Block every signal and return a descriptor that becomes readable on SIGCHLD."""
    mask = ctypes.create_string_buffer(128)
    _libc.sigfillset(mask)
    _check(_libc.sigprocmask(_SIG_SETMASK, mask, None))
    only = ctypes.create_string_buffer(128)
    _libc.sigemptyset(only)
    _libc.sigaddset(only, SIGCHLD)
    return _check(_libc.signalfd(-1, only, _SFD_CLOEXEC_NONBLOCK), "signalfd")


def reset_signals() -> None:
    """Undo what Python and `watch_children` changed, for a child about to exec."""
    for number in (13, 25, 2):  # SIGPIPE and SIGXFSZ are ignored by Python, SIGINT caught
        _libc.signal(number, None)
    mask = ctypes.create_string_buffer(128)
    _libc.sigemptyset(mask)
    _check(_libc.sigprocmask(_SIG_SETMASK, mask, None))


def listen(fd: int) -> None:
    """Listen (again): callers then see this process as their peer."""
    _check(_libc.listen(fd, 4), "listen")


def accept(fd: int) -> int:
    """A new connection: its descriptor, non-blocking and close-on-exec; raises BlockingIOError when there is none."""
    return _check(_libc.accept4(fd, None, None, _SOCK_CLOEXEC_NONBLOCK), "accept")


def peer_uid(fd: int) -> int:
    """User id of whoever connected, as seen in this user namespace (65534: not mapped here)."""
    cred = ctypes.create_string_buffer(12)
    size = ctypes.c_uint32(12)
    _check(_libc.getsockopt(fd, _SOL_SOCKET, _SO_PEERCRED, cred, ctypes.byref(size)), "SO_PEERCRED")
    return int(struct.unpack("iII", cred.raw)[1])
