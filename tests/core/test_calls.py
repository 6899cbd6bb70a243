"""Questions between nodes: answered once each, over a network that loses, doubles and delays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from omcore import calls as module
from omcore.calls import REMEMBERED, Calls
from omcore.errors import LocalProtocolError, NotMovable, OmError, PeerUnreachable, RemoteProtocolError
from omcore.messages import PEER, Answer, AskRoster, Call, Launched, Nothing, RosterPage
from omcore.types import NodeId
from omcore.wire import MAX_PEER_BYTES

A, B = NodeId("a" * 64), NodeId("b" * 64)


class Wire:
    """Two nodes that ask each other; `copies` decides how often a message arrives."""

    def __init__(self, answer: Callable[[Any], object]) -> None:
        self.copies: Callable[[], int] = lambda: 1
        self.asked: list[Any] = []
        self.reply = answer
        self.calls = {A: Calls(self.sender(A), self.answer, 7), B: Calls(self.sender(B), self.answer, 7)}

    def sender(self, me: NodeId) -> Callable[[NodeId, object], None]:
        def send(to: NodeId, message: object) -> None:
            data = PEER.encode(message)
            for _ in range(self.copies()):
                asyncio.get_running_loop().call_soon(self.calls[to].received, me, PEER.decode(data))

        return send

    async def answer(self, sender: NodeId, question: Any) -> object:
        self.asked.append(question)
        await asyncio.sleep(0)
        return self.reply(question)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.001)


def page(question: Any) -> object:
    return RosterPage(b"%d" % question.page, 1)


@pytest.mark.parametrize("seed", range(5))
async def test_every_question_is_answered_once_whatever_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    wire = Wire(page)
    wire.copies = lambda: rng.choice((0, 0, 1, 2))
    asks = [wire.calls[A].ask(B, AskRoster(number), RosterPage, 30) for number in range(20)]
    asks += [wire.calls[B].ask(A, AskRoster(100 + number), RosterPage, 30) for number in range(20)]
    answers = await asyncio.gather(*asks)
    pages = [*range(20), *range(100, 120)]
    assert [answer.entries for answer in answers] == [b"%d" % number for number in pages]
    assert sorted(question.page for question in wire.asked) == pages


async def test_silence_is_an_error_with_the_nodes_name() -> None:
    wire = Wire(page)
    wire.copies = lambda: 0
    with pytest.raises(PeerUnreachable, match="birch did not answer"):
        await wire.calls[A].ask(B, AskRoster(1), RosterPage, 0.01, "birch")
    assert not wire.calls[A]._waiting


async def test_errors_are_carried_as_what_they_are() -> None:
    def refuse(question: Any) -> object:
        raise NotMovable("no " * 500, "hint")

    wire = Wire(refuse)
    with pytest.raises(NotMovable) as caught:
        await wire.calls[A].ask(B, AskRoster(1), RosterPage, 5)
    assert len(caught.value.text) == 400
    assert caught.value.hint == "hint"
    assert len(wire.asked) == 1


@pytest.mark.parametrize("kind", ["annotations", "Exception", "__doc__", "nothing such", "OmError"])
async def test_only_our_own_errors_are_made_of_a_peers_word(kind: str) -> None:
    with pytest.raises(OmError) as caught:
        module._open(Answer(1, b"", kind, "text"), Nothing)
    assert type(caught.value) is OmError


async def test_an_answer_of_another_kind_is_refused() -> None:
    wire = Wire(lambda question: Launched(1))
    with pytest.raises(RemoteProtocolError, match="Launched"):
        await wire.calls[A].ask(B, AskRoster(1), RosterPage, 5)


@pytest.mark.parametrize("size", [MAX_PEER_BYTES - 40, MAX_PEER_BYTES])
async def test_an_answer_that_is_too_long_is_said_to_be(size: int) -> None:
    wire = Wire(lambda question: RosterPage(bytes(size), 1))
    with pytest.raises(LocalProtocolError, match="over the limit"):
        await wire.calls[A].ask(B, AskRoster(1), RosterPage, 5)


async def test_a_question_of_no_known_kind_is_refused() -> None:
    wire = Wire(page)
    got: list[object] = []
    wire.calls[B] = Calls(lambda node, message: got.append(message), wire.answer, 0)
    wire.calls[B].received(A, Call(3, b"\xfe"))
    await asyncio.gather(*wire.calls[B]._tasks)
    assert [(answer.number, answer.error) for answer in got if isinstance(answer, Answer)] == [
        (3, "RemoteProtocolError")
    ]


async def test_an_answer_counts_only_from_the_node_that_was_asked() -> None:
    wire = Wire(page)
    wire.copies = lambda: 0
    asked = asyncio.ensure_future(wire.calls[A].ask(B, AskRoster(1), RosterPage, 0.01))
    await asyncio.sleep(0)
    forged = Answer(7, PEER.encode(RosterPage(b"forged", 1)))
    wire.calls[A].received(NodeId("c" * 64), forged)
    wire.calls[A].received(B, Answer(8, PEER.encode(RosterPage(b"old", 1))))
    with pytest.raises(PeerUnreachable):
        await asked


async def test_a_bug_in_an_answer_is_logged_not_spread(caplog: pytest.LogCaptureFixture) -> None:
    def bug(question: Any) -> object:
        raise ZeroDivisionError

    wire = Wire(bug)
    with pytest.raises(PeerUnreachable):
        await wire.calls[A].ask(B, AskRoster(1), RosterPage, 0.01)
    assert "a question was not answered" in caplog.text
    assert len(wire.asked) == 1


async def test_what_is_remembered_is_bounded() -> None:
    wire = Wire(page)
    for number in range(REMEMBERED * 2):
        wire.calls[B].received(A, Call(number, PEER.encode(AskRoster(0))))
    await asyncio.gather(*wire.calls[B]._tasks)
    assert len(wire.calls[B]._seen[A]) == REMEMBERED


async def test_closing_ends_what_is_being_answered() -> None:
    begun = asyncio.Event()

    async def never(sender: NodeId, question: Any) -> object:
        begun.set()
        await asyncio.Event().wait()
        return Nothing()

    answering = Calls(lambda node, message: None, never, 0)
    answering.received(A, Call(1, PEER.encode(AskRoster(0))))
    await begun.wait()
    tasks = set(answering._tasks)
    answering.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)
