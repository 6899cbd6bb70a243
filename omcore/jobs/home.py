"""A job at its home: journal, terminal and the handoff machine that decides who runs it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omcore import requests
from omcore.errors import MigrationError, Refused
from omcore.handoff import inputs, outputs
from omcore.handoff.home import Home
from omcore.handoff.home_state import HomeState
from omcore.handoff.records import End, Epoch, How, Journal
from omcore.jobs.frames import STREAMS
from omcore.jobs.store import JOURNAL, JournalFile, Meta
from omcore.jobs.terminal import Terminal
from omcore.jobs.track import Track
from omcore.messages import (
    AskOwner,
    NotOwner,
    Owner,
    Progressed,
    StreamAck,
    StreamClose,
    StreamIn,
    StreamOut,
    StreamResize,
    StreamSignal,
    Welcome,
)
from omcore.types import JobId, JobState, JobView, Movable, NodeId, Step

if TYPE_CHECKING:
    from omcore.jobs.manager import Jobs

log = logging.getLogger(__name__)

WAIT_S = 15.0
"""A move of which nothing was heard for so long, and for three times its forecast, says whom it waits for."""
ASK_OWNER_S = 10.0
"""How often a remote owner that said nothing is asked whether it still has the job."""


class HomeJob:
    """One job whose home is here."""

    def __init__(self, jobs: Jobs, meta: Meta, journal: Journal, new: bool) -> None:
        self._jobs = jobs
        self._node = jobs.node
        self.meta = meta
        self._file = JournalFile(jobs.homes_store.directory(meta.id) / JOURNAL)
        self.terminal = Terminal(jobs.homes_store.directory(meta.id), self._node.config.keep_log_bytes)
        self.terminal.on_ack = lambda stream, offset: self._tell_owner(StreamAck(self.id, stream, offset))
        self.terminal.on_input = lambda offset, data, eof: self._tell_owner(StreamIn(self.id, offset, data, eof))
        self.terminal.on_signal = lambda seq, signum: self._tell_owner(StreamSignal(self.id, seq, signum))
        self.owner: NodeId = journal.owner
        self.epoch: Epoch = journal.epoch
        self.end: End | None = journal.end
        self.ended = asyncio.Event()
        if self.end:
            self.ended.set()
        self.stopped = 0
        self.started = False  # the owner has said that it runs
        self.launching = new  # its node is starting it: what that says of it meanwhile is no proof of anything
        self.note = ""
        self._doubt: outputs.Doubt | None = None
        self._await: End | None = None
        self._heard = 0.0
        self._asked = 0.0
        self._closed: set[str] = set()  # pipes that nobody reads any more
        self._tracks: dict[str, Track] = {}
        self._timer: asyncio.Handle | None = None
        self._todo: deque[outputs.Output] = deque()
        self._working = False
        self.machine = Home(meta.id, self._node.me)
        self.feed(inputs.Opened(journal, new))

    @property
    def id(self) -> JobId:
        """The job."""
        return self.meta.id

    # -- the machine

    def feed(self, item: inputs.Input) -> None:
        """Give the machine an input and carry out what it says, in order."""
        self._todo.extend(self.machine.handle(item, self._node.now(), random.uniform(-0.2, 0.2)))
        self._work_off()

    def _work_off(self) -> None:
        """Carry out outputs strictly in order; one that makes the machine speak again waits its turn."""
        if self._working:
            return
        self._working = True
        try:
            while self._todo:
                self._act(self._todo.popleft())
        finally:
            self._working = False
            self._arm()  # also when one failed: what follows it must not wait for the next message

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._todo:
            self._timer = loop.call_soon(self._work_off)
        elif self.machine.deadline is not None:
            self._timer = loop.call_at(self.machine.deadline, self._tick_machine)

    def _tick_machine(self) -> None:
        self._timer = None
        self._todo.extend(self.machine.tick(self._node.now(), random.uniform(-0.2, 0.2)))
        self._work_off()

    def _act(self, action: outputs.Output) -> None:
        match action:
            case outputs.Send():
                self._node.post(action.to, action.message)
            case outputs.WriteJournal():
                self._write(action)
            case outputs.OwnerIs():
                self._owner_is(action)
            case outputs.Progress():
                self._progress(action.epoch, action.step)
            case outputs.MoveEnded():
                self._move_ended(action)
            case outputs.AwaitOutput():
                self._await = action.end
                self._check_output()
            case outputs.ReportEnd():
                self._report_end(action.end)
            case outputs.Doubt():
                self._doubt = action if action.kind else None
                self.note = action.text
                if (track := self._current()) is not None and action.kind:
                    error = MigrationError(f"{self.meta.name} is in doubt: {action.text}", "See: omview jobs")
                    track.ended(Step.BACK, self._node.now(), error)
                self._node.cluster.event("doubt", self.meta.name, action.text)
                self._node.touch()
            case outputs.DiskBad():
                self.note = f"the disk refused to write: {action.error}"
                self._node.cluster.event("error", self.meta.name, self.note)
            case outputs.Dropped():
                log.debug("dropped job=%s kind=%s reason=%s", self.id[:8], action.kind, action.reason)
            case _:
                log.error("home machine asked for %s", type(action).__name__)

    def _write(self, action: outputs.WriteJournal) -> None:
        try:
            self._file.write(action.journal)
        except OSError as error:
            if action.sync:
                self._jobs.later(self.feed, inputs.JournalSynced(action.sequence, False, str(error)))
            return
        if action.sync:
            self._node.spawn(self._sync(action.sequence))

    async def _sync(self, sequence: int) -> None:
        try:
            await asyncio.to_thread(self._file.sync)
        except OSError as error:
            self.feed(inputs.JournalSynced(sequence, False, str(error)))
        else:
            self.feed(inputs.JournalSynced(sequence, True))

    def _owner_is(self, action: outputs.OwnerIs) -> None:
        moved = action.owner != self.owner
        self.owner, self.epoch = action.owner, action.epoch
        if moved:
            self._note(replace(self.meta, moves=self.meta.moves + 1))
        self._node.touch()

    def _note(self, meta: Meta) -> None:
        """Write down what people are shown of it; a full disk must not hold up what the journal has decided."""
        self.meta = meta
        try:
            self._jobs.homes_store.save(meta)
        except OSError as error:
            log.warning("not written down job=%s error=%s", self.id[:8], error)

    # -- moves

    @property
    def moving(self) -> bool:
        """Whether a move is open."""
        return any(track.running for track in self._tracks.values())

    async def move(self, track: Track, rss_bytes: int, forecast_s: float, uid: int) -> None:
        """Carry out a checked move; returns when it ended well, raises `MigrationError` otherwise."""
        self._tracks[track.ticket] = track
        self.feed(
            inputs.MoveRequested(
                track.dest, track.by, track.ticket, rss_bytes, stdio="pty" if self.meta.tty else "pipes", uid=uid,
                forecast_s=forecast_s,
            )
        )  # fmt: skip
        try:
            await asyncio.shield(track.done)
        finally:
            if track.done.done():
                self._tracks.pop(track.ticket, None)

    @property
    def needed(self) -> bool:
        """Whether somebody still needs the ended job: a terminal, or a node with a stopped copy that only our word
        lets go.
        """
        return self.terminal.attached or bool(self.machine.book.leftovers)

    def cancel_move(self) -> None:
        """Take the open move back if it is not too late."""
        self.feed(inputs.CancelRequested())

    def _current(self) -> Track | None:
        return next((track for track in self._tracks.values() if track.running), None)

    def _progress(self, epoch: Epoch, step: Step) -> None:
        track = self._current()
        if track is not None:
            track.step_to(step, self._node.now())
            self.terminal.moving = step in (Step.FREEZE, Step.SHIP, Step.RESTORE, Step.COMMIT)
            self._node.touch()

    def _move_ended(self, action: outputs.MoveEnded) -> None:
        self.terminal.moving = False
        track = self._tracks.get(action.ticket)
        if track is None:
            return
        name = self._node.cluster.name(action.dest)
        why = "" if action.ok else action.reason
        source = self._node.cluster.name(track.source)
        self._node.trail.note(
            "moved", job=self.id, source=source, dest=name, bytes=track.bytes_total, ok=action.ok, why=why
        )
        if action.ok:
            track.ended(Step.DONE, self._node.now())
            freeze = f"{track.freeze_s:.2f} s" if track.freeze_s is not None else "?"
            text = f"{self._node.cluster.name(track.source)} → {name}  frozen {freeze}"
            self._node.cluster.event("moved", self.meta.name, text)
            self.note = ""
        else:
            refused = track.step in (Step.CHECK, Step.PREPARE)
            kind = Refused if refused else MigrationError
            text = f"{self.meta.name} stays on {self._node.cluster.name(self.owner)}: {action.reason}."
            track.ended(Step.REFUSED if refused else Step.BACK, self._node.now(), kind(text, action.hint))
            self._node.cluster.event("refused" if refused else "taken back", self.meta.name, action.reason)
            self.note = action.reason
        self._node.touch()

    def _say_waiting(self, now: float) -> None:
        """Nothing is lost by waiting, but people should know for whom."""
        track = self._current()
        if track is None or now - max(track.changed, track.started) < max(WAIT_S, 3 * track.forecast_s) or self.note:
            return
        awaited = {HomeState.FREEZING: track.source, HomeState.UNDOING: track.source, HomeState.COMMITTED: track.dest}
        node = awaited.get(self.machine.state)
        if node is not None:
            name = self._node.cluster.name(node)
            self.note = f"its move waits for {name}, which does not answer; the job is safe"
            self._node.cluster.event("error", self.meta.name, self.note)
            self._node.touch()

    # -- streams and messages of the owner

    def _tell_owner(self, message: object) -> None:
        if self.end is None:
            self._node.post(self.owner, message)

    def received(self, sender: NodeId, message: Any) -> None:
        """A stream message of the owner, or of a node that was it a moment ago."""
        match message:
            case StreamOut():
                self._output(sender, message)
            case Owner():
                self._owner_says(sender, message)
            case Progressed():
                self._progressed(sender, message)
            case NotOwner() if sender == self.owner and not self.moving and not self.launching:
                self.feed(inputs.CheckOwner(random.getrandbits(31)))
            case _:
                pass

    def _output(self, sender: NodeId, message: StreamOut) -> None:
        move = self.machine.book.move
        speakers = {self.owner} if move is None else {self.owner, move.source, move.dest}
        if sender not in speakers or message.stream not in self.terminal.logs:
            return
        try:
            self.terminal.deliver(message.stream, message.offset, message.data)
        except OSError as error:  # disk full: nothing is acknowledged, so the job waits and loses nothing
            if not self.note:
                self.note = f"its output waits: {error.strerror}"
                self._node.cluster.event("error", self.meta.name, self.note)
            return
        if message.stream in self._closed:  # the owner has not heard of it: lost, or said while the job moved
            self._tell_owner(StreamClose(self.id, message.stream))
        self._check_output()

    def _check_output(self) -> None:
        if self._await is not None and all(
            self.terminal.received(stream) >= total
            for stream, total in zip(("out", "err", "tty"), self._await.totals, strict=False)
        ):
            self._await = None
            self.feed(inputs.AllOutputDelivered())

    def _owner_says(self, sender: NodeId, message: Owner) -> None:
        epoch = Epoch(message.generation, message.epoch)
        if sender != self.owner or epoch != self.epoch:
            return
        if not self._heard or message.taken > self.terminal.typed:
            self.terminal.adopt_input(message.taken, message.sig_taken)
        self._heard = self._node.now()
        self.started = True
        self.terminal.took_input(message.taken)
        self.terminal.took_signals(message.sig_taken)
        if message.stopped != self.stopped:
            self.stopped = message.stopped
            if message.stopped:
                self.terminal.tell(requests.Stopped(message.stopped))
            self._node.touch()
        if message.hello:
            self._skip_lost(message.acked)
            received = (self.terminal.received("out"), self.terminal.received("err"), self.terminal.received("tty"))
            self._node.post(sender, Welcome(self.id, received))
            self.terminal.acknowledge_all()
            self.terminal.resend_input(message.taken, message.sig_taken)
            if self.terminal.window:
                self._tell_owner(StreamResize(self.id, *self.terminal.window))
            for stream in self._closed:
                self._tell_owner(StreamClose(self.id, stream))

    def _skip_lost(self, acked: tuple[int, ...]) -> None:
        """After a power failure here the owner may have forgotten what our disk never got; else it waited for ever."""
        lost = sum(self.terminal.skip(stream, offset) for stream, offset in zip(STREAMS, acked, strict=False))
        if lost:
            self.note = f"{lost} bytes of its output were lost when {self._node.info.name} went down"
            self._node.cluster.event("error", self.meta.name, self.note)

    def _progressed(self, sender: NodeId, message: Progressed) -> None:
        track = self._current()
        if track is None or sender not in (track.source, track.dest):
            return
        track.figures(message, sender == track.source, self._node.now())
        self._node.touch()

    def resize(self, rows: int, cols: int) -> None:
        """The window of the caller's terminal changed."""
        if 0 < rows < 10_000 and 0 < cols < 10_000:
            self.terminal.window = (rows, cols)
            self._tell_owner(StreamResize(self.id, rows, cols))

    def close_output(self, stream: str) -> None:
        """Nobody reads this stream any more; a terminal stays open."""
        if stream in ("out", "err"):
            self._closed.add(stream)
            self._tell_owner(StreamClose(self.id, stream))

    def tick(self, now: float) -> None:
        """Once a second: repeat what the owner has not taken, ask an owner that says nothing."""
        if self.moving:
            self._say_waiting(now)
        if self.end is not None or self.moving or self.launching:
            return
        if self.terminal.waiting:
            self.terminal.resend_input(self.terminal.taken, 0)
        silent = now - self._heard
        if (not self._heard or silent > ASK_OWNER_S) and now - self._asked > (1.0 if not self._heard else ASK_OWNER_S):
            self._asked = now
            self._tell_owner(AskOwner(self.id))

    # -- the end

    def _report_end(self, end: End) -> None:
        if self.end is not None and self.ended.is_set():
            return
        self.end = end
        self._note(replace(self.meta, ended=time.time()))
        for track in tuple(self._tracks.values()):
            track.ended(Step.BACK, self._node.now(), MigrationError("The job ended before it could move."))
        self.ended.set()
        if end.how is How.LOST:
            self._node.cluster.event("error", self.meta.name, end.text or "the job is lost")
        else:
            self._node.cluster.event("ended", self.meta.name, ending(end))
        self._node.touch()

    @property
    def status(self) -> int | None:
        """Exit code or minus the signal; None while it runs or when it is lost."""
        return None if self.end is None or self.end.how is How.LOST else self.end.status

    def state(self) -> JobState:
        """Where it stands, in one word."""
        if self.end is not None:
            return JobState.LOST if self.end.how is How.LOST else JobState.ENDED
        if self._doubt is not None:
            return JobState.DOUBT
        if self.moving:
            return JobState.MOVING
        if self.stopped:
            return JobState.STOPPED
        return JobState.RUNNING if self.started else JobState.STARTING

    def view(self) -> JobView:
        """What faces show of it; figures are added by who measures them."""
        meta = self.meta
        tty = "pty" if meta.tty == (0, 1, 2) else "mixed" if meta.tty else "pipes"
        state = self.state()
        movable = Movable.LOCKED if meta.locked else Movable.MOVING if state is JobState.MOVING else Movable.UNKNOWN
        return JobView(
            id=meta.id,
            name=meta.name,
            command=meta.command,
            user=meta.user,
            home=self._node.info.number,
            node=self._node.cluster.number(self.owner),
            pid=0,
            state=state,
            locked=meta.locked,
            moves=meta.moves,
            age_s=max(0.0, (meta.ended or time.time()) - meta.started),
            stdio=tty,
            attached=self.terminal.attached,
            status=self.status,
            note=self.note,
            movable=Movable.NO if self.end else movable,
        )

    def close(self) -> None:
        """The engine ends; the job does not."""
        if self._timer:
            self._timer.cancel()
        self.terminal.close()
        self._file.close()


def ending(end: End) -> str:
    """How a job ended, in words."""
    if end.status < 0:
        import signal

        try:
            return f"ended by {signal.Signals(-end.status).name}"
        except ValueError:
            return f"ended by signal {-end.status}"
    return f"ended with status {end.status}" if end.status else "ended well"
