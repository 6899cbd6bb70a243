"""The board: which of two entries stays, what is sent to whom, and what it costs."""

from __future__ import annotations

import sys
from itertools import permutations
from random import Random
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omcore.errors import LocalProtocolError, RemoteProtocolError
from omcore.gossip import Board, GossipConfig, Output, Send, codec, formulas
from omcore.gossip.roster import Roster
from omcore.types import LoadSample


def board(me: int, n: int, *, seed: int = 1, config: GossipConfig | None = None) -> Board:
    made = Board(me, config or GossipConfig(), Random(seed))
    made.set_members(range(n))
    return made


def message(*entries: tuple[int, int, float, float], urgent: int = 0, own_urgent: bool = False) -> bytes:
    """Entries of (number, serial, load, age in seconds); the first is the sender's."""
    numbers, serials = [number for number, *_ in entries], [serial for _, serial, *_ in entries]
    figures = [codec.pack_figures(LoadSample(load=load)) for *_, load, _ in entries]
    return codec.pack_window(
        [int(age_s * 1000) for *_, age_s in entries], numbers, serials, figures, urgent, own_urgent
    )


def load(of: Board, number: int) -> float | None:
    sample = of.sample(number)
    return None if sample is None else sample.load


def sent(outputs: list[Output]) -> tuple[int, codec.Window]:
    assert len(outputs) == 1
    assert isinstance(outputs[0], Send)
    kind, count, *_ = outputs[0].data[0], outputs[0].data[1]
    assert kind == codec.KIND, count
    at = codec.HEAD.size + 4 * int.from_bytes(outputs[0].data[2:4], "little")
    sender = int.from_bytes(outputs[0].data[at : at + 4], "little")
    window = codec.unpack_message(outputs[0].data, sender)
    assert window is not None
    return outputs[0].to, window


def tick_now(of: Board, now: float) -> list[Output]:
    of.refresh(LoadSample(), now)
    of.tick(now)
    return of.tick(max(now, of.deadline))


def send_now(of: Board, now: float) -> tuple[int, codec.Window]:
    return sent(tick_now(of, now))


def test_stale_load_never_replaces_fresh() -> None:
    b = board(0, 3)
    b.receive(message((1, 11, 2.0, 0.0)), 1, 100.0)
    b.receive(message((2, 1, 0.0, 0.0), (1, 10, 9.0, 1.0)), 2, 100.1)
    assert load(b, 1) == 2.0
    b.receive(message((2, 2, 0.0, 0.0), (1, 12, 3.0, 0.5)), 2, 101.0)
    assert load(b, 1) == 3.0
    assert b.age(1, 101.0) == pytest.approx(0.5)


def test_the_same_sample_by_a_longer_way_does_not_get_younger() -> None:
    b = board(0, 3)
    b.receive(message((1, 5, 2.0, 0.0)), 1, 100.0)
    b.receive(message((2, 1, 0.0, 0.0), (1, 5, 2.0, 0.0)), 2, 100.4)  # 0.4 s on the way that no age tells of
    assert b.age(1, 101.0) == pytest.approx(1.0)


def test_an_older_sample_that_seems_younger_is_not_taken() -> None:
    b = board(0, 3)
    b.receive(message((1, 6, 2.0, 0.0)), 1, 100.0)
    b.receive(message((2, 1, 0.0, 0.0), (1, 5, 7.0, 0.0)), 2, 101.5)  # lay in a frozen node's queue
    assert load(b, 1) == 2.0


def test_a_restarted_node_with_smaller_serials_is_believed_soon() -> None:
    b = board(0, 2)
    b.receive(message((1, 30000, 2.0, 0.0)), 1, 100.0)
    b.receive(message((1, 5, 7.0, 0.0)), 1, 106.0)
    assert load(b, 1) == 7.0


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), min_size=1, max_size=4, unique_by=lambda e: e[0]),
)
def test_merge_does_not_depend_on_the_order(news: list[tuple[int, int]]) -> None:
    """Samples of node 3 with serial = second of measurement, told by others at time 50."""
    results = set()
    for order in permutations(news):
        b = board(0, 8)
        for index, (second, by) in enumerate(order):
            teller = 4 + by % 4
            b.receive(message((teller, index, 0.0, 0.0), (3, second, float(second), 50.0 - second)), teller, 50.0)
        results.add((load(b, 3), b.age(3, 50.0)))
    assert results == {(float(max(news)[0]), 50.0 - max(news)[0])}


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_bad_bytes_change_nothing(data: bytes) -> None:
    b = board(0, 3)
    b.receive(message((1, 5, 2.0, 1.0)), 1, 100.0)
    before = b.entries(100.0)
    for candidate in (data, b"B\0" + data, message((1, 6, 3.0, 0.0), (2, 1, 1.0, 0.0))[:-1] + b"\xff" * 2):
        with pytest.raises(RemoteProtocolError):
            b.receive(candidate, 1, 101.0)
    assert b.entries(100.0) == before


