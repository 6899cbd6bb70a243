"""Transitions of the node that runs the job, and of the source of a move."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omcore.handoff import dest
from omcore.handoff.answers import answer
from omcore.handoff.inputs import (
    CopyDied,
    DumpDone,
    DumpFailed,
    Facts,
    JobExited,
    RestoreDone,
    RestoreFailed,
    ResumeDone,
    ShipDone,
    ShipFailed,
)  # fmt: skip
from omcore.handoff.machine import Timer
from omcore.handoff.messages import (
    Abort,
    Drop,
    Dropped,
    Ended,
    EndedAck,
    Freeze,
    Message,
    Prepare,
    Reclaim,
    Resumed,
    Retired,
    Status,
    StatusAck,
    Undone,
    Voided,
)  # fmt: skip
from omcore.handoff.outputs import (
    DeleteImages,
    KillPod,
    NoteGrant,
    Progress,
    Resume,
    SendSeal,
    StartDump,
    StartRestore,
    StartShip,
    UndoFreeze,
)  # fmt: skip
from omcore.handoff.records import CopyState, End, Fate, How, Record, Tombstone, bounded
from omcore.types import NodeId, Step

if TYPE_CHECKING:
    from omcore.handoff.participant import Participant


def voice(p: Participant, r: Record) -> list[tuple[NodeId, Message]]:
    """A sealed source nudges home and, told or tired of waiting, asks the dest; an ended one says so."""
    said: list[tuple[NodeId, Message]] = []
    if r.state is CopyState.SEALED and r.move and r.peer:
        said.append((r.authority, Status(job=p.job, epoch=r.move, session=r.session, state=r.state.value)))
        if p.reclaiming:
            said.append((r.peer, Reclaim(job=p.job, epoch=r.move, session=r.session, why="home is silent")))
    elif r.state is CopyState.ENDED and r.end:
        said.append((r.authority, Ended(job=p.job, epoch=r.epoch, end=r.end)))
    return said


# ---- freeze, seal


def freeze(p: Participant, sender: NodeId, message: Freeze) -> None:
    """RUNNING: stop and dump, for an epoch above ours; one that we undid is answered from its tombstone."""
    r = p.held
    if not r.resumed or message.epoch <= r.epoch or r.fate(message.epoch):
        answer(p, sender, message)
        return
    if message.session is None or message.dest == p.me:
        p.drop(sender, message, "no session or no other node")
        return
    p.write(
        replace(
            r,
            state=CopyState.FROZEN,
            move=message.epoch,
            peer=message.dest,
            session=message.session,
            reason="",
            hint="",
        )
    )
    p.door = (message.address, message.key)
    p.copy_dead = False
    p._arm(Timer.MAX_FREEZE, max(0.0, message.max_freeze_s))
    p.max_freeze_s = message.max_freeze_s
    p.emit(Progress(p.job, message.epoch, Step.FREEZE), StartDump(p.job, r.pod, message.epoch))


def dumped(p: Participant, event: DumpDone) -> None:
    """FROZEN: send the images off."""
    r = p.held
    if event.epoch == r.move and r.session and r.peer and p.door:
        p.emit(Progress(p.job, r.move, Step.SHIP), StartShip(p.job, r.move, r.session, r.peer, p.door[0], p.door[1]))


def failed(p: Participant, event: DumpFailed | ShipFailed) -> None:
    """FROZEN: nothing is decided yet, so go on by ourselves."""
    if event.epoch == p.held.move:
        undo(p, event.reason, event.hint)


def shipped(p: Participant, event: ShipDone) -> None:
    """FROZEN: record, then seal.  After this only a word lets the copy go."""
    r = p.held
    if event.epoch != r.move or r.session is None:
        return
    left = [due for timer, due in p.timers if timer is Timer.MAX_FREEZE]
    p.write(replace(r, state=CopyState.SEALED))
    p.emit(SendSeal(p.job, event.epoch, r.session))
    p._arm(Timer.SILENT, p.timing.silent_s)
    if left:
        p._arm(Timer.MAX_FREEZE, max(0.0, left[0] - p._now))


# ---- undo


def undo(p: Participant, reason: str, hint: str = "") -> None:
    """FROZEN, or SEALED on somebody's word: run on under m + 1.  UNDONE is said when it really runs."""
    r = p.held
    if r.move is None:
        return
    rebuild = p.copy_dead
    p.write(
        replace(
            r.bury(Fate.UNDONE, r.move),
            state=CopyState.RUNNING,
            epoch=r.move.undone,
            resumed=False,
            rebuild=rebuild,
            reason=bounded(reason),
            hint=bounded(hint),
        )
    )
    p.copy_dead = False
    let_go(p)


