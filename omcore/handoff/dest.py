"""Transitions of the node that shall run the job."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omcore.handoff.answers import answer
from omcore.handoff.inputs import (
    CopyDied,
    Facts,
    JobExited,
    PodFailed,
    PodPrepared,
    RestoreDone,
    RestoreFailed,
    StreamBroken,
    StreamSealed,
    StreamStarted,
)  # fmt: skip
from omcore.handoff.machine import Timer
from omcore.handoff.messages import (
    Adopt,
    Ask,
    Discarded,
    Drop,
    Dropped,
    Go,
    Message,
    Prepare,
    Prepared,
    Probe,
    Ready,
    Reclaim,
    Undone,
    Voided,
)  # fmt: skip
from omcore.handoff.outputs import DeleteImages, KillPod, PreparePod, Progress, Resume, StartRestore
from omcore.handoff.records import CopyState, Epoch, Fate, Record, bounded
from omcore.types import NodeId, Step

if TYPE_CHECKING:
    from omcore.handoff.participant import Participant


def voice(p: Participant, r: Record) -> list[tuple[NodeId, Message]]:
    """READY repeats its vote and asks the source; VOID repeats that it gave the vote back."""
    if r.move is None or r.peer is None:
        return []
    if r.state is CopyState.READY:
        ready = Ready(job=p.job, epoch=r.move, session=r.session)
        return [(r.authority, ready), (r.peer, Ask(job=p.job, epoch=r.move, session=r.session))]
    if r.state is CopyState.VOID:
        said = Voided(job=p.job, epoch=r.move, session=r.session, images=True, reason=r.reason, hint=r.hint)
        return [(r.authority, said), (r.peer, said)]
    return []


# ---- invitation


def prepare(p: Participant, sender: NodeId, message: Prepare) -> None:
    """Nothing here, or only a stopped copy of a lower epoch: accept an invitation above the high water."""
    r = p.record
    if r is not None:
        if not _may_invite(r, sender, message):
            p.drop(sender, message, "not its authority")
            return
        if r.state is not CopyState.GONE and r.move is not None:
            if message.epoch <= r.move:
                _prepare_again(p, r, message)
                return
            _bury(p, r, Fate.DISCARDED)
            r = p.held
    if r is not None and message.epoch <= r.high:
        _refuse_again(p, r, sender, message)
        return
    if len(p.fresh) != 16 or message.source == p.me:
        p.drop(sender, message, "no random bytes, or no other node")
        return
    invited = Record(
        job=p.job,
        state=CopyState.INVITED,
        epoch=message.epoch,
        authority=sender,
        generation=message.epoch.generation,
        token=message.token,
        pod=message.epoch,
        move=message.epoch,
        peer=message.source,
        session=p.fresh,
        high=r.high if r else Epoch(0, 0),
        tombstones=r.tombstones if r else (),
    )
    p.write(invited)
    p.emit(
        Progress(p.job, message.epoch, Step.PREPARE),
        PreparePod(message.epoch, p.fresh, message, message.source),
    )


def _may_invite(r: Record, sender: NodeId, message: Prepare) -> bool:
    """The authority we know, or one of a higher generation that knows the job's token."""
    if message.epoch.generation > r.generation:
        return message.token == r.token
    return sender == r.authority


def _prepare_again(p: Participant, r: Record, message: Prepare) -> None:
    if r.state is CopyState.INVITED and r.move == message.epoch and p.invitation:
        _accept(p, r)


def _refuse_again(p: Participant, r: Record, sender: NodeId, message: Prepare) -> None:
    stone = r.fate(message.epoch)
    if stone is not None and stone.fate is Fate.VOIDED:
        p.send(sender, Voided(job=p.job, epoch=message.epoch, session=stone.session, images=False))


def _accept(p: Participant, r: Record) -> None:
    if r.move is None or p.invitation is None:
        return
    address, key, criu = p.invitation
    said = Prepared(
        job=p.job,
        epoch=r.move,
        session=r.session,
        address=address,
        key=key,
        criu=criu,
        incarnation=p.incarnation,
    )
    p.send(r.authority, said)


