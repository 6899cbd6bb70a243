"""Process lists of all nodes: taken only while somebody looks, sent as differences.

A face follows some nodes.  Our own list comes from the sensor; another node's from that node, which is asked again
every two seconds and stops five seconds after the last question.  Pages of a watch are numbered without gaps: a gap
starts a new watch with a full list.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Protocol

from omcore.messages import Processes, WatchProcesses
from omcore.types import NodeId, ProcDelta, ProcKey, ProcView

RENEW_S = 2.0
EXPIRE_S = 5.0
MISSING_S = 4.0
PAGE_BYTES = 128 * 1024
"""Rows in one message, by their estimated size: half of what a message may hold."""
ROW_BYTES = 320
"""What a row takes beside its texts, with the names of its fields."""
KEY_BYTES = 40
MOST_ROWS = 100_000
"""Rows kept of another node."""
FRESH_S = 1.5
"""Our own list is shown as it is up to this age; an older one is taken again first."""


class Sensor(Protocol):
    """What takes our own list: the differences since the last scan."""

    def scan(self, now: float) -> tuple[tuple[ProcView, ...], tuple[ProcKey, ...]]:
        """Changed and gone processes."""
        ...

    def forget(self) -> None:
        """Drop the list: the next scan gives everything as changed."""
        ...


class Follower:
    """One face's wish: differences pile up here until it takes them."""

    def __init__(self, nodes: frozenset[int]) -> None:
        self.nodes = nodes
        self.arrived: set[int] = set()
        self._changed: dict[ProcKey, ProcView] = {}
        self._gone: set[ProcKey] = set()
        self._full: set[int] = set()
        self.ready = asyncio.Event()

    def add(self, node: int, changed: Iterable[ProcView], gone: Iterable[ProcKey], full: bool) -> None:
        """Merge a difference; `full` forgets what was piled up of that node."""
        if full:
            self._changed = {key: row for key, row in self._changed.items() if key.node != node}
            self._gone = {key for key in self._gone if key.node != node}
            self._full.add(node)
        self.arrived.add(node)
        for row in changed:
            self._changed[row.key] = row
            self._gone.discard(row.key)
        for key in gone:
            self._changed.pop(key, None)
            self._gone.add(key)
        if self._changed or self._gone or self._full:
            self.ready.set()

    def take(self) -> list[ProcDelta]:
        """What piled up: full lists first, then one difference for all the others."""
        self.ready.clear()
        deltas = []
        for node in sorted(self._full):
            rows = tuple(row for key, row in self._changed.items() if key.node == node)
            deltas.append(ProcDelta((node,), rows, (), True))
        rest = tuple(row for key, row in self._changed.items() if key.node not in self._full)
        gone = tuple(key for key in self._gone if key.node not in self._full)
        if rest or gone:
            nodes = tuple(sorted({row.key.node for row in rest} | {key.node for key in gone}))
            deltas.append(ProcDelta(nodes, rest, gone))
        self._changed, self._gone, self._full = {}, set(), set()
        return deltas


class _Served:
    """A node that watches us."""

    def __init__(self, watch: int, until: float) -> None:
        self.watch = watch
        self.until = until
        self.serial = 0
        self.renewed = 0  # serial at its last question: at the next one it should have all up to this
        self.fresh = True


class _Watched:
    """A node that we watch."""

    def __init__(self, watch: int) -> None:
        self.watch = watch
        self.have = 0
        self.asked = -RENEW_S
        self.rows: dict[ProcKey, ProcView] = {}
        self.filling = True


