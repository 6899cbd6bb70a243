"""Who is in the cluster and how they do: infos, load history, events, and names for people."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from omcore.errors import RemoteProtocolError, UsageError
from omcore.text import clean
from omcore.types import EventView, NodeId, NodeInfo, Series
from omcore.wire import PROTO, from_json, to_json

HISTORY_S = 600
MAX_EVENTS = 200
KNOWN_FILE = "nodes.json"
MAX_ADDRESSES = 8
AHEAD_S = 24 * 3600
"""A serial is its maker's clock: further ahead of ours than this it is refused, or nobody could ever follow it."""


def load_known(state: Path) -> tuple[NodeInfo, ...]:
    """Infos of nodes heard before; a missing or damaged file is as good as none: they will be heard again."""
    try:
        return from_json((state / KNOWN_FILE).read_bytes(), tuple[NodeInfo, ...])
    except (OSError, RemoteProtocolError):
        return ()


def save_known(state: Path, infos: Iterable[NodeInfo]) -> None:
    """Remember infos over a restart."""
    path = state / KNOWN_FILE
    temporary = path.with_suffix(".new")
    temporary.write_bytes(to_json(tuple(infos)))
    os.replace(temporary, path)


def checked(info: NodeInfo) -> NodeInfo:
    """An info as a peer sent it, bounded and cleaned; raises `RemoteProtocolError` for nonsense."""
    if len(info.id) != 64 or len(info.addresses) > MAX_ADDRESSES or len(info.criu) > 4 or info.serial < 0:
        raise RemoteProtocolError("a node info out of bounds")
    if any(len(address) > 80 or not address.isprintable() for address in info.addresses):
        raise RemoteProtocolError("an address out of bounds")
    return NodeInfo(
        id=info.id,
        number=info.number,
        name=clean(info.name, 64),
        addresses=info.addresses,
        version=clean(info.version, 32),
        proto=info.proto,
        criu=info.criu,
        kernel=clean(info.kernel, 64),
        arch=clean(info.arch, 16),
        serial=info.serial,
    )


class Cluster:
    """The roster's members with what is known of each.

    `on_address` is called with a node whose addresses changed.
    """

    def __init__(self, me: NodeInfo, state: Path) -> None:
        self.me = me
        self._state = state
        self.infos: dict[NodeId, NodeInfo] = {me.id: me}
        self.numbers: dict[int, NodeId] = {me.number: me.id}
        self._history: dict[int, deque[float | None]] = {}
        self._events: deque[tuple[float, EventView]] = deque(maxlen=MAX_EVENTS)
        self._serial = 0
        self.on_address: Callable[[NodeId], None] = lambda node: None

    def set_members(self, members: Iterable[tuple[NodeId, int]]) -> None:
        """The roster's word: who belongs, under which number."""
        numbers = {number: node for node, number in members}
        self.numbers = numbers
        keep = set(numbers.values())
        known = {info.id: info for info in load_known(self._state)}
        for number, node in numbers.items():
            if node not in self.infos:
                self.infos[node] = known.get(node) or NodeInfo(node, number, f"node {number}")
        for node in [node for node in self.infos if node not in keep]:
            del self.infos[node]

    def reached(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        """Where a member that has not greeted us yet can be dialled: it joined from there, or we joined it there."""
        old = self.infos.get(node)
        good = tuple(address for address in addresses if len(address) <= 80 and address.isprintable())
        if old is None or old.serial or not good:
            return
        self.infos[node] = replace(old, addresses=good[:MAX_ADDRESSES])
        self.on_address(node)
        with contextlib.suppress(OSError):
            save_known(self._state, self.infos.values())

    def update_me(self, me: NodeInfo) -> None:
        """Our own info has changed."""
        self.me = self.infos[me.id] = me
        self.numbers[me.number] = me.id

    def learn(self, info: NodeInfo, itself: bool = False) -> bool:
        """Take a peer's info of another member, or of `itself`; True when it was news.

        What a node says of itself always counts: its clock may have been set back.  Hearsay must be newer.
        """
        info = checked(info)
        old = self.infos.get(info.id)
        if old is None or info.id == self.me.id or self.numbers.get(info.number) != info.id:
            return False
        if info == old or info.serial > time.time() + AHEAD_S or (info.serial <= old.serial and not itself):
            return False
        self.infos[info.id] = info
        if info.addresses != old.addresses:
            self.on_address(info.id)
        with contextlib.suppress(OSError):
            save_known(self._state, self.infos.values())
        if old.serial == 0:
            self.event("joined", self.name(info.id), f"number {info.number}, omview {info.version}")
        if info.proto != PROTO:
            text = f"speaks version {info.proto} of the protocol, this node {PROTO}"
            self.event("error", self.name(info.id), text)
        return True

    def name(self, node: NodeId | int) -> str:
        """What people call it: the name, with the number where two nodes share it."""
        key = self.numbers.get(node) if isinstance(node, int) else node
        info = self.infos.get(key) if key is not None else None
        if info is None:
            return f"node {node}" if isinstance(node, int) else node[:8]
        twins = sum(other.name == info.name for other in self.infos.values())
        return f"{info.name}({info.number})" if twins > 1 else info.name

    def number(self, node: NodeId) -> int:
        """Small number of a node; 0 for a stranger."""
        info = self.infos.get(node)
        return info.number if info else 0

    def find(self, word: str) -> NodeId:
        """The node a person means: a number, a name, `name(number)` or a prefix of the key.

        Raises `UsageError` with the names there are.
        """
        named = [node for node in self.infos if word in (self.infos[node].name, self.name(node))]
        if len(named) == 1:
            return named[0]
        if len(named) > 1:
            numbers = ", ".join(str(self.infos[node].number) for node in named)
            raise UsageError(f"{len(named)} nodes are called {word}.", f"Use a number: {numbers}")
        if word.isdecimal() and len(word) < 10 and int(word) in self.numbers:
            return self.numbers[int(word)]
        keys = [node for node in self.infos if len(word) >= 6 and node.startswith(word)]
        if len(keys) == 1:
            return keys[0]
        names = ", ".join(sorted(self.name(node) for node in self.infos))
        raise UsageError(f"There is no node {clean(word, 64)!r}.", f"Nodes here: {names}")

    def record(self, loads: Iterable[tuple[int, float | None]]) -> None:
        """One second of load history for each node."""
        for number, load in loads:
            self._history.setdefault(number, deque(maxlen=HISTORY_S)).append(load)

    def history(self) -> tuple[Series, ...]:
        """Load of every node over the last ten minutes."""
        return tuple(Series(number, 1.0, tuple(values)) for number, values in sorted(self._history.items()))

    def event(self, kind: str, subject: str, text: str) -> None:
        """Note something that happened, for the list "Now"."""
        self._serial += 1
        self._events.append((time.monotonic(), EventView(self._serial, 0.0, kind, subject, text)))

    def events(self, now: float) -> tuple[EventView, ...]:
        """Newest first, with their ages."""
        return tuple(
            EventView(event.serial, now - at, event.kind, event.subject, event.text)
            for at, event in newest(self._events, 50)
        )


def newest(events: deque[tuple[float, EventView]], count: int) -> list[tuple[float, EventView]]:
    """The newest `count` entries, newest first."""
    return list(reversed(events))[:count]
