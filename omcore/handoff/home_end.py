"""What home does about losers that have not confirmed, about the job's end, and to see whether its owner lives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omcore.handoff import home_move
from omcore.handoff.home_state import HomeState, Sync
from omcore.handoff.inputs import AllOutputDelivered, CheckOwner
from omcore.handoff.messages import (
    Clean,
    Discarded,
    Drop,
    Ended,
    EndedAck,
    Message,
    NoCopy,
    Prepared,
    Ready,
    Resumed,
    Retired,
    Status,
    Superseded,
    Undone,
    Voided,
)  # fmt: skip
from omcore.handoff.outputs import AwaitOutput, MoveEnded, ReportEnd
from omcore.handoff.records import Duty, End, Epoch, How
from omcore.types import NodeId

if TYPE_CHECKING:
    from omcore.handoff.home import Home


# ---- leftovers


def leftover_words(h: Home) -> list[tuple[NodeId, Message]]:
    """The winner's word, to losers that have not confirmed."""
    said: list[tuple[NodeId, Message]] = []
    for left in h.book.leftovers:
        if left.duty is Duty.RETIRE:
            said.append((left.node, Resumed(job=h.job, epoch=left.epoch)))
        else:
            said.append((left.node, Undone(job=h.job, epoch=left.epoch)))
    return said


def confirmed(h: Home, sender: NodeId, message: Retired | Discarded | Clean) -> None:
    """A loser deleted what it held."""
    duties = {Retired: (Duty.RETIRE,), Discarded: (Duty.DISCARD,), Clean: tuple(Duty)}[type(message)]
    kept = tuple(
        one
        for one in h.book.leftovers
        if not (one.node == sender and one.epoch == message.epoch and one.duty in duties)
    )
    if kept != h.book.leftovers:
        h.note(replace(h.book, leftovers=kept))
        return
    h.of_move(sender, message)


def ended(h: Home, sender: NodeId, message: Ended) -> None:
    """From the owner under its epoch, or the source under m + 1: wait for the last output, then close."""
    if h.state is HomeState.CLOSED:
        h.send(sender, EndedAck(job=h.job, epoch=message.epoch))
    elif ended_by_owner(h, sender, message.epoch):
        message = replace(message, end=message.end.cut())
        h.ending = (sender, message)
        h.emit(AwaitOutput(h.job, message.end))
    else:
        h.drop(sender, message, "not the owner under its epoch")


def ended_by_owner(h: Home, sender: NodeId, epoch: Epoch) -> bool:
    """Whether an end under `epoch` can be the job's end."""
    book, move = h.book, h.book.move
    if h.state is HomeState.OPENING:
        return False
    if sender == book.owner and epoch == book.epoch:
        return True
    return move is not None and sender == move.source and epoch == move.epoch.undone


def delivered(h: Home, event: AllOutputDelivered) -> None:
    """The terminal has everything: J4."""
    if h.syncing is not None or h.ending is None or h.state is HomeState.CLOSED:
        return
    sender, message = h.ending
    book, move = h.book, h.book.move
    if not ended_by_owner(h, sender, message.epoch):
        h.ending = None
        return
    if move is not None and sender == move.source:
        book = book.with_leftover(move.epoch, move.dest, Duty.DISCARD)
    elif move is not None:
        book = book.with_leftover(move.epoch, move.source, Duty.RETIRE)
    h.sync(Sync.END, replace(book, owner=sender, epoch=message.epoch, move=None, end=message.end))


def close(h: Home, end: End) -> None:
    """J4 for lost, dropped and superseded."""
    h.ending = None
    h.sync(Sync.END, replace(h.book, move=None, end=end))


def closed(h: Home, ok: bool) -> None:
    """J4 is durable: show it, acknowledge it.  If not, the question comes again."""
    if not ok:
        return
    end = h.book.end
    if end is None:
        return
    h.become(HomeState.CLOSED)
    request = h.request
    h.forget_move()
    h.asking_owner = False
    h.emit(ReportEnd(h.job, end))
    text = {How.LOST: "the job is lost", How.DROPPED: "the job was dropped"}.get(end.how, "the job ended first")
    if request is not None:
        h.emit(MoveEnded(h.job, h.book.epoch, False, request.to, request.ticket, text))
    if h.waiting is not None:
        h.emit(home_move.not_begun(h, h.waiting, text))
        h.waiting = None
    if h.ending is not None:
        h.send(h.ending[0], EndedAck(job=h.job, epoch=h.ending[1].epoch))
        h.ending = None


def drop_stray(h: Home, sender: NodeId, message: Ready | Voided | Status | Prepared) -> None:
    """CLOSED: whoever still holds a stopped copy may delete it."""
    if h.book.end is not None and h.book.end.how is not How.SUPERSEDED:
        h.send(sender, Drop(job=h.job, epoch=message.epoch, session=message.session))


def superseded(h: Home, sender: NodeId, message: Superseded) -> None:
    """Another authority with a higher generation, and the job's own token: this journal is history."""
    book = h.book
    if message.token != book.token or message.epoch.generation <= book.generation:
        h.drop(sender, message, "wrong token or generation")
        return
    if book.end is not None:
        return
    close(h, End(How.SUPERSEDED))


# ---- is the owner still there?


def check_owner(h: Home, event: CheckOwner) -> None:
    """Ask the owner's node for this very epoch; during a move only afterwards."""
    if h.state is not HomeState.CLOSED:
        h.nonce = event.nonce
        h.asking_owner = True


def owner_answers(h: Home, sender: NodeId, message: Status) -> None:
    """IDLE: it runs."""
    if sender == h.book.owner and message.epoch == h.book.epoch:
        h.asking_owner = False


def owner_gone(h: Home, sender: NodeId, message: NoCopy) -> None:
    """IDLE: NOCOPY to this very question is the proof that the job is lost."""
    book = h.book
    this = message.answers == "probe" and message.epoch == book.epoch and message.nonce == h.nonce
    if h.asking_owner and sender == book.owner and this and message.session is None:
        close(h, End(How.LOST, text="its node was rebooted"))