def pod_prepared(p: Participant, event: PodPrepared) -> None:
    """INVITED: say where to ship to; the invitation expires if no stream comes."""
    r = p.held
    if event.session == r.session:
        p.invitation = (event.address, event.key, event.criu)
        p._arm(Timer.INVITE, p.timing.invite_s)
        _accept(p, r)


def stream_started(p: Participant, event: StreamStarted) -> None:
    """INVITED: from now on only the stream's own end decides."""
    if event.session == p.held.session:
        p._stop(Timer.INVITE)


def invitation_failed(p: Participant, event: PodFailed | StreamBroken) -> None:
    """INVITED: no room, or no whole image: void, nothing kept."""
    if event.session == p.held.session:
        void_empty(p, event.reason, event.hint)


def void_empty(p: Participant, reason: str, hint: str = "") -> None:
    """INVITED: write that this session will never run, delete, say so."""
    r = p.held
    if r.move is None:
        return
    gone = replace(r.bury(Fate.VOIDED, r.move), state=CopyState.GONE, move=None, peer=None, session=None, reason="")
    p.write(gone)
    p.emit(KillPod(p.job, r.pod), DeleteImages(p.job, r.pod))
    said = Voided(job=p.job, epoch=r.move, session=r.session, images=False, reason=bounded(reason), hint=bounded(hint))
    p.send(r.authority, said)
    p.send(r.peer, said)


def invite_expired(p: Participant) -> None:
    """INVITED and no stream in time."""
    void_empty(p, "no images came in time", "the source may have been unable to reach this node")


def reclaimed_early(p: Participant, sender: NodeId, message: Reclaim) -> None:
    """INVITED: give it back, if it is this session."""
    if _ours(p, message):
        void_empty(p, message.why or "taken back")
    else:
        _foreign(p, sender, message)


# ---- restore and vote


def sealed(p: Participant, event: StreamSealed) -> None:
    """INVITED: the images are whole and the source has voted."""
    r = p.held
    if event.session == r.session and r.move is not None:
        p.write(replace(r, state=CopyState.RESTORING))
        p.emit(Progress(p.job, r.move, Step.RESTORE), StartRestore(p.job, r.pod, r.pod))


def restored(p: Participant, event: RestoreDone) -> None:
    """RESTORING: stopped and whole; vote (by `voice`)."""
    r = p.held
    if event.pod == r.pod:
        p.write(replace(r, state=CopyState.READY))


def restore_failed(p: Participant, event: RestoreFailed) -> None:
    """RESTORING: give the vote up, keep the images until the source runs."""
    if event.pod == p.held.pod:
        void(p, event.reason, event.hint)


def void(p: Participant, reason: str, hint: str = "") -> None:
    """RESTORING or READY: will never run under this epoch; the images stay, for a source that may be dead."""
    r = p.held
    p.write(replace(r, state=CopyState.VOID, reason=bounded(reason), hint=bounded(hint)))
    p.emit(KillPod(p.job, r.pod))


def reclaimed(p: Participant, sender: NodeId, message: Reclaim) -> None:
    """RESTORING or READY: the source or home wants it back; this excludes GO for ever."""
    if _ours(p, message):
        void(p, message.why or "taken back")
    else:
        _foreign(p, sender, message)


def ready_died(p: Participant, event: CopyDied | JobExited) -> None:
    """READY: the stopped copy was killed; restore it again from the images."""
    r = p.held
    if event.pod == r.pod and r.move is not None:
        p.write(replace(r, state=CopyState.RESTORING))
        p.emit(StartRestore(p.job, r.pod, r.pod))


def go(p: Participant, sender: NodeId, message: Go) -> None:
    """READY: the grant.  Record, resume; RESUMED is said when it runs."""
    r = p.held
    if not _ours(p, message) or r.move is None:
        _foreign(p, sender, message)
        return
    p.write(replace(r.bury(Fate.WON, r.move), state=CopyState.RUNNING, epoch=r.move, resumed=False, rebuild=False))
    p.emit(Resume(p.job, r.pod))


