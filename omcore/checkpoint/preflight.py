""" "Can it move?", answered before anything is touched.

    findings = examine(root_pid)                    # at the source, blocking
    answer, checks = judge(findings)                # pure
    checks += check_needs(needs_of(findings), ...)  # at the destination, as the job's user

CRIU refuses most of what is refused here too, harmlessly but after a freeze and with its own words; three things it
does not see at all and moves wrongly: strays beside the tree, memory shared with others, dead session leaders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from omcore.checkpoint.findings import Findings, Held, examine
from omcore.checkpoint.needs import NeededFile, Needs, check_needs, needs_of
from omcore.text import clean
from omcore.types import Check, Movable

__all__ = ["Findings", "NeededFile", "Needs", "check_needs", "examine", "judge", "needs_of"]

GHOST_LIMIT_BYTES = 256 * 2**20
"""Deleted files up to this size travel inside the image (criu --ghost-limit 256M)."""

_NEVER = frozenset({"io_uring", "namespaces", "chroot", "setuid", "strange_fd"})
_SHOWN = 4  # of one kind; the rest is counted
_SUPPORTED_FAMILIES = frozenset({"tcp", "udp", "unix", "netlink", "packet", "raw"})


def judge(
    findings: Findings,
    tcp: Literal["refuse", "close", "keep"] = "refuse",
    ghost_limit_bytes: int = GHOST_LIMIT_BYTES,
) -> tuple[Movable, tuple[Check, ...]]:
    """YES, FIX (the checks say what to change) or NO (this program never can), and each reason in plain words.

    `tcp` is what the move would do with established connections: nothing (so they forbid it), close them, or keep
    them because the job's own address moves along.
    """
    if not findings.alive:
        return Movable.NO, (Check(False, True, "gone", f"{_named(findings)} has ended"),)
    checks = [
        *_kinds(findings),
        *_surroundings(findings),
        *_sockets(findings, tcp),
        *_files(findings, ghost_limit_bytes),
        *_users(findings),
        *_leaders(findings),
    ]
    fatal = [check for check in checks if check.fatal]
    if not fatal:
        return Movable.YES, (_summary(findings), *checks)
    checks.sort(key=lambda check: not check.fatal)
    return (Movable.NO if any(c.code in _NEVER for c in fatal) else Movable.FIX), tuple(checks)


def _summary(findings: Findings) -> Check:
    processes = len(findings.tasks)
    text = (
        f"{_named(findings)}: {_count(processes, 'process', 'processes')}, {_count(findings.threads, 'thread')}, "
        f"{findings.rss_bytes / 2**20:.0f} MiB"
    )
    return Check(True, False, "tree", text)


def _kinds(findings: Findings) -> Iterator[Check]:
    """Things CRIU cannot save."""
    yield from _each(
        "unreadable", findings.unreadable, "{owner} may not be read: {thing}", "Only its owner or root can move it."
    )
    yield from _each(
        "io_uring",
        findings.io_uring,
        "{owner} uses io_uring, which cannot be saved",
        "Some programs can run without it.",
    )
    yield from _each("strange_fd", findings.strange, "{owner} holds a kernel object that cannot be saved: {thing}")
    yield from _each(
        "device",
        [Held(held.owner, held.thing + _device_kind(held.thing)) for held in findings.devices],
        "{owner} holds {thing}",
        "It can when it runs without that device.",
    )
    for task in findings.tasks:
        name = clean(f"{task.name} {task.pid}", 40)
        if task.tracer:
            text = f"{name} is traced by {clean(task.tracer, 40)}"
            yield Check(False, True, "traced", text, "End the debugger first.")
        if task.seccomp and findings.rootless:
            text = f"{name} has a seccomp filter, which cannot be saved without root"
            yield Check(False, True, "seccomp", text, "A system engine can move it.")
    if findings.rootless:
        hint = "A system engine can move it."
        yield from _each("inotify", findings.notify, "{owner} watches files ({thing}), not saved without root", hint)


def _surroundings(findings: Findings) -> Iterator[Check]:
    """Namespaces, processes beside the tree, memory shared with others."""
    by_owner: dict[str, list[str]] = {}
    for held in findings.namespaces:
        by_owner.setdefault(held.owner, []).append(held.thing)
    inner = [Held(owner, ", ".join(kinds)) for owner, kinds in by_owner.items()]
    yield from _each("namespaces", inner, "{owner} made namespaces of its own ({thing}), as containers do")
    yield from _each("chroot", findings.chroots, "{owner} changed its root directory to {thing}")
    yield from _each(
        "stray",
        findings.strays,
        "{owner} went into the background beside the job and would be left behind",
        "End it, or start it again so that it stays in the foreground.",
    )
    yield from _each(
        "shared_memory",
        findings.sharers,
        "{owner} is outside the job and shares memory with it: {thing}",
        "Run both as one job, or end the other.",
    )
    yield from _each(
        "sysv", findings.sysv, "{owner} uses System V shared memory of the whole machine", "Run it as a job of its own."
    )


def _sockets(findings: Findings, tcp: str) -> Iterator[Check]:
    families = [Held(s.owner, s.kind) for s in findings.sockets if s.kind not in _SUPPORTED_FAMILIES]
    yield from _each("socket_kind", families, "{owner} has a socket that cannot be saved: {thing}")
    outside = [Held(s.owner, s.peer) for s in findings.sockets if s.kind == "unix" and s.external]
    hint = "Desktop, DBus and ssh-agent connections cannot move; it can when it runs without."
    yield from _each("unix_external", outside, "{owner} is connected to {thing} on this node", hint)
    connected = [Held(s.owner, s.peer) for s in findings.sockets if s.kind == "tcp" and s.state == "established"]
    if tcp == "refuse":
        hint = "It can move when that connection is closed."
        yield from _each("tcp_established", connected, "{owner} has an open connection to {thing}", hint)
    elif tcp == "close":
        yield from _each("tcp_closes", connected, "The connection of {owner} to {thing} will break", fatal=False)
    listening = [Held(s.owner, f"port {s.port}") for s in findings.sockets if s.state == "listen" and not s.own_net]
    text = "{owner} listens on {thing}: after the move it is reached at the other node"
    yield from _each("tcp_listen", listening, text, fatal=False)


def _files(findings: Findings, ghost_limit_bytes: int) -> Iterator[Check]:
    foreign = [Held(file.owner, file.path) for file in findings.files if file.foreign_mount]
    yield from _each("foreign_mount", foreign, "{owner} holds {thing}, opened outside its pod")
    ghosts = [
        Held(file.owner, f"{file.path} ({file.size / 2**20:.0f} MiB)")
        for file in findings.files
        if file.deleted and file.size > ghost_limit_bytes
    ]
    limit = f"{ghost_limit_bytes / 2**20:.0f} MiB"
    yield from _each("ghost_limit", ghosts, "{owner} holds a deleted file of more than " + limit + ": {thing}")


def _users(findings: Findings) -> Iterator[Check]:
    """Programs that run as somebody else. Root's own jobs may do so."""
    root = next((task for task in findings.tasks if task.pid == findings.root_pid), None)
    if root is None or not root.uids:
        return
    owner = root.uids[0]
    for task in findings.tasks:
        others = sorted({uid for uid in task.uids if uid != owner})
        name = clean(f"{task.name} {task.pid}", 40)
        if others and owner != 0:
            text = f"{name} runs with the rights of another user (uid {others[0]})"
            yield Check(False, True, "setuid", text)
        elif others and findings.rootless:
            text = f"{name} runs as uid {others[0]}, which has no meaning outside its pod"
            yield Check(False, True, "foreign_uid", text, "A system engine can move it.")


