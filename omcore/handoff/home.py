"""One job at its home: the authority, with the journal.  Its transitions: `table.py`; the acts: `home_move.py`,
`home_doubt.py`.
"""

from __future__ import annotations

from dataclasses import replace

from omcore.errors import LocalProtocolError
from omcore.handoff import home_doubt, home_end, home_move, table
from omcore.handoff.home_state import HomeState, Sync
from omcore.handoff.inputs import Input, JournalSynced, MoveRequested, Opened, Received
from omcore.handoff.machine import Machine, Timer, Timing
from omcore.handoff.messages import Ended, Message, Prepared
from omcore.handoff.outputs import DiskBad, Output, WriteJournal
from omcore.handoff.records import Journal, Move
from omcore.types import JobId, NodeId


class Home(Machine):
    """The authority of one job.  First input: Opened(journal).

    While a journal write is being synced, messages are ignored (all are repeated), requests are remembered.
    """

    __slots__ = (
        "asking_owner",
        "cancelled",
        "dest_gone",
        "disk_error",
        "dropping",
        "ending",
        "hint",
        "invitation",
        "journal",
        "new",
        "nonce",
        "pending",
        "ran",
        "reason",
        "request",
        "salvaging",
        "sequence",
        "source_gone",
        "state",
        "syncing",
        "unreachable",
        "waiting",
    )

    def __init__(self, job: JobId, me: NodeId, timing: Timing | None = None, sequence: int = 0) -> None:
        """`sequence`: the newest one found in the journal's file; writes count up from it."""
        super().__init__(job, me, timing or Timing())
        self.sequence = sequence
        self.journal: Journal | None = None
        self.pending: Journal | None = None  # being synced
        self.syncing: Sync | None = None  # what for
        self.state = HomeState.OPENING
        self.new = False
        self.request: MoveRequested | None = None  # of the open move; lost with the engine
        self.waiting: MoveRequested | None = None  # the one slot
        self.cancelled = False
        self.invitation: Prepared | None = None
        self.source_gone = False  # NOCOPY from the source of the open move
        self.dest_gone = False
        self.ran = "unknown"
        self.unreachable = False  # GRANT expired: let the source try
        self.salvaging = False
        self.dropping = False
        self.ending: tuple[NodeId, Ended] | None = None  # waits for the last output
        self.asking_owner = False
        self.nonce = 0
        self.disk_error = ""
        self.reason = ""
        self.hint = ""

    @property
    def book(self) -> Journal:
        """The journal, once it was opened."""
        if self.journal is None:
            raise LocalProtocolError("Opened must come first")
        return self.journal

    @property
    def move(self) -> Move:
        """The open move, where the state says that there is one."""
        if self.book.move is None:
            raise LocalProtocolError(f"no open move in {self.state}")
        return self.book.move

    def handle(self, event: Input, now: float, jitter: float = 0.0) -> list[Output]:
        """Take one input.  Raises LocalProtocolError for an input of the other machine or before Opened."""
        self._begin(now, jitter)
        if isinstance(event, Received):
            if self.syncing is None:
                self._receive(event.sender, event.message)
        elif isinstance(event, Opened):
            self._open(event)
        elif isinstance(event, JournalSynced):
            self._synced(event)
        else:
            act = table.HOME_INPUTS.get(type(event))
            if act is None:
                raise LocalProtocolError(f"not for home: {event}")
            act(self, event)
        return self._finish()

    def _receive(self, sender: NodeId, message: Message) -> None:
        if self.journal is None or message.job != self.job:
            self.drop(sender, message, "another job")
            return
        if self.state is HomeState.OPENING:
            return
        anywhere = table.HOME_ANY.get(type(message))
        if anywhere is not None:
            anywhere(self, sender, message)
        else:
            self.of_move(sender, message)

    def of_move(self, sender: NodeId, message: Message) -> None:
        """A message of the open move, if the table has it and its sender has that role."""
        act = table.HOME.get((self.state, type(message)))
        if act is None:
            return
        role = table.HOME_SENDERS[type(message)]
        if self.book.move is not None and not self._is(role, sender, message):
            self.drop(sender, message, f"not the {role} of this move, or another session")
            return
        act(self, sender, message)

    def _is(self, role: str, sender: NodeId, message: Message) -> bool:
        """Whether `sender` has `role` in the open move and the message is of that move."""
        move = self.move
        if message.epoch != move.epoch:
            return False
        if role == "dest":
            loose = move.session is None or type(message) in table.WITHOUT_SESSION
            return sender == move.dest and (loose or message.session == move.session)
        return sender == move.source or (role == "either" and sender == move.dest)

    # ---- journal

    def note(self, journal: Journal) -> None:
        """Write; the sync may lag, a restart finds out again by asking."""
        self.journal = journal
        self.sequence += 1
        self.emit(WriteJournal(self.sequence, journal, sync=False))

    def sync(self, what: Sync, journal: Journal) -> None:
        """Write and wait; `table.SYNCED[what]` goes on."""
        self.pending = journal
        self.syncing = what
        self.sequence += 1
        self.emit(WriteJournal(self.sequence, journal, sync=True))

    def _open(self, event: Opened) -> None:
        self.journal = event.journal
        self.new = event.new
        self.sync(Sync.OPEN, event.journal)

    def _synced(self, event: JournalSynced) -> None:
        if self.syncing is None or self.pending is None or event.sequence != self.sequence:
            return
        what, written = self.syncing, self.pending
        self.syncing = self.pending = None
        if event.ok:
            self.journal = written
        else:
            self.disk_error = event.error or "the journal could not be written"
            self.emit(DiskBad(self.job, self.disk_error))
        table.SYNCED[what](self, event.ok)
        if self.cancelled and self.syncing is None:
            self.cancelled = False
            home_move.cancel(self)

    # ---- state

    def become(self, state: HomeState) -> None:
        """Change the state; timers belong to one state."""
        self.state = state
        self._stop(Timer.PREPARE, Timer.READY, Timer.GRANT)
        self.unreachable = False

    def forget_move(self) -> None:
        """Back to IDLE: what was only in memory about the move."""
        self.request = self.invitation = None
        self.source_gone = self.dest_gone = self.salvaging = self.dropping = False
        self.ran = "unknown"
        self.reason = self.hint = ""

    def expired(self, timer: Timer) -> None:
        """PREPARE, READY and GRANT."""
        if timer is Timer.RESEND:
            return
        act = table.HOME_TIMERS.get((self.state, timer))
        if act is not None and self.syncing is None:
            act(self)

    def voice(self) -> list[tuple[NodeId, Message]]:
        """Leftovers, and the word of the present state."""
        if self.journal is None or self.state is HomeState.OPENING:
            return []
        said = home_end.leftover_words(self)
        if self.syncing is None:
            said += home_doubt.words(self) if self.state in home_doubt.STATES else home_move.words(self)
        return said

    def fail(self, reason: str, hint: str = "") -> None:
        """Remember why the open move will have failed; the first reason stays."""
        if not self.reason:
            self.reason, self.hint = reason, hint

    def mark(self, *, source_gone: bool = False, dest_gone: bool = False) -> None:
        """Note a proof of absence."""
        self.source_gone = self.source_gone or source_gone
        self.dest_gone = self.dest_gone or dest_gone

    def with_move(self, move: Move | None) -> Journal:
        """The journal with another state of its move."""
        return replace(self.book, move=move)
