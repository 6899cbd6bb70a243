"""One job on one node, as source, as dest or as where it simply runs.  Its transitions: `table.py`."""

from __future__ import annotations

from dataclasses import replace

from omcore.errors import LocalProtocolError
from omcore.handoff import dest, source, table
from omcore.handoff.answers import STOPPED_AS_DEST, answer
from omcore.handoff.inputs import EngineRestarted, Facts, Input, Received
from omcore.handoff.machine import Machine, Timer, Timing
from omcore.handoff.messages import Abort, Freeze, Go, Message, Probe, Superseded
from omcore.handoff.outputs import ForgetRecord, Output, WriteRecord
from omcore.handoff.records import CopyState, Epoch, Record
from omcore.types import JobId, NodeId


class Participant(Machine):
    """What this node holds of a job: its record, and what is lost with the engine.

    First input: EngineRestarted, also for a job that starts here (with `records.first_record`, a living pod) and
    for one never heard of (record None).  `notes`: epochs that a note on disk says were granted here.
    """

    __slots__ = (
        "copy_dead",
        "door",
        "fresh",
        "incarnation",
        "invitation",
        "max_freeze_s",
        "notes",
        "reclaiming",
        "record",
    )

    def __init__(
        self,
        job: JobId,
        me: NodeId,
        incarnation: bytes = b"",
        notes: frozenset[Epoch] = frozenset(),
        timing: Timing | None = None,
    ) -> None:
        super().__init__(job, me, timing or Timing())
        self.incarnation = incarnation
        self.notes = notes
        self.record: Record | None = None
        self.invitation: tuple[str, bytes, tuple[int, ...]] | None = None  # dest: address, key, criu
        self.door: tuple[str, bytes] | None = None  # source: where to ship
        self.max_freeze_s = 10.0
        self.reclaiming = False  # source, SEALED: ask the dest to give it back
        self.copy_dead = False  # source, SEALED: the stopped pod died
        self.fresh = b""  # random bytes that came with the message in hand

    @property
    def state(self) -> CopyState:
        """What is held here."""
        return self.record.state if self.record else CopyState.GONE

    @property
    def held(self) -> Record:
        """The record, where the table says there must be one."""
        if self.record is None:
            raise LocalProtocolError(f"no record of {self.job}")
        return self.record

    def handle(self, event: Input, now: float, jitter: float = 0.0) -> list[Output]:
        """Take one input; what is not in the table is ignored, a question is answered from the record.

        Raises LocalProtocolError for an input of the other machine.
        """
        self._begin(now, jitter)
        if isinstance(event, Received):
            self._receive(event)
        elif isinstance(event, EngineRestarted):
            self._restart(event.record, event.facts)
        else:
            if type(event) not in table.PARTICIPANT_INPUTS:
                raise LocalProtocolError(f"not for a participant: {event}")
            act = table.PARTICIPANT.get((self.state, type(event)))
            if act is not None:
                act(self, event)
        return self._finish()

    def _receive(self, event: Received) -> None:
        sender, message = event.sender, event.message
        self.fresh = event.fresh
        if message.job != self.job:
            self.drop(sender, message, "another job")
            return
        roles = table.SENDERS.get(type(message))
        if roles is None:
            self.drop(sender, message, "not for a participant")
            return
        if self._supersede(sender, message):
            return
        if self.record and not (roles & self.roles_of(sender, message.epoch)):
            self.drop(sender, message, "sender has not that role")
            return
        act = table.PARTICIPANT_MESSAGES.get((self.state, type(message)), answer)
        act(self, sender, message)

    def _supersede(self, sender: NodeId, message: Message) -> bool:
        """Answer an authority of a lower generation."""
        r = self.record
        if r is None or r.state is CopyState.GONE or message.epoch.generation >= r.generation:
            return False
        if isinstance(message, (Freeze, Abort, Probe, Go)):
            said = Superseded(job=self.job, epoch=Epoch(r.generation, 0), authority=r.authority, token=r.token)
            self.send(sender, said)
        return True

    def roles_of(self, sender: NodeId, epoch: Epoch) -> frozenset[str]:
        """What `sender` is for `epoch`, by this record: authority, peer, or just anyone."""
        roles = {"anyone"}
        r = self.record
        if r is not None:
            if sender == r.authority:
                roles.add("authority")
            stone = r.fate(epoch)
            if (r.move is not None and sender == r.peer) or (stone is not None and stone.peer == sender):
                roles.add("peer")
        return frozenset(roles)

    def write(self, record: Record) -> None:
        """Record first: everything emitted later in this input happens after it is written."""
        if self.state is not record.state:
            self._stop(Timer.INVITE, Timer.MAX_FREEZE, Timer.SILENT, Timer.FORGET)
            self.reclaiming = False
            self.invitation = None
            if record.state is CopyState.GONE:
                self._arm(Timer.FORGET, self.timing.forget_s)
        self.record = record
        self.emit(WriteRecord(record))

    def reason(self, reason: str) -> None:
        """Remember, in memory only, why this move will have failed."""
        self.record = replace(self.held, reason=reason)

    def _restart(self, record: Record | None, facts: Facts) -> None:
        self.record = record
        if record is not None:
            table.RESTART[record.state](self, facts)

    def expired(self, timer: Timer) -> None:
        """INVITE, MAX_FREEZE, SILENT and FORGET."""
        if timer is Timer.FORGET:
            self.emit(ForgetRecord(self.job))
            return
        act = table.PARTICIPANT_TIMERS.get((self.state, timer))
        if act is not None:
            act(self)

    def voice(self) -> list[tuple[NodeId, Message]]:
        """A sealed source nudges home; a dest repeats its vote; an ended job its end."""
        if self.record is None:
            return []
        if self.state in STOPPED_AS_DEST:
            return dest.voice(self, self.record)
        return source.voice(self, self.record)
