"""Process lists between nodes: two of them over a channel that loses messages come to the same list."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest

from omcore import proclists as module
from omcore.messages import PEER, Processes, WatchProcesses
from omcore.proclists import EXPIRE_S, RENEW_S, ProcessLists
from omcore.types import NodeId, ProcDelta, ProcKey, ProcView

IDS = {1: NodeId("1" * 64), 2: NodeId("2" * 64)}


def row(node: int, pid: int, command: str = "x", cpu: float = 0.0) -> ProcView:
    return ProcView(ProcKey(node, pid, 0), 1, "ann", "S", cpu, 0, 0.0, 1, "x", command)


class Sensor:
    """Processes that a test makes and ends; like the real one it tells differences only."""

    def __init__(self, node: int, count: int = 0) -> None:
        self.node = node
        self.now = {pid: row(node, pid) for pid in range(1, count + 1)}
        self.told: dict[int, ProcView] = {}
        self.scans = 0

    def scan(self, now: float) -> tuple[tuple[ProcView, ...], tuple[ProcKey, ...]]:
        del now
        self.scans += 1
        changed = tuple(view for pid, view in self.now.items() if self.told.get(pid) != view)
        gone = tuple(view.key for pid, view in self.told.items() if pid not in self.now)
        self.told = dict(self.now)
        return changed, gone

    def forget(self) -> None:
        self.told.clear()


class Pair:
    """Two nodes; what one sends reaches the other as the test allows."""

    def __init__(self, here: int = 3, there: int = 5) -> None:
        self.sensors = {1: Sensor(1, here), 2: Sensor(2, there)}
        self.lost: Callable[[object], bool] = lambda message: False
        self.sent: list[object] = []
        self.lists = {
            number: ProcessLists(number, self.sensors[number], self.sender(number), 100 * number) for number in IDS
        }
        self.now = asyncio.get_running_loop().time()
        for number, lists in self.lists.items():
            lists.members = {other: node for other, node in IDS.items() if other != number}

    def sender(self, number: int) -> Callable[[NodeId, object], None]:
        def send(to: NodeId, message: object) -> None:
            data = PEER.encode(message)
            self.sent.append(message)
            if not self.lost(message):
                other = next(n for n, node in IDS.items() if node == to)
                self.deliver(IDS[number], self.lists[other], PEER.decode(data))

        return send

    def deliver(self, sender: NodeId, lists: ProcessLists, message: object) -> None:
        if isinstance(message, WatchProcesses):
            lists.watched_by(sender, message, self.now)
        elif isinstance(message, Processes):
            lists.page(sender, message)

    async def second(self) -> None:
        self.now += 1.0
        await asyncio.sleep(0)
        for lists in self.lists.values():
            if lists.busy:
                await lists.tick(self.now)


class Face:
    """Follows lists and keeps what it was told, as the face's model does."""

    def __init__(self, lists: ProcessLists, nodes: tuple[int, ...] = ()) -> None:
        self.rows: dict[ProcKey, ProcView] = {}
        self.missing: set[int] = set()
        self.deltas = 0
        self._task = asyncio.ensure_future(self._follow(lists.follow(nodes, once=False)))

    async def _follow(self, deltas: AsyncIterator[ProcDelta]) -> None:
        async for delta in deltas:
            self.take(delta)

    def take(self, delta: ProcDelta) -> None:
        self.deltas += 1
        self.missing |= set(delta.missing)
        if delta.full:
            self.rows = {key: view for key, view in self.rows.items() if key.node not in delta.nodes}
        self.rows.update((view.key, view) for view in delta.changed)
        for key in delta.gone:
            self.rows.pop(key, None)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def everything(pair: Pair) -> dict[ProcKey, ProcView]:
    return {view.key: view for sensor in pair.sensors.values() for view in sensor.now.values()}


async def until_equal(pair: Pair, face: Face) -> None:
    for _ in range(200):
        await pair.second()
        await face.settle()
        if face.rows == everything(pair):
            return
    raise AssertionError("the lists never came together")


@pytest.mark.parametrize("seed", range(6))
async def test_lists_come_together_over_a_lossy_network(seed: int) -> None:
    rng = random.Random(seed)
    pair = Pair(20, 30)
    pair.lost = lambda message: rng.random() < 0.3
    face = Face(pair.lists[1])
    for _ in range(20):
        for sensor in pair.sensors.values():
            pid = rng.randint(1, 40)
            if rng.random() < 0.3:
                sensor.now.pop(pid, None)
            else:
                sensor.now[pid] = row(sensor.node, pid, cpu=float(rng.randint(0, 99)))
        await pair.second()
        await face.settle()
    await until_equal(pair, face)  # nothing changes any more: the last lost page must be noticed too
    await face.close()


async def test_a_gap_begins_a_new_watch_with_a_full_list() -> None:
    pair = Pair()
    face = Face(pair.lists[1], (2,))
    await until_equal_of(pair, face, 2)
    watches = {message.watch for message in pair.sent if isinstance(message, WatchProcesses)}
    pair.lost = lambda message: isinstance(message, Processes)
    pair.sensors[2].now[77] = row(2, 77)
    await pair.second()
    pair.lost = lambda message: False
    pair.sensors[2].now[78] = row(2, 78)
    await until_equal_of(pair, face, 2)
    after = {message.watch for message in pair.sent if isinstance(message, WatchProcesses)}
    assert len(after) == len(watches) + 1
    await face.close()


