"""`omview board` and `omview net`: the promised fields, and lines for people."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from omcore.types import Drop
from omview.cli.board import histogram
from omview.cli.net import WORDS
from tests.cli.fake import FakeClient, Omview

BOARD_FIELDS = "node number error window stale_after_s expected_age_s average_age_s oldest_s histogram entries"
NET_FIELDS = "node number listening discovery up_s dials dials_most inbound inbound_most refused dropped peers"
PEER_FIELDS = (
    "name number link address retry_s heard_s sent sent_bytes received received_bytes dials failures error dropped"
)


def test_board_json_has_the_promised_fields(client: FakeClient, omview: Omview) -> None:
    one = json.loads(omview("board", "--json").out)
    assert " ".join(one) == BOARD_FIELDS
    assert (one["node"], one["average_age_s"], one["oldest_s"], one["error"]) == ("ash", 12.0, 12.0, None)
    assert one["entries"][2] == {"name": "cedar", "number": 3, "state": "lost", "age_s": None, "load": None}
    assert [bar for bar in one["histogram"] if bar["count"]] == [{"from_s": 8.0, "to_s": 16.0, "count": 1}]


def test_all_boards_come_in_order_and_one_that_failed_says_so(client: FakeClient, omview: Omview) -> None:
    boards = json.loads(omview("board", "--all", "--json").out)
    assert [(one["number"], bool(one["error"])) for one in boards] == [(1, False), (2, False), (3, True)]
    text = omview("board", "--all").out
    assert "cedar did not answer within 3 s." in text
    assert "lost: cedar" in text


def test_board_for_people_has_ages_and_their_spread(client: FakeClient, omview: Omview) -> None:
    lines = omview("board").out.splitlines()
    assert lines[0].split() == ["NODE", "NR", "STATE", "AGE", "LOAD"]
    assert lines[3].split() == ["cedar", "3", "lost", "?", "?"]
    assert "Of 1 other(s): 12.0 s old on average (expected 1.2 s), the oldest 12.0 s; stale from 10.0 s on." in lines
    assert lines[-1].split()[:3] == ["8-16", "s", "1"]


@given(st.lists(st.floats(0, 1e6)))
def test_every_age_is_counted_once(ages: list[float]) -> None:
    bars = histogram(ages)
    assert sum(count for _, _, count in bars) == len(ages)
    for start, end, count in bars:
        assert count == sum(start <= age and (end is None or age < end) for age in ages)


def test_net_json_has_the_promised_fields(client: FakeClient, omview: Omview) -> None:
    view = json.loads(omview("net", "--json").out)
    assert " ".join(view) == NET_FIELDS
    assert {" ".join(peer) for peer in view["peers"]} == {PEER_FIELDS}
    assert view["dropped"] == {"stranger": 3}
    assert view["peers"][1]["dropped"] == {"cut": 2, "waiting": 31}


def test_net_for_people_names_why_something_was_dropped(client: FakeClient, omview: Omview) -> None:
    said = omview("net").out
    assert "waiting 7.5 s" in said
    assert "2 never connected, 31 waiting to redial" in said
    assert "nothing answers at that address" in said
    assert "Dropped of no member: 3 from strangers." in said
    assert "Connections: 1 made (at most 64), 1 taken (at most 256); 5 refused." in said
    client.network = client.network.__class__(1, "ash", (), "off", 1.0, (), 0, 64, 0, 256, 0)
    assert "There is no other node." in omview("net").out


def test_every_reason_has_words() -> None:
    assert set(WORDS) == set(Drop)


def test_a_name_that_two_nodes_share_is_answered_with_their_numbers(client: FakeClient, omview: Omview) -> None:
    one, two, three = client.view.nodes
    nodes = (replace(one, name="birch(1)"), replace(two, name="birch(2)"), three)
    client.view = replace(client.view, nodes=nodes)
    said = omview("ps", "--node", "birch")
    assert said.code == 1
    assert "2 nodes are called 'birch'." in said.err
    assert "by its number: 1, 2" in said.err
    assert omview("ps", "--node", "birch(2)").code == 0
    assert omview("ps", "--node", "2").code == 0
