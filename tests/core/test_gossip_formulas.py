"""The formulas against the tables they are to reproduce."""

from __future__ import annotations

import pytest

from omcore.errors import ConfigError
from omcore.gossip import GossipConfig, formulas


@pytest.mark.parametrize(
    ("n", "window", "expected"),
    [(16, 4, 4.56), (16, 16, 2.68), (128, 32, 6.86), (128, 128, 4.90), (1024, 128, 12.39), (10000, 512, 25.38)],
)
def test_average_age_meets_the_table(n: int, window: int, expected: float) -> None:
    assert formulas.average_age(n, window) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(
    ("n", "window", "average", "greatest"),
    [(16, 8, 3.72, 6.1), (128, 16, 10.30, 42.9), (1024, 256, 9.20, 30.0), (10000, 512, 25.30, 191)],
)
def test_published_formulas_meet_their_table(n: int, window: int, average: float, greatest: float) -> None:
    assert formulas.published_average_age(n, window) == pytest.approx(average, rel=0.01)
    assert formulas.published_greatest_age(n, window) == pytest.approx(greatest, rel=0.02)


def test_age_limit_and_entries_within_are_each_others_inverse() -> None:
    assert formulas.entries_within(128, formulas.age_limit(128, 32)) == pytest.approx(32)


@pytest.mark.parametrize(("n", "age", "entries"), [(128, 2, 7.2), (128, 4, 38.7), (1024, 6, 280)])
def test_entries_within_an_age_meet_the_table(n: int, age: float, entries: float) -> None:
    assert formulas.entries_within(n, age) == pytest.approx(entries, rel=0.04)


def test_entries_grow_towards_n_beyond_the_age_limit() -> None:
    few, many = formulas.entries_up_to(128, 32, 8.0), formulas.entries_up_to(128, 32, 30.0)
    assert 32 < few < many < 128


def test_greatest_age_is_near_the_simulated_one() -> None:
    assert formulas.greatest_age(128, 32) == pytest.approx(22.8, rel=0.03)
    assert formulas.greatest_age(1024, 128) == pytest.approx(61.7, rel=0.03)


@pytest.mark.parametrize(("n", "window"), [(1, 1), (16, 16), (256, 32), (1024, 128), (4096, 512), (10000, 512)])
def test_window_is_an_eighth_within_bounds(n: int, window: int) -> None:
    assert formulas.window_size(n) == window


def test_urgent_items_and_staleness() -> None:
    assert [formulas.urgent_sends(n) for n in (1, 16, 128, 1024)] == [3, 9, 13, 17]
    assert formulas.spread_time(1024) == pytest.approx(13.9, abs=0.05)
    assert formulas.stale_after(1, 1, 1.0) == 3.0
    assert formulas.stale_after(2, 2, 1.0) == 3.0
    assert formulas.stale_after(3, 32, 1.0) == pytest.approx(10.0, abs=0.1)
    assert formulas.stale_after(64, 32, 1.0) == pytest.approx(22.8, abs=0.1)


@pytest.mark.parametrize(("n", "window"), [(1, 1), (16, 0), (16, 17)])
def test_formulas_refuse_what_makes_no_sense(n: int, window: int) -> None:
    with pytest.raises(ValueError):
        formulas.average_age(n, window)


def test_formulas_refuse_the_other_impossible_questions() -> None:
    with pytest.raises(ValueError):
        formulas.age_limit(16, 16)
    with pytest.raises(ValueError):
        formulas.window_size(0)
    with pytest.raises(ValueError):
        formulas.entries_up_to(128, 32, 1.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("interval_s", 0.0),
        ("interval_s", float("nan")),
        ("probe_s", -1.0),
        ("ack_s", 1.0),
        ("window_max", 31),
        ("window_max", 5000),
        ("suspicion_max_mult", 0.5),
        ("page", 257),
        ("window_age_s", -1.0),
        ("helpers", 0),
    ],
)
def test_a_bad_setting_is_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"gossip.{key}"):
        GossipConfig(**{key: value})  # type: ignore[arg-type]  # a float where an int belongs is part of the test
