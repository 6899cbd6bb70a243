"""What faces may see of the inside: who knows what and how old it is, and what goes over the network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from omcore import messages
from omcore.errors import OmError, RemoteProtocolError
from omcore.gossip import formulas
from omcore.types import BoardRow, BoardView, NetView, NodeId, NodeState, PeerNet

if TYPE_CHECKING:
    from omcore.node import Node

ANSWER_S = 3.0
AT_ONCE = 16  # nodes asked for their boards at the same time: an answer of a large cluster is 200 KB
DAY_MS = 86_400_000
MAX_LOAD = 1_000_000
STATES = tuple(NodeState)


class Insight:
    """Reads the gossip's and the transport's books."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._began = time.monotonic()

    # -- the board

    async def boards(self, everybody: bool) -> AsyncIterator[BoardView]:
        """Our own board; then, if wished, those of all others, in the order of their answers."""
        node = self._node
        yield self._board(node.me, self.answer())
        others = [key for key in node.cluster.numbers.values() if key != node.me] if everybody else []
        gate = asyncio.Semaphore(AT_ONCE)
        tasks = [asyncio.create_task(self._asked(key, gate)) for key in others]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for one in tasks:
                one.cancel()

    async def _asked(self, key: NodeId, gate: asyncio.Semaphore) -> BoardView:
        node = self._node
        name = node.cluster.name(key)
        async with gate:
            try:
                rows = await node.calls.ask(key, messages.AskBoard(), messages.BoardRows, ANSWER_S, name)
                return self._board(key, rows)
            except OmError as error:
                return BoardView(node.cluster.number(key), name, error=error.text)

    def _board(self, key: NodeId, answer: messages.BoardRows) -> BoardView:
        cluster = self._node.cluster
        n = len(answer.numbers)
        alone = n < 2 or not 1 <= answer.window <= n
        return BoardView(
            node=cluster.number(key),
            name=cluster.name(key),
            rows=opened(answer),
            window=answer.window,
            stale_after_s=answer.stale_after_s,
            expected_age_s=None if alone else formulas.average_age(n, answer.window),
        )

    def answer(self) -> messages.BoardRows:
        """Our board for another node."""
        gossip = self._node.gossip
        rows = gossip.view(self._node.now())
        loads = (round(min(sample.load * 100, MAX_LOAD)) if sample else 0 for _, _, sample, _ in rows)
        ages = (-1 if age_s is None else min(DAY_MS, max(0, int(age_s * 1000))) for _, _, _, age_s in rows)
        return messages.BoardRows(
            numbers=tuple(number for number, _, _, _ in rows),
            states=bytes(STATES.index(state) for _, state, _, _ in rows),
            ages_ms=tuple(ages),
            loads=tuple(loads),
            window=gossip.board.window,
            stale_after_s=gossip.board.stale_after_s,
        )

    # -- the network

    def net(self) -> NetView:
        """What went to and came from each member."""
        node = self._node
        bounds = node.transport.bounds()
        links = node.transport.links()
        return NetView(
            node=node.info.number,
            name=node.cluster.name(node.me),
            listening=node.membership.listening,
            discovery=node.finder.state,
            up_s=time.monotonic() - self._began,
            peers=tuple(
                PeerNet(number, node.cluster.name(key), links[key])
                for number, key in sorted(node.cluster.numbers.items())
                if key in links
            ),
            dials=bounds.dials,
            dials_most=bounds.dials_most,
            inbound=bounds.inbound,
            inbound_most=bounds.inbound_most,
            refused=node.transport.stats.refused,
            dropped=node.transport.strangers(),
        )


def opened(answer: messages.BoardRows) -> tuple[BoardRow, ...]:
    """The rows of an answer; raises `RemoteProtocolError` where its columns make no sense."""
    n = len(answer.numbers)
    if not n == len(answer.states) == len(answer.ages_ms) == len(answer.loads):
        raise RemoteProtocolError("columns of different lengths")
    good = (
        all(state < len(STATES) for state in answer.states)
        and all(-1 <= age <= DAY_MS for age in answer.ages_ms)
        and all(0 <= load <= MAX_LOAD for load in answer.loads)
        and 0 <= answer.window <= n
    )
    if not good:
        raise RemoteProtocolError("a board out of bounds")
    return tuple(
        BoardRow(number, STATES[state], None if age < 0 else age / 1000, None if age < 0 else load / 100)
        for number, state, age, load in zip(answer.numbers, answer.states, answer.ages_ms, answer.loads, strict=True)
    )
