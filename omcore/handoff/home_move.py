"""What home does in a plain move, from the request to the last leftover."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omcore.handoff import home_doubt
from omcore.handoff.home_state import HomeState, Sync
from omcore.handoff.inputs import CancelRequested, MoveRequested  # fmt: skip
from omcore.handoff.machine import Timer
from omcore.handoff.messages import (
    Abort,
    Adopt,
    Discarded,
    Freeze,
    Go,
    Message,
    NoCopy,
    Prepare,
    Prepared,
    Probe,
    Ready,
    Reclaim,
    Resumed,
    Retired,
    Status,
    StatusAck,
    Undone,
    Voided,
)  # fmt: skip
from omcore.handoff.outputs import MoveEnded, OwnerIs, Progress, ReportEnd
from omcore.handoff.records import Duty, Epoch, Move, Phase, bounded
from omcore.types import NodeId, Step

if TYPE_CHECKING:
    from omcore.handoff.home import Home

LEFTOVERS_MOST = 8  # losers not yet heard of: more would not fit the journal's slot


def words(h: Home) -> list[tuple[NodeId, Message]]:
    """What the present state keeps saying, apart from leftovers and doubts."""
    job, book = h.job, h.book
    if h.state is HomeState.IDLE and h.asking_owner:
        return [(book.owner, Probe(job=job, epoch=book.epoch, nonce=h.nonce))]
    move = book.move
    if move is None:
        return []
    m, s = move.epoch, move.session
    match h.state:
        case HomeState.PREPARING:
            return [(move.dest, _prepare(h, move))]
        case HomeState.FREEZING if h.salvaging:
            return [(move.dest, Adopt(job=job, epoch=m, session=s))]
        case HomeState.FREEZING if not h.source_gone:
            return [(move.source, _freeze(h, move))]
        case HomeState.UNSURE:
            return [(move.dest, Reclaim(job=job, epoch=m, session=s, why="home's disk failed"))]
        case HomeState.COMMITTED if not h.dest_gone:
            return [(move.dest, Go(job=job, epoch=m, session=s))]
        case HomeState.COMMITTED:
            return [(move.source, Probe(job=job, epoch=m, session=s))]
        case HomeState.UNDOING if not h.source_gone:
            return [(move.source, Abort(job=job, epoch=m, session=s, dest=move.dest))]
        case HomeState.FREEZING | HomeState.UNDOING:
            return [(move.dest, Probe(job=job, epoch=m, session=s))]
    return []


def _prepare(h: Home, move: Move) -> Prepare:
    q = h.request or MoveRequested(move.dest)
    return Prepare(
        job=h.job,
        epoch=move.epoch,
        source=move.source,
        token=h.book.token,
        rss_bytes=q.rss_bytes,
        mode=q.mode,
        stdio=q.stdio,
        uid=q.uid,
        digest=q.digest,
        spec=q.spec,
    )


def _freeze(h: Home, move: Move) -> Freeze:
    q = h.request or MoveRequested(move.dest)
    where = h.invitation
    return Freeze(
        job=h.job,
        epoch=move.epoch,
        session=move.session,
        dest=move.dest,
        address=where.address if where else "",
        key=where.key if where else b"",
        mode=q.mode,
        max_freeze_s=q.max_freeze_s if q.max_freeze_s is not None else max(10.0, 3 * q.forecast_s),
    )


# ---- opening


def opened(h: Home, ok: bool) -> None:
    """The journal is on the disk as we read it: act on it."""
    if not ok:
        h._arm(Timer.GRANT, h.timing.resend_most_s)  # try again; nothing may be said meanwhile
        return
    book = h.book
    h.disk_error = ""
    if book.end is not None:
        h.become(HomeState.CLOSED)
        h.emit(ReportEnd(h.job, book.end))
        if h.waiting is not None:
            h.emit(not_begun(h, h.waiting, "the job has ended"))
            h.waiting = None
        return
    h.emit(OwnerIs(h.job, book.owner, book.epoch, book.out_floor))
    if book.move is None:
        h.become(HomeState.IDLE)
        h.asking_owner = not h.new
        _next(h)
        return
    h.fail("home's engine restarted during the move", "the job goes on; move it again")
    if book.move.phase is Phase.PREPARE:
        _cancel_prepared(h)
    elif book.move.phase is Phase.COMMITTED:
        h.become(HomeState.COMMITTED)
        h._arm(Timer.GRANT, h.timing.grant_s)
    else:
        h.become(HomeState.UNDOING)


def open_again(h: Home) -> None:
    """OPENING: the sync failed; try it again."""
    h.sync(Sync.OPEN, h.book)


# ---- requests


def requested(h: Home, event: MoveRequested) -> None:
    """Begin now, or wait in the one slot; the latest request wins."""
    why = _refusal(h, event)
    if why:
        h.emit(Progress(h.job, h.book.epoch, Step.REFUSED, why), not_begun(h, event, why))
    elif h.state is HomeState.IDLE and h.syncing is None:
        _start(h, event)
    else:
        if h.waiting is not None:
            h.emit(not_begun(h, h.waiting, "a later request took its place"))
        h.waiting = event


def _refusal(h: Home, event: MoveRequested) -> str:
    if h.state is HomeState.CLOSED:
        return "the job has ended"
    if h.disk_error:
        return f"home's journal cannot be written: {h.disk_error}"
    if h.state in (HomeState.DOUBT1, HomeState.DOUBT2):
        return "the last move is in doubt: it must be resolved first"
    if len(h.book.leftovers) >= LEFTOVERS_MOST:
        return "too many nodes have not yet confirmed that they deleted old copies"
    if h.state is HomeState.IDLE and event.to == h.book.owner:
        return "it is there already"
    return ""


def not_begun(h: Home, event: MoveRequested, why: str) -> MoveEnded:
    """A request that never got a number."""
    return MoveEnded(h.job, None, False, event.to, event.ticket, bounded(why))


def _start(h: Home, event: MoveRequested) -> None:
    """J1: the number m is used up, whatever comes of it."""
    book = h.book
    last = book.last + 2
    m = Epoch(book.generation, last)
    h.request = event
    move = Move(m, book.owner, event.to, None, Phase.PREPARE)
    h.emit(Progress(h.job, m, Step.PREPARE))
    h.sync(Sync.BEGIN, replace(book, last=last, move=move))


def begun(h: Home, ok: bool) -> None:
    """J1 is durable: invite."""
    if ok:
        h.become(HomeState.PREPARING)
        h._arm(Timer.PREPARE, h.timing.prepare_s)
        return
    h.journal = replace(h.book, last=h.book.last + 2)
    _close_request(h, Epoch(h.book.generation, h.book.last), False, h.disk_error, "look at home's disk")


def _next(h: Home) -> None:
    if h.waiting is not None and h.state is HomeState.IDLE and h.syncing is None:
        event, h.waiting = h.waiting, None
        requested(h, event)


def cancel_requested(h: Home, event: CancelRequested) -> None:
    """A person changed their mind: works until the commit."""
    if h.waiting is not None:
        h.emit(not_begun(h, h.waiting, "cancelled"))
        h.waiting = None
    if h.syncing in (Sync.BEGIN, Sync.FREEZE):
        h.cancelled = True
    elif h.syncing is None:
        cancel(h)


def cancel(h: Home) -> None:
    """PREPARING: nothing was touched.  FREEZING: undo, unless the source is gone.  Later: too late."""
    h_move = h.book.move
    if h.state is HomeState.PREPARING:
        h.fail("cancelled")
        _cancel_prepared(h)
    elif h.state is HomeState.FREEZING and not h.source_gone:
        h.fail("cancelled")
        h.become(HomeState.UNDOING)
    elif h_move is not None:
        h.emit(Progress(h.job, h_move.epoch, Step.COMMIT, "too late to cancel; move it back when it has arrived"))


# ---- preparing


def prepared(h: Home, sender: NodeId, message: Prepared) -> None:
    """PREPARING: J2, the session is known and the freeze may start."""
    if message.session is None:
        return
    h._stop(Timer.PREPARE)
    h.invitation = message
    h.sync(Sync.FREEZE, h.with_move(replace(h.move, session=message.session, phase=Phase.FREEZE)))


def freeze_noted(h: Home, ok: bool) -> None:
    """J2 is durable: freeze."""
    if not ok:
        h.fail(h.disk_error, "look at home's disk")
        _cancel_prepared(h)
        return
    forecast_s = h.request.forecast_s if h.request else 1.0
    h.become(HomeState.FREEZING)
    h._arm(Timer.READY, 3 * forecast_s + 10.0)
    h.emit(Progress(h.job, h.move.epoch, Step.FREEZE))


def refused(h: Home, sender: NodeId, message: Voided) -> None:
    """PREPARING: the dest cannot; nothing was touched."""
    h.fail(message.reason or "the destination refused", message.hint)
    _cancel_prepared(h)


def prepare_late(h: Home) -> None:
    """PREPARING: no answer in time."""
    h.fail("the destination did not answer", "is it up and reachable?")
    _cancel_prepared(h)


def _cancel_prepared(h: Home) -> None:
    """The source was never asked: only the dest must forget."""
    move = h.move
    h.note(h.with_move(None).with_leftover(move.epoch, move.dest, Duty.DISCARD))
    h.become(HomeState.IDLE)
    _close_request(h, move.epoch, False, h.reason, h.hint)


def _close_request(h: Home, epoch: Epoch, ok: bool, reason: str, hint: str) -> None:
    to = h.request.to if h.request else h.book.owner
    ticket = h.request.ticket if h.request else ""
    h.emit(
        Progress(h.job, epoch, Step.DONE if ok else Step.BACK, bounded(reason)),
        MoveEnded(h.job, epoch, ok, to, ticket, bounded(reason), bounded(hint)),
    )
    h.forget_move()
    _next(h)


# ---- freezing and commit


def ready(h: Home, sender: NodeId, message: Ready) -> None:
    """FREEZING: the dest's vote.  J3, the commit."""
    h._stop(Timer.READY)
    move = h.move
    h.emit(Progress(h.job, move.epoch, Step.COMMIT))
    commit = replace(h.book, owner=move.dest, epoch=move.epoch, move=replace(move, phase=Phase.COMMITTED))
    h.sync(Sync.COMMIT, commit)


