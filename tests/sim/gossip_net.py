"""A cluster of gossip cores in virtual time: a heap and a loop.  Seeded, so that a failure can be had again.

Nodes may be crashed, frozen (what comes meanwhile waits for them, as in a stopped process), restarted; the network
may lose, delay and be cut in parts; each node's clock may be off and drift.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from statistics import fmean
from typing import Protocol

from omcore.gossip import Board, Gossip, GossipConfig, Members, NodeLost, NodeSuspected, Output, Send
from omcore.types import LoadSample


class Core(Protocol):
    """What the net needs of a machine; Board, Members and Gossip all have it."""

    @property
    def deadline(self) -> float: ...
    def tick(self, now: float) -> list[Output]: ...
    def receive(self, data: bytes, sender: int, now: float) -> list[Output]: ...


@dataclass
class Node:
    """One simulated node; its clock shows `skew_s` + time * (1 + drift)."""

    core: Core
    skew_s: float = 0.0
    drift: float = 0.0
    alive: bool = True
    frozen_until: float = 0.0
    inbox: list[tuple[bytes, int]] = field(default_factory=list)
    received: int = 0

    def clock(self, t: float) -> float:
        return self.skew_s + t * (1 + self.drift)


class SimNet:
    """`n` nodes numbered from 0, made by `make`; `events` collects what they report as (time, node, event)."""

    def __init__(
        self,
        n: int,
        make: Callable[[int, Random], Core],
        *,
        seed: int = 1,
        loss: float = 0.0,
        delay_s: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.rng = Random(seed)
        self.seed = seed
        self.loss = loss
        self.delay_s = delay_s
        self.t = 0.0
        self.nodes = [Node(make(number, Random(self.rng.getrandbits(64)))) for number in range(n)]
        self.events: list[tuple[float, int, Output]] = []
        self.sent = 0
        self.bytes = 0
        self.part: Callable[[int], int] = lambda number: 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()
        for number in range(n):
            self._wake(number)

    def at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._count), do))

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.t, _, do = heapq.heappop(self._heap)
            do()
        self.t = until

    def crash(self, number: int) -> None:
        self.nodes[number].alive = False

    def freeze(self, number: int, for_s: float) -> None:
        node = self.nodes[number]
        node.frozen_until = self.t + for_s
        self.at(node.frozen_until, lambda: self._thaw(number))

    def replace(self, number: int, core: Core) -> None:
        """A new life of a node."""
        self.nodes[number] = Node(core)
        self._wake(number)

    def perform(self, number: int, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self._send(number, output)
            else:
                self.events.append((self.t, number, output))

    def lost(self) -> list[tuple[float, int, int]]:
        """(time, who says so, who is lost) of every verdict."""
        return [(t, by, event.number) for t, by, event in self.events if isinstance(event, NodeLost)]

    def suspected(self) -> int:
        return sum(isinstance(event, NodeSuspected) for _, _, event in self.events)

    def _wake(self, number: int) -> None:
        """Have the node ticked at its deadline; each node keeps exactly one such entry in the heap."""
        node = self.nodes[number]
        due = (max(node.core.deadline, node.clock(0.0)) - node.skew_s) / (1 + node.drift)
        self.at(max(due, self.t), lambda: self._tick(number, node))

    def _tick(self, number: int, node: Node) -> None:
        if node is not self.nodes[number] or not node.alive:
            return
        if node.frozen_until > self.t:
            self.at(node.frozen_until, lambda: self._tick(number, node))
            return
        core, now = node.core, node.clock(self.t)
        if isinstance(core, Board | Gossip) and now >= core.deadline - 1e-9:
            core.refresh(LoadSample(), now)
        self.perform(number, core.tick(now))
        self._wake(number)

    def _send(self, number: int, send: Send) -> None:
        self.sent += 1
        self.bytes += len(send.data)
        if self.rng.random() < self.loss:
            return
        low, high = self.delay_s
        if high == 0.0:
            self._deliver(send.to, send.data, number)
        else:
            self.at(self.t + self.rng.uniform(low, high), lambda: self._deliver(send.to, send.data, number))

    def _deliver(self, to: int, data: bytes, sender: int) -> None:
        node = self.nodes[to]
        if not node.alive or self.part(to) != self.part(sender):
            return
        if node.frozen_until > self.t:
            node.inbox.append((data, sender))
            return
        node.received += 1
        self.perform(to, node.core.receive(data, sender, node.clock(self.t)))

    def _thaw(self, number: int) -> None:
        node = self.nodes[number]
        waiting, node.inbox = node.inbox, []
        for data, sender in waiting:
            self._deliver(number, data, sender)


def boards(n: int, window: int, *, seed: int = 1, loss: float = 0.0) -> SimNet:
    """Boards alone, with a window of exactly `window`, and nobody down."""
    config = GossipConfig(window_min=min(window, n), window_max=min(window, n))

    def make(number: int, rng: Random) -> Board:
        board = Board(number, config, rng)
        board.set_members(range(n))
        return board

    return SimNet(n, make, seed=seed, loss=loss)


def members(n: int, *, seed: int = 1, loss: float = 0.0, config: GossipConfig | None = None) -> SimNet:
    """Failure detectors alone, on a LAN of 1 to 5 ms."""
    settings = config or GossipConfig()

    def make(number: int, rng: Random) -> Members:
        machine = Members(number, settings, rng)
        machine.set_members(range(n))
        return machine

    return SimNet(n, make, seed=seed, loss=loss, delay_s=(0.001, 0.005))


def gossips(n: int, *, seed: int = 1, loss: float = 0.0) -> SimNet:
    """Whole gossip machines, on a LAN of 1 to 5 ms."""

    def make(number: int, rng: Random) -> Gossip:
        machine = Gossip(number, GossipConfig(), rng)
        machine.set_members(range(n))
        return machine

    return SimNet(n, make, seed=seed, loss=loss, delay_s=(0.001, 0.005))


def measure_ages(net: SimNet, warm_s: float, for_s: float, step_s: float = 0.73) -> tuple[float, float]:
    """(average age of all entries, mean over nodes of the oldest) over `for_s` seconds after `warm_s`.

    The default step is no divisor of the interval, so that no phase is preferred.
    """
    net.run(net.t + warm_s)
    averages, oldest, end = [], [], net.t + for_s
    while net.t < end:
        net.run(net.t + step_s)
        for node in net.nodes:
            assert isinstance(node.core, Board)
            ages = node.core.ages(node.clock(net.t))
            averages.append(fmean(ages))
            oldest.append(max(ages))
    return fmean(averages), fmean(oldest)