def let_go(p: Participant) -> None:
    """Perform the resume that the record announces; after a restart it is performed again."""
    r = p.held
    if r.move is None:
        return
    if r.rebuild:
        p.emit(StartRestore(p.job, r.epoch, r.move))
    elif r.epoch == r.move:
        p.emit(Resume(p.job, r.pod))
    else:
        p.emit(UndoFreeze(p.job, r.pod, r.move))


def undo_frozen(p: Participant, sender: NodeId, message: Abort | Voided) -> None:
    """FROZEN or SEALED: home's ABORT, or the dest's VOIDED of this very session."""
    r = p.held
    if message.epoch != r.move:
        answer(p, sender, message)
    elif isinstance(message, Abort):
        undo(p, "taken back by home")
    elif message.session == r.session and sender == r.peer:
        undo(p, message.reason or "the destination gave it back", message.hint)
    else:
        p.drop(sender, message, "another session")


def undo_late(p: Participant) -> None:
    """FROZEN for longer than allowed."""
    undo(p, "the freeze took longer than allowed")


def rebuilt(p: Participant, event: RestoreDone) -> None:
    """RUNNING, not yet resumed: our own images are a stopped pod again."""
    r = p.held
    if r.rebuild and event.pod == r.epoch:
        p.write(replace(r, rebuild=False, pod=event.pod))
        p.emit(Resume(p.job, event.pod))


def rebuild_failed(p: Participant, event: RestoreFailed) -> None:
    """RUNNING, not yet resumed: the last copy cannot be restored; that is the job's death."""
    r = p.held
    if r.rebuild and event.pod == r.epoch:
        _ended(p, r, End(How.KILLED, -9, text=bounded(event.reason)))


def resumed(p: Participant, event: ResumeDone) -> None:
    """RUNNING: the copy really runs; tell the loser and home, then delete what is no longer needed."""
    r = p.held
    if r.resumed or r.move is None or event.pod != r.pod or r.rebuild:
        return
    m, peer, session, won = r.move, r.peer, r.session, r.epoch == r.move
    p.write(replace(r, resumed=True, move=None, peer=None, session=None))
    said: Message
    if won:
        p.emit(NoteGrant(p.job, m))
        said = Resumed(job=p.job, epoch=m, session=session, relay=event.relay)
    else:
        said = Undone(job=p.job, epoch=m, session=session, reason=r.reason, hint=r.hint, relay=event.relay)
    p.send(r.authority, said)
    p.send(peer, said)
    p.emit(DeleteImages(p.job, r.pod if won else m))


def abort_running(p: Participant, sender: NodeId, message: Abort) -> None:
    """RUNNING: leave a trace, or the FREEZE that this ABORT overtook would stop the job for nobody."""
    r = p.held
    if message.epoch > r.epoch and r.resumed:
        stone = Tombstone(message.epoch, Fate.UNDONE, message.dest, message.session)
        marked = replace(r, peer=stone.peer, session=stone.session).bury(Fate.UNDONE, message.epoch)
        p.write(replace(marked, epoch=message.epoch.undone, peer=None, session=None))
        said = Undone(job=p.job, epoch=message.epoch, session=message.session, reason="taken back by home")
        p.send(r.authority, said)
        p.send(message.dest, said)
    else:
        answer(p, sender, message)


# ---- sealed


def retire(p: Participant, sender: NodeId, message: Resumed) -> None:
    """SEALED: the dest runs; kill, delete, then write so and say so."""
    r = p.held
    if r.move is None or message.epoch < r.move:
        return
    bury_source(p, r)
    p.send(r.authority, Retired(job=p.job, epoch=r.move))


def bury_source(p: Participant, r: Record) -> None:
    """Delete the sealed copy and keep only its tombstone."""
    if r.move is None:
        return
    p.emit(KillPod(p.job, r.pod), DeleteImages(p.job, r.move))
    gone = replace(r.bury(Fate.RETIRED, r.move), state=CopyState.GONE, move=None, peer=None, session=None, reason="")
    p.write(gone)


def invited_again(p: Participant, sender: NodeId, message: Prepare) -> None:
    """SEALED: home begins a later move to here, so ours ended well somewhere."""
    r = p.held
    if r.move is not None and message.epoch > r.move:
        bury_source(p, r)
        dest.prepare(p, sender, message)


def wait_on(p: Participant, sender: NodeId, message: StatusAck) -> None:
    """SEALED: home lives; if it cannot reach the dest, ask the dest ourselves."""
    if message.epoch == p.held.move:
        p._arm(Timer.SILENT, p.timing.silent_s)
        p.reclaiming = p.reclaiming or message.reclaim


