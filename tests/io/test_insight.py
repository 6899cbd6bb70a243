"""Boards and network figures of two real engines, and introductions among three."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from omcore import insight
from omcore.errors import RemoteProtocolError
from omcore.insight import opened
from omcore.introductions import MOST
from omcore.messages import PEER, AskInfos, BoardRows, Hello
from omcore.types import Drop, LinkState, NodeId, NodeInfo, NodeState
from tests.io.enginekit import Engine, ash, birch, root

__all__ = ["ash", "birch", "root"]
pytestmark = pytest.mark.slow


async def test_each_board_is_shown_and_one_that_does_not_answer_is_named(
    ash: Engine, birch: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await birch.client.join(await ash.client.invite())
    await ash.names("ash", "birch")
    await birch.names("ash", "birch")
    boards = [one async for one in ash.client.boards(everybody=True)]
    assert [(one.node, one.name, one.error) for one in boards] == [(1, "ash", ""), (2, "birch", "")]
    for one in boards:
        assert {row.node for row in one.rows} == {1, 2}
        assert all(row.state is NodeState.UP and row.age_s is not None and row.age_s < 60 for row in one.rows)
        assert one.expected_age_s is not None
        assert one.window == 2
    assert len([one async for one in ash.client.boards()]) == 1
    monkeypatch.setattr(insight, "ANSWER_S", 0.3)
    await birch.node.transport.unlisten()
    birch.node.transport.set_peers({})
    silent = [one async for one in ash.client.boards(everybody=True)][1]
    assert (silent.node, silent.rows) == (2, ())
    assert "birch did not answer" in silent.error


async def test_net_counts_what_went_and_why_something_did_not(ash: Engine, birch: Engine) -> None:
    await birch.client.join(await ash.client.invite())
    await ash.names("ash", "birch")
    await birch.names("ash", "birch")
    ash.node.transport.send(birch.node.me, b"\xff nonsense")
    await birch.until(lambda view: bool(birch.node.transport.links()[ash.node.me].dropped))
    view = await birch.client.net()
    assert (view.node, view.name, view.listening) == (2, "birch", birch.node.membership.listening)
    (peer,) = view.peers
    assert (peer.node, peer.name, peer.link.state) == (1, "ash", LinkState.UP)
    assert min(peer.link.sent, peer.link.received, peer.link.dials, view.dials, view.inbound) >= 1
    assert peer.link.sent_bytes > peer.link.sent
    assert dict(peer.link.dropped)[Drop.MALFORMED] == 1
    assert view.discovery == "on 127.0.0.2"


@pytest.mark.parametrize(
    "wrong",
    [
        {"numbers": (1,)},
        {"states": b"\x00\x09"},
        {"ages_ms": (0, -2)},
        {"ages_ms": (0, 10**9)},
        {"loads": (0, -1)},
        {"window": 3},
    ],
)
def test_a_board_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    good = BoardRows((1, 2), b"\x00\x02", (0, -1), (125, 0), 2, 3.0)
    assert [(row.state, row.age_s, row.load) for row in opened(good)] == [
        (NodeState.UP, 0.0, 1.25),
        (NodeState.LOST, None, None),
    ]
    values = {name: getattr(good, name) for name in good.__struct_fields__} | wrong
    with pytest.raises(RemoteProtocolError):
        opened(BoardRows(**values))


def test_a_board_of_ten_thousand_fits_into_a_message() -> None:
    n = 10_000
    rows = BoardRows(tuple(range(1, n + 1)), bytes(n), (86_400_000,) * n, (1_000_000,) * n, 512, 30.0)
    assert len(opened(PEER.decode(PEER.encode(rows)))) == n


async def test_introductions_are_bounded_and_know_only_members(ash: Engine, birch: Engine, root: Path) -> None:
    await birch.client.join(await ash.client.invite())
    await ash.names("ash", "birch")
    answer = ash.node.introductions.answer(AskInfos((2, 99, 10**12, *range(1000, 1000 + 10 * MOST))))
    assert [info.name for info in answer.infos] == ["birch"]


async def test_nodes_of_one_name_are_shown_with_their_numbers_everywhere(ash: Engine, birch: Engine) -> None:
    await birch.client.join(await ash.client.invite())
    await ash.names("ash", "birch")
    twin = replace(birch.node.info, name="ash", serial=birch.node.info.serial + 5)
    birch.node.post(ash.node.me, Hello(twin))
    view = await ash.names("ash(1)", "ash(2)")
    assert [one.name for one in (await ash.client.net()).peers] == ["ash(2)"]
    assert [one.name async for one in ash.client.boards()] == ["ash(1)"]
    assert ash.node.cluster.find("ash(2)") == birch.node.me
    assert {node.number for node in view.nodes} == {1, 2}
    stranger = NodeId("f" * 64)
    assert not ash.node.cluster.learn(NodeInfo(stranger, 2, "evil", serial=10**9))  # a number is its owner's
    assert ash.node.cluster.numbers[2] == birch.node.me