def _leaders(findings: Findings) -> Iterator[Check]:
    """A process whose session leader has ended moves once; then it is no longer below the job's root."""
    pids = {task.pid for task in findings.tasks}
    home = next((task.session for task in findings.tasks if task.pid == findings.root_pid), 0)
    for task in findings.tasks:
        # 0: the session was made outside the namespace we see.
        if task.session not in pids and task.session not in (home, 0):
            text = f"{clean(f'{task.name} {task.pid}', 40)} has lost its session leader: it can move only once"
            yield Check(False, False, "leaderless", text)


def _each(code: str, things: Iterable[Held], text: str, hint: str = "", fatal: bool = True) -> Iterator[Check]:
    """One check for each thing, not too many."""
    things = list(things)
    for held in things[:_SHOWN]:
        sentence = text.format(owner=clean(held.owner, 40), thing=clean(held.thing, 200))
        yield Check(False, fatal, code, sentence, hint)
    if len(things) > _SHOWN:
        yield Check(False, fatal, code, f"… and {len(things) - _SHOWN} more of the same", hint)


def _device_kind(path: str) -> str:
    if path.startswith(("/dev/dri/", "/dev/nvidia", "/dev/kfd")):
        return " (GPU)"
    return {"/dev/kvm": " (virtual machines)", "/dev/fuse": " (file system)"}.get(path, "")


def _named(findings: Findings) -> str:
    return clean(f"{findings.name or 'the job'} {findings.root_pid}", 40)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
