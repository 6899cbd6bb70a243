"""The process list: what is known, what the filter lets through, in which order, and as which rows. Pure."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from omcore.types import ClusterView, JobId, JobState, JobView, Movable, ProcDelta, ProcKey, ProcView
from omview import format as fmt
from omview.model import job_label, job_sign, live_jobs, movable

ORDERS = ("cpu", "mem", "time", "pid", "user", "node", "command")
EXAMPLES = ("ffmpeg", "!kernel", "cpu>50", "mem>2G", "user=ana", "node=at*", "job")

Test = Callable[["Seen"], bool]


class FilterError(Exception):
    """The filter is not understood; the text says which word and why."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A process together with what is known around it."""

    proc: ProcView
    job: JobView | None
    node: str


class ProcBook:
    """All processes told so far, by key; made of differences."""

    def __init__(self) -> None:
        self.procs: dict[ProcKey, ProcView] = {}
        self.missing: tuple[int, ...] = ()
        self.asked = False  # whether any answer has come yet

    def apply(self, delta: ProcDelta) -> None:
        """Take in one difference."""
        self.asked = True
        self.missing = tuple(sorted(set(self.missing) - set(delta.nodes) | set(delta.missing)))
        if delta.full:
            spoken = set(delta.nodes)
            self.procs = {key: proc for key, proc in self.procs.items() if key.node not in spoken}
        for key in delta.gone:
            self.procs.pop(key, None)
        for proc in delta.changed:
            self.procs[proc.key] = proc

    def clear(self) -> None:
        """Forget everything: the question has changed."""
        self.procs, self.missing, self.asked = {}, (), False


def deputies(view: ClusterView, node: int) -> list[ProcView]:
    """Rows for the jobs of one node that are away: what stayed at home has no figures of its own."""
    names = {each.number: each.name for each in view.nodes}
    return [
        ProcView(
            key=ProcKey(node, 0, int(job.id[:12], 16)),
            ppid=0,
            user=job.user,
            state="S",
            cpu_percent=0.0,
            rss_bytes=0,
            cpu_time_s=0.0,
            threads=0,
            name=job_label(job),
            command=f"{job_label(job)} → {names.get(job.node, job.node)}",
            job=job.id,
            root=True,
        )
        for job in live_jobs(view)
        if job.home == node != job.node
    ]


# ---- filter

_FIELD = re.compile(r"^(!?)(cpu|mem|time|threads|moves|pid|user|node|home|state|name|tty)(>=|<=|!=|>|<|=)(.*)$")
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_FLAGS: dict[str, Test] = {
    "job": lambda seen: seen.job is not None,
    "kernel": lambda seen: seen.proc.command.startswith("["),
    "movable": lambda seen: seen.job is not None and movable(seen.job)[0] == Movable.YES,
    "locked": lambda seen: seen.job is not None and seen.job.locked,
    "guest": lambda seen: seen.job is not None and seen.job.node != seen.job.home,
    "moving": lambda seen: seen.job is not None and seen.job.state is JobState.MOVING,
}
_NUMBERS: dict[str, Callable[[Seen], float]] = {
    "cpu": lambda seen: seen.proc.cpu_percent,
    "mem": lambda seen: float(seen.proc.rss_bytes),
    "time": lambda seen: seen.proc.cpu_time_s,
    "threads": lambda seen: float(seen.proc.threads),
    "moves": lambda seen: float(seen.job.moves if seen.job else 0),
    "pid": lambda seen: float(seen.proc.key.pid),
}
_TEXTS: dict[str, Callable[[Seen], str]] = {
    "user": lambda seen: seen.proc.user,
    "node": lambda seen: seen.node,
    "home": lambda seen: str(seen.job.home) if seen.job else "",
    "state": lambda seen: seen.proc.state,
    "name": lambda seen: seen.proc.name,
    "tty": lambda seen: seen.proc.tty,
}


def parse_filter(text: str) -> Test | None:
    """The test for a filter text; None for an empty one. Words are all needed, `or` separates alternatives.

    Raises FilterError with a sentence that names the word.
    """
    try:
        words = shlex.split(text, posix=True)
    except ValueError:
        words = text.replace('"', " ").replace("'", " ").split()  # a quote still open: being typed
    groups: list[list[Test]] = [[]]
    for word in words:
        if word.lower() == "or":
            groups.append([])
        elif word != "!":
            groups[-1].append(_term(word))
    groups = [group for group in groups if group]
    if not groups:
        return None
    return lambda seen: any(all(test(seen) for test in group) for group in groups)


def _term(word: str) -> Test:
    field = _FIELD.match(word)
    if field:
        negated, name, sign, value = field.groups()
        test = _number_test(word, name, sign, value) if name in _NUMBERS else _text_test(word, name, sign, value)
    else:
        negated, plain = ("!", word[1:]) if word.startswith("!") else ("", word)
        test = _FLAGS.get(plain.lower()) or _plain_test(plain)
    return (lambda seen: not test(seen)) if negated else test


def _number_test(word: str, name: str, sign: str, value: str) -> Test:
    match = re.match(r"^(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?%?$", value.lower())
    if match is None:
        raise FilterError(f"{word}: a number is expected after {sign}")
    limit = float(match[1]) * _UNITS[match[2]]
    get = _NUMBERS[name]
    compare: dict[str, Test] = {
        ">": lambda seen: get(seen) > limit,
        "<": lambda seen: get(seen) < limit,
        ">=": lambda seen: get(seen) >= limit,
        "<=": lambda seen: get(seen) <= limit,
        "=": lambda seen: get(seen) == limit,
        "!=": lambda seen: get(seen) != limit,
    }
    return compare[sign]


