from dataclasses import replace

import pytest

from omcore.types import JobState, Movable, NodeState, Series, Step
from omview import model
from omview.model import Book, Moments
from tests import demo


def test_a_column_stands_for_whole_seconds_and_all_hold_the_window() -> None:
    assert model.span_for(60) == 10.0
    assert model.span_for(46) * 46 >= model.WINDOW_S
    assert model.span_for(10_000) == 1.0
    assert model.span_for(0) == 600.0


def test_load_columns_take_the_highest_value_and_others_the_mean() -> None:
    book = Book()
    now = 6000.0
    for second, load, cpu in ((0, 0.5, 10.0), (1, 2.0, 30.0)):
        node = demo.node(1, sample=replace(demo.sample(1), load=load, cpu_percent=cpu))
        book.record(demo.view(nodes=(node,)), now - 10 + second)
    assert book.columns(1, "load", 60, now).values[-1] == 2.0
    assert book.columns(1, "cpu", 60, now).values[-1] == 20.0
    assert book.columns(1, "load", 60, now).values[-2] is None


def test_a_column_does_not_change_before_its_span_is_over() -> None:
    book = Book()
    book.record(demo.view(), 6001.0)
    first = book.columns(1, "load", 60, 6001.0)
    book.record(demo.view(), 6009.0)
    assert book.columns(1, "load", 60, 6009.0) is first
    assert book.columns(1, "load", 60, 6010.0).values[-1] == 2.31


def test_a_node_that_is_not_up_leaves_a_gap() -> None:
    book = Book()
    book.record(demo.view(nodes=(demo.node(1, state=NodeState.LOST),)), 5999.0)
    assert set(book.columns(1, "load", 60, 6000.0).values) == {None}


def test_the_engine_history_fills_narrow_columns() -> None:
    book = Book()
    book.seed((Series(1, 5.0, (0.1, None, 0.3)),), 6000.0)
    assert book.columns(1, "load", 600, 6000.0).values[-15:] == (0.1,) * 5 + (None,) * 5 + (0.3,) * 5


def test_old_samples_are_forgotten() -> None:
    book = Book()
    for moment in (0.0, 500.0, model.KEEP_S + 1.0):
        book.record(demo.view(nodes=(demo.node(1),)), moment)
    assert len(book._samples[1, "load"]) == 2


@pytest.mark.parametrize(
    ("before", "now", "arrow"), [(1.0, 1.3, "↑"), (1.0, 0.7, "↓"), (1.0, 1.05, " "), (0.01, 0.04, " ")]
)
def test_the_arrow_says_how_the_load_changed_in_a_minute(before: float, now: float, arrow: str) -> None:
    book = Book()
    node = demo.node(1, sample=replace(demo.sample(1), load=before))
    book.record(demo.view(nodes=(node,)), 1000.0)
    book.record(demo.view(nodes=(node,)), 1050.0)
    assert book.direction(1, now, 1060.0) == arrow


def test_without_a_value_of_a_minute_ago_there_is_no_arrow() -> None:
    book = Book()
    assert book.direction(1, 2.0, 1000.0) == " "
    book.record(demo.view(), 900.0)
    assert book.direction(1, 9.0, 1000.0) == " "


def test_sums_weigh_loads_by_cores_and_leave_out_lost_nodes() -> None:
    total = model.sums(demo.view())
    assert total.load == pytest.approx((2.31 * 8 + 0.94 * 8 + 0.55 * 4 + 0.12 * 16) / 36)
    assert (total.up, total.jobs, total.home, total.away, total.locked, total.moving) == (4, 13, 9, 4, 1, 1)
    lost = demo.view(nodes=(demo.node(1), demo.node(2, state=NodeState.LOST), demo.node(3, state=NodeState.STALE)))
    total = model.sums(lost)
    assert (total.up, total.stale, total.lost) == (1, 1, 1)
    assert total.mem_total_bytes == 80 * demo.GIB
    assert model.sums(demo.view(nodes=())).load == 0.0


def test_balance_is_the_mean_over_the_highest_load() -> None:
    assert model.balance(demo.view().nodes) == pytest.approx(100 * 0.98 / 2.31)
    assert model.balance((demo.node(1),)) is None
    idle = replace(demo.sample(1), load=0.01)
    assert model.balance((demo.node(1, sample=idle), demo.node(2, sample=idle))) is None


@pytest.mark.parametrize(
    ("change", "here", "sign"),
    [
        ({}, None, "●"),
        ({"node": 2}, None, "◆"),
        ({"node": 2}, 1, "◇"),
        ({"node": 2}, 2, "◆"),
        ({"locked": True}, None, "■"),
        ({"state": JobState.MOVING, "node": 2}, 1, "»"),
        ({"state": JobState.LOST}, None, "×"),
        ({"state": JobState.DOUBT}, None, "!"),
    ],
)
def test_the_sign_of_a_job(change: dict[str, object], here: int | None, sign: str) -> None:
    assert model.job_sign(replace(demo.JOBS[0], **change), here)[0] == sign  # type: ignore[arg-type]


def test_signs_and_words_of_the_rest() -> None:
    job = demo.JOBS[0]
    assert model.job_sign(None) == ("·", "faint")
    assert model.movable(None)[0] == "no"
    assert model.movable(job)[0] == "yes"
    assert model.movable(replace(job, locked=True))[0] == "locked"
    assert model.movable(replace(job, state=JobState.MOVING))[0] == "moving"
    assert model.movable(replace(job, movable=Movable.UNKNOWN))[0] == "?"
    assert [model.node_sign(demo.node(1, state=state))[0] for state in NodeState] == ["•", "~", "×"]


def test_a_job_is_called_by_its_name_or_its_program() -> None:
    job = demo.JOBS[0]
    assert model.job_label(job) == "ffmpeg"
    assert model.job_label(replace(job, name="", command=("/usr/bin/make", "-j"))) == "make"
    assert model.job_label(replace(job, name="", command=())) == job.id[:8]


def test_jobs_of_a_node_busiest_first() -> None:
    view = demo.view()
    assert [job.pid for job in model.jobs_on(view, 1)] == [31207, 28340, 31290, 28399, 1410]
    assert {job.pid for job in model.jobs_away(view, 1)} == {31177, 48211, 2204}
    ended = replace(demo.JOBS[0], state=JobState.ENDED)
    assert model.live_jobs(demo.view(jobs=(ended,))) == ()


def test_moves_are_running_or_ended() -> None:
    view = demo.view()
    assert [move.id for move in model.running_moves(view)] == ["m5"]
    assert [move.id for move in model.ended_moves(view)] == ["m4", "m3", "m2", "m1", "m0"]
    assert model.move_share(view.moves[0]) == pytest.approx(1.4 / 2.2)
    assert model.move_share(replace(view.moves[0], bytes_total=0)) is None
    assert {Step.DONE, Step.BACK, Step.REFUSED} == model.ENDS


def test_nodes_by_name() -> None:
    assert model.node_name(demo.view(), 2) == "birch"
    assert model.node_name(demo.view(), 9) == "node 9"


def test_the_time_of_an_event_does_not_flicker() -> None:
    moments = Moments()
    event, move = demo.EVENTS[0], demo.MOVES[0]
    assert moments.of_event(event, 1000.0) == 985.0
    assert moments.of_event(replace(event, age_s=16.4), 1001.0) == 985.0
    assert moments.of_move(move, 1000.0) == 988.0
    moments.forget_except(demo.view(events=(), moves=(move,)))
    assert moments.of_event(replace(event, age_s=20.0), 1010.0) == 990.0
    assert moments.of_move(move, 2000.0) == 988.0