async def until_equal_of(pair: Pair, face: Face, node: int) -> None:
    for _ in range(50):
        await pair.second()
        await face.settle()
        if set(face.rows) == {view.key for view in pair.sensors[node].now.values()}:
            return
    raise AssertionError("the list never came")


async def test_a_repeated_page_changes_nothing() -> None:
    pair = Pair()
    face = Face(pair.lists[1], (2,))
    await until_equal_of(pair, face, 2)
    page = next(message for message in pair.sent if isinstance(message, Processes))
    sent = len(pair.sent)
    pair.lists[1].page(IDS[2], page)
    await face.settle()
    await pair.second()
    assert not [message for message in pair.sent[sent:] if isinstance(message, WatchProcesses) and not message.have]
    await face.close()


async def test_once_ends_with_every_list(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    monkeypatch.setattr(module, "MISSING_S", 60.0)
    found: list[ProcDelta] = []

    async def ask() -> None:
        async for delta in pair.lists[1].follow((), once=True):
            found.append(delta)

    asked = asyncio.ensure_future(ask())
    while not asked.done():
        await pair.second()
    await asked
    assert sorted(delta.nodes for delta in found) == [(1,), (2,)]
    assert all(delta.full for delta in found)
    assert {view.key for delta in found for view in delta.changed} == set(everything(pair))
    assert not pair.lists[1].busy


async def test_a_second_look_shows_what_is_there_now(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(3, 0)
    for pids in ({1, 2, 3}, {2, 9}, {2, 9}):
        pair.sensors[1].now = {pid: row(1, pid) for pid in pids}
        found = [delta async for delta in pair.lists[1].follow((1,), once=True)]
        assert [{view.key.pid for view in delta.changed} for delta in found] == [pids]


async def test_our_own_list_is_whole_after_another_node_stopped_looking() -> None:
    pair = Pair()
    face = Face(pair.lists[2], (1,))
    await until_equal_of(pair, face, 1)
    await face.close()
    pair.now += EXPIRE_S
    await pair.second()
    await pair.second()
    assert not pair.lists[1].busy
    found = [delta async for delta in pair.lists[1].follow((1,), once=True)]
    assert {view.key.pid for delta in found for view in delta.changed} == {1, 2, 3}


async def test_nobody_is_asked_when_nobody_looks() -> None:
    pair = Pair()
    face = Face(pair.lists[1])
    await until_equal(pair, face)
    await face.close()
    sent = len(pair.sent)
    for _ in range(int(EXPIRE_S + RENEW_S) + 1):
        await pair.second()
    scans = [sensor.scans for sensor in pair.sensors.values()]
    await pair.second()
    assert not any(isinstance(message, WatchProcesses) for message in pair.sent[sent:])
    assert [sensor.scans for sensor in pair.sensors.values()] == scans
    assert not pair.lists[1].busy
    assert not pair.lists[2].busy


async def test_a_silent_node_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MISSING_S", 0.02)
    pair = Pair()
    pair.lost = lambda message: True
    found = [delta async for delta in pair.lists[1].follow((1, 2, 9), once=True)]
    assert [delta.missing for delta in found if delta.missing] == [(2, 9)]
    assert {view.key.node for delta in found for view in delta.changed} == {1}


async def test_long_command_lines_and_many_ends_still_fit_into_messages() -> None:
    pair = Pair(0, 0)
    pair.sensors[2].now = {pid: row(2, pid, "…" * 4096) for pid in range(1, 200)}
    face = Face(pair.lists[1], (2,))
    await until_equal_of(pair, face, 2)
    pair.sensors[2].now = {pid: row(2, pid) for pid in range(1000, 15_000)}
    await until_equal_of(pair, face, 2)
    pair.sensors[2].now = {1: row(2, 1)}
    await until_equal_of(pair, face, 2)
    await face.close()


async def test_a_node_speaks_only_of_its_own_processes() -> None:
    pair = Pair()
    face = Face(pair.lists[1])
    await until_equal(pair, face)
    watch, last = next(
        (message.watch, message.serial) for message in reversed(pair.sent) if isinstance(message, Processes)
    )
    own = next(iter(pair.sensors[1].now.values()))
    lie = ProcDelta((1, 2), (row(1, 4242, "forged"),), (own.key,))
    pair.lists[1].page(IDS[2], Processes(watch, last + 1, lie))
    pair.lists[1].page(NodeId("f" * 64), Processes(watch, last + 2, lie))
    await face.settle()
    assert face.rows == everything(pair)
    await face.close()


async def test_a_node_cannot_fill_our_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 50)
    pair = Pair(1, 60)
    face = Face(pair.lists[1], (2,))
    for _ in range(5):
        await pair.second()
        await face.settle()
    assert not face.rows
    await face.close()


async def test_two_faces_share_one_scan() -> None:
    pair = Pair()
    faces = [Face(pair.lists[1], (1,)) for _ in range(3)]
    await pair.lists[1].scan(pair.now, 10.0)
    for face in faces:
        await face.settle()
        assert face.rows
    assert pair.sensors[1].scans == 1
    for face in faces:
        await face.close()