def committed(h: Home, ok: bool) -> None:
    """J3: GO if it is durable; if nobody knows, neither GO nor ABORT, but RECLAIM."""
    h.become(HomeState.COMMITTED if ok else HomeState.UNSURE)
    if ok:
        h._arm(Timer.GRANT, h.timing.grant_s)
    else:
        h.fail(h.disk_error, "look at home's disk")


def voided(h: Home, sender: NodeId, message: Voided) -> None:
    """FREEZING, UNSURE: the dest gave up before any GO."""
    h.fail(message.reason or "the destination gave it back", message.hint)
    if h.source_gone:
        home_doubt.source_lost(h, images=message.images)
    else:
        h.become(HomeState.UNDOING)


def ready_late(h: Home) -> None:
    """FREEZING: no vote in time.  If the source is gone only the dest can still save the job."""
    if not h.source_gone:
        h.fail("the destination did not become ready in time", "is it up, and the network well? Move it again")
        h.become(HomeState.UNDOING)


def undone(h: Home, sender: NodeId, message: Undone) -> None:
    """The source runs as m + 1."""
    h.fail(message.reason or "taken back", message.hint)
    _back(h)


def discarded(h: Home, sender: NodeId, message: Discarded) -> None:
    """COMMITTED, UNSURE: the dest deleted its images, so the source told it that it runs; see whether it still does."""
    h.fail("taken back by the source")
    h.mark(source_gone=True)
    _back(h)


