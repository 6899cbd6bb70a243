"""What home does when a node lost its copy: lost by proof, or a doubt that only a person can settle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omcore.handoff import home_end, home_move
from omcore.handoff.home_state import HomeState, Sync
from omcore.handoff.inputs import Attested, Decision
from omcore.handoff.machine import Timer
from omcore.handoff.messages import Discarded, Drop, Dropped, Message, NoCopy, Probe, Ready, Retired, Status, Voided
from omcore.handoff.outputs import Doubt
from omcore.handoff.records import End, Epoch, How, Move, Phase
from omcore.types import NodeId

if TYPE_CHECKING:
    from omcore.handoff.home import Home

STATES = (HomeState.DOUBT1, HomeState.DOUBT2)


def words(h: Home) -> list[tuple[NodeId, Message]]:
    """In doubt the holder is asked again and again: a fact that arrives wins over any decision."""
    move = h.move
    holder = move.source if h.state is HomeState.DOUBT1 else move.dest
    if h.dropping:
        return [(holder, Drop(job=h.job, epoch=move.epoch, session=move.session))]
    return [(holder, Probe(job=h.job, epoch=move.epoch, session=move.session))]


# ---- proofs of absence


def no_copy(h: Home, sender: NodeId, message: NoCopy) -> None:
    """FREEZING, UNDOING: the source rebooted, so only the dest can hold the job; or it does not either."""
    move = h.move
    if sender == move.source:
        h.mark(source_gone=True)
        h._stop(Timer.READY)
    elif message.session == move.session and h.source_gone:
        source_lost(h, images=False)


def no_copy_committed(h: Home, sender: NodeId, message: NoCopy) -> None:
    """COMMITTED: the dest rebooted: ask the source what it holds.  Both gone: lost."""
    move = h.move
    if sender == move.source:
        h.mark(source_gone=True)
    elif message.session == move.session:
        h.mark(dest_gone=True)
        h.ran = message.ran
    if h.source_gone and h.dest_gone:
        home_end.close(h, End(How.LOST, text="both nodes were rebooted during the move"))


def no_copy_doubt(h: Home, sender: NodeId, message: NoCopy) -> None:
    """In doubt: the holder is gone, too."""
    move = h.move
    holder = move.source if h.state is HomeState.DOUBT1 else move.dest
    if sender == holder and (sender == move.source or message.session == move.session):
        gone(h)


def gone(h: Home) -> None:
    """Nobody holds the job any more."""
    if h.dropping:
        home_end.close(h, End(How.DROPPED, text="a person gave it up"))
    else:
        home_end.close(h, End(How.LOST, text="both nodes of the move were rebooted"))


def source_lost(h: Home, *, images: bool) -> None:
    """The source is gone and the dest gave its vote back: images left are a doubt, none is a loss."""
    if images:
        doubt2(h)
    else:
        gone(h)


def retired_undoing(h: Home, sender: NodeId, message: Retired) -> None:
    """UNDOING by a person's word, but the source had heard of the dest and deleted: that stands."""
    h.mark(source_gone=True)


def dest_holds(h: Home, sender: NodeId, message: Ready | Voided) -> None:
    """UNDOING: of interest only when the source is known gone."""
    if h.source_gone:
        source_lost(h, images=isinstance(message, Ready) or message.images)


def dest_discarded(h: Home, sender: NodeId, message: Discarded) -> None:
    """FREEZING, UNDOING, DOUBT 2: the source had said UNDONE, ran and is gone."""
    if h.source_gone:
        gone(h)


def dest_void(h: Home, sender: NodeId, message: Voided) -> None:
    """DOUBT 2: its images are gone after all."""
    if not message.images:
        gone(h)


# ---- doubts


def source_holds(h: Home, sender: NodeId, message: Status) -> None:
    """COMMITTED: a sealed source; with the dest's copy gone that is DOUBT 1, else just a nudge."""
    if h.dest_gone and message.state == "sealed":
        h.become(HomeState.DOUBT1)
        ran = "certainly ran" if h.ran == "yes" else "may have run"
        text = (
            f"the destination was rebooted after the commit; the job {ran} there for a moment. "
            "rerun: go on at the source from the cut, that moment happens again. drop: give the job up."
        )
        h.emit(Doubt(h.job, 1, h.move.epoch, h.move.source, text, ("rerun", "drop")))
    else:
        home_move.status(h, sender, message)


def doubt2(h: Home) -> None:
    """The dest holds the only images, and the source may have run on before it was rebooted."""
    h.become(HomeState.DOUBT2)
    h.salvaging = False
    text = (
        "the source was rebooted while the move was being taken back; the destination has the images. "
        "salvage: restore them, what the job did at the source since happens again. drop: give the job up."
    )
    h.emit(Doubt(h.job, 2, h.move.epoch, h.move.dest, text, ("salvage", "drop")))


def over(h: Home, move: Move) -> None:
    """The doubt is settled, by a person or by a fact."""
    h.emit(Doubt(h.job, 0, move.epoch, h.book.owner, "settled"))


def decided(h: Home, event: Decision) -> None:
    """A person chose.  It holds when the holder confirms."""
    if h.syncing is not None:
        return
    if h.state in STATES and event.choice == "drop":
        h.dropping = True
    elif h.state is HomeState.DOUBT1 and event.choice == "rerun" and not h.dropping:
        move, floor = h.move, h.move.epoch.undone
        phase = replace(move, phase=Phase.UNDONE)
        h.sync(Sync.RERUN, replace(h.book, owner=move.source, epoch=floor, out_floor=floor, move=phase))
    elif h.state is HomeState.DOUBT2 and event.choice == "salvage" and not h.dropping:
        last = h.book.last + 2
        m = Epoch(h.book.generation, last)
        again = replace(h.move, epoch=m, phase=Phase.FREEZE)
        h.sync(Sync.SALVAGE, replace(h.book, last=last, move=again, out_floor=m))


def rerun(h: Home, ok: bool) -> None:
    """The decision is durable: tell the source."""
    if ok:
        h.fail("the destination was rebooted; a person chose to go on at the source")
        h.become(HomeState.UNDOING)
        over(h, h.move)


def salvage(h: Home, ok: bool) -> None:
    """The new number is durable: tell the dest.  From here it is a move whose source is known gone."""
    if ok:
        h.become(HomeState.FREEZING)
        h.source_gone = h.salvaging = True
        h.dest_gone = False
        over(h, h.move)


def dropped(h: Home, sender: NodeId, message: Dropped) -> None:
    """In doubt: the holder deleted its copy on a person's word."""
    holder = h.move.source if h.state is HomeState.DOUBT1 else h.move.dest
    if h.dropping and sender == holder:
        gone(h)


def attested(h: Home, event: Attested) -> None:
    """A person swears that a node is off or was rebooted: as if it had said NOCOPY.  If that is not so, the job
    may run twice.
    """
    if h.syncing is not None or h.journal is None:
        return
    if h.state is HomeState.IDLE and event.node == h.book.owner:
        home_end.close(h, End(How.LOST, text="a person says that its node is off"))
    elif h.book.move is not None:
        said = NoCopy(job=h.job, epoch=h.move.epoch, session=h.move.session, answers="attested")
        h.of_move(event.node, said)
