"""What a job needs at its destination, small enough for one message, and the check of it there.

`check_needs` stats paths a peer names: run it as the job's user, so that it tells nobody what he could not see.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import stat as st
from collections.abc import Iterator
from dataclasses import dataclass

from omcore.checkpoint.elf import build_id
from omcore.checkpoint.findings import Findings
from omcore.text import clean
from omcore.types import Check

ENCODED_LIMIT_BYTES = 200_000
"""A `Needs` never encodes to more than this."""

_FILE_OVERHEAD_BYTES = 90  # build-id, size, mode and framing in any reasonable encoding
_MOST_FILES = 4096
_MEMORY_FACTOR = 2  # the image in tmpfs and the restored pages stand side by side
_SPARE_BYTES = 64 * 2**20
_SHOWN = 6
_PRIVATE = ("/proc/", "/sys/", "/dev/")  # each pod has its own
_LEAST_CRIU = (4, 2)


@dataclass(frozen=True, slots=True)
class NeededFile:
    """A path that must be there; -1 and "" are not compared."""

    path: str
    size: int = -1
    mode: int = -1  # permission bits and type
    build_id: str = ""


@dataclass(frozen=True, slots=True)
class Needs:
    """All that the destination must have, in plain fields."""

    name: str
    arch: str
    uid: int
    gid: int
    user: str
    rss_bytes: int
    criu: tuple[int, ...]  # of the source
    files: tuple[NeededFile, ...]
    directories: tuple[str, ...]
    ports: tuple[int, ...] = ()  # TCP listeners in the shared network namespace
    left_out: int = 0  # files that found no room in the message


def needs_of(findings: Findings, criu: tuple[int, ...] = ()) -> Needs:
    """Condense what `examine` found. Deleted files, memory files and a pod's own /proc, /sys, /dev are left out."""
    root = next((task for task in findings.tasks if task.pid == findings.root_pid), None)
    uid = root.uids[0] if root and root.uids else 0
    wanted: dict[str, NeededFile] = {}
    for file in findings.files:
        if not file.deleted and not file.foreign_mount and not file.path.startswith(_PRIVATE):
            fixed = st.S_ISREG(file.mode) and not file.writable
            wanted[file.path] = NeededFile(file.path, file.size if fixed else -1, file.mode)
    for mapped in findings.mapped:
        if mapped.size >= 0 and not mapped.path.startswith(_PRIVATE):
            wanted[mapped.path] = NeededFile(mapped.path, mapped.size, mapped.mode, mapped.build_id)
    # Programs and libraries first: they are what differs between machines, and they fit.
    order = sorted(wanted.values(), key=lambda file: (not file.build_id, file.path))
    directories = tuple(sorted(set(findings.directories)))[:64]
    room = ENCODED_LIMIT_BYTES - 1000 - sum(len(os.fsencode(path)) + 8 for path in directories)
    files: list[NeededFile] = []
    for need in order[:_MOST_FILES]:
        room -= len(os.fsencode(need.path)) + _FILE_OVERHEAD_BYTES
        if room < 0:
            break
        files.append(need)
    return Needs(
        name=clean(findings.name, 64),
        arch=findings.arch,
        uid=uid,
        gid=root.gid if root else 0,
        user=_user(uid),
        rss_bytes=findings.rss_bytes,
        criu=criu,
        files=tuple(files),
        directories=directories,
        ports=tuple(sorted({s.port for s in findings.sockets if s.port and not s.own_net}))[:64],
        left_out=len(order) - len(files),
    )


def check_needs(
    needs: Needs,
    criu: tuple[int, ...] = (4, 2),
    mem_free_bytes: int | None = None,
    image_dir: str = "",
    root: str = "",
) -> tuple[Check, ...]:
    """Compare with this machine; blocking, about 10 us a file. No checks at all means: nothing is missing.

    `criu` is the version here, () for none; `mem_free_bytes` what a guest may use (None: the machine's available
    memory); `image_dir` the tmpfs for images ("": not compared); `root` is put before every path when the job will
    run in another tree, such as its home's file system. Never raises for what `needs` holds.
    """
    return (
        *_machine(needs, criu),
        *_room(needs, mem_free_bytes, image_dir),
        *_directories(needs, root),
        *_summed("file", _files(needs, root)),
        *_ports(needs),
    )


