"""Who is in the cluster, as people call them; and what a hostile member may say of others."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from omcore.cluster import AHEAD_S, HISTORY_S, MAX_EVENTS, Cluster, load_known, save_known
from omcore.errors import RemoteProtocolError, UsageError
from omcore.types import NodeId, NodeInfo


def key(number: int) -> NodeId:
    return NodeId(f"{number:02x}" * 32)


def info(number: int, name: str = "", serial: int = 1, **more: object) -> NodeInfo:
    return replace(NodeInfo(key(number), number, name or f"n{number}", serial=serial), **more)  # type: ignore[arg-type]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(info(1, "ash"), tmp_path)
    made.set_members((key(number), number) for number in (1, 2, 3, 4))
    for number, name in ((2, "birch"), (3, "cedar"), (4, "cedar")):
        assert made.learn(info(number, name))
    return made


def test_names_and_twins(cluster: Cluster) -> None:
    assert cluster.name(key(2)) == cluster.name(2) == "birch"
    assert cluster.name(3) == "cedar(3)"
    assert cluster.name(9) == "node 9"
    assert cluster.name(key(9)) == "09090909"
    assert (cluster.number(key(3)), cluster.number(key(9))) == (3, 0)


@pytest.mark.parametrize(
    ("word", "number"),
    [("ash", 1), ("birch", 2), ("2", 2), ("cedar(4)", 4), ("3", 3), ("020202", 2), (str(key(4)), 4)],
)
def test_a_node_is_found_by_name_number_or_key(cluster: Cluster, word: str, number: int) -> None:
    assert cluster.find(word) == key(number)


@pytest.mark.parametrize("word", ["", "9", "bir", "02020", "\x1b[2J", "²", "-1", "9" * 5000, "x" * 10_000])
def test_what_names_no_node_is_refused_with_the_names_there_are(cluster: Cluster, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        cluster.find(word)
    assert "\x1b" not in caught.value.text
    assert len(caught.value.text) < 200
    assert "birch" in caught.value.hint


def test_twins_need_a_number(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="2 nodes are called cedar") as caught:
        cluster.find("cedar")
    assert caught.value.hint == "Use a number: 3, 4"


def test_a_name_beats_a_number(cluster: Cluster) -> None:
    cluster.learn(info(4, "2", serial=2))
    assert cluster.find("2") == key(4)


def test_hearsay_must_be_newer_but_a_nodes_own_word_always_counts(cluster: Cluster) -> None:
    assert cluster.learn(info(2, "birch", 100, addresses=("10.0.0.2:1",)))
    assert not cluster.learn(info(2, "old", 100))
    assert not cluster.learn(info(2, "old", 99))
    assert cluster.learn(info(2, "reset", 50), itself=True)  # its clock was set back
    assert not cluster.learn(info(2, "reset", 50), itself=True)
    assert cluster.name(2) == "reset"


def test_news_of_an_address_is_told(cluster: Cluster) -> None:
    told: list[NodeId] = []
    cluster.on_address = told.append
    cluster.learn(info(2, "birch", 5))
    assert told == []
    cluster.learn(info(2, "birch", 6, addresses=("10.0.0.2:1",)))
    assert told == [key(2)]


def test_who_joined_can_be_dialled_before_it_greets(cluster: Cluster, tmp_path: Path) -> None:
    told: list[NodeId] = []
    cluster.on_address = told.append
    cluster.set_members((key(number), number) for number in (1, 2, 5))
    cluster.reached(key(5), ("10.0.0.5:1", "x" * 81, "10.0.0.5:2\n"))
    cluster.reached(key(2), ("10.6.6.6:1",))  # it has greeted us: its own word stands
    cluster.reached(key(9), ("10.0.0.9:1",))
    assert told == [key(5)]
    assert cluster.infos[key(5)].addresses == ("10.0.0.5:1",)
    again = Cluster(info(1, "ash"), tmp_path)
    again.set_members([(key(1), 1), (key(5), 5)])
    assert again.infos[key(5)].addresses == ("10.0.0.5:1",)
    assert cluster.learn(info(5, "oak"))


def test_nobody_speaks_for_strangers_for_us_or_under_anothers_number(cluster: Cluster) -> None:
    assert not cluster.learn(info(9, "stranger"))
    assert not cluster.learn(info(1, "not me", 10**9))
    assert not cluster.learn(replace(info(2, "birch", 10**9), number=3))
    assert not cluster.learn(info(2, "for ever", int(time.time()) + AHEAD_S + 60))
    assert [cluster.name(number) for number in (1, 2)] == ["ash", "birch"]


@pytest.mark.parametrize(
    "bad",
    [
        {"id": NodeId("02" * 31)},
        {"addresses": ("10.0.0.1:1",) * 9},
        {"addresses": ("x" * 81,)},
        {"addresses": ("10.0.0.1:1\n",)},
        {"criu": (1, 2, 3, 4, 5)},
        {"serial": -1},
    ],
)
def test_infos_out_of_bounds_are_refused(cluster: Cluster, bad: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        cluster.learn(replace(info(2, "birch", 100), **bad))  # type: ignore[arg-type]


def test_foreign_text_is_cleaned(cluster: Cluster) -> None:
    hostile = "\x1b]52;c;x\x07\u202e" + "n" * 1000
    cluster.learn(replace(info(2, hostile, 100), version=hostile, kernel=hostile, arch=hostile))
    known = cluster.infos[key(2)]
    for text in (known.name, known.version, known.kernel, known.arch, *(event.text for event in cluster.events(0.0))):
        assert text.isprintable()
        assert len(text) <= 100


def test_what_was_heard_is_known_after_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    again = Cluster(info(1, "ash"), tmp_path)
    again.set_members([(key(1), 1), (key(2), 2), (key(5), 5)])
    assert (again.name(2), again.name(5)) == ("birch", "node 5")
    assert key(3) not in again.infos
    save_known(tmp_path, [info(7, "oak")])
    assert load_known(tmp_path) == (info(7, "oak"),)
    (tmp_path / "nodes.json").write_bytes(b'{"damaged')
    assert load_known(tmp_path) == ()


def test_a_disk_that_is_full_forgets_nothing(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "nodes.new").mkdir()  # the temporary file cannot be made
    assert cluster.learn(info(2, "newer", 100))
    assert cluster.name(2) == "newer"


def test_who_left_is_forgotten_and_we_may_be_renumbered(cluster: Cluster) -> None:
    cluster.set_members([(key(1), 1), (key(2), 2)])
    assert set(cluster.infos) == {key(1), key(2)}
    cluster.update_me(replace(info(1, "ash"), number=6))
    cluster.set_members([(key(1), 6), (key(2), 2)])
    assert cluster.numbers == {6: key(1), 2: key(2)}
    assert cluster.find("6") == key(1)


def test_joining_and_another_version_are_events(cluster: Cluster) -> None:
    assert [event.subject for event in cluster.events(0.0)] == ["cedar(4)", "cedar", "birch"]
    cluster.learn(info(2, "birch", 100, proto=99))
    newest = cluster.events(time.monotonic())[0]
    assert (newest.kind, newest.subject) == ("error", "birch")
    assert newest.age_s >= 0


def test_events_and_history_are_bounded(cluster: Cluster) -> None:
    for number in range(MAX_EVENTS + 100):
        cluster.event("moved", "x", str(number))
    events = cluster.events(time.monotonic())
    assert len(events) == 50
    assert events[0].text == str(MAX_EVENTS + 99)
    for second in range(HISTORY_S + 5):
        cluster.record([(2, float(second)), (1, None)])
    mine, theirs = cluster.history()
    assert (mine.node, theirs.node) == (1, 2)
    assert theirs.values[-1] == HISTORY_S + 4
    assert len(theirs.values) == HISTORY_S
