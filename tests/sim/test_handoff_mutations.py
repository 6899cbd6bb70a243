"""A checker is worth what it catches: each mutation of the real machines loses or doubles a job, and must be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from omcore.handoff import answers, dest, home_end, home_move, source, table
from omcore.handoff.home import Home
from omcore.handoff.home_state import HomeState as H
from omcore.handoff.home_state import Sync
from omcore.handoff.inputs import RestoreDone, ShipDone
from omcore.handoff.machine import Timer
from omcore.handoff.messages import Abort, Go, NoCopy, Ready, Resumed, Undone
from omcore.handoff.outputs import DeleteImages, KillPod, Resume, SendSeal, StartRestore, UndoFreeze
from omcore.handoff.records import CopyState as C
from omcore.handoff.records import End, Fate, How, Phase
from tests.sim.handoff_explorer import Bounds, Explorer, Healer, Violation

Patch = pytest.MonkeyPatch


def search(bounds: Bounds) -> None:
    """Everything within bounds, and the quiet end of every combination of node states."""
    explorer = Explorer(bounds)
    worlds = explorer.run()
    healer = Healer(explorer)
    for world in {w._replace(net=0, left=()): w for w in worlds}.values():
        healer.check(world)


def source_resumes_on_a_timeout(patch: Patch) -> Bounds:
    patch.setitem(table.PARTICIPANT_TIMERS, (C.SEALED, Timer.SILENT), lambda p: source.undo(p, "late"))
    return Bounds()


def _arm_when_ready(patch: Patch, act: Callable[[Any], None]) -> None:
    restored = dest.restored

    def then_wait(p: Any, event: Any) -> None:
        restored(p, event)
        p._arm(Timer.INVITE, 1.0)

    patch.setitem(table.PARTICIPANT, (C.RESTORING, RestoreDone), then_wait)
    patch.setitem(table.PARTICIPANT_TIMERS, (C.READY, Timer.INVITE), act)


def dest_resumes_on_a_timeout(patch: Patch) -> Bounds:
    def resume(p: Any) -> None:
        p.write(replace(p.held.bury(Fate.WON, p.held.move), state=C.RUNNING, resumed=False))
        p.emit(Resume(p.job, p.held.pod))

    _arm_when_ready(patch, resume)
    return Bounds()


def dest_deletes_on_a_timeout(patch: Patch) -> Bounds:
    _arm_when_ready(patch, lambda p: dest._bury(p, p.held, Fate.DISCARDED))
    return Bounds()


def home_aborts_after_the_commit(patch: Patch) -> Bounds:
    patch.setitem(table.HOME_TIMERS, (H.COMMITTED, Timer.GRANT), lambda h: h.become(H.UNDOING))
    return Bounds()


def source_is_killed_at_the_commit(patch: Patch) -> Bounds:
    words = home_move.words

    def early(h: Any) -> Any:
        more = [(h.move.source, Resumed(job=h.job, epoch=h.move.epoch))] if h.state is H.COMMITTED else []
        return words(h) + more

    patch.setattr(home_move, "words", early)
    return Bounds()


def ready_is_accepted_in_undoing(patch: Patch) -> Bounds:
    patch.setitem(table.HOME, (H.UNDOING, Ready), home_move.ready)
    return Bounds()


def a_restarted_home_returns_to_freezing(patch: Patch) -> Bounds:
    opened = home_move.opened

    def freezing(h: Any, ok: bool) -> None:
        opened(h, ok)
        if h.state is H.UNDOING and h.move.phase is Phase.FREEZE:
            h.become(H.FREEZING)

    patch.setitem(table.SYNCED, Sync.OPEN, freezing)
    return Bounds(home="d", engine_crashes=1, crashing="d", eager=True)


def the_commit_is_not_synced(patch: Patch) -> Bounds:
    def at_once(h: Any, sender: Any, message: Any) -> None:
        move = h.move
        h.note(replace(h.book, owner=move.dest, epoch=move.epoch, move=replace(move, phase=Phase.COMMITTED)))
        home_move.committed(h, True)

    patch.setitem(table.HOME, (H.FREEZING, Ready), at_once)
    return Bounds(node_crashes=1, crashing="h", eager=True)


def a_failed_commit_is_taken_for_no(patch: Patch) -> Bounds:
    def undo(h: Any, ok: bool) -> None:
        home_move.committed(h, ok)
        if not ok:
            h.become(H.UNDOING)

    patch.setitem(table.SYNCED, Sync.COMMIT, undo)
    return Bounds(home="d", sync_failures=1, engine_crashes=1, crashing="d", eager=True)


def a_failed_commit_is_taken_for_yes(patch: Patch) -> Bounds:
    patch.setitem(table.SYNCED, Sync.COMMIT, lambda h, ok: home_move.committed(h, True))
    return Bounds(home="d", sync_failures=1, node_crashes=1, crashing="d", eager=True)


def the_seal_goes_before_its_record(patch: Patch) -> Bounds:
    shipped = source.shipped

    def early(p: Any, event: Any) -> None:
        p.emit(SendSeal(p.job, event.epoch, p.held.session))
        shipped(p, event)

    patch.setitem(table.PARTICIPANT, (C.FROZEN, ShipDone), early)
    return Bounds()


def the_copy_is_let_go_before_its_record(patch: Patch) -> Bounds:
    undo = source.undo

    def early(p: Any, reason: str, hint: str = "") -> None:
        p.emit(UndoFreeze(p.job, p.held.pod, p.held.move))
        undo(p, reason, hint)

    patch.setattr(source, "undo", early)
    return Bounds()


def no_copy_is_taken_for_voided(patch: Patch) -> Bounds:
    def undo(h: Any, sender: Any, message: Any) -> None:
        h.become(H.UNDOING)

    patch.setitem(table.HOME, (H.COMMITTED, NoCopy), undo)
    return Bounds(home="d", node_crashes=1, crashing="d", eager=True)


def the_source_takes_no_copy_for_voided(patch: Patch) -> Bounds:
    patch.setitem(table.PARTICIPANT_MESSAGES, (C.SEALED, NoCopy), lambda p, s, m: source.undo(p, "gone"))
    return Bounds(node_crashes=1, crashing="d", eager=True)


def voided_counts_without_its_session(patch: Patch) -> Bounds:
    def loose(h: Any, role: str, sender: Any, message: Any) -> bool:
        return message.epoch == h.move.epoch and sender in (h.move.dest, h.move.source)

    patch.setattr(Home, "_is", loose)
    return Bounds(node_crashes=1, crashing="d", eager=True)


def an_abort_leaves_no_trace_in_running(patch: Patch) -> Bounds:
    def traceless(p: Any, sender: Any, message: Any) -> None:
        r = p.held
        if message.epoch > r.epoch:
            p.send(r.authority, Undone(job=p.job, epoch=message.epoch))
        else:
            answers.answer(p, sender, message)

    patch.setitem(table.PARTICIPANT_MESSAGES, (C.RUNNING, Abort), traceless)
    return Bounds()


def lost_is_declared_when_only_the_source_is_gone(patch: Patch) -> Bounds:
    def lost(h: Any, sender: Any, message: Any) -> None:
        if sender == h.move.source:
            home_end.close(h, End(How.LOST))

    patch.setitem(table.HOME, (H.FREEZING, NoCopy), lost)
    return Bounds(node_crashes=1, crashing="s", eager=True)


def the_end_of_a_retired_pod_is_believed(patch: Patch) -> Bounds:
    def with_end(p: Any, r: Any) -> None:
        p.emit(KillPod(p.job, r.pod), DeleteImages(p.job, r.move))
        p.write(replace(r, state=C.ENDED, epoch=r.epoch, end=End(How.KILLED, -9), move=None, peer=None, session=None))

    patch.setattr(source, "bury_source", with_end)
    patch.setattr(home_end, "ended_by_owner", lambda h, sender, epoch: True)
    return Bounds()


def the_source_forgets_that_it_was_sealed(patch: Patch) -> Bounds:
    patch.setitem(table.RESTART, C.SEALED, source.restart_frozen)
    return Bounds(engine_crashes=1, crashing="s")


def the_winner_is_not_waited_for(patch: Patch) -> Bounds:
    """Source deletes on GO's being sent: home says RESUMED when it commits."""

    def won(h: Any, ok: bool) -> None:
        home_move.committed(h, ok)
        if ok:
            home_move.resumed(h, h.move.dest, Resumed(job=h.job, epoch=h.move.epoch))

    patch.setitem(table.SYNCED, Sync.COMMIT, won)
    return Bounds()


