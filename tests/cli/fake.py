"""A client that answers from a fixed picture of three nodes, and remembers what it was told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from omcore.errors import OmError
from omcore.types import (
    BoardRow,
    BoardView,
    ClusterView,
    Drop,
    JobId,
    JobState,
    JobView,
    Link,
    LinkState,
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
    PeerNet,
    ProcDelta,
    ProcKey,
    ProcView,
    Series,
    Step,
)
from omview.cli.root import run_cli

GIB = 1 << 30
WORKER = JobId("aa11" + "0" * 28)
TWIN_A = JobId("bb22" + "0" * 28)
TWIN_B = JobId("bb33" + "0" * 28)
OVER = JobId("cc44" + "0" * 28)


def node(number: int, name: str, state: NodeState = NodeState.UP, age_s: float | None = 0.4) -> NodeView:
    sample = LoadSample(
        load=1.25, cpu_percent=62.5, mem_used_bytes=GIB, mem_total_bytes=4 * GIB, cores=2.0, jobs_here=1
    )
    key = NodeId(f"{number:064x}")
    return NodeView(key, number, name, state, number == 1, age_s, sample, NodeInfo(key, number, name))


def job(id: JobId, name: str, state: JobState = JobState.RUNNING, **more: object) -> JobView:
    base = JobView(id, name, ("sleep", "1 000"), "ana", 1, 1, 42, state, movable=Movable.YES, rss_bytes=9 << 20)
    fields = {slot: getattr(base, slot) for slot in base.__slots__} | more
    return JobView(**fields)


def proc(node_number: int, pid: int, cpu: float, name: str, job_id: JobId | None = None) -> ProcView:
    key = ProcKey(node_number, pid, 100)
    return ProcView(key, 1, "ana", "S", cpu, pid << 10, 3.5, 1, name, f"/usr/bin/{name} --flag", job=job_id)


def picture() -> ClusterView:
    nodes = (node(1, "ash"), node(2, "birch", NodeState.STALE, 12.0), node(3, "cedar", NodeState.LOST, None))
    jobs = (
        job(WORKER, "worker", node=2, moves=3),
        job(TWIN_A, "twin"),
        job(TWIN_B, "twin"),
        job(OVER, "over", JobState.ENDED, status=0),
    )
    return ClusterView(nodes[0].id, 1, "lab", "user", nodes, jobs, (), ())


def boards() -> tuple[BoardView, ...]:
    rows = (
        BoardRow(1, NodeState.UP, 0.0, 1.25),
        BoardRow(2, NodeState.STALE, 12.0, 0.5),
        BoardRow(3, NodeState.LOST, None, None),
    )
    mine = BoardView(1, "ash", rows, 3, 10.0, 1.2)
    return mine, BoardView(3, "cedar", error="cedar did not answer within 3 s."), replace(mine, node=2, name="birch")


def network() -> NetView:
    up = Link(LinkState.UP, "10.0.0.2:4632", None, 0.4, 10, 2048, 9, 1000, 2, 1, "the connection ended")
    away = Link(LinkState.WAITING, "10.0.0.3:4632", 7.5, dials=4, failures=4, error="nothing answers at that address")
    away = replace(away, dropped=((Drop.CUT, 2), (Drop.WAITING, 31)))
    peers = (PeerNet(2, "birch", up), PeerNet(3, "cedar", away))
    listening = ("10.0.0.1:4632",)
    return NetView(1, "ash", listening, "on 10.0.0.1", 60.0, peers, 1, 64, 1, 256, 5, ((Drop.STRANGER, 3),))


class FakeClient:
    """Implements `omcore.client.Client`; `told` lists the calls that would have changed something."""

    def __init__(self) -> None:
        self.view = picture()
        self.told: list[tuple[object, ...]] = []
        self.result: MoveResult | OmError = MoveResult(WORKER, "birch", "ash", True, 0.09, 0.4, 16 << 20)
        self.deltas = [
            ProcDelta((1,), (proc(1, 10, 0.0, "init"), proc(1, 11, 90.0, "busy", WORKER)), full=True),
            ProcDelta((2,), (proc(2, 20, 30.0, "other"),), full=True),
        ]
        self.seen = boards()
        self.network = network()
        self.closed = False

    async def snapshots(self) -> AsyncIterator[ClusterView]:
        yield self.view
        for step in (Step.CHECK, Step.FREEZE, Step.DONE):
            move = MoveView("m1", WORKER, "worker", "ana", 2, 1, step, 0.1)
            yield ClusterView(**{s: getattr(self.view, s) for s in self.view.__slots__} | {"moves": (move,)})

    async def processes(self, nodes: tuple[int, ...] = ()) -> AsyncIterator[ProcDelta]:
        for delta in self.deltas:
            yield delta

    async def history(self) -> tuple[Series, ...]:
        return ()

    async def boards(self, everybody: bool = False) -> AsyncIterator[BoardView]:
        for board in self.seen if everybody else self.seen[:1]:
            yield board

    async def net(self) -> NetView:
        return self.network

    async def plan(self, job: JobId) -> MovePlan:
        return MovePlan(job, 1, 0, ())

    async def migrate(self, job: JobId, to: str) -> MoveResult:
        self.told.append(("migrate", job, to))
        if isinstance(self.result, OmError):
            raise self.result
        return self.result

    async def lock(self, job: JobId, locked: bool) -> None:
        self.told.append(("lock", job, locked))

    async def signal(self, job: JobId, signum: int) -> None:
        self.told.append(("signal", job, signum))

    async def signal_process(self, key: ProcKey, signum: int) -> None:
        self.told.append(("signal_process", key, signum))

    async def close(self) -> None:
        self.closed = True


class Said:
    """What one command line printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Omview = Callable[..., Said]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()

    async def connect() -> FakeClient:
        return fake

    monkeypatch.setattr("omcore.client.connect", connect)
    return fake


@pytest.fixture
def omview(capsys: pytest.CaptureFixture[str]) -> Omview:
    def call(*words: str) -> Said:
        code = run_cli(words)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call
