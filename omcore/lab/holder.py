"""The holder: PID 1 of a lab. Its network namespace is the switch, the hosts' inits are its children.

Because it is PID 1 of a PID namespace, nothing of the lab survives it: the kernel kills every process below,
and namespaces, mounts and links go with the last process in them.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from omcore.errors import LabError, OmError
from omcore.lab import cgroups, host, record
from omcore.lab import namespaces as ns
from omcore.lab.cluster import Plan, host_name, provision_states
from omcore.lab.plumbing import ended_children, leave, receive, report, run_ip
from omcore.lab.record import LabStatus

_STAGE = "stage"


def hold(plan: Plan, status: LabStatus, channel: socket.socket) -> NoReturn:
    """Make the switch and the hosts, then reap until the keeper goes. Called in the child that is PID 1."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the keeper's; ignored by the kernel for a PID 1
    code = 1
    try:
        inits = _build(plan, status, channel)
        _reap(inits, channel)
        _clean_up(plan)
        code = 0
    except OmError as error:
        report(channel, kind="error", text=error.text, hint=error.hint)
    except OSError as error:
        report(channel, kind="error", text=f"{error.filename or 'the kernel'}: {error.strerror}")
    finally:
        leave(code)


def _build(plan: Plan, status: LabStatus, channel: socket.socket) -> dict[int, int]:
    """All hosts, wired and let go: their numbers by the pid of their init (in our own numbering)."""
    ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC)
    ns.mount("none", "/", "none", ns.MS_REC | ns.MS_PRIVATE)
    ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    stage = _prepare_states(plan)
    doors = {number: _spawn(plan, status, number, channel) for number in plan.numbers}
    inits = {_pid_behind(door): number for number, door in doors.items()}
    _wire(plan, inits)
    for door in doors.values():
        door.send(b"go")
    for door in doors.values():
        door.recv(1)  # comes when that host has taken its state from the stage, or is gone
        door.close()
    if stage:
        ns.unmount(stage)
    return inits


def _prepare_states(plan: Plan) -> str:
    """Keys for all engines, on a tmpfs of our own; "" when some other program plays the engine."""
    if plan.engine_command:
        return ""
    stage = os.path.join(plan.directory, _STAGE)
    os.mkdir(stage, 0o700)
    ns.mount("tmpfs", stage, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=0700")
    child = os.fork()
    if child == 0:  # in a child, which takes the memory of the crypto library with it
        code = 1
        try:
            provision_states(Path(stage), [host_name(number) for number in plan.numbers])
            code = 0
        finally:
            leave(code)
    if os.waitpid(child, 0)[1] != 0:
        raise LabError("the keys of the engines could not be made", "see the messages above")
    return stage


def _spawn(plan: Plan, status: LabStatus, number: int, channel: socket.socket) -> socket.socket:
    """Fork the init of a host into namespaces of its own; returns the door through which it waits for us."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    groups = status.hosts[number - 1].cgroup
    child = os.fork()
    if child:
        theirs.close()
        return ours
    code = 1
    try:
        cgroups.join(cgroups.open_groups(groups))
        flags = ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC | ns.CLONE_NEWPID
        ns.unshare(flags)
        if os.fork() == 0:
            host.live(plan, number, channel, theirs)
        code = 0
    except OSError as error:
        text = f"the namespaces of {host_name(number)} cannot be made: {error.strerror}"
        report(channel, kind="error", text=text)
    finally:
        leave(code)


def _pid_behind(door: socket.socket) -> int:
    """The pid of a host's init, as the kernel tells it with its first byte."""
    data, pid = receive(door)
    if not data:
        raise LabError("a host of the lab ended before it had begun", "try again")
    return pid


def _wire(plan: Plan, inits: dict[int, int]) -> None:
    """A bridge here, and from it one link into each host, named eth0 there."""
    lines = ["link set lo up", "link add switch type bridge", "link set switch up"]
    for pid, number in inits.items():
        lines.append(f"link add port{number} type veth peer name eth0 netns {pid}")
        lines.append(f"link set port{number} master switch up")
    run_ip(plan.ip, lines)


def _reap(inits: dict[int, int], channel: socket.socket) -> None:
    """Wait for ended children; returns when the keeper is gone."""
    ring, bell = socket.socketpair()
    for end in (ring, bell):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring.fileno(), warn_on_full_buffer=False)
    with selectors.DefaultSelector() as selector:
        selector.register(bell, selectors.EVENT_READ)
        selector.register(channel, selectors.EVENT_READ)
        while True:
            for pid in ended_children():
                if pid in inits:
                    report(channel, kind="host-ended", number=inits.pop(pid))
            for key, _ in selector.select():
                if key.fileobj is channel:  # the keeper says nothing: this is its end
                    return
                bell.recv(4096)


def _clean_up(plan: Plan) -> None:
    """The keeper was killed: do its work."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    record.sweep(Path(plan.directory))
