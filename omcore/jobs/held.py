"""A job on the node that runs it, freezes it or restores it: pod, image stream and the participant machine."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import shutil
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omcore.errors import CheckpointFailed, OmError, PodError
from omcore.handoff import inputs, outputs
from omcore.handoff.participant import Participant
from omcore.handoff.records import CopyState, End, Epoch, How, Record, first_record
from omcore.jobs.frames import STREAMS
from omcore.jobs.pod import (
    Continued,
    Ended,
    Gone,
    Output,
    OutputEof,
    Pod,
    PodEvent,
    PodSpec,
    SignalTaken,
    Stopped,
    Taken,
)
from omcore.jobs.relay import OutRelay
from omcore.messages import (
    AskOwner,
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
from omcore.transport.bulk import BulkReceiver, BulkSender, Ticket, new_ticket, reserve_bytes
from omcore.trust.tokens import join_address
from omcore.types import JobId, NodeId, RunSpec, Step

if TYPE_CHECKING:
    from omcore.jobs.manager import Jobs

log = logging.getLogger(__name__)

DUMP_S = 120.0
RESTORE_S = 120.0
CONNECT_S = 20.0
FLUSH_S = 0.005
"""Least pause between two messages of a stream: a program that prints line by line fills few messages."""
RECONNECT_S = 2.0
RETRY_S = 0.5
GHOST_BYTES = 256 * 1024 * 1024
"""Room for deleted files that travel inside the image (CRIU's --ghost-limit), beside the job's memory."""


class HeldJob:
    """What this node holds of one job."""

    def __init__(self, jobs: Jobs, job: JobId, recovered: bool = True) -> None:
        self._jobs = jobs
        self._node = jobs.node
        self.id = job
        self.machine = Participant(job, self._node.me, jobs.incarnation)
        self.pods: dict[Epoch, Pod] = {}
        self._burials: dict[Epoch, asyncio.Task[None]] = {}
        self._relay = OutRelay(dict.fromkeys(STREAMS, 0))
        self._todo: deque[outputs.Output] = deque()
        self._working = False
        self._dumping: asyncio.Task[None] | None = None
        self._recovered = recovered  # False: a record is here that the machine has not seen yet
        self.beginning = False  # the job is being started here; there is no record yet
        self._welcome = True  # home knows where our streams stand
        self._stopped = 0
        self._flushing: asyncio.TimerHandle | None = None
        self._flushed = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sender: BulkSender | None = None
        self._sender_ready: asyncio.Task[None] | None = None
        self._receiver: BulkReceiver | None = None
        self._frozen_at = 0.0
        self._sealed_at = 0.0

    # -- birth and rebirth

    @property
    def record(self) -> Record | None:
        """What is written down of it."""
        return self.machine.record

    @property
    def empty(self) -> bool:
        """Whether nothing is written down of it here."""
        return self._recovered and not self.beginning and self.machine.record is None

    @property
    def pod(self) -> Pod | None:
        """The pod of the copy that counts now."""
        record = self.record
        return self.pods.get(record.pod) if record else None

    async def start(self, spec: RunSpec, home: NodeId, token: bytes) -> int:
        """Begin a job here; returns its root's PID.  Raises `PodError` when the program cannot be started."""
        record = first_record(self.id, home, token)
        pod = await self._create(record.pod)
        try:
            self._jobs.records.write(record)
        except OSError:
            await pod.retire()
            raise
        self.beginning = False
        self.feed(inputs.EngineRestarted(record, inputs.Facts(pod=record.pod)))
        try:
            pid = await pod.start(spec)
        except PodError:
            await pod.retire()
            self.machine.record = None
            self._jobs.drop_held(self)
            raise
        self._say_hello()
        return pid

    async def recover(self, record: Record) -> None:
        """Take up a job that went on (or waits) while no engine was here; until then it answers nobody."""
        self._recovered = False
        early: list[PodEvent] = []  # what the shim says before the machine knows that the pod lives
        directory = self._jobs.records.directory(self.id, record.pod)
        try:
            pod = await Pod.find(directory, early.append, self._node.criu)
        except PodError as error:
            # It lives but does not answer: that is no proof of anything, so it counts as living and is tried again.
            log.warning("pod does not answer job=%s error=%s", self.id[:8], error.text)
            self._start(self._reconnect(record))
            return
        facts = inputs.Facts()
        if pod is not None:
            self.pods[record.pod] = pod
            self._stopped = pod.stopped
            self._relay = OutRelay(_acked(pod))
            facts = inputs.Facts(pod=record.pod if pod.phase != "empty" else None)
        images = self._jobs.records.whole_images(self.id)
        if images is not None:
            facts = inputs.Facts(facts.pod, Epoch(*images))
        self.feed(inputs.EngineRestarted(record, facts))
        if pod is not None:
            pod.listen(self._on_event(record.pod))
            for event in early:
                self._event(record.pod, event)
        self._recovered = True
        self._say_hello()

    async def _reconnect(self, record: Record) -> None:
        await asyncio.sleep(RECONNECT_S)
        await self.recover(record)

    async def _create(self, epoch: Epoch) -> Pod:
        if burial := self._burials.get(epoch):
            # The one before it in that directory: until it is dead there is no place, and its burial sweeps the place.
            await asyncio.wait({burial})
        spec = PodSpec(
            job=self.id,
            directory=self._jobs.records.directory(self.id, epoch),
            criu=self._node.criu,
            kdat=self._node.places.runtime / "criu.kdat",
            masks=self._jobs.masks(self.id, epoch),
        )
        pod = self.pods[epoch] = await Pod.create(spec, self._on_event(epoch))
        return pod

    # -- the machine

    def feed(self, item: inputs.Input) -> None:
        """Give the machine an input and carry out what it says, in order."""
        self._todo.extend(self.machine.handle(item, self._node.now(), random.uniform(-0.2, 0.2)))
        self._work_off()

    def message(self, sender: NodeId, message: Any) -> None:
        """A handoff message."""
        if self._recovered and not self.beginning:
            self.feed(inputs.Received(sender, message, secrets.token_bytes(16)))

    def _work_off(self) -> None:
        """Carry out outputs strictly in order; one that makes the machine speak again waits its turn."""
        if self._working:
            return
        self._working = True
        try:
            while self._todo and self._recorded(self._todo[0]):
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
            self._timer = loop.call_later(RETRY_S, self._work_off)
        elif self.machine.deadline is not None:
            self._timer = loop.call_at(self.machine.deadline, self._tick_machine)

    def _recorded(self, action: outputs.Output) -> bool:
        """Write a record; while its tmpfs is full, that record and all that follows it wait."""
        if not isinstance(action, outputs.WriteRecord):
            return True
        try:
            self._jobs.records.write(action.record)
        except OSError as error:
            log.error("record not written job=%s error=%s", self.id[:8], error)
            return False
        return True

    def _tick_machine(self) -> None:
        self._timer = None
        self._todo.extend(self.machine.tick(self._node.now(), random.uniform(-0.2, 0.2)))
        self._work_off()

    def _act(self, action: outputs.Output) -> None:
        match action:
            case outputs.Send():
                self._node.post(action.to, action.message)
            case outputs.WriteRecord():
                pass  # written already: see `_recorded`
            case outputs.ForgetRecord():
                self._jobs.drop_held(self)
            case outputs.PreparePod():
                self._start(self._prepare(action))
            case outputs.KillPod():
                self._kill(action.pod)
            case outputs.DeleteImages():
                self._delete_images(action.epoch)
            case outputs.StartDump():
                self._dumping = self._start(self._dump(action))
            case outputs.StartShip():
                self._start(self._ship(action))
            case outputs.SendSeal():
                self._start(self._seal())
            case outputs.StartRestore():
                self._start(self._restore(action))
            case outputs.Resume():
                self._start(self._resume(action))
            case outputs.UndoFreeze():
                self._start(self._undo(action))
            case outputs.NoteGrant():
                pass  # the note only sharpens the words of a doubt; written with the rest of doubt handling
            case outputs.Progress():
                self._progress(action.epoch, action.step)
            case outputs.Dropped():
                log.debug("dropped job=%s kind=%s reason=%s", self.id[:8], action.kind, action.reason)
            case _:
                log.error("participant asked for %s", type(action).__name__)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._node.spawn(work)

    # -- source

    def _open_stream(self, action: outputs.StartDump) -> None:
        """Connect to the dest while the job still runs: the worker's start must not lie inside the freeze."""
        door = self.machine.door
        if door is None:
            return
        address, secret = door
        directory = self._jobs.records.images(self.id, action.epoch)
        ticket = Ticket(secret[:16], secret[16:])
        self._sender = BulkSender(directory, address, ticket, on_progress=self._shipped_bytes)
        self._sender_ready = asyncio.create_task(self._sender.start())

    async def _dump(self, action: outputs.StartDump) -> None:
        pod = self.pods.get(action.pod)
        try:
            if pod is None:
                raise CheckpointFailed("its pod is gone")
            self._open_stream(action)
            assert self._sender_ready is not None
            await asyncio.wait_for(asyncio.shield(self._sender_ready), CONNECT_S)
            if self.record is None or self.record.move != action.epoch or self.record.state is not CopyState.FROZEN:
                return  # taken back before it was frozen
            self._frozen_at = self._node.now()
            self._report(action.epoch, Step.FREEZE)
            report = await pod.dump(self._jobs.records.images(self.id, action.epoch), DUMP_S)
            self._frozen_at = self._node.now() - report.criu_s - report.cut_s
        except (OmError, TimeoutError, AssertionError) as error:
            reason, hint = _words(error)
            self.feed(inputs.DumpFailed(action.epoch, reason, hint))
        else:
            self.feed(inputs.DumpDone(action.epoch))

    async def _ship(self, action: outputs.StartShip) -> None:
        directory = self._jobs.records.images(self.id, action.epoch)
        try:
            if self._sender is None:
                raise CheckpointFailed("the image stream is not open")
            names = sorted(path.name for path in directory.iterdir() if path.name.endswith(".img"))
            sent = await self._sender.go(names)
            self._shipped_bytes(sent.size_bytes, sent.size_bytes)
        except (OmError, OSError) as error:
            self.feed(inputs.ShipFailed(action.epoch, *_words(error)))
        else:
            self.feed(inputs.ShipDone(action.epoch))

    async def _seal(self) -> None:
        record = self.record
        if self._sender is None or record is None or record.move is None:
            return
        self._report(record.move, Step.RESTORE, frozen_s=self._node.now() - self._frozen_at)
        sender = self._sender
        try:
            await sender.seal()
            if holds_locks(self._jobs.records.images(self.id, record.move)):
                await sender.delivered()
                self._free_locks(record)
        except OmError as error:
            log.info("stream after seal job=%s error=%s", self.id[:8], error.text)

    def _free_locks(self, record: Record) -> None:
        """Kill the stopped copy, whose file locks the dest's restore waits for where both see one file system.

        Whole images are on both nodes now, so whoever goes on can do so from them (HANDOFF section 12, kill then
        restore): the machine only has to know that undoing means restoring here.
        """
        if self.record is not None and self.record.state is CopyState.SEALED and self.record.move == record.move:
            self._kill(record.pod)
            self.feed(inputs.CopyDied(record.pod, "its file locks were needed elsewhere"))

    async def _undo(self, action: outputs.UndoFreeze) -> None:
        if self._dumping is not None:
            # CRIU must have let go of the tree; whatever it came to, what counts is the phase it left.
            await asyncio.wait({self._dumping})
        await self._let_go(action.pod, "frozen")
        # Not earlier: home must hear from us why, before it hears from the dest that the stream was cut.
        self._drop_stream()

    async def _let_go(self, epoch: Epoch, stopped: str) -> None:
        """Let the tree run: resume it if it is `stopped`; if it runs already that is as good."""
        pod = self.pods.get(epoch)
        if pod is None:
            self.feed(inputs.CopyDied(epoch))
            return
        try:
            if pod.phase == stopped:
                await (pod.undo() if stopped == "frozen" else pod.resume())
        except OmError as error:
            log.error("resume failed job=%s phase=%s error=%s", self.id[:8], pod.phase, error.text)
        if pod.phase in ("running", "ended"):
            if self._sealed_at and self.record is not None:
                self._report(self.record.epoch, Step.COMMIT, frozen_s=self._node.now() - self._sealed_at)
                self._sealed_at = 0.0
            self.feed(inputs.ResumeDone(epoch))
            self._say_hello()
            self._jobs.measure(self, self._node.now())
        elif self.pods.get(epoch) is pod:
            self._kill(epoch)  # it must not run later when it was reported dead now
            self.feed(inputs.CopyDied(epoch, "it could not be resumed"))

    # -- dest

    async def _prepare(self, action: outputs.PreparePod) -> None:
        prepare = action.prepare
        self._drop_stream()
        try:
            self._jobs.reserve(prepare)
            directory = self._jobs.records.images(self.id, action.pod)
            ticket, host = new_ticket(), self._jobs.stream_host(action.source)
            limit = reserve_bytes(prepare.rss_bytes) + GHOST_BYTES
            receiver = self._receiver = BulkReceiver(directory, ticket, limit, join_address(host, 0))
            # Both to their end, whatever comes of them: what was made can only be taken away when it is there.
            pod, port = await asyncio.gather(self._create(action.pod), receiver.start(), return_exceptions=True)
        except (OmError, OSError) as error:
            self.feed(inputs.PodFailed(action.session, *_words(error)))
            return
        if self.record is None or self.record.session != action.session:  # taken back meanwhile
            self._kill(action.pod)
            self._start(receiver.close())
            return
        if isinstance(pod, BaseException) or isinstance(port, BaseException):
            failed = pod if isinstance(pod, BaseException) else port
            assert isinstance(failed, BaseException)
            log.warning("not prepared job=%s", self.id[:8], exc_info=failed)
            self.feed(inputs.PodFailed(action.session, *_words(failed)))
            return
        criu = self._node.criu.version if self._node.criu else ()
        address = join_address(host, port)
        self.feed(inputs.PodPrepared(action.session, address, ticket.transfer + ticket.key, criu))
        try:
            await receiver.connected()
            self.feed(inputs.StreamStarted(action.session))
            await receiver.sealed()
        except OmError as error:
            if receiver is self._receiver:
                self.feed(inputs.StreamBroken(action.session, error.text, error.hint))
        else:
            self._sealed_at = self._node.now()
            self.feed(inputs.StreamSealed(action.session))

    async def _restore(self, action: outputs.StartRestore) -> None:
        pod = self.pods.get(action.pod)
        try:
            if pod is None:
                pod = await self._create(action.pod)
            await pod.restore(self._jobs.records.images(self.id, action.images), RESTORE_S)
        except (OmError, OSError) as error:
            self._kill(action.pod)
            reason, hint = _words(error)
            self.feed(inputs.RestoreFailed(action.pod, reason, hint))
        else:
            self.feed(inputs.RestoreDone(action.pod))

    async def _resume(self, action: outputs.Resume) -> None:
        pod = self.pods.get(action.pod)
        if pod is not None and pod.phase == "restored":
            self._relay = OutRelay(_acked(pod))
        await self._let_go(action.pod, "restored")

    # -- leftovers

    def _kill(self, epoch: Epoch) -> None:
        pod = self.pods.pop(epoch, None)
        if pod is not None:
            pod.kill()
            self._burials[epoch] = self._start(self._bury(pod, epoch))

    async def _bury(self, pod: Pod, epoch: Epoch) -> None:
        await pod.retire()
        self._jobs.records.drop_pod(self.id, epoch)
        self._burials.pop(epoch, None)

    def _delete_images(self, epoch: Epoch) -> None:
        self._drop_stream()
        if (gone := self._jobs.records.put_away_images(self.id, epoch)) is not None:
            self._start(_remove(gone))  # gigabytes of a tmpfs take a while, and gossip must not wait for them
        self._jobs.release(self.id)

    def _drop_stream(self) -> None:
        if self._sender is not None:
            self._start(self._sender.close())
            self._sender = None
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            self._start(receiver.close())

    # -- progress, for faces

    def _home(self) -> NodeId | None:
        return self.record.authority if self.record else None

    def _progress(self, epoch: Epoch, step: Step) -> None:
        self._report(epoch, step)

    def _report(self, epoch: Epoch, step: Step, done: int = 0, total: int = 0, frozen_s: float = 0.0) -> None:
        home = self._home()
        if home is not None:
            self._node.post(home, Progressed(self.id, epoch[0], epoch[1], step.value, done, total, frozen_s))

    def _shipped_bytes(self, done: int, total: int) -> None:
        record = self.record
        if record is not None and record.move is not None:
            self._report(record.move, Step.SHIP, done, total)

    # -- streams

    def _on_event(self, epoch: Epoch) -> Any:
        return lambda event: self._event(epoch, event)

    def _event(self, epoch: Epoch, event: PodEvent) -> None:
        record = self.record
        if record is None or record.pod != epoch:
            return
        match event:
            case Output():
                if self._relay.add(event.stream, event.offset, event.data, self._node.now()):
                    self._flush_soon()
            case Taken() | SignalTaken():
                self._say_owner()
            case Stopped():
                self._stopped = event.signum
                self._say_owner()
            case Continued():
                self._stopped = 0
                self._say_owner()
            case Ended():
                self.feed(inputs.JobExited(epoch, self._end(event.status, dict(event.totals))))
            case Gone():
                self.pods.pop(epoch, None)
                self.feed(inputs.CopyDied(epoch))
            case OutputEof():
                pass

    def _end(self, status: int | None, totals: dict[str, int]) -> End:
        how = How.KILLED if status is None or status < 0 else How.EXITED
        return End(how, 255 if status is None else status, tuple(totals.get(stream, 0) for stream in STREAMS))

    def _flush_soon(self) -> None:
        """Send what is new: at once after a pause, else together with what comes in the next moments."""
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            at = max(loop.time(), self._flushed + FLUSH_S)
            self._flushing = loop.call_at(at, self._flush)

    def _flush(self) -> None:
        self._flushing, self._flushed = None, self._node.now()
        record = self.record
        if record is not None:
            generation, number = record.epoch
            for stream, offset, data in self._relay.outgoing():
                message = StreamOut(self.id, generation, number, stream, offset, data)
                self._node.post(record.authority, message)

    def _say_owner(self, hello: bool = False) -> None:
        record, pod = self.record, self.pod
        if record is None or pod is None or record.state not in (CopyState.RUNNING, CopyState.ENDED):
            return
        generation, number = record.epoch
        taken, signals = pod.counters.taken, pod.counters.signals_taken
        out, err, tty = (self._relay.acked[stream] for stream in STREAMS)
        said = Owner(self.id, generation, number, taken, signals, self._stopped, hello, (out, err, tty))
        self._node.post(record.authority, said)

    def _say_hello(self) -> None:
        self._welcome = False
        self._say_owner(hello=True)
        self._relay.rewind()
        self._flush_soon()

    def received(self, sender: NodeId, message: Any) -> None:
        """A stream message of home."""
        record, pod = self.record, self.pod
        if record is None or pod is None or sender != record.authority:
            return
        match message:
            case StreamAck():
                self._acknowledged(pod, message.stream, message.offset)
            case Welcome():
                self._welcome = True
                for stream, offset in zip(STREAMS, message.received, strict=True):
                    self._acknowledged(pod, stream, offset)
            case AskOwner():
                self._say_owner(hello=True)
            case _ if record.state is not CopyState.RUNNING:
                pass  # taken only while it runs: home sends it again to whoever runs the job then
            case StreamIn():
                if message.offset + len(message.data) <= pod.counters.taken and not message.eof:
                    self._say_owner()
                if message.data:
                    pod.feed(message.offset, message.data)
                if message.eof:
                    pod.feed_eof(message.offset + len(message.data))
            case StreamSignal():
                if message.seq <= pod.counters.signals_taken:
                    self._say_owner()
                pod.signal(message.seq, message.signum)
            case StreamResize():
                pod.resize(message.rows, message.cols)
            case StreamClose():
                pod.close_output(message.stream)
            case _:
                pass

    def _acknowledged(self, pod: Pod, stream: str, offset: int) -> None:
        if self._relay.acknowledged(stream, offset, self._node.now()):
            pod.acknowledge(stream, offset)

    def tick(self, now: float) -> None:
        """Once a second: what home did not confirm is said again."""
        if not self._welcome:
            self._say_owner(hello=True)
        if self._relay.due(now):
            self._flush_soon()

    # -- the end

    async def close(self) -> None:
        """The engine ends; pods go on."""
        for timer in (self._timer, self._flushing):
            if timer:
                timer.cancel()
        self._drop_stream()
        for pod in self.pods.values():
            await pod.close()

    def root_pid(self) -> int:
        """PID of the job's root on this node; 0: none runs."""
        pod, record = self.pod, self.record
        if pod is None or record is None or record.state not in (CopyState.RUNNING, CopyState.FROZEN):
            return 0
        return pod.root_pid

    @property
    def stopped(self) -> bool:
        """Whether its user stopped it."""
        return bool(self._stopped)


async def _remove(directory: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def holds_locks(images: Path) -> bool:
    """Whether the dumped job held file locks: the image of none is its eight bytes of magic."""
    try:
        return (images / "filelocks.img").stat().st_size > 8
    except OSError:
        return False


def _acked(pod: Pod) -> dict[str, int]:
    return {stream: pod.counters.acked.get(stream, 0) for stream in STREAMS}


def _words(error: BaseException) -> tuple[str, str]:
    if isinstance(error, OmError):
        return error.text, error.hint
    if isinstance(error, OSError) and error.strerror:
        return f"no room or no right: {error.strerror}", ""
    return "it took too long", "Is the network or the disk slow? Try again."