def test_strangers_and_what_is_said_of_oneself_are_ignored() -> None:
    b = board(0, 3)
    b.refresh(LoadSample(load=1.0), 100.0)
    b.receive(message((9, 1, 5.0, 0.0), (1, 1, 5.0, 0.0)), 9, 100.0)
    b.receive(message((1, 1, 5.0, 0.0), (0, 60000, 5.0, 0.0), (7, 1, 5.0, 0.0)), 1, 100.0)
    assert {number: sample.load for number, sample, _ in b.entries(100.0)} == {0: 1.0, 1: 5.0}


def test_entries_older_than_is_kept_are_not_taken() -> None:
    b = board(0, 3)
    b.receive(message((1, 1, 5.0, 0.0), (2, 1, 5.0, 3600.0)), 1, 100.0)
    assert load(b, 2) is None


def test_a_clock_that_steps_back_loses_nobody() -> None:
    b = board(0, 3)
    b.receive(message((1, 1, 5.0, 2.0)), 1, 1000.0)
    b.refresh(LoadSample(), 1000.0)
    b.tick(1000.0)
    b.tick(10.0)
    assert b.age(1, 10.0) == pytest.approx(2.0)
    assert b.age(1, 11.0) == pytest.approx(3.0)
    assert 10.0 < b.deadline <= 11.0
    assert sent(b.tick(b.deadline))[1].ages_ms[1] < 3100


def test_one_message_per_interval_at_a_fixed_phase() -> None:
    b = board(0, 5)
    b.refresh(LoadSample(), 0.0)
    assert b.deadline <= 0.0
    b.tick(0.0)
    times = []
    for _ in range(5):
        times.append(b.deadline)
        assert b.tick(b.deadline - 0.01) == []
        assert len(b.tick(b.deadline)) == 1
    assert [later - first for first, later in zip(times, times[1:], strict=False)] == pytest.approx([1.0] * 4)
    b.tick(times[-1] + 7.3)  # late: what was missed is not made good
    assert b.deadline == pytest.approx(times[-1] + 8.0)


def test_a_node_without_figures_says_nothing() -> None:
    b = board(0, 5)
    b.tick(0.0)
    assert b.tick(b.deadline) == []
    alone = board(0, 1)
    alone.refresh(LoadSample(), 0.0)
    alone.tick(0.0)
    assert alone.tick(alone.deadline) == []
    assert alone.stale_after_s == 3.0


def test_the_window_holds_own_first_then_the_newest() -> None:
    config = GossipConfig(window_min=3, window_max=3)
    b = board(0, 10, config=config)
    for number in range(1, 10):
        b.receive(message((number, 1, float(number), number * 0.1)), number, 100.0)
    _, window = send_now(b, 100.0)
    assert list(window.numbers) == [0, 1, 2]


def test_a_window_by_age_holds_all_that_is_young_enough() -> None:
    b = board(0, 10, config=GossipConfig(window_age_s=1.0))
    for number in range(1, 10):
        b.receive(message((number, 1, float(number), number * 0.25)), number, 100.0)
    _, window = send_now(b, 100.0)
    left = 100.0 + 1.0 - b.deadline + 1.0  # a second's worth, less what passed until it was sent
    assert list(window.numbers) == [0, *(number for number in range(1, 10) if number * 0.25 <= left)]
    assert b.window == round(formulas.entries_within(10, 1.0))


def test_urgent_news_goes_before_newer_and_with_fresh_sends() -> None:
    config = GossipConfig(window_min=4, window_max=4)
    b = board(0, 10, config=config)
    b.receive(message((9, 1, 0.0, 5.0), (8, 1, 0.0, 6.0), urgent=1), 9, 100.0)
    for number in range(1, 8):
        b.receive(message((number, 1, 0.0, 0.0)), number, 100.0)
    seen = 0
    now = 100.0
    while True:
        _, window = send_now(b, now)
        if not window.urgent:
            break
        assert list(window.numbers)[1] == 8
        seen += 1
        now = b.deadline - 0.5
    assert seen == 8  # ceil(2 ln 10) + 3


def test_an_urgent_own_entry_is_inherited() -> None:
    a, b = board(0, 3), board(1, 3)
    a.refresh(LoadSample(load=4.0, cores=8.0), 99.0)
    a.refresh(LoadSample(load=0.0, cores=8.0), 100.0)
    a.tick(100.0)
    data = next(out.data for out in a.tick(a.deadline) if isinstance(out, Send))
    b.receive(data, 0, 101.0)
    _, window = send_now(b, 101.0)
    assert window.urgent == 1
    with pytest.raises(LocalProtocolError):
        b.urge(77)


