"""One move as people follow it."""

from __future__ import annotations

import asyncio

import pytest

from omcore.errors import Refused
from omcore.jobs.manager import COMMAND_CHARS, shown_command
from omcore.jobs.track import Track
from omcore.messages import Progressed
from omcore.types import JobId, NodeId, Step

JOB = JobId("a" * 32)


def track() -> Track:
    future: asyncio.Future[None] = asyncio.Future(loop=asyncio.new_event_loop())
    future.get_loop().close()
    return Track("7", JOB, "calc", "ann", NodeId("1" * 64), NodeId("2" * 64), "you", 100.0, done=future)


def progressed(step: str, done: int = 0, total: int = 0, frozen_s: float = 0.0) -> Progressed:
    return Progressed(JOB, 0, 2, step, done, total, frozen_s)


def test_steps_never_go_back() -> None:
    one = track()
    one.step_to(Step.FREEZE, 101.0)
    one.step_to(Step.PREPARE, 102.0)
    assert one.view(1, 2, 102.0).step is Step.FREEZE
    one.figures(progressed("restore"), False, 103.0)
    one.figures(progressed("ship"), True, 104.0)  # crossed on the way
    assert one.view(1, 2, 104.0).step is Step.RESTORE
    assert one.frozen_since == 101.0


@pytest.mark.parametrize("step", ["done", "refused", "back", "check", "nonsense", ""])
def test_a_peer_cannot_end_a_move(step: str) -> None:
    one = track()
    one.figures(progressed(step), True, 101.0)
    assert one.step is Step.CHECK
    assert one.running


def test_bytes_stay_within_what_was_announced() -> None:
    one = track()
    for done, shown in ((-5, 0), (5, 5), (11, 10)):
        one.figures(progressed("ship", done, 10), True, 101.0)
        assert (one.bytes_done, one.bytes_total) == (shown, 10)
    one.figures(progressed("ship", 3, -1), True, 101.0)
    assert one.bytes_total == 10


def test_the_freeze_is_the_sum_of_what_both_ends_measured() -> None:
    one = track()
    one.step_to(Step.FREEZE, 101.0)
    one.figures(progressed("restore", frozen_s=0.2), True, 101.2)
    view = one.view(1, 2, 101.3)
    assert (view.freeze_s, view.total_s) == (None, None)
    assert view.frozen_for_s == pytest.approx(0.3)
    one.figures(progressed("commit", frozen_s=0.1), False, 101.6)
    one.ended(Step.DONE, 102.0)
    view = one.view(1, 2, 200.0)
    assert view.freeze_s == pytest.approx(0.3)
    assert (view.total_s, view.frozen_for_s, view.step) == (2.0, None, Step.DONE)
    assert view.id == f"{JOB}.7"
    assert one.done.result() is None


def test_where_an_end_said_nothing_home_says_what_it_saw() -> None:
    one = track()
    one.step_to(Step.FREEZE, 101.0)
    one.ended(Step.BACK, 103.5, Refused("No.", "Later."))
    view = one.view(1, 2, 104.0)
    assert (view.freeze_s, view.error, view.hint) == (2.5, "No.", "Later.")
    with pytest.raises(Refused):
        one.done.result()


def test_what_has_ended_has_ended() -> None:
    one = track()
    one.ended(Step.REFUSED, 101.0, Refused("No."))
    one.ended(Step.DONE, 102.0)
    one.step_to(Step.COMMIT, 103.0)
    assert (one.step, one.ended_at) == (Step.REFUSED, 101.0)
    assert one.view(1, 2, 104.0).freeze_s is None


def test_a_shown_command_is_bounded_however_many_words_it_has() -> None:
    assert shown_command(("sh", "-c", "echo \x1b")) == ("sh", "-c", "echo \\x1b")
    words = shown_command(("rm", *["x" * 300] * 9000))
    assert words[-1] == "…"
    assert len(" ".join(words)) <= COMMAND_CHARS + 4
    assert len(shown_command(("y" * 10_000,))[0]) == COMMAND_CHARS


def test_it_knows_when_anything_was_last_heard() -> None:
    one = track()
    one.step_to(Step.FREEZE, 103.0)
    assert one.changed == 103.0
    one.figures(progressed("ship", 5, 10), True, 104.0)
    assert one.changed == 104.0
