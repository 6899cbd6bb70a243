"""One key at two places (SECURITY case 38): told apart from a restart, and only the later one gives way."""

from __future__ import annotations

import pytest

from omcore.twin import Twin, Twins
from omcore.types import NodeId, NodeInfo

ME, ASH, BIRCH = (NodeId(letter * 64) for letter in "abc")


@pytest.fixture
def twins() -> Twins:
    made = Twins()
    made.said(100)
    return made


def about_me(serial: int) -> NodeInfo:
    return NodeInfo(ME, 1, "me", serial=serial)


def test_what_was_known_of_us_before_this_start_is_no_twin(twins: Twins) -> None:
    assert twins.judge(ASH, about_me(70)) is Twin.NONE
    assert twins.judge(ASH, about_me(0)) is Twin.NONE
    assert twins.judge(ASH, about_me(100)) is Twin.NONE
    assert twins.judge(BIRCH, about_me(70)) is Twin.NONE  # slower than ash


def test_whoever_heard_us_and_then_another_under_our_key_tells_of_a_twin(twins: Twins) -> None:
    twins.judge(ASH, about_me(100))
    assert twins.judge(ASH, about_me(130)) is Twin.LATER
    assert twins.judge(ASH, about_me(70)) is Twin.EARLIER


def test_what_we_said_of_ourselves_since_is_ours(twins: Twins) -> None:
    twins.said(107)
    for serial in (100, 107, 100):
        assert twins.judge(ASH, about_me(serial)) is Twin.NONE
