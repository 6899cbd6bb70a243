"""Board and membership together: one wire, one deadline, one view."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omcore.errors import RemoteProtocolError
from omcore.gossip import Gossip, GossipConfig, NodeJoined, NodeLeft, Output, Send, codec
from omcore.gossip.messages import Kind, Message, Record, Status, pack, unpack
from omcore.types import LoadSample, NodeState


def gossip(me: int = 0, n: int = 3) -> Gossip:
    made = Gossip(me, GossipConfig(), Random(me + 1))
    made.set_members(range(n))
    made.refresh(LoadSample(load=float(me)), 0.0)
    made.tick(0.0)
    return made


def hello(incarnation: int = 1, *records: Record) -> bytes:
    return pack(Message(Kind.NEWS, incarnation, records=records))


def window(number: int, serial: int = 1) -> bytes:
    return codec.pack_window([0], [number], [serial], [codec.pack_figures(LoadSample(load=7.0))], 0, False)


def states(of: Gossip, now: float) -> list[NodeState]:
    return [state for _, state, _, _ in of.view(now)]


def sends(outputs: list[Output]) -> list[Send]:
    return [output for output in outputs if isinstance(output, Send)]


def test_view_tells_up_stale_and_lost_apart() -> None:
    g = gossip(n=4)
    assert states(g, 1.0) == [NodeState.UP, NodeState.STALE, NodeState.STALE, NodeState.STALE]
    g.receive(hello(), 1, 1.0)
    assert g.state(1, 1.0) is NodeState.STALE  # runs, but no figures yet
    g.receive(window(1), 1, 1.0)
    assert g.view(2.0)[1][:2] == (1, NodeState.UP)
    assert g.view(2.0)[1][3] == pytest.approx(1.0)
    g.receive(hello(1, Record(Status.DEAD, 2, 1, 1)), 1, 2.0)
    assert g.state(2, 2.0) is NodeState.LOST
    assert g.state(1, 4.5) is NodeState.STALE  # news too old
    g.receive(window(1, 2), 1, 4.5)
    assert g.state(1, 4.5) is NodeState.UP
    g.receive(hello(1, Record(Status.SUSPECT, 1, 1, 3)), 3, 4.5)
    assert g.state(1, 4.5) is NodeState.STALE  # suspected
    assert g.state(0, 4.5) is NodeState.UP


def test_a_member_never_heard_of_is_lost_after_a_while() -> None:
    g = gossip()
    assert g.state(1, 9.0) is NodeState.STALE
    assert g.state(1, 10.5) is NodeState.LOST


def test_who_meets_a_node_pulls_its_board_and_its_pages() -> None:
    g = gossip()
    out = g.receive(hello(), 1, 0.0)
    assert NodeJoined(1) in out
    to_one = [send.data for send in sends(out) if send.to == 1]
    assert codec.pack_pull() in to_one
    assert any(data[:1] == b"M" and unpack(data).kind is Kind.PULL for data in to_one)
    assert codec.pack_pull() not in [send.data for send in sends(g.receive(hello(), 2, 0.0))]  # not all at once


def test_a_load_figure_from_a_node_thought_down_has_it_asked() -> None:
    g = gossip()
    out = g.receive(window(2), 2, 0.0)
    assert [unpack(send.data).kind for send in sends(out) if send.data[:1] == b"M"] == [Kind.PING]
    assert g.state(2, 0.0) is NodeState.STALE
    assert sends(g.receive(window(2, 2), 2, 0.0)) == []  # once a second is enough


def test_a_failed_connect_concerns_both_halves() -> None:
    g = gossip(n=5)
    for number in (1, 2, 3, 4):
        g.receive(hello(), number, 0.0)
    while True:
        out = [send for send in sends(g.tick(g.deadline)) if send.data[:1] == b"B"]
        if out:
            break
    again = sends(g.failed(out[0].to, g.deadline))
    assert {send.data[:1] for send in again} == {b"B", b"M"}
    assert out[0].to not in {send.to for send in again}


def test_a_leave_is_told() -> None:
    a, b = gossip(0), gossip(1)
    a.receive(hello(), 1, 0.0)
    b.receive(hello(), 0, 0.0)
    out = [output for send in sends(a.leave(1.0)) for output in b.receive(send.data, 0, 1.0)]
    assert NodeLeft(0) in out
    assert b.state(0, 1.0) is NodeState.LOST


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_bad_bytes_change_nothing(data: bytes) -> None:
    g = gossip()
    g.receive(window(1), 1, 0.0)
    before = g.view(0.0)
    for candidate in (b"X" + data, b"B\3" + data, b"M\0" + data):
        with pytest.raises(RemoteProtocolError):
            g.receive(candidate, 1, 0.0)
    assert g.view(0.0) == before


def test_who_is_no_member_is_not_heard() -> None:
    g = gossip()
    assert sends(g.receive(hello(), 9, 0.0)) == []
    assert sends(g.receive(window(9), 9, 0.0)) == []
    assert len(g.view(0.0)) == 3
