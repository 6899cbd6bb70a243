"""A host of the lab: an init that gives it a name, mounts, an address and an engine, and then only reaps."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from omcore.errors import OmError
from omcore.lab import namespaces as ns
from omcore.lab.cluster import (
    COVERED,
    ENGINE_LOG,
    HOST_ROOT,
    Plan,
    host_address,
    host_environment,
    host_name,
    kept_directories,
    write_settings,
)
from omcore.lab.plumbing import ended_children, leave, report, run_ip
from omcore.paths import find_paths

_MODES = {"/tmp": "mode=1777", "/run": "mode=0755", "/dev/shm": "mode=1777"}


def live(plan: Plan, number: int, channel: socket.socket, door: socket.socket) -> NoReturn:
    """Be PID 1 of a host until the lab ends. `door` leads to the holder, `channel` to the keeper."""
    try:
        door.send(b"1")
        _close_all_but(channel.fileno(), door.fileno())
        ns.name_process("omview-host", host_name(number))
        if door.recv(2) == b"go":
            _furnish(plan, number)
            door.close()
            if plan.rootless:
                # an ordinary user in the host too: the caps of the lab's user namespace end at the next exec
                ns.enter_user_namespace(plan.uid, plan.gid)
            report(channel, kind="init", number=number)
            _reap(_start_engine(plan, number, channel), number, channel)
    except OmError as error:
        report(channel, kind="error", text=f"{host_name(number)}: {error.text}", hint=error.hint)
    except OSError as error:
        text = f"{host_name(number)}: {error.filename or 'the kernel'}: {error.strerror}"
        report(channel, kind="error", text=text)
    finally:
        leave(1)


def _furnish(plan: Plan, number: int) -> None:
    """Name, mounts, network, state and settings of this host."""
    name = host_name(number)
    socket.sethostname(name)
    state = -1
    if not plan.engine_command:
        stage = os.path.join(plan.directory, "stage")
        state = os.open(os.path.join(stage, name), os.O_PATH | os.O_DIRECTORY)
        ns.unmount(stage)  # no host may see another's keys
    _mount(kept_directories(plan))
    run_ip(
        plan.ip,
        [
            "link set lo up",
            f"address add {host_address(number)}/24 dev eth0",
            "link set eth0 up",
        ],
    )
    env = host_environment(plan.environ, name)
    before = os.umask(0o077)
    for folder in ("", "state", "run", "config", "cache"):
        os.mkdir(os.path.join(HOST_ROOT, folder))
    if state >= 0:
        target = find_paths(env).state
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(f"/proc/self/fd/{state}", target)
        os.close(state)
        write_settings(plan, number, env)
    os.umask(before)


def _mount(kept: tuple[str, ...]) -> None:
    """Own /proc, /tmp, /run and /dev/shm; what we run from stays visible where it lies below one of them."""
    ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    doors = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in kept}
    for place in COVERED:
        if os.path.isdir(place):
            ns.mount("tmpfs", os.path.realpath(place), "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, _MODES[place])
    for path, door in doors.items():
        if not os.path.isdir(path) or not os.path.samestat(os.stat(path), os.fstat(door)):
            os.makedirs(path, exist_ok=True)
            ns.mount(f"/proc/self/fd/{door}", path, "none", ns.MS_BIND | ns.MS_REC)
        os.close(door)


def _start_engine(plan: Plan, number: int, channel: socket.socket) -> int:
    """Start the engine and say so; its pid. Raises OSError where the command cannot be run."""
    env = host_environment(plan.environ, host_name(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    done, failed = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(done)
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            for number_of_signal in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number_of_signal, signal.SIG_DFL)
            _open_stdio()
            go_to(plan.cwd, env)
            report(channel, kind="engine", number=number)
            os.execvpe(plan.command[0], plan.command, env)
        except OSError as error:
            os.write(failed, (error.strerror or "failed").encode())
        finally:
            os._exit(127)
    os.close(failed)
    with os.fdopen(done, "rb") as pipe:
        reason = pipe.read().decode()
    if reason:
        raise OSError(0, reason, plan.command[0])
    report(channel, kind="running", number=number)
    return pid


def go_to(directory: str, env: Mapping[str, str]) -> None:
    """Make this the current directory, or the home directory where the host does not have it."""
    for place in (directory, env.get("HOME", ""), "/"):
        with suppress(OSError):
            os.chdir(place)
            return


def _open_stdio() -> None:
    """Nothing to read, and a log; opened here, so that they belong to the host's own mounts."""
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.open(ENGINE_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _reap(engine: int, number: int, channel: socket.socket) -> NoReturn:
    while True:
        for pid, code in ended_children().items():
            if pid == engine:
                report(channel, kind="engine-ended", number=number, status=code)
        signal.sigwait({signal.SIGCHLD})


def _close_all_but(*kept: int) -> None:
    """Let go of everything that belongs to keeper and holder: the lab's lock above all."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))