def a_void_dest_still_goes(patch: Patch) -> Bounds:
    def goes(p: Any, sender: Any, message: Any) -> None:
        p.write(replace(p.held.bury(Fate.WON, p.held.move), state=C.RUNNING, resumed=False, rebuild=True))
        p.emit(StartRestore(p.job, p.held.pod, p.held.pod))

    patch.setitem(table.PARTICIPANT_MESSAGES, (C.VOID, Go), goes)
    return Bounds()


def undone_is_not_repeated(patch: Patch) -> Bounds:
    """A void dest is left alone with its images."""
    patch.setattr(home_end, "leftover_words", lambda h: [])
    return Bounds(failures=1, eager=True)


MUTATIONS = [
    source_resumes_on_a_timeout,
    dest_resumes_on_a_timeout,
    dest_deletes_on_a_timeout,
    home_aborts_after_the_commit,
    source_is_killed_at_the_commit,
    ready_is_accepted_in_undoing,
    a_restarted_home_returns_to_freezing,
    the_commit_is_not_synced,
    a_failed_commit_is_taken_for_no,
    a_failed_commit_is_taken_for_yes,
    the_seal_goes_before_its_record,
    the_copy_is_let_go_before_its_record,
    no_copy_is_taken_for_voided,
    the_source_takes_no_copy_for_voided,
    voided_counts_without_its_session,
    an_abort_leaves_no_trace_in_running,
    lost_is_declared_when_only_the_source_is_gone,
    the_end_of_a_retired_pod_is_believed,
    the_source_forgets_that_it_was_sealed,
    the_winner_is_not_waited_for,
    a_void_dest_still_goes,
    undone_is_not_repeated,
]


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.__name__)
def test_the_checker_catches(mutation: Callable[[Patch], Bounds], monkeypatch: Patch) -> None:
    bounds = mutation(monkeypatch)
    with pytest.raises(Violation):
        search(bounds)
