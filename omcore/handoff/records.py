"""What is written down: epochs, the participant's record (tmpfs) and home's journal (disk).

All values are frozen and hold only ints, strings, bytes, bools, None, enums and tuples, so that the driver can
serialise them as they are and a checker can hash them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from omcore.types import JobId, NodeId

TEXT_LIMIT = 400  # characters of a reason or hint: they travel in messages of 4 KiB
TOMBSTONES = 8  # kept per record; older questions are answered by home's leftovers


def bounded(text: str) -> str:
    """A reason or hint cut to what may travel."""
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"


def short(text: str) -> str:
    """A text of a peer cut to so many bytes that the journal's slot holds it beside everything else."""
    return text.encode("utf-8", "replace")[:TEXT_LIMIT].decode("utf-8", "ignore")


class Epoch(NamedTuple):
    """Who may run a job, ordered.  Even number = a move; odd = the source after that move was undone."""

    generation: int
    number: int

    @property
    def undone(self) -> Epoch:
        """The epoch under which the source goes on when this move is taken back."""
        return Epoch(self.generation, self.number + 1)


FIRST = Epoch(0, 1)
NEVER = Epoch(0, 0)


class How(StrEnum):
    """How a job came to its end."""

    EXITED = "exited"
    KILLED = "killed"  # a signal, or its pod died under it
    LOST = "lost"  # no copy is left
    DROPPED = "dropped"  # a person gave it up
    SUPERSEDED = "superseded"  # another journal rules now


@dataclass(frozen=True, slots=True)
class End:
    """The end of a job: `status` is the exit code or minus the signal; `totals` are bytes out, err, in, signals."""

    how: How
    status: int = 255
    totals: tuple[int, ...] = ()
    text: str = ""

    def cut(self) -> End:
        """The same, as small as an honest one is."""
        return replace(self, totals=self.totals[:4], text=short(self.text))


class CopyState(StrEnum):
    """What a node holds of a job."""

    GONE = "gone"
    RUNNING = "running"
    FROZEN = "frozen"
    SEALED = "sealed"
    ENDED = "ended"
    INVITED = "invited"
    RESTORING = "restoring"
    READY = "ready"
    VOID = "void"


class Fate(StrEnum):
    """How an epoch ended on this node."""

    RETIRED = "retired"  # source: the other end ran it, my copy is deleted
    UNDONE = "undone"  # source: I took it back and run on
    ENDED = "ended"
    VOIDED = "voided"  # dest: never ran here, nothing kept
    DISCARDED = "discarded"  # dest: the source went on, nothing kept
    WON = "won"  # dest: it ran here
    DIED = "died"  # dest: died in the instant of its resume; may have run


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An epoch that ended on this node, and with whom."""

    epoch: Epoch
    fate: Fate
    peer: NodeId | None = None
    session: bytes | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A participant's record: one per job and node, on tmpfs, written before the act it announces.

    `epoch` is what the copy runs under (for a dest before GO: the move).  `move`, `peer`, `session` are set while a
    move is open, and until the resume that ends it is confirmed (`resumed`).  `pod` names the pod by the epoch it
    was made for.  `rebuild`: the stopped pod died, the resume must first restore this node's own images.
    """

    job: JobId
    state: CopyState
    epoch: Epoch
    authority: NodeId  # whose FREEZE, ABORT, GO this copy obeys
    generation: int
    token: bytes
    pod: Epoch
    move: Epoch | None = None
    peer: NodeId | None = None
    session: bytes | None = None
    resumed: bool = True
    rebuild: bool = False
    high: Epoch = NEVER  # highest epoch that ended here
    tombstones: tuple[Tombstone, ...] = ()  # newest last
    end: End | None = None
    reason: str = ""
    hint: str = ""

    def fate(self, epoch: Epoch) -> Tombstone | None:
        """How `epoch` ended here, if it did and is still remembered."""
        for stone in self.tombstones:
            if stone.epoch == epoch:
                return stone
        return None

    def bury(self, fate: Fate, epoch: Epoch) -> Record:
        """The same record with a tombstone for `epoch`, naming the present peer and session."""
        stone = Tombstone(epoch, fate, self.peer, self.session)
        kept = tuple(s for s in self.tombstones if s.epoch != epoch)
        return replace(self, tombstones=(*kept, stone)[-TOMBSTONES:], high=max(self.high, epoch))


class Phase(StrEnum):
    """How far an open move is, as the journal says."""

    PREPARE = "prepare"
    FREEZE = "freeze"
    COMMITTED = "committed"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Move:
    """The one open move of a job."""

    epoch: Epoch
    source: NodeId
    dest: NodeId
    session: bytes | None
    phase: Phase


class Duty(StrEnum):
    """What the loser of a finished move still has to confirm."""

    RETIRE = "retire"  # the source: told RESUMED
    DISCARD = "discard"  # the dest: told UNDONE


@dataclass(frozen=True, slots=True)
class Leftover:
    """A loser that has not yet confirmed that it deleted what it held of `epoch`."""

    epoch: Epoch
    node: NodeId
    duty: Duty


@dataclass(frozen=True, slots=True)
class Journal:
    """Home's journal of one job: the only place where ownership is decided.

    `last` is the last move number handed out (even).  `out_floor`: output and acks of lower epochs are refused.
    """

    job: JobId
    generation: int
    owner: NodeId
    epoch: Epoch
    last: int
    token: bytes
    move: Move | None = None
    leftovers: tuple[Leftover, ...] = ()
    out_floor: Epoch = NEVER
    end: End | None = None

    def with_leftover(self, epoch: Epoch, node: NodeId, duty: Duty) -> Journal:
        """The same with one more loser to remind."""
        left = Leftover(epoch, node, duty)
        return self if left in self.leftovers else replace(self, leftovers=(*self.leftovers, left))


def first_journal(job: JobId, owner: NodeId, token: bytes) -> Journal:
    """The journal of a job that is about to start on `owner`."""
    return Journal(job, 0, owner, FIRST, 0, token)


def first_record(job: JobId, authority: NodeId, token: bytes) -> Record:
    """The record of a job that is about to start here."""
    return Record(job, CopyState.RUNNING, FIRST, authority, 0, token, FIRST)