def voided_again(p: Participant, sender: NodeId, message: Go | Reclaim) -> None:
    """VOID: say it again, to this session only."""
    r = p.held
    if _ours(p, message) and r.move is not None:
        said = Voided(job=p.job, epoch=r.move, session=r.session, images=True, reason=r.reason, hint=r.hint)
        p.send(sender, said)
    else:
        _foreign(p, sender, message)


def probed(p: Participant, sender: NodeId, message: Probe) -> None:
    """READY, RESTORING, VOID: the answer; for a salvage that home gave up, also the trace that it is over."""
    r = p.held
    if r.move is not None and message.session == r.session and message.epoch > r.move:
        p.write(replace(r, state=CopyState.VOID, move=message.epoch, reason="salvage was broken off"))
        p.emit(KillPod(p.job, r.pod))
    r = p.held
    if r.state is CopyState.VOID and r.move == message.epoch and r.session == message.session:
        p.send(
            sender, Voided(job=p.job, epoch=message.epoch, session=r.session, images=True, reason=r.reason, hint=r.hint)
        )
    else:
        _foreign(p, sender, message)


def _ours(p: Participant, message: Message) -> bool:
    r = p.held
    return message.epoch == r.move and message.session == r.session


def _foreign(p: Participant, sender: NodeId, message: Message) -> None:
    """Another session, or another move: answered from the record."""
    answer(p, sender, message)


# ---- the source went on, or a person decided


def undone(p: Participant, sender: NodeId, message: Undone) -> None:
    """INVITED..VOID: the source runs; delete."""
    r = p.held
    if r.move is None or message.epoch < r.move:
        answer(p, sender, message)
        return
    _bury(p, r, Fate.DISCARDED)
    p.send(r.authority, Discarded(job=p.job, epoch=r.move))
    if message.epoch != r.move:
        p.send(r.authority, Discarded(job=p.job, epoch=message.epoch))


def dropped(p: Participant, sender: NodeId, message: Drop) -> None:
    """INVITED..VOID: the job is given up or closed; delete."""
    r = p.held
    if r.move is not None and message.epoch >= r.move:
        _bury(p, r, Fate.DISCARDED)
        p.send(sender, Dropped(job=p.job, epoch=message.epoch))


def _bury(p: Participant, r: Record, fate: Fate) -> None:
    if r.move is None:
        return
    p.emit(KillPod(p.job, r.pod), DeleteImages(p.job, r.pod))
    gone = replace(r.bury(fate, r.move), state=CopyState.GONE, move=None, peer=None, session=None, reason="")
    p.write(gone)


def adopt(p: Participant, sender: NodeId, message: Adopt) -> None:
    """VOID or READY of a lower epoch, same session: a person salvages these images under a new epoch."""
    r = p.held
    if r.move is None or message.epoch <= r.move or message.session != r.session:
        return
    if r.state is CopyState.READY:
        p.write(replace(r, move=message.epoch, epoch=message.epoch))
        return
    p.write(replace(r, state=CopyState.RESTORING, move=message.epoch, epoch=message.epoch))
    p.emit(KillPod(p.job, r.pod), StartRestore(p.job, r.pod, r.pod))


# ---- a starting engine


def restart_invited(p: Participant, facts: Facts) -> None:
    """INVITED: the session died with the engine that was receiving."""
    void_empty(p, "the destination's engine restarted")


def restart_restoring(p: Participant, facts: Facts) -> None:
    """RESTORING, or READY with a dead copy: restore again; without images give up."""
    r = p.held
    if r.state is CopyState.READY and facts.pod == r.pod:
        return
    if r.state is CopyState.READY:
        p.write(replace(r, state=CopyState.RESTORING))
    p.emit(KillPod(p.job, r.pod), StartRestore(p.job, r.pod, r.pod))


def restart_void(p: Participant, facts: Facts) -> None:
    """VOID: make sure that no stopped copy is left."""
    if facts.pod is not None:
        p.emit(KillPod(p.job, facts.pod))
