"""The process list of this node, as differences, while somebody looks at it.

Cost is one open, read and close a process and second; what has not changed at all is not even parsed. Command
line and user are read when a process is new or has changed its name (exec), the user again every minute or so.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, replace

from omcore.sensors.proc import PAGE_BYTES, TICKS_PER_S, Stat, parse_stat, read_bytes
from omcore.text import COMMAND_LIMIT, USER_LIMIT, clean
from omcore.types import JobId, ProcKey, ProcView

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_NAME_LIMIT = 64  # names of kernel workers are longer than the 15 characters of a program's
_SAME_CPU = 0.5  # shown without decimals
_SAME_RSS = 0.01
_SAME_RSS_BYTES = 512 * 1024
_REREAD_SCANS = 64


@dataclass(slots=True)
class _Seen:
    """What is kept of one process."""

    path: str
    raw: bytes
    stat: Stat
    at: float
    view: ProcView


class ProcessSensor:
    """Keeps the full list of processes and tells what changed. Not thread-safe; blocking, about 20 us a process."""

    def __init__(self, node: int) -> None:
        self._node = node
        self._seen: dict[int, _Seen] = {}
        self._roots: Mapping[int, JobId] = {}
        self._users: dict[int, str] = {}
        self._jobs: dict[int, tuple[JobId, bool]] = {}
        self._scans = 0
        self.skipped = False
        """The last scan could not read /proc (no descriptors left): figures are those of the one before."""

    def mark(self, roots: Mapping[int, JobId]) -> None:
        """From the next scan on, these PIDs are roots of jobs: all processes below belong to the job."""
        self._roots = dict(roots)

    def full(self) -> tuple[ProcView, ...]:
        """All processes as of the last scan."""
        return tuple(seen.view for seen in self._seen.values())

    def forget(self) -> None:
        """Nobody looks any more: drop the list. The next scan gives everything as changed."""
        self._seen.clear()

    def scan(self, now: float) -> tuple[tuple[ProcView, ...], tuple[ProcKey, ...]]:
        """Read /proc at `now` (monotonic seconds): what changed by more than a table shows, and what is gone."""
        self.skipped = False
        try:
            pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        except OSError:
            self.skipped = True
            return (), ()
        self._scans += 1
        seen = self._seen
        gone = [seen.pop(pid).view.key for pid in seen.keys() - set(pids)]
        fresh: list[int] = []
        for pid in pids:
            old = seen.get(pid)
            path = old.path if old else f"/proc/{pid}/stat"
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._drop(pid, gone)
                continue
            except OSError:
                self.skipped = True
                continue
            try:
                raw = os.read(fd, 1024)
            except ProcessLookupError:
                self._drop(pid, gone)
                continue
            finally:
                os.close(fd)
            # An idle process gives the same bytes again; but once more after it was busy, to show it idle.
            if old is None or raw != old.raw or old.view.cpu_percent:
                self._note(pid, path, raw, old, now, gone, fresh)
            elif (self._scans + pid) % _REREAD_SCANS == 0:
                fresh.append(pid)
                self._describe(old)
            else:
                old.at = now
        self._jobs = self._job_members()
        return self._changed(fresh), tuple(gone)

    def _drop(self, pid: int, gone: list[ProcKey]) -> None:
        old = self._seen.pop(pid, None)
        if old is not None:
            gone.append(old.view.key)

    def _note(
        self,
        pid: int,
        path: str,
        raw: bytes,
        old: _Seen | None,
        now: float,
        gone: list[ProcKey],
        fresh: list[int],
    ) -> None:
        """Take over a reading that differs from the last one."""
        try:
            stat = parse_stat(raw)
        except ValueError:
            return
        if old is not None and old.stat.start != stat.start:  # the PID was used again
            gone.append(old.view.key)
            old = None
        if old is None:
            key = ProcKey(self._node, pid, stat.start)
            entry = _Seen(path, raw, stat, now, _view(key, stat, 0.0))
            self._seen[pid] = entry
            self._describe(entry)
            fresh.append(pid)
            return
        ticks = stat.utime + stat.stime - old.stat.utime - old.stat.stime
        span = now - old.at
        cpu = max(0.0, 100.0 * ticks / TICKS_PER_S / span) if span > 0 else old.view.cpu_percent
        renamed = stat.comm != old.stat.comm
        old.raw, old.stat, old.at = raw, stat, now
        if renamed or _differs(old.view, stat, cpu):
            new = _view(old.view.key, stat, cpu)
            old.view = replace(new, user=old.view.user, command=old.view.command, job=old.view.job, root=old.view.root)
            fresh.append(pid)
        if renamed:
            self._describe(old)

    def _describe(self, entry: _Seen) -> None:
        """Read user and command line."""
        pid, stat = entry.view.key.pid, entry.stat
        command = ""
        if not stat.flags & _KERNEL_THREAD:
            data = read_bytes(f"/proc/{pid}/cmdline", COMMAND_LIMIT) or b""
            command = data.rstrip(b"\0").replace(b"\0", b" ").decode(errors="surrogateescape")
        command = clean(command, COMMAND_LIMIT) or f"[{entry.view.name}]"
        entry.view = replace(entry.view, command=command, user=self._user(pid) or entry.view.user)

    def _user(self, pid: int) -> str:
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            return ""
        if uid not in self._users:
            try:
                name = pwd.getpwuid(uid).pw_name
            except KeyError:
                name = str(uid)
            self._users[uid] = clean(name, USER_LIMIT)
        return self._users[uid]

    def _job_members(self) -> dict[int, tuple[JobId, bool]]:
        """Which process belongs to which job: the innermost root above it decides."""
        if not self._roots:
            return {}
        below: dict[int, list[int]] = {}
        for pid, entry in self._seen.items():
            below.setdefault(entry.stat.ppid, []).append(pid)
        members: dict[int, tuple[JobId, bool]] = {}
        for root, job in self._roots.items():
            if root not in self._seen:
                continue
            members[root] = job, True
            todo = [root]
            for pid in todo:
                for child in below.get(pid, ()):
                    if child not in self._roots:
                        members[child] = job, False
                        todo.append(child)
        return members

    def _changed(self, fresh: list[int]) -> tuple[ProcView, ...]:
        changed = set(fresh)
        for pid, entry in self._seen.items():
            job, root = self._jobs.get(pid, (None, False))
            if entry.view.job != job or entry.view.root != root:
                entry.view = replace(entry.view, job=job, root=root)
                changed.add(pid)
        return tuple(self._seen[pid].view for pid in changed if pid in self._seen)


def _differs(view: ProcView, stat: Stat, cpu: float) -> bool:
    """Would a table show it differently?"""
    rss = stat.rss_pages * PAGE_BYTES
    return (
        abs(cpu - view.cpu_percent) >= _SAME_CPU
        or (cpu == 0.0) != (view.cpu_percent == 0.0)
        or abs(rss - view.rss_bytes) >= max(_SAME_RSS_BYTES, _SAME_RSS * view.rss_bytes)
        or stat.state != view.state
        or stat.threads != view.threads
        or stat.ppid != view.ppid
        or stat.nice != view.nice
        or int((stat.utime + stat.stime) / TICKS_PER_S) != int(view.cpu_time_s)
    )


def _view(key: ProcKey, stat: Stat, cpu: float) -> ProcView:
    return ProcView(
        key=key,
        ppid=stat.ppid,
        user="",
        state=stat.state,
        cpu_percent=cpu,
        rss_bytes=stat.rss_pages * PAGE_BYTES,
        cpu_time_s=(stat.utime + stat.stime) / TICKS_PER_S,
        threads=stat.threads,
        name=clean(stat.comm, _NAME_LIMIT),
        command="",
        tty=_tty(stat.tty_nr),
        nice=stat.nice,
    )


def _tty(number: int) -> str:
    """The usual name of a controlling terminal from its device number."""
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return f"{major}:{minor}" if number else ""
