"""Questions between nodes: asked again until answered, answered once however often they arrive."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from omcore import errors
from omcore.errors import OmError, PeerUnreachable, RemoteProtocolError
from omcore.messages import PEER, Answer, Call
from omcore.types import NodeId

log = logging.getLogger(__name__)

T = TypeVar("T")
AGAIN_S = 0.5
"""First pause before a question is repeated; doubles up to eight times this."""
REMEMBERED = 256
"""Answers kept for repeats, per node."""

Answerer = Callable[[NodeId, Any], Awaitable[object]]


class Calls:
    """Asks and answers; `send(node, message)` may lose messages."""

    def __init__(self, send: Callable[[NodeId, object], None], answer: Answerer, first: int) -> None:
        self._send = send
        self._answer = answer
        self._next = first  # random start: a restarted engine must not meet its old numbers
        self._waiting: dict[tuple[NodeId, int], asyncio.Future[Answer]] = {}
        self._seen: dict[NodeId, OrderedDict[int, Answer | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, node: NodeId, question: object, kind: type[T], timeout: float, name: str = "") -> T:
        """The node's answer; raises its error, or `PeerUnreachable` after `timeout` seconds."""
        number, self._next = self._next, (self._next + 1) & 0x7FFFFFFF
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[node, number] = future
        message = Call(number, PEER.encode(question))
        deadline = asyncio.get_running_loop().time() + timeout
        pause = AGAIN_S
        try:
            while True:
                self._send(node, message)
                left = deadline - asyncio.get_running_loop().time()
                done, _ = await asyncio.wait({future}, timeout=max(0.0, min(pause, left)))
                if done:
                    return _open(future.result(), kind)
                if left <= pause:
                    raise PeerUnreachable(
                        f"{name or node[:8]} did not answer within {timeout:.0f} s.", "Is it up? See: omview nodes"
                    )
                pause = min(pause * 2, AGAIN_S * 8)
        finally:
            self._waiting.pop((node, number), None)

    def received(self, sender: NodeId, message: Call | Answer) -> None:
        """Take a question or an answer off the network."""
        if isinstance(message, Answer):
            future = self._waiting.get((sender, message.number))
            if future is not None and not future.done():
                future.set_result(message)
            return
        seen = self._seen.setdefault(sender, OrderedDict())
        if message.number in seen:
            answer = seen[message.number]
            if answer is not None:
                self._send(sender, answer)
            return
        seen[message.number] = None
        while len(seen) > REMEMBERED:
            seen.popitem(last=False)
        task = asyncio.create_task(self._work(sender, message, seen))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a question was not answered", exc_info=error)

    async def _work(self, sender: NodeId, call: Call, seen: OrderedDict[int, Answer | None]) -> None:
        try:
            body = await self._answer(sender, PEER.decode(call.body))
            answer = Answer(call.number, PEER.encode(body))
            PEER.encode(answer)  # both must fit
        except OmError as error:
            answer = Answer(call.number, b"", type(error).__name__, error.text[:400], error.hint[:400])
        if call.number in seen:
            seen[call.number] = answer
        self._send(sender, answer)

    def close(self) -> None:
        """Stop answering."""
        for task in self._tasks:
            task.cancel()


def _open(answer: Answer, kind: type[T]) -> T:
    if answer.error:
        error = getattr(errors, answer.error, OmError)
        known = isinstance(error, type) and issubclass(error, OmError)
        raise (error if known else OmError)(answer.text[:400], answer.hint[:400])
    body = PEER.decode(answer.body)
    if not isinstance(body, kind):
        raise RemoteProtocolError(f"an answer of kind {type(body).__name__}")
    return body
