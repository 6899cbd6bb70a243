"""A client with invented, fixed data: four nodes, 400 processes, jobs, moves and events, and a clock that stands still."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random

from omcore.errors import EngineUnreachable, Refused
from omcore.types import (
    BoardRow,
    BoardView,
    Check,
    ClusterView,
    EventView,
    Forecast,
    JobId,
    JobState,
    JobView,
    LoadSample,
    Movable,
    MovePlan,
    MoveResult,
    MoveView,
    NetView,
    NodeId,
    NodeInfo,
    NodeState,
    NodeView,
    ProcDelta,
    ProcKey,
    ProcView,
    Series,
    Step,
)  # fmt: skip

NOW = 1_795_340_467.0  # a Sunday in November 2026
GIB = 1024**3
MIB = 1024**2
NAMES = ("atlas", "birch", "cedar", "delta")


def clock() -> float:
    """The fixed time of all pictures."""
    return NOW


def job_id(number: int) -> JobId:
    """A job id that is easy to tell apart."""
    return JobId(f"{number:032x}")


def _job(
    number: int, name: str, command: str, user: str, home: int, node: int, cpu: float, rss: float, **more: object
) -> JobView:
    return JobView(
        id=job_id(number), name=name, command=tuple(command.split()), user=user, home=home, node=node, pid=number,
        state=JobState.RUNNING, cpu_percent=cpu, rss_bytes=int(rss * GIB), tasks=4, age_s=2580.0, stdio="pty",
        attached=True, movable=Movable.YES,
    ) if not more else replace(_job(number, name, command, user, home, node, cpu, rss), **more)  # type: ignore[arg-type]  # fmt: skip


JOBS = (
    _job(31207, "ffmpeg", "ffmpeg -i /srv/video/talk-2026-11-20.mkv -c:v libx265 -preset slow /srv/video/talk.mp4", "ana", 1, 1, 398, 1.2, moves=1),
    _job(31177, "povray", "povray +Iscene.pov +W3840 +H2160 +Oout.png", "ana", 1, 2, 392, 0.9, moves=2),
    _job(31290, "blender", "blender -b ring.blend -f 1..120", "ana", 1, 1, 188, 3.1, movable=Movable.FIX, why_not="it holds /dev/dri/card0 (GPU): it can move when it runs without the GPU"),
    _job(28340, "python", "python train.py --epochs 90 --out run-14", "ben", 1, 1, 201, 9.8),
    _job(48211, "blastp", "blastp -query q.fa -db nr -num_threads 2 -out hits.tsv", "ben", 1, 3, 196, 2.2, state=JobState.MOVING, movable=Movable.MOVING, moves=1),
    _job(28399, "python", "python train.py --epochs 90 --polish --out run-15", "ben", 1, 1, 97, 0.4),
    _job(9188, "make", "make -j6 all", "chen", 2, 2, 301, 1.1),
    _job(9260, "octave", "octave --eval sweep(40)", "chen", 2, 2, 98, 0.4),
    _job(9263, "gnuplot", "gnuplot render.plt", "chen", 2, 4, 97, 0.2, moves=3),
    _job(1410, "mysqld", "mysqld --datadir=/srv/db --socket=/run/mysqld/mysqld.sock", "mysql", 1, 1, 12, 2.4, locked=True, movable=Movable.LOCKED),
    _job(2204, "xz", "xz -9 -T1 dump.sql", "root", 1, 2, 99, 0.7, moves=1),
    _job(77120, "python", "python -m http.server 8000", "ana", 4, 4, 1, 0.018, movable=Movable.FIX, why_not="it listens on port 8000"),
    _job(3302, "gzip", "gzip -9 access.log", "root", 3, 3, 11, 0.008),
)  # fmt: skip


def sample(number: int) -> LoadSample:
    """The figures of one node, as in the pictures."""
    load, own, guest, cpu, wait, used, total, cores, speed, up, inn, out, counts = {
        1: (2.31, 1.6, 0.0, 99, 38, 41.2, 64, 8, 1.0, 41 * 86400, 12e6, 88e6, (6, 0, 3)),
        2: (0.94, 0.42, 0.37, 88, 6, 22.7, 32, 8, 0.81, 41 * 86400, 88e6, 12e6, (2, 2, 1)),
        3: (0.55, 0.15, 0.25, 52, 1, 5.9, 16, 4, 1.22, 9 * 86400, 0.4e6, 0.2e6, (1, 1, 0)),
        4: (0.12, 0.0, 0.06, 11, 0, 12.0, 112, 16, 1.0, 2 * 3600, 1.1e6, 0.3e6, (1, 1, 0)),
    }[number]  # fmt: skip
    return LoadSample(
        load=load, load_own=own, load_guest=guest, cpu_percent=cpu, wait_percent=wait,
        mem_used_bytes=int(used * GIB), mem_total_bytes=total * GIB, cores=cores, speed=speed, uptime_s=up,
        net_in_bps=inn, net_out_bps=out, jobs_here=counts[0], jobs_guest=counts[1], jobs_away=counts[2],
    )  # fmt: skip


def node(number: int, **more: object) -> NodeView:
    """One of the four nodes."""
    name = NAMES[number - 1]
    ident = NodeId(f"{number:064x}")
    info = NodeInfo(ident, number, name, (f"10.0.0.{number}:7431",), "0.1.0", 1, (4, 2, 1), "6.12.48", "x86_64")
    view = NodeView(
        ident, number, name, NodeState.UP, number == 1, (0.2, 0.4, 0.3, 0.9)[number - 1], sample(number), info
    )
    return replace(view, **more)  # type: ignore[arg-type]


MOVES = (
    MoveView("m5", job_id(48211), "blastp", "ben", 3, 4, Step.SHIP, 12.0, int(1.4 * GIB), int(2.2 * GIB), frozen_for_s=0.4, by="balancer"),
    MoveView("m4", job_id(31177), "povray", "ana", 1, 2, Step.DONE, 15.0, int(0.9 * GIB), int(0.9 * GIB), 0.42, None, 8.1, "balancer"),
    MoveView("m3", job_id(9263), "gnuplot", "chen", 2, 4, Step.DONE, 665.0, int(0.2 * GIB), int(0.2 * GIB), 0.18, None, 2.0, "balancer"),
    MoveView("m2", job_id(31290), "blender", "ana", 1, 4, Step.REFUSED, 1860.0, total_s=0.1, by="ana", error="holds /dev/dri/card0"),
    MoveView("m1", job_id(9188), "make", "chen", 2, 3, Step.BACK, 2296.0, int(1.1 * GIB), int(1.1 * GIB), 1.91, None, 14.0, "chen", "cedar ran out of memory"),
    MoveView("m0", job_id(31207), "ffmpeg", "ana", 2, 1, Step.DONE, 1707.0, int(1.2 * GIB), int(1.2 * GIB), 0.58, None, 11.0, "ana"),
)  # fmt: skip

EVENTS = (
    EventView(9, 15.0, "moved", "povray 31177  atlas → birch", "frozen 0.42 s, load 2.9 against 0.7"),
    EventView(8, 36.0, "left", "ffmpeg 31207 on atlas", "moved 40 s ago, rests 60 s"),
    EventView(7, 69.0, "joined", "delta", "16 cores, speed 1.00"),
    EventView(6, 175.0, "refused", "blender 31290", "holds /dev/dri/card0: it can move when it runs without the GPU"),
    EventView(5, 665.0, "moved", "gnuplot 9263  birch → delta", "frozen 0.18 s"),
    EventView(4, 2580.0, "started", "ffmpeg 31207", "by ana on atlas"),
)  # fmt: skip


def view(**more: object) -> ClusterView:
    """The whole cluster; any field can be replaced."""
    made = ClusterView(
        me=NodeId(f"{1:064x}"), number=1, cluster="lab", engine="user", nodes=tuple(node(n) for n in (1, 2, 3, 4)),
        jobs=JOBS, moves=MOVES, events=EVENTS, serial=1,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def history() -> tuple[Series, ...]:
    """Ten minutes of load, ending in the figures of now."""
    rng = Random(7)
    made = []
    for number, (start, end, bump) in {1: (0.7, 2.31, 0.35), 2: (0.5, 0.94, 0.15), 3: (1.0, 0.55, 0.1), 4: (0.5, 0.12, 0.1)}.items():  # fmt: skip
        values: list[float | None] = []
        for index in range(120):
            share = max(0.0, (index - 60) / 60) if number == 1 else index / 120
            wave = bump * math.sin(index / 9 + number) * (1 - share)
            values.append(round(max(0.03, start + (end - start) * share + wave + rng.uniform(-0.04, 0.04)), 2))
        made.append(Series(number, 5.0, tuple(values)))
    return tuple(made)


def processes() -> tuple[ProcView, ...]:
    """About 400 processes: the jobs, their children, and what else runs on such machines."""
    rng = Random(11)
    made = [
        ProcView(ProcKey(job.node, job.pid, 1000 + job.pid), 31201 if job.user == "ana" else 1, job.user, "R", job.cpu_percent or 0.0,
                 job.rss_bytes or 0, 60.0 * (job.cpu_percent or 0.0), 4, job.name, " ".join(job.command), "pts/2", 0, job.id, True)
        for job in JOBS
    ]  # fmt: skip
    for number, source in ((9201, "src/render/bvh.cpp"), (9204, "src/render/film.cpp"), (9210, "src/io/exr.cpp")):
        made.append(ProcView(ProcKey(2, number, number), 9188, "chen", "R", 99.0, 198 * MIB, 12.0, 1, "cc1plus", f"cc1plus -O2 -std=c++20 {source}", "pts/0", 0, job_id(9188)))  # fmt: skip
    made.append(ProcView(ProcKey(1, 31190, 31190), 1, "ana", "S", 0.3, 9 * MIB, 1.0, 1, "sshd", "sshd: ana@pts/2"))
    made.append(ProcView(ProcKey(1, 31201, 31201), 31190, "ana", "S", 0.0, 6 * MIB, 1.0, 1, "bash", "-bash", "pts/2"))
    kinds = ("/sbin/init", "systemd-journald", "/usr/sbin/sshd -D [listener]", "cron -f", "omview serve", "[kworker/0:1]",
             "[rcu_sched]", "/usr/lib/systemd/systemd-udevd --daemon", "agetty -o -p -- \\u --noclear tty1 linux", "tmux: server")  # fmt: skip
    for number in (1, 2, 3, 4):
        for index in range(96):
            command = kinds[index % len(kinds)]
            pid = 1 if index == 0 else 300 + index * 7
            user = "root" if index % 10 < 8 else ("ana", "ben", "chen")[index % 3]
            size = 0 if command.startswith("[") else rng.randrange(4, 60) * MIB
            made.append(ProcView(ProcKey(number, pid, pid), 0 if index == 0 else 1, user, "S", 0.0, size, rng.random() * 90, 1, command.split()[0].strip("[]").rsplit("/", 1)[-1], command))  # fmt: skip
    return tuple(made)


def plan_for(job: JobView) -> MovePlan:
    """Where a job could go."""
    now = {1: 2.31, 2: 0.94, 3: 0.55, 4: 0.12}
    cores = {1: 8.0, 2: 8.0, 3: 4.0, 4: 16.0}
    free = {1: 23, 2: 9, 3: 10, 4: 100}
    verdicts = {
        1: "gets more crowded",
        2: "slower: birch gets crowded",
        3: "slower: 4 cores only",
        4: "best: gains 18% speed",
    }
    extra = (job.cpu_percent or 0.0) / 100
    targets = [
        Forecast(n, True, now[n], now[n] + extra / cores[n], 0.6 + 0.1 * (n == 3), free[n] * GIB, cores[n], verdicts[n])
        for n in (4, 2, 3, 1) if n != job.node
    ]  # fmt: skip
    targets.append(Forecast(job.node, False, now[job.node], now[job.node], 0.0, free[job.node] * GIB, cores[job.node], "it is here"))  # fmt: skip
    checks = (
        Check(True, False, "files", "All 3 files are on /srv, which the others have too."),
        Check(True, False, "cpu", "Same CPU features, CRIU 4.2.1 on both."),
        Check(False, False, "clock", "A timer or clock inside will see a jump of about 0.6 s."),
        Check(True, False, "safe", "If anything fails before the end, it goes on here as if nothing had happened."),
    )
    return MovePlan(job.id, job.node, job.rss_bytes or 0, tuple(targets), checks)


class DemoClient:
    """Fulfils `omcore.client.Client`; remembers what was asked of it in `calls`."""

    def __init__(self, first: ClusterView | None = None, procs: tuple[ProcView, ...] | None = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.shown = first or view()
        self.procs = processes() if procs is None else procs
        self.gone: str | None = None  # set before `push`: the stream ends with this error
        self.refuse: Refused | None = None
        self.result: MoveResult | None = None
        self._changed = asyncio.Event()
        self.move_gate: asyncio.Event | None = None  # when set, a move ends only after it
        self.deltas: asyncio.Queue[ProcDelta | None] = asyncio.Queue()  # None: the stream breaks

    def push(self, new: ClusterView | None = None) -> None:
        """Make the stream of snapshots yield this, or end if `gone` is set."""
        self.shown = new or self.shown
        self._changed.set()

    async def snapshots(self) -> AsyncIterator[ClusterView]:
        while True:
            if self.gone is not None:
                raise EngineUnreachable(self.gone)
            self._changed.clear()
            yield self.shown
            await self._changed.wait()

    async def processes(self, nodes: tuple[int, ...] = ()) -> AsyncIterator[ProcDelta]:
        self.calls.append(("processes", nodes))
        asked = nodes or tuple(each.number for each in self.shown.nodes)
        yield ProcDelta(asked, tuple(proc for proc in self.procs if proc.key.node in asked), full=True)
        while True:
            delta = await self.deltas.get()
            if delta is None:
                raise EngineUnreachable("the list broke")
            yield delta

    async def history(self) -> tuple[Series, ...]:
        return history()

    async def boards(self, everybody: bool = False) -> AsyncIterator[BoardView]:
        rows = tuple(BoardRow(one.number, one.state, one.age_s, one.sample.load) for one in self.shown.nodes)
        yield BoardView(1, self.shown.nodes[0].name, rows, len(rows), 3.0)

    async def net(self) -> NetView:
        return NetView(1, self.shown.nodes[0].name, (), "off", 1.0, (), 0, 64, 0, 256, 0)

    async def plan(self, job: JobId) -> MovePlan:
        self.calls.append(("plan", job))
        if self.refuse is not None:
            raise self.refuse
        return plan_for(next(each for each in self.shown.jobs if each.id == job))

    async def migrate(self, job: JobId, to: str) -> MoveResult:
        self.calls.append(("migrate", job, to))
        if self.move_gate is not None:
            await self.move_gate.wait()
        if self.refuse is not None:
            raise self.refuse
        found = next(each for each in self.shown.jobs if each.id == job)
        source = NAMES[found.node - 1]
        dest = NAMES[int(to) - 1] if to.isdigit() else to
        return self.result or MoveResult(job, source, dest, True, 0.61, 8.4, int(1.2 * GIB))

    async def lock(self, job: JobId, locked: bool) -> None:
        self.calls.append(("lock", job, locked))

    async def signal(self, job: JobId, signum: int) -> None:
        self.calls.append(("signal", job, signum))

    async def signal_process(self, key: ProcKey, signum: int) -> None:
        self.calls.append(("signal_process", key, signum))

    async def close(self) -> None:
        self.calls.append(("close",))
