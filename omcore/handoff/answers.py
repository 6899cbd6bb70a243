"""What a participant answers from its record where the table has no transition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omcore.handoff.messages import (
    Abort,
    Adopt,
    Ask,
    Clean,
    Discarded,
    Drop,
    Freeze,
    Go,
    Message,
    NoCopy,
    Probe,
    Ready,
    Reclaim,
    Resumed,
    Retired,
    Status,
    Undone,
    Voided,
)  # fmt: skip
from omcore.handoff.records import CopyState, Fate, Record
from omcore.types import NodeId

if TYPE_CHECKING:
    from omcore.handoff.participant import Participant

STOPPED_AS_DEST = (CopyState.INVITED, CopyState.RESTORING, CopyState.READY, CopyState.VOID)


DEST_ASKED = (Go, Reclaim, Probe, Adopt)
SOURCE_ASKED = (Freeze, Abort, Probe, Ask, Voided, Drop)


def answer(p: Participant, sender: NodeId, message: Message) -> None:
    """The table has no transition: ignore it, or answer a question from the record."""
    if isinstance(message, (Resumed, Undone)):
        _answer_winner(p, sender, message)
        return
    if not isinstance(message, DEST_ASKED + SOURCE_ASKED):
        return
    r = p.record
    if r is None:
        _answer_empty(p, sender, message)
        return
    if _owner_asked(p, r, sender, message):
        return
    stone = r.fate(message.epoch)
    if r.move == message.epoch and (p.state not in STOPPED_AS_DEST or r.session == message.session):
        _answer_open(p, r, sender, message)
    elif stone is not None:
        _answer_stone(p, sender, message, stone.fate, stone.session == message.session)
    elif not _has_copy(p, r, message):
        _answer_empty(p, sender, message)


def _owner_asked(p: Participant, r: Record, sender: NodeId, message: Message) -> bool:
    """Home asks the owner, without a session, whether it still runs; an ended one repeats ENDED anyway."""
    owner = p.state in (CopyState.RUNNING, CopyState.ENDED)
    if not (owner and isinstance(message, Probe) and message.session is None and message.epoch == r.epoch):
        return False
    if p.state is CopyState.RUNNING:
        p.send(sender, status(p, message))
    return True


def _has_copy(p: Participant, r: Record, message: Message) -> bool:
    """A copy is here that an answer to this question must not deny."""
    if p.state in (CopyState.ENDED, CopyState.RUNNING) and isinstance(message, (Probe, Freeze, Abort)):
        return True
    same = p.state in STOPPED_AS_DEST and r.session == message.session
    return same and isinstance(message, (Adopt, Probe))


def _answer_empty(p: Participant, sender: NodeId, message: Message) -> None:
    """Nothing of that epoch is here, nor will be."""
    if isinstance(message, DEST_ASKED) or (p.state is CopyState.GONE and isinstance(message, (Freeze, Abort))):
        no_copy(p, sender, message)


def _answer_open(p: Participant, r: Record, sender: NodeId, message: Message) -> None:
    """A question about the move that is open here; silence while its outcome is being carried out."""
    if not isinstance(message, Probe) or p.state in (CopyState.RUNNING, CopyState.ENDED):
        return
    if p.state is CopyState.READY:
        p.send(sender, Ready(job=p.job, epoch=message.epoch, session=r.session))
    elif p.state in (CopyState.FROZEN, CopyState.SEALED):
        p.send(sender, status(p, message))


def _answer_stone(p: Participant, sender: NodeId, message: Message, fate: Fate, same_session: bool) -> None:
    """A question about an epoch that ended here.  `won` and `undone` are said only once the copy runs."""
    job, epoch, session = p.job, message.epoch, message.session
    dest_asked = isinstance(message, DEST_ASKED)
    source_asked = isinstance(message, SOURCE_ASKED)
    if fate is Fate.UNDONE and source_asked:
        p.send(sender, Undone(job=job, epoch=epoch, session=session))
    elif fate is Fate.RETIRED and isinstance(message, (Freeze, Abort, Probe, Drop)):
        p.send(sender, Retired(job=job, epoch=epoch))
    elif fate is Fate.WON and dest_asked and same_session:
        p.send(sender, Resumed(job=job, epoch=epoch, session=session))
    elif fate is Fate.VOIDED and dest_asked and same_session:
        p.send(sender, Voided(job=job, epoch=epoch, session=session, images=False))
    elif fate is Fate.DISCARDED and isinstance(message, (Freeze, Abort)):
        no_copy(p, sender, message)  # a sealed source that a person dropped
    elif fate is Fate.DISCARDED and dest_asked:
        p.send(sender, Discarded(job=job, epoch=epoch))
    elif fate in (Fate.VOIDED, Fate.WON, Fate.DIED) and dest_asked:
        no_copy(p, sender, message)


def _answer_winner(p: Participant, sender: NodeId, message: Resumed | Undone) -> None:
    """The winner's word at somebody who holds nothing (more) of that epoch; a winner ignores the other's word."""
    r = p.record
    if r and r.move is not None and r.move <= message.epoch and p.state is not CopyState.GONE:
        return
    stone = r.fate(message.epoch) if r else None
    home = r.authority if r else sender
    if isinstance(message, Resumed):
        if stone is None or stone.fate is Fate.DISCARDED:
            p.send(home, Clean(job=p.job, epoch=message.epoch))
        elif stone.fate is Fate.RETIRED:
            p.send(home, Retired(job=p.job, epoch=message.epoch))
    elif stone is None:
        p.send(home, Clean(job=p.job, epoch=message.epoch))
    elif stone.fate in (Fate.VOIDED, Fate.DISCARDED, Fate.DIED):
        p.send(home, Discarded(job=p.job, epoch=message.epoch))


def status(p: Participant, probe: Probe) -> Status:
    """What is held, as an answer."""
    return Status(job=p.job, epoch=probe.epoch, session=probe.session, state=p.state.value, nonce=probe.nonce)


def no_copy(p: Participant, sender: NodeId, message: Message) -> None:
    """Say that no copy of this epoch and session is here.  True for ever: sessions and epochs do not come back."""
    said = NoCopy(
        job=p.job,
        epoch=message.epoch,
        session=message.session,
        answers=type(message).__name__.lower(),
        nonce=message.nonce if isinstance(message, Probe) else 0,
        incarnation=p.incarnation,
        ran="yes" if message.epoch in p.notes else "unknown",
    )
    p.send(sender, said)