def test_small_nodes_that_run_empty_are_no_urgent_news() -> None:
    a = board(0, 3)
    a.refresh(LoadSample(load=4.0, cores=2.0), 99.0)
    a.refresh(LoadSample(load=0.3, cores=8.0), 99.5)
    a.refresh(LoadSample(load=0.0, cores=2.0), 100.0)
    assert not send_now(a, 101.0)[1].own_urgent


def test_a_failed_connect_is_resent_to_another_at_once_but_not_for_ever() -> None:
    b = board(0, 6)
    to, _ = send_now(b, 0.0)
    tried = [to]
    for _ in range(3):
        to, _ = sent(b.failed(tried[-1], b.deadline - 0.5))
        assert to != tried[-1]
        tried.append(to)
    assert b.failed(tried[-1], b.deadline - 0.5) == []
    assert b.failed(99, b.deadline - 0.5) == []


def test_a_failed_connect_with_nobody_else_is_given_up() -> None:
    b = board(0, 2)
    to, _ = send_now(b, 0.0)
    assert b.failed(to, 0.5) == []


def test_dead_nodes_are_seldom_tried() -> None:
    roster = Roster()
    for number in range(1, 41):
        (roster.raise_up if number <= 20 else roster.lower)(number)
    rng = Random(5)
    drawn = [roster.target(rng) for _ in range(4000)]
    dead = sum(number is not None and number > 20 for number in drawn)
    assert 50 < dead < 150  # 4000 * 1/20 * 1/2 = 100
    for number in range(1, 41):
        roster.remove(number)
    assert roster.target(rng) is None
    roster.lower(3)
    assert roster.target(rng) == 3


def test_a_pull_is_answered_but_not_more_often_than_needed() -> None:
    a, b = board(0, 3), board(1, 3)
    b.refresh(LoadSample(), 0.0)
    pull = a.pull(1)[0]
    assert isinstance(pull, Send)
    assert sent(b.receive(pull.data, 0, 0.0))[0] == 0
    assert b.receive(pull.data, 0, 0.1) == []
    assert b.receive(pull.data, 9, 5.0) == []
    assert b.receive(pull.data, 0, 0.3) != []


def test_members_come_and_go_and_the_rest_is_kept() -> None:
    b = board(5, 8)
    for number in (1, 2, 3):
        b.receive(message((number, 1, float(number), 0.0), urgent=0, own_urgent=True), number, 10.0)
    b.refresh(LoadSample(load=0.5), 10.0)
    b.set_members([1, 3, 5, 70])
    assert {number: sample.load for number, sample, _ in b.entries(11.0)} == {5: 0.5, 1: 1.0, 3: 3.0}
    assert b.numbers == (5, 1, 3, 70)
    assert b.window == 4
    b.receive(message((70, 1, 7.0, 0.0)), 70, 11.0)
    assert sorted(b.ages(11.0)) == pytest.approx([0.0, 1.0, 1.0])
    assert b.age(2, 11.0) is None
    _, window = send_now(b, 11.0)
    assert set(window.numbers) == {5, 1, 3, 70}
    assert window.urgent == 2


@pytest.mark.slow
def test_ten_thousand_nodes_cost_milliseconds_and_few_megabytes() -> None:
    n = 10_000
    a, b = board(0, n), board(1, n, seed=2)
    rng = Random(3)
    entries = [(number, 1, 1.0, rng.random() * 60) for number in range(2, n)]
    for start in range(0, n - 2, 2000):
        data = message((0, start, 1.0, 0.0), *entries[start : start + 2000])
        a.receive(message((1, start, 1.0, 0.0), *entries[start : start + 2000]), 1, 0.0)
        b.receive(data, 0, 0.0)
    assert len(b.entries(0.0)) == n - 1
    spent = []
    for _ in range(4):
        data = next(out.data for out in tick_now(a, max(0.0, a.deadline)) if isinstance(out, Send))
        assert len(data) <= 90 + 48 * 512
        started = process_time()
        b.receive(data, 0, 1.0)
        spent.append(process_time() - started)
    assert min(spent) < 0.005
    assert state_bytes(b) < 5_000_000


def state_bytes(of: Board) -> int:
    """All that a board holds, its members' numbers included."""
    columns = [of._born, of._serials, of._figures, of._top, of._heard, of._cast.numbers, of._cast.slots]
    return sum(map(sys.getsizeof, columns)) + sum(map(sys.getsizeof, of._figures)) + 2 * 32 * len(of._cast)