def _machine(needs: Needs, criu: tuple[int, ...]) -> Iterator[Check]:
    arch = os.uname().machine
    if needs.arch != arch:
        yield Check(False, True, "arch", f"This node is {arch}, the job runs on {clean(needs.arch, 32)}")
    if not criu:
        hint = "omview doctor says how to get it."
        yield Check(False, True, "criu_missing", "There is no CRIU on this node", hint)
    elif criu < needs.criu or criu < _LEAST_CRIU:
        least = max(_LEAST_CRIU, needs.criu)
        text = f"CRIU {_dotted(criu)} here is older than {_dotted(least)}, which it takes"
        yield Check(False, True, "criu_old", text, "Install the same version here.")
    if needs.uid != 0:
        try:
            pwd.getpwuid(needs.uid)
        except (KeyError, OverflowError):
            text = f"User {clean(needs.user, 32)} (uid {needs.uid}) does not exist here"
            yield Check(False, True, "user_missing", text, "Make the user with the same number.")


def _room(needs: Needs, mem_free_bytes: int | None, image_dir: str) -> Iterator[Check]:
    free = _available_memory() if mem_free_bytes is None else mem_free_bytes
    want = _MEMORY_FACTOR * needs.rss_bytes + _SPARE_BYTES
    if free < want:
        text = f"Too little memory: {_gib(free)} free, about {_gib(want)} needed while it arrives"
        yield Check(False, True, "no_memory", text, "Choose another node, or end something there.")
    if image_dir:
        yield from image_room(needs.rss_bytes, image_dir)


def image_room(rss_bytes: int, image_dir: str) -> Iterator[Check]:
    """What says that the image of a job of this size has no room in `image_dir` on this node; both ends need it."""
    try:
        s = os.statvfs(image_dir)
    except OSError as error:
        yield Check(False, True, "no_room", f"No place for images: {clean(error.strerror or '', 80)}")
        return
    have = s.f_bavail * s.f_frsize
    if have < rss_bytes + rss_bytes // 10:
        text = f"Too little room for the image: {_gib(have)} free, {_gib(rss_bytes)} needed"
        yield Check(False, True, "no_room", text, f"Free some: {image_dir} is where images wait.")


def _directories(needs: Needs, root: str) -> Iterator[Check]:
    for path in needs.directories:
        s = _stat(root, path)
        if s is None or not st.S_ISDIR(s.st_mode):
            text = f"Its directory {clean(path, 200)} is not here"
            yield Check(False, True, "cwd_missing", text, "Make it, or use a shared file system.")


def _files(needs: Needs, root: str) -> Iterator[Check]:
    for file in needs.files:
        s = _stat(root, file.path)
        name = clean(file.path, 200)
        if s is None:
            yield Check(False, True, "file_missing", f"{name} is not here", "Copy it, or use a shared file system.")
        elif file.mode >= 0 and s.st_mode != file.mode:
            text = f"{name} has other permissions here: {st.filemode(s.st_mode)}, not {st.filemode(file.mode)}"
            yield Check(False, True, "file_mode", text)
        elif file.size >= 0 and s.st_size != file.size:
            text = f"{name} has another size here: {s.st_size}, not {file.size} bytes"
            yield Check(False, True, "file_size", text, "Install the same version here.")
        elif file.build_id and build_id(root + file.path, s) not in ("", file.build_id):
            text = f"{name} is another build here"
            yield Check(False, True, "file_build", text, "Install the same version here.")
    if needs.left_out:
        yield Check(False, False, "file_unchecked", f"{needs.left_out} more files could not be compared")


def _ports(needs: Needs) -> Iterator[Check]:
    for port in needs.ports:
        if not 0 < port < 65536:
            continue
        try:
            # The wildcard of IPv6 covers IPv4 too; a listener there is refused even with REUSEADDR.
            with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("", port))
        except OSError as error:
            # Privileged ports and machines without IPv6 are left for CRIU to find out.
            if error.errno == errno.EADDRINUSE:
                yield Check(False, True, "port_taken", f"Port {port} is taken here")


def _summed(what: str, checks: Iterator[Check]) -> Iterator[Check]:
    """The first few, then how many more."""
    seen = list(checks)
    yield from seen[:_SHOWN]
    if len(seen) > _SHOWN:
        fatal = any(check.fatal for check in seen)
        text = f"… and {len(seen) - _SHOWN} more {what}s are missing or differ"
        yield Check(False, fatal, f"{what}_more", text)


def _stat(root: str, path: str) -> os.stat_result | None:
    if not path.startswith("/") or "\0" in path:
        return None
    try:
        return os.stat(root + path)
    except (OSError, ValueError):
        return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _available_memory() -> int:
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