def reclaim(p: Participant) -> None:
    """SEALED for too long, or home silent: ask the dest to give it back, again and again."""
    p.reclaiming = True


def copy_died(p: Participant, event: CopyDied | JobExited) -> None:
    """SEALED: the stopped pod is dead; the images hold the job, nothing is decided."""
    if event.pod == p.held.pod:
        p.copy_dead = True


def drop_sealed(p: Participant, sender: NodeId, message: Drop) -> None:
    """SEALED: a person, or the end of the job, gives this copy up."""
    r = p.held
    if message.epoch != r.move:
        return
    p.emit(KillPod(p.job, r.pod), DeleteImages(p.job, r.move))
    gone = replace(r.bury(Fate.DISCARDED, r.move), state=CopyState.GONE, move=None, peer=None, session=None)
    p.write(gone)
    p.send(sender, Dropped(job=p.job, epoch=message.epoch))


def dropped_already(p: Participant, sender: NodeId, message: Drop) -> None:
    """GONE: nothing is left to drop."""
    p.send(sender, Dropped(job=p.job, epoch=message.epoch))


# ---- the end


def exited(p: Participant, event: JobExited | CopyDied) -> None:
    """RUNNING: the end.  A death without status in the instant of a granted resume is none: it may not have run."""
    r = p.held
    if event.pod != r.pod:
        return
    if isinstance(event, JobExited):
        _ended(p, r, event.end)
    elif not r.resumed and r.epoch == r.move:
        p.emit(DeleteImages(p.job, r.epoch))
        gone = replace(r.bury(Fate.DIED, r.epoch), state=CopyState.GONE, move=None, peer=None, session=None)
        p.write(gone)
    else:
        _ended(p, r, End(How.KILLED, -9, text=bounded(event.reason)))


def exited_frozen(p: Participant, event: JobExited | CopyDied) -> None:
    """FROZEN: it ended before the dump had it; that undoes the move."""
    r = p.held
    if event.pod == r.pod and r.move is not None:
        end = event.end if isinstance(event, JobExited) else End(How.KILLED, -9, text=bounded(event.reason))
        _ended(p, replace(r.bury(Fate.UNDONE, r.move), epoch=r.move.undone), end)


def _ended(p: Participant, r: Record, end: End) -> None:
    if r.move is not None:
        p.emit(DeleteImages(p.job, r.move))
    p.write(replace(r, state=CopyState.ENDED, end=end, move=None, peer=None, session=None, resumed=True, rebuild=False))


def acknowledged(p: Participant, sender: NodeId, message: EndedAck) -> None:
    """ENDED: home has it all."""
    r = p.held
    if message.epoch == r.epoch:
        p.emit(KillPod(p.job, r.pod))
        p.write(replace(r.bury(Fate.ENDED, r.epoch), state=CopyState.GONE, end=None))


# ---- a starting engine


def restart_running(p: Participant, facts: Facts) -> None:
    """RUNNING: find it, or its status, or its death; perform an announced resume again."""
    r = p.held
    if facts.end is not None and facts.pod is None:
        _ended(p, r, facts.end)
    elif not r.resumed and (r.rebuild or facts.pod == r.pod):
        if r.rebuild:
            p.emit(KillPod(p.job, r.epoch))  # what a restore left half done
        let_go(p)
    elif facts.pod != r.pod:
        exited(p, CopyDied(r.pod))
    if p.held.resumed and facts.images is not None:
        p.emit(DeleteImages(p.job, facts.images))  # the move was over, the crash came before the sweeping


def restart_frozen(p: Participant, facts: Facts) -> None:
    """FROZEN: the seal was not sent; go on."""
    r = p.held
    if facts.pod == r.pod:
        undo(p, "the engine restarted")
    elif facts.end is not None:
        exited_frozen(p, JobExited(r.pod, facts.end))
    else:
        exited_frozen(p, CopyDied(r.pod))


def restart_sealed(p: Participant, facts: Facts) -> None:
    """SEALED: whether or not the seal went out, wait for a word."""
    p.copy_dead = facts.pod != p.held.pod
    p._arm(Timer.SILENT, p.timing.silent_s)


def restart_quiet(p: Participant, facts: Facts) -> None:
    """ENDED or GONE: sweep what should not be there."""
    r = p.held
    if facts.pod is not None:
        p.emit(KillPod(p.job, facts.pod))
    if facts.images is not None:
        p.emit(DeleteImages(p.job, facts.images))
    if r.state is CopyState.GONE:
        p._arm(Timer.FORGET, p.timing.forget_s)
