"""Bring a lab up, ask for it, take it down: what the command line and the tests call."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import omcore
from omcore.errors import LabError
from omcore.lab import namespaces as ns
from omcore.lab import record
from omcore.lab.cluster import ENGINE_LOG, MAX_HOSTS, Plan, engine_socket, host_environment
from omcore.lab.plumbing import PROCESS_NAME, name_of
from omcore.lab.record import DEFAULT_NAME, LabStatus

_UP_SECONDS = 60.0
_DOWN_SECONDS = 10.0
_GRACE_SECONDS = 10.0  # for the keeper: killing and removing takes well under one, even on a busy machine
_STEP_S = 0.02
_KEEPER_LOG = "keeper.log"
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # an ordinary user's PATH often lacks them


def up(
    name: str = DEFAULT_NAME,
    n: int = 3,
    cpu: float | None = None,
    engine_command: Sequence[str] | None = None,
    memory_bytes: int | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> LabStatus:
    """Make a lab of `n` hosts (1..100), each limited to `cpu` cores and `memory_bytes` where cgroups allow.

    `engine_command` takes the place of `omview serve` (the hosts then get neither keys nor settings).  Returns
    when all engines run, and the real ones answer.  Raises LabError, and KeyboardInterrupt after ^C; nothing
    is left in both cases.
    """
    plan = _plan(name, n, cpu, tuple(engine_command or ()), memory_bytes)
    directory, lock = record.claim(name)
    log = -1
    try:
        control, log = _start_keeper(directory, lock)
        os.close(lock)  # from here on the keeper's copy counts
        lock = -1
        with control:
            say(f"making {n} hosts")
            _order(control, replace(plan, directory=str(directory)), log)
            if not plan.engine_command:
                say("waiting for the engines")
                _wait_for_engines(directory, plan)
    except BaseException:
        if lock >= 0:
            os.close(lock)
        _stop(directory)
        raise
    finally:
        if log >= 0:
            os.close(log)
    return status(name)


def status(name: str = DEFAULT_NAME) -> LabStatus:
    """The lab as it is now. Raises LabError when there is none of this name."""
    directory = record.lab_directory(name)
    found = record.read(directory) if record.is_alive(directory) else None
    if found is None:
        option = "" if name == DEFAULT_NAME else f" --name {name}"
        raise LabError(f"there is no lab {name}", f"omview lab up{option}")
    return found


def down(name: str = DEFAULT_NAME) -> bool:
    """End the lab with all that is in it; False when there was none (a dead one is swept up)."""
    directory = record.lab_directory(name)
    if not record.is_alive(directory):
        return False
    _stop(directory)
    return True


def _plan(name: str, n: int, cpu: float | None, engine_command: tuple[str, ...], memory_bytes: int | None) -> Plan:
    """What was asked for, checked, with all that the hosts inherit from us; the directory is still open."""
    if not 1 <= n <= MAX_HOSTS:
        raise LabError(f"a lab of {n} hosts cannot be made", f"1 to {MAX_HOSTS}")
    if cpu is not None and not 0.05 <= cpu <= 1024:
        raise LabError(f"{cpu:g} cores for each host is not possible", "0.05 or more, e.g. 0.5")
    if memory_bytes is not None and memory_bytes < 64 * 2**20:
        raise LabError("an engine needs more memory than that", "64 MiB or more for each host")
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
    program = shutil.which("ip", path=path)
    if program is None:
        raise LabError("the lab needs the program `ip`", "apt install iproute2")
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        cwd = "/"
    return Plan(
        name=name,
        directory="",
        hosts=n,
        engine_command=engine_command,
        environ=dict(os.environ),
        cwd=cwd,
        uid=os.geteuid(),
        gid=os.getegid(),
        rootless=not ns.may_administer(),
        ip=program,
        cpu=cpu,
        memory_bytes=memory_bytes,
    )


def _start_keeper(directory: Path, lock: int) -> tuple[socket.socket, int]:
    """The keeper, in a session of its own; returns our end of its control socket, and its log."""
    ours, theirs = socket.socketpair()
    log = os.open(directory / _KEEPER_LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    code = Path(omcore.__file__).parents[1]
    with theirs:
        subprocess.run(
            [sys.executable, "-m", "omcore.lab.keeper", str(theirs.fileno()), str(lock)],
            pass_fds=(theirs.fileno(), lock),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=code,  # so that -m finds us, installed or not
            check=False,
        )
    return ours, log


def _order(control: socket.socket, plan: Plan, log: int) -> None:
    """Hand the plan to the keeper and wait for its word. Raises LabError."""
    control.settimeout(_UP_SECONDS)
    try:
        control.sendall(json.dumps(asdict(plan)).encode() + b"\n")
        with control.makefile("rb") as lines:
            line = lines.readline()
    except TimeoutError:
        raise LabError(f"the lab did not come up within {_UP_SECONDS:g} s", "is the machine very busy?") from None
    except ConnectionError:
        line = b""
    if not line:
        raise LabError(f"the lab's keeper failed: {_last_line(log)}", "this is a bug: please report it")
    message = json.loads(line)
    if message["kind"] == "error":
        raise LabError(message["text"], message.get("hint", ""))


def _wait_for_engines(directory: Path, plan: Plan) -> None:
    """Wait until each engine's control socket is there. Raises LabError with the last words of one that ended."""
    deadline = time.monotonic() + _UP_SECONDS
    waiting = set(plan.numbers)
    while waiting:
        found = record.read(directory)
        for host in found.hosts if found else ():
            root = f"/proc/{host.pid}/root"
            if host.engine_exit is not None:
                words = _tail(Path(root + ENGINE_LOG))
                raise LabError(f"the engine of {host.name} ended with status {host.engine_exit}: {words}")
            if os.path.exists(root + engine_socket(host_environment(plan.environ, host.name))):
                waiting.discard(host.number)
        if found is None or time.monotonic() > deadline:
            raise LabError("the engines of the lab do not answer", f"their log is {ENGINE_LOG} in each host")
        time.sleep(_STEP_S)


def _stop(directory: Path) -> None:
    """Have the keeper end the lab; without a keeper, end it ourselves. Raises LabError if it will not go."""
    found = record.read(directory)
    for pid, number in ((found.keeper, signal.SIGTERM), (found.holder, signal.SIGKILL)) if found else ():
        _end_process(pid, number)
        if record.wait_until_gone(directory, _GRACE_SECONDS):
            return
    if not record.wait_until_gone(directory, _DOWN_SECONDS):
        raise LabError(f"the lab will not end; its processes hold {directory}", "try again in a moment")


def _end_process(pid: int, number: signal.Signals) -> None:
    """Send keeper or holder a signal, and wait a while for its end."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # gone, or never there: pid 0
        return
    try:
        if name_of(pid) == PROCESS_NAME:  # and not a later process with its number
            signal.pidfd_send_signal(fd, number)
            select.select([fd], [], [], _GRACE_SECONDS)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"


def _last_line(log: int) -> str:
    os.lseek(log, 0, os.SEEK_SET)
    lines = os.read(log, 1 << 16).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
