"""A network of pure machines in virtual time: a heap and a loop.  Seeded, so that a failure can be had again.

What may go wrong: messages are lost, late, doubled; the network is cut in parts; nodes crash, freeze (what comes
meanwhile waits for them, as for a stopped process), start anew; each node's clock is off, drifts and is set.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Protocol

from omcore.gossip import Board, Gossip, NodeLost, NodeSuspected, Output, Send
from omcore.types import LoadSample

EPSILON_S = 1e-9
SAMPLE = LoadSample()


class Core(Protocol):
    """What the net needs of a machine; Board, Members and Gossip all have it."""

    @property
    def deadline(self) -> float:
        """When `tick` next has work, in the node's own time."""
        ...

    def tick(self, now: float) -> list[Output]:
        """Do what is due."""
        ...

    def receive(self, data: bytes, sender: int, now: float) -> list[Output]:
        """Take in a message."""
        ...

    def failed(self, number: int, now: float) -> list[Output]:
        """A node could not be reached."""
        ...


class Node:
    """One simulated node; its clock shows `skew_s` + time * (1 + drift)."""

    __slots__ = ("alive", "board", "core", "drift", "frozen_until", "inbox", "received", "skew_s", "wake")

    def __init__(self, core: Core) -> None:
        self.core = core
        self.board = core.board if isinstance(core, Gossip) else core if isinstance(core, Board) else None
        self.skew_s = 0.0
        self.drift = 0.0
        self.alive = True
        self.frozen_until = 0.0
        self.inbox: list[tuple[bytes, int]] = []
        self.received = 0  # messages, of all kinds
        self.wake = float("inf")  # when it is to be ticked next

    def clock(self, t: float) -> float:
        """What its own clock shows at `t`."""
        return self.skew_s + t * (1 + self.drift)


class SimNet:
    """`n` nodes numbered from 0, made by `make`; `events` collects what they report as (time, node, event).

    Settings that may be changed at any time: `loss` and `doubled` (shares of the messages), `delay_s` (least and
    greatest), `part` (who is in which part of a cut network), `refused` (whether a message to a crashed node fails
    at once, as a connect does where the host is still there).
    """

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
        self.doubled = 0.0
        self.delay_s = delay_s
        self.refused = False
        self.t = 0.0
        self.events: list[tuple[float, int, Output]] = []
        self.messages: Counter[int] = Counter()  # sent, by first byte
        self.octets: Counter[int] = Counter()  # their bytes, likewise
        self.watch: Callable[[int, int, bytes], None] | None = None  # told of each message: from, to, data
        self.part: Callable[[int], int] | None = None
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()
        self.nodes = [Node(make(number, Random(self.rng.getrandbits(64)))) for number in range(n)]
        for number in range(n):
            self._plan(number, self.nodes[number])

    @property
    def sent(self) -> int:
        """Messages sent so far."""
        return self.messages.total()

    @property
    def bytes_sent(self) -> int:
        """Their bytes."""
        return self.octets.total()

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Have something done at a time."""
        heapq.heappush(self._heap, (when, next(self._count), do))

    def run(self, until: float) -> None:
        """Let time pass."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.t, _, do = heapq.heappop(heap)
            do()
        self.t = until

    def crash(self, number: int) -> None:
        """It stops at once, and says nothing."""
        self.nodes[number].alive = False

    def freeze(self, number: int, for_s: float) -> None:
        """It stands still for a while; what comes meanwhile waits."""
        node = self.nodes[number]
        node.frozen_until = self.t + for_s
        self.at(node.frozen_until, lambda: self._thaw(number))

    def set_clock(self, number: int, by_s: float) -> None:
        """Somebody sets a node's clock on, or back."""
        self.nodes[number].skew_s += by_s

    def replace(self, number: int, core: Core) -> None:
        """A new life of a node."""
        self.nodes[number] = node = Node(core)
        self._plan(number, node)

    def live(self) -> list[int]:
        """The numbers of those that run."""
        return [number for number, node in enumerate(self.nodes) if node.alive]

    def perform(self, number: int, outputs: list[Output]) -> None:
        """Carry out what a node's machine handed back."""
        for output in outputs:
            if isinstance(output, Send):
                self._send(number, output.to, output.data)
            else:
                self.events.append((self.t, number, output))

    def lost(self) -> list[tuple[float, int, int]]:
        """(time, who says so, who is lost) of every verdict."""
        return [(t, by, event.number) for t, by, event in self.events if isinstance(event, NodeLost)]

    def suspected(self) -> int:
        """How often a node began to suspect another."""
        return sum(isinstance(event, NodeSuspected) for _, _, event in self.events)

    def _plan(self, number: int, node: Node) -> None:
        """Have the node ticked at its deadline; an earlier plan for later is void."""
        due = (max(node.core.deadline, node.clock(0.0)) - node.skew_s) / (1 + node.drift)
        node.wake = wake = max(due, self.t)
        if wake != float("inf"):
            self.at(wake, lambda: self._tick(number, node, wake))

    def _tick(self, number: int, node: Node, wake: float) -> None:
        if wake != node.wake or node is not self.nodes[number] or not node.alive:
            return
        if node.frozen_until > self.t:
            node.wake = later = node.frozen_until
            self.at(later, lambda: self._tick(number, node, later))
            return
        core, board, now = node.core, node.board, node.clock(self.t)
        if board is not None and now >= board.deadline - EPSILON_S:
            board.refresh(SAMPLE, now)
        self.perform(number, core.tick(now))
        self._plan(number, node)

    def _send(self, number: int, to: int, data: bytes) -> None:
        self.messages[data[0]] += 1
        self.octets[data[0]] += len(data)
        if self.watch is not None:
            self.watch(number, to, data)
        if self.refused and not self.nodes[to].alive:
            self.perform(number, self.nodes[number].core.failed(to, self.nodes[number].clock(self.t)))
            return
        if self.doubled and self.rng.random() < self.doubled:
            self._carry(number, to, data)
        self._carry(number, to, data)

    def _carry(self, number: int, to: int, data: bytes) -> None:
        if self.loss and self.rng.random() < self.loss:
            return
        low, high = self.delay_s
        if high == 0.0:
            self._deliver(to, data, number)
        else:
            self.at(self.t + low + (high - low) * self.rng.random(), lambda: self._deliver(to, data, number))

    def _deliver(self, to: int, data: bytes, sender: int) -> None:
        node = self.nodes[to]
        if not node.alive or (self.part is not None and self.part(to) != self.part(sender)):
            return
        if node.frozen_until > self.t:
            node.inbox.append((data, sender))
            return
        node.received += 1
        outputs = node.core.receive(data, sender, node.clock(self.t))
        if outputs:
            self.perform(to, outputs)
        if node.core.deadline < node.clock(node.wake) - EPSILON_S:
            self._plan(to, node)

    def _thaw(self, number: int) -> None:
        node = self.nodes[number]
        waiting, node.inbox = node.inbox, []
        for data, sender in waiting:
            self._deliver(number, data, sender)
