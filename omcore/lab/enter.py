"""Run a command in a host, as if it had been started there: same terminal, exact signals and exit status.

A PID namespace is joined by children only, so this process stays outside and stands for the command:
what people or programs do to it happens to the command, and what becomes of the command becomes of it.

The command stays in its caller's control groups: a host's CPU share is for its engine and its jobs, and the one
who looks at a host, or types into a job there, is not slowed down with it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from omcore.errors import LabError
from omcore.lab import namespaces as ns
from omcore.lab.cluster import host_environment
from omcore.lab.host import go_to
from omcore.lab.manage import status
from omcore.lab.plumbing import leave, start_time
from omcore.lab.record import HostStatus, LabStatus

_KINDS = (
    ("net", ns.CLONE_NEWNET),
    ("uts", ns.CLONE_NEWUTS),
    ("ipc", ns.CLONE_NEWIPC),
    ("pid", ns.CLONE_NEWPID),
    ("mnt", ns.CLONE_NEWNS),
)
_PASSED_ON = {
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGWINCH,
    signal.SIGTSTP,
    signal.SIGCONT,
}
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


def enter(name: str, node: str, command: Sequence[str]) -> int:
    """Run `command` in the host `node` (name or number) of the lab `name`; its exit code, or minus its signal.

    Changes the namespaces of the calling process for good: call it in a process that has nothing else to do.
    Raises LabError for an unknown lab or host, and where the command cannot be started.
    """
    lab = status(name)
    host = lab.host(node)
    cwd, env = _cwd(), host_environment(os.environ, host.name)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON | {signal.SIGCHLD})
    terminal = _own_terminal()
    _join(lab, host)
    child = os.fork()
    if child == 0:
        code = _NOT_FOUND
        try:
            if terminal is not None:
                os.setpgid(0, 0)
                _to_foreground(terminal, os.getpgrp())
            go_to(cwd, env)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, others must not
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execvpe(command[0], list(command), env)
        except OSError as error:
            code = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
            print(f"omview lab exec: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
            os._exit(code)
        finally:
            leave(code)
    try:
        return _stand_for(child, terminal)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def end_like(code: int) -> None:
    """End this process as the command ended: with its exit code, or by its signal. Does not return."""
    sys.stdout.flush()
    if code < 0:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core, if any, is the command's
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
        code = 128 - code  # a signal that does not kill us, which cannot be
    os._exit(code)


def _join(lab: LabStatus, host: HostStatus) -> None:
    """Enter all namespaces of a host; the PID namespace counts for our children."""
    doors: list[tuple[int, int]] = []
    try:
        if lab.rootless:
            doors.append((os.open(f"/proc/{lab.holder}/ns/user", os.O_RDONLY), ns.CLONE_NEWUSER))
        for kind, flag in _KINDS:
            doors.append((os.open(f"/proc/{host.pid}/ns/{kind}", os.O_RDONLY), flag))
        if lab.rootless:
            doors.append((os.open(f"/proc/{host.pid}/ns/user", os.O_RDONLY), ns.CLONE_NEWUSER))
        if not host.pid or start_time(host.pid) != host.started:
            raise LabError(f"{host.name} is gone", f"omview lab down --name {lab.name}, and up again")
        for door, flag in doors:
            ns.setns(door, flag)
    except OSError as error:
        raise LabError(
            f"{host.name} cannot be entered: {error.strerror}", "the lab belongs to who brought it up"
        ) from error
    finally:
        for door, _ in doors:
            os.close(door)


def _stand_for(child: int, terminal: int | None) -> int:
    """Wait for the command; pass signals to it, stop and go on with it."""
    ours = os.getpgrp()
    heard = _PASSED_ON | {signal.SIGCHLD}
    while True:
        pid, state = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if pid and os.WIFSTOPPED(state):
            _stop_too(child, os.WSTOPSIG(state), terminal)
        elif pid:
            if terminal is not None:
                _to_foreground(terminal, ours)
            return os.waitstatus_to_exitcode(state)
        got = signal.sigwaitinfo(heard)
        # from the kernel (code > 0): the terminal has told the command already, it is in the foreground too
        if got.si_signo != signal.SIGCHLD and got.si_code <= 0:
            with suppress(ProcessLookupError):
                os.kill(child, got.si_signo)


def _stop_too(child: int, number: int, terminal: int | None) -> None:
    """The command was stopped (^Z): hand the terminal back, stop, and when woken let the command go on."""
    ours = os.getpgrp()
    if terminal is not None:
        _to_foreground(terminal, ours)
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # here we are awake again, by `fg` or `bg` of the shell
    with suppress(ProcessLookupError, OSError):
        if terminal is not None:
            if os.tcgetpgrp(terminal) == ours:
                _to_foreground(terminal, child)
            os.killpg(child, signal.SIGCONT)
        else:
            os.kill(child, signal.SIGCONT)


def _own_terminal() -> int | None:
    """The terminal, when the command has it all for itself: then it gets a process group of its own in it.

    Shells need that, for they do not see our process group from inside.  In a pipeline (`... | less`) the
    others in our group must keep the terminal, so the command stays in the group.
    """
    try:
        alone = os.isatty(0) and os.isatty(1) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return None
    return 0 if alone else None


def _to_foreground(terminal: int, group: int) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # or we are stopped for it
    with suppress(OSError):
        os.tcsetpgrp(terminal, group)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cwd() -> str:
    with suppress(OSError):
        return os.getcwd()
    return "/"