class ProcessLists:
    """The driver's part: call `tick` once a second, hand it the messages, iterate `follow` for a face."""

    def __init__(self, number: int, sensor: Sensor, send: Callable[[NodeId, object], None], first: int) -> None:
        self._number = number
        self._sensor = sensor
        self._send = send
        self._own: dict[ProcKey, ProcView] = {}
        self._scanned = -FRESH_S  # when
        self._scanning = asyncio.Lock()  # a sensor is not thread-safe, and its differences must come in order
        self._followers: set[Follower] = set()
        self._served: dict[NodeId, _Served] = {}
        self._watched: dict[int, _Watched] = {}
        self._watches = itertools.count(first)
        self.members: dict[int, NodeId] = {}

    @property
    def busy(self) -> bool:
        """Whether anybody looks at any list."""
        return bool(self._followers or self._served)

    async def follow(self, nodes: tuple[int, ...], once: bool) -> AsyncIterator[ProcDelta]:
        """Differences for a face; `once` ends when each node sent its full list or did not answer in time."""
        wanted = frozenset(nodes) if nodes else frozenset((*self.members, self._number))
        follower = Follower(wanted)
        self._followers.add(follower)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MISSING_S
        try:
            for number in wanted & self._watched.keys():
                watched = self._watched[number]
                if not watched.filling:
                    follower.add(number, watched.rows.values(), (), True)
            self._renew(loop.time())
            if self._number in wanted:
                await self.scan(loop.time(), FRESH_S)
                if self._number not in follower.arrived:
                    follower.add(self._number, self._own.values(), (), True)
            while True:
                left = max(0.0, deadline - loop.time()) if once or deadline > loop.time() else None
                try:
                    await asyncio.wait_for(follower.ready.wait(), left)
                except TimeoutError:
                    missing = tuple(sorted(wanted - follower.arrived))
                    if missing:
                        yield ProcDelta(missing, missing=missing)
                    if once:
                        return
                    deadline = 0.0
                for delta in follower.take():
                    yield delta
                if once and follower.arrived >= wanted:
                    return
        finally:
            self._followers.discard(follower)
            self._rest()

    async def tick(self, now: float) -> None:
        """Once a second: scan if anybody looks, renew what we watch, drop who no longer looks."""
        for node in [node for node, served in self._served.items() if served.until < now]:
            del self._served[node]
        self._rest()
        if self.busy:
            self._renew(now)
            await self.scan(now)

    def _rest(self) -> None:
        """Drop what nobody looks at any more: it would only be old when somebody looks again."""
        wanted = self._wanted()
        for number in [number for number in self._watched if number not in wanted]:
            del self._watched[number]
        if not self.busy and not self._scanning.locked():
            self._own.clear()
            self._sensor.forget()
            self._scanned = -FRESH_S

    def _wanted(self) -> set[int]:
        return {number for follower in self._followers for number in follower.nodes if number != self._number}

    def _renew(self, now: float) -> None:
        for number in self._wanted():
            node = self.members.get(number)
            if node is None:
                continue
            watched = self._watched.get(number)
            if watched is None:
                watched = self._watched[number] = _Watched(next(self._watches))
            if now - watched.asked >= RENEW_S:
                watched.asked = now
                self._send(node, WatchProcesses(watched.watch, watched.have))

    async def scan(self, now: float, fresh_s: float = 0.0) -> None:
        """Take our own list once, unless it is younger than `fresh_s`, and pass the difference on to all who look."""
        async with self._scanning:
            if now - self._scanned < fresh_s:
                return
            changed, gone = await asyncio.to_thread(self._sensor.scan, now)
            self._scanned = now
            for row in changed:
                self._own[row.key] = row
            for key in gone:
                self._own.pop(key, None)
            for follower in self._followers:
                if self._number in follower.nodes:
                    new = self._number not in follower.arrived
                    follower.add(self._number, self._own.values() if new else changed, () if new else gone, new)
            for node, served in self._served.items():
                self._page(node, served, changed, gone)
        self._rest()

    def _page(self, node: NodeId, served: _Served, changed: tuple[ProcView, ...], gone: tuple[ProcKey, ...]) -> None:
        full, served.fresh = served.fresh, False
        rows = tuple(self._own.values()) if full else changed
        pages = list(_pages(rows, () if full else gone))
        for index, (some, some_gone) in enumerate(pages or ([((), ())] if full else [])):
            served.serial += 1
            delta = ProcDelta((self._number,), some, some_gone, full and index == 0)
            self._send(node, Processes(served.watch, served.serial, delta, index + 1 < len(pages)))

    def watched_by(self, sender: NodeId, message: WatchProcesses, now: float) -> None:
        """Another node looks at us."""
        served = self._served.get(sender)
        if served is None or served.watch != message.watch:
            self._served[sender] = _Served(message.watch, now + EXPIRE_S)
            return
        served.until = now + EXPIRE_S
        if message.have < served.renewed:
            served.fresh = True  # a page was lost, and no later one has shown it yet
        served.renewed = served.serial

    def page(self, sender: NodeId, message: Processes) -> None:
        """A page of a list that we watch; rows that name another node than the sender are dropped."""
        number = next((number for number, node in self.members.items() if node == sender), None)
        watched = self._watched.get(number) if number is not None else None
        if number is None or watched is None or watched.watch != message.watch:
            return
        if message.serial <= watched.have:
            return
        if message.serial != watched.have + 1:
            self._watched[number] = _Watched(next(self._watches))
            return
        watched.have = message.serial
        changed = tuple(row for row in message.delta.changed if row.key.node == number)
        if message.delta.full:
            watched.rows.clear()
        gone = tuple(key for key in message.delta.gone if key.node == number)
        watched.rows.update((row.key, row) for row in changed)
        for key in gone:
            watched.rows.pop(key, None)
        if len(watched.rows) > MOST_ROWS:
            self._watched[number] = _Watched(next(self._watches))
            return
        first = watched.filling
        watched.filling = watched.filling and message.more
        if watched.filling:
            return
        for follower in self._followers:
            if number in follower.nodes:
                new = first or number not in follower.arrived or message.delta.full
                rows = watched.rows.values() if new else changed
                follower.add(number, rows, () if new else gone, new)


def _pages(
    rows: Iterable[ProcView], gone: Iterable[ProcKey]
) -> Iterator[tuple[tuple[ProcView, ...], tuple[ProcKey, ...]]]:
    """Rows and keys in portions that each fit into a message, however long command lines are."""
    some: list[ProcView] = []
    some_gone: list[ProcKey] = []
    size = 0
    for row in rows:
        size += ROW_BYTES + len(row.command.encode()) + len(row.name.encode())
        some.append(row)
        if size > PAGE_BYTES:
            yield tuple(some), ()
            some, size = [], 0
    for key in gone:
        size += KEY_BYTES
        some_gone.append(key)
        if size > PAGE_BYTES:
            yield tuple(some), tuple(some_gone)
            some, some_gone, size = [], [], 0
    if some or some_gone:
        yield tuple(some), tuple(some_gone)