def _text_test(word: str, name: str, sign: str, value: str) -> Test:
    if sign not in {"=", "!="}:
        raise FilterError(f"{word}: {name} can be compared with = and != only")
    if not value:
        raise FilterError(f"{word}: a name is expected after {sign}")
    pattern, get = value.lower(), _TEXTS[name]
    if sign == "=":
        return lambda seen: fnmatch.fnmatchcase(get(seen).lower(), pattern)
    return lambda seen: not fnmatch.fnmatchcase(get(seen).lower(), pattern)


def _plain_test(word: str) -> Test:
    needle = word.lower()
    return lambda seen: (
        needle in seen.proc.command.lower()
        or needle in seen.proc.user.lower()
        or needle in seen.node.lower()
        or needle == str(seen.proc.key.pid)
        or (seen.job is not None and needle in seen.job.name.lower())
    )


# ---- order


_KEYS: dict[str, Callable[[Seen], float | str]] = {
    "cpu": lambda seen: -round(seen.proc.cpu_percent),
    "mem": lambda seen: -seen.proc.rss_bytes,
    "time": lambda seen: -seen.proc.cpu_time_s,
    "pid": lambda seen: seen.proc.key.pid,
    "user": lambda seen: seen.proc.user,
    "node": lambda seen: seen.node,
    "command": lambda seen: seen.proc.command.lower(),
}


def sort(seen: Iterable[Seen], order: str, reverse: bool) -> list[Seen]:
    """By one column, ties by node and PID, so that the order is always the same."""
    ranked = sorted(seen, key=lambda each: (each.proc.key.node, each.proc.key.pid))
    return sorted(ranked, key=_KEYS[order], reverse=reverse)


def keep_order(seen: list[Seen], before: list[ProcKey]) -> list[Seen]:
    """The same processes in the order they had; new ones last."""
    place = {key: index for index, key in enumerate(before)}
    return sorted(seen, key=lambda each: place.get(each.proc.key, len(place)))


def tree(seen: list[Seen]) -> list[tuple[Seen, str]]:
    """Each process under its parent, siblings in the given order, with the branch that is drawn before it."""
    present = {(each.proc.key.node, each.proc.key.pid) for each in seen}
    children: dict[tuple[int, int], list[Seen]] = {}
    roots: list[Seen] = []
    for each in seen:
        parent = (each.proc.key.node, each.proc.ppid)
        if each.proc.ppid and parent in present and each.proc.ppid != each.proc.key.pid:
            children.setdefault(parent, []).append(each)
        else:
            roots.append(each)
    rows: list[tuple[Seen, str]] = []
    done: set[ProcKey] = set()

    def walk(each: Seen, lead: str, branch: str) -> None:
        if each.proc.key in done:
            return
        done.add(each.proc.key)
        rows.append((each, lead + branch))
        below = children.get((each.proc.key.node, each.proc.key.pid), [])
        inner = lead + {"": "", "├ ": "│ ", "└ ": "  "}[branch]
        if len(inner) > 16:
            inner = inner[:16]  # deeper levels share a column; the command must stay readable
        for index, child in enumerate(below):
            walk(child, inner, "└ " if index == len(below) - 1 else "├ ")

    for each in (*roots, *seen):  # the second time: what is in a circle of parents, by a reused PID
        walk(each, "", "")
    return rows


# ---- rows


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, as words; tokens say how each looks."""

    key: ProcKey
    job: JobId | None
    sign: tuple[str, str]
    pid: str
    user: str
    node: tuple[str, str]
    home: str
    cpu: tuple[str, str]
    mem: tuple[str, str]
    time: str
    moves: str
    move: tuple[str, str]
    branch: str
    program: tuple[str, str]
    arguments: str


def see(procs: Iterable[ProcView], view: ClusterView, test: Test | None, jobs_only: bool = False) -> list[Seen]:
    """Join processes with their jobs and nodes, and keep what the filter lets through."""
    names = {node.number: node.name for node in view.nodes}
    jobs = {job.id: job for job in view.jobs}
    found = []
    for proc in procs:
        job = jobs.get(proc.job) if proc.job else None
        if jobs_only and (job is None or not proc.root):
            continue
        seen = Seen(proc, job, names.get(proc.key.node, str(proc.key.node)))
        if test is None or test(seen):
            found.append(seen)
    return found


def row(seen: Seen, branch: str, names: Mapping[int, str], here: int | None, stale: bool = False) -> Row:
    """The words of one line; `here` is the node whose list this is, None for all nodes."""
    proc, job = seen.proc, seen.job
    deputy = proc.key.pid == 0
    idle = proc.cpu_percent < 1 and job is None
    quiet = "faint" if deputy else "muted" if idle else "text"
    program, _, arguments = proc.command.partition(" ")
    away = job is not None and job.home != proc.key.node
    busy = "text b" if proc.cpu_percent >= 10 else quiet if proc.cpu_percent >= 1 else "faint"
    figures = "?" if stale else ""
    return Row(
        key=proc.key,
        job=job.id if job else None,
        sign=("~", "busy") if stale else job_sign(job, here),
        pid="" if deputy else str(proc.key.pid),
        user=proc.user,
        node=(seen.node, "guest" if away else quiet),
        home=names.get(job.home, str(job.home)) if job and proc.root else "",
        cpu=("", quiet) if deputy else (figures or fmt.cpu(proc.cpu_percent), "muted i" if stale else busy),
        mem=("", quiet) if deputy else (figures or fmt.mem(proc.rss_bytes), quiet),
        time="" if deputy else fmt.cpu_time(proc.cpu_time_s),
        moves=str(job.moves) if job and job.moves and proc.root else fmt.ZERO,
        move=("away", "own") if deputy else movable(job),
        branch=branch,
        program=(program, "muted" if idle or deputy else "text b"),
        arguments=arguments,
    )
