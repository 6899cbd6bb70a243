"""Starting programs from the pod's PID 1: the job's root, exactly as its caller wanted it, and criu."""

from __future__ import annotations

import fcntl
import os
import resource

from . import syscalls
from .frames import IMAGES_FD, JOB_FDS, TTY_FD
from .podinit import Hardening
from .podrelay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CRIU_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": "/run", "HOME": "/", "LC_ALL": "C"}
_SIGPIPE, _SIGXFSZ = 13, 25
_ENOEXEC = 8


def start_job(run: dict[str, Any], relay: Relay, hardening: Hardening) -> tuple[int, int, str, str]:
    """Fork and exec the root; returns (pid, 0, "", "") or (0, errno, step, subject) with nothing left behind."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        step = ["setup", ""]
        try:
            _become_job(run, relay, hardening, step)
        except OSError as error:
            os.write(theirs, f"{error.errno}\0{step[0]}\0{step[1]}".encode("utf-8", "surrogateescape"))
        finally:
            os._exit(127)
    os.close(theirs)
    with open(ours, "rb") as file:
        problem = file.read()
    if not problem:
        return pid, 0, "", ""
    os.waitpid(pid, 0)
    number, step_name, subject = problem.decode("utf-8", "surrogateescape").split("\0")
    return 0, int(number), step_name, subject


def _become_job(run: dict[str, Any], relay: Relay, hardening: Hardening, step: list[str]) -> None:
    os.setpgid(0, 0)
    if relay.pty:
        os.tcsetpgrp(relay.pty.slave, os.getpid())
    for fd in (0, 1, 2):
        os.dup2(relay.pty.slave if relay.pty and fd in relay.tty else relay.job_fds[fd], fd)
    resource.setrlimit(resource.RLIMIT_CORE, hardening.core)
    for number, soft, hard in run["limits"]:
        step[:] = ["limit", str(number)]
        _limit(number, soft, hard)
    step[:] = ["cwd", run["cwd"]]
    os.chdir(run["cwd"])
    os.umask(run["umask"])
    syscalls.become_subreaper()
    step[:] = ["setup", ""]
    if hardening.userns:
        syscalls.give_up_privileges()
    syscalls.reset_signals()
    environment = dict(item.partition("=")[::2] for item in run["env"])
    step[:] = ["exec", run["command"][0]]
    _exec(run["command"], environment)


def _limit(number: int, soft: int, hard: int) -> None:
    """The caller's limit; where its hard limit is above ours, which cannot be raised, as near as it goes."""
    try:
        resource.setrlimit(number, (soft, hard))
    except (ValueError, OSError):
        ceiling = resource.getrlimit(number)[1]
        hard = hard if ceiling == resource.RLIM_INFINITY else ceiling
        resource.setrlimit(number, (soft if 0 <= soft < hard else hard, hard))


def _exec(command: list[str], environment: dict[str, str]) -> None:
    """exec, searching PATH of the job's own environment as a shell would; a script without #! goes to sh."""
    name = command[0]
    places = [""] if "/" in name else environment.get("PATH", os.defpath).split(":")
    problem = FileNotFoundError(2, "not found")
    for place in places:
        path = os.path.join(place or ".", name) if "/" not in name else name
        try:
            os.execve(path, command, environment)
        except OSError as error:
            if error.errno == _ENOEXEC:
                os.execve("/bin/sh", ["sh", path, *command[1:]], environment)
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                problem = error  # type: ignore[assignment]  # any OSError will do
    raise problem


def start_criu(argv: list[str], images: int, relay: Relay | None) -> int:
    """Spawn criu with the images directory and the job's new ends at their fixed numbers; returns its PID.

    posix_spawn, not fork: no copy of this process's page tables inside the freeze.
    """
    wanted = {IMAGES_FD: images}
    if relay:
        wanted |= {JOB_FDS[fd]: end for fd, end in relay.job_fds.items()}
        if relay.pty:
            wanted[TTY_FD] = relay.pty.slave
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    moved = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for target, fd in wanted.items()}
    actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, null, number) for number in (0, 1, 2)]
    actions += [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in moved.items()]
    try:
        return os.posix_spawn(
            argv[0],
            argv,
            CRIU_ENVIRONMENT,
            file_actions=actions,
            setsigmask=(),
            setsigdef=(_SIGPIPE, _SIGXFSZ),
        )
    finally:
        for fd in (null, *moved.values()):
            os.close(fd)