def _back(h: Home) -> None:
    move = h.move
    book = replace(h.book, owner=move.source, epoch=move.epoch.undone, move=None)
    h.note(book.with_leftover(move.epoch, move.dest, Duty.DISCARD))
    _settled(h, move, ok=False)


def _settled(h: Home, move: Move, ok: bool) -> None:
    book = h.book
    was_doubt = h.state in (HomeState.DOUBT1, HomeState.DOUBT2)
    if was_doubt or (h.dest_gone if ok else h.source_gone):
        h.asking_owner = True
    h.become(HomeState.IDLE)
    if was_doubt:
        home_doubt.over(h, move)
    h.emit(OwnerIs(h.job, book.owner, book.epoch, book.out_floor))
    _close_request(h, move.epoch, ok, "" if ok else h.reason, "" if ok else h.hint)


def unsure_no_copy(h: Home, sender: NodeId, message: NoCopy) -> None:
    """UNSURE: the dest rebooted, and no GO was ever sent: it never ran."""
    if sender == h.move.dest and message.session == h.move.session:
        h.fail("the destination was rebooted")
        h.become(HomeState.UNDOING)


# ---- committed


def resumed(h: Home, sender: NodeId, message: Resumed) -> None:
    """COMMITTED: the dest runs."""
    _won(h, retired=False)


def retired(h: Home, sender: NodeId, message: Retired) -> None:
    """COMMITTED: the source deleted its copy, so the dest ran."""
    _won(h, retired=True)


def _won(h: Home, retired: bool) -> None:
    move = h.move
    book = h.with_move(None)
    h.note(book if retired else book.with_leftover(move.epoch, move.source, Duty.RETIRE))
    _settled(h, move, ok=True)


def voided_late(h: Home, sender: NodeId, message: Voided) -> None:
    """COMMITTED: the dest gave it back before it obeyed GO: the source is the owner again."""
    move = h.move
    h.fail(message.reason or "the destination gave it back", message.hint)
    undone_phase = replace(move, phase=Phase.UNDONE)
    h.note(replace(h.book, owner=move.source, epoch=move.epoch.undone, move=undone_phase))
    if h.source_gone:
        home_doubt.source_lost(h, images=message.images)
    else:
        h.become(HomeState.UNDOING)


def status(h: Home, sender: NodeId, message: Status) -> None:
    """A sealed source nudges: say our word again, or wait, or that it should ask the dest itself."""
    m, s = h.move.epoch, h.move.session
    if h.state is HomeState.UNDOING:
        h.send(sender, Abort(job=h.job, epoch=m, session=s, dest=h.move.dest))
    else:
        h.send(sender, StatusAck(job=h.job, epoch=m, session=s, reclaim=h.unreachable or h.state is HomeState.UNSURE))


def grant_late(h: Home) -> None:
    """COMMITTED: the dest does not answer; the source may be able to reach it."""
    h.unreachable = True
