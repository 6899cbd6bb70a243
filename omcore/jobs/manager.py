"""All jobs of a node: those whose home is here and those that this node holds; and what moving one needs first."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import pwd
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from omcore.checkpoint.findings import examine
from omcore.checkpoint.needs import Needs, check_needs, image_room, needs_of
from omcore.checkpoint.preflight import judge
from omcore.errors import NotMovable, PeerUnreachable, PodError, Refused, RemoteProtocolError, UsageError
from omcore.handoff import messages as handoff
from omcore.handoff.inputs import EngineRestarted, Received
from omcore.handoff.records import CopyState, Journal, first_journal
from omcore.jobs.held import HeldJob
from omcore.jobs.home import HomeJob
from omcore.jobs.moving import Moving
from omcore.jobs.store import JOURNAL, HomeStore, JournalFile, Meta, RecordStore, incarnation, new_job_id, valid_job_id
from omcore.messages import (
    AskOwner,
    CheckNeeds,
    Examine,
    Examined,
    Figures,
    Launch,
    Launched,
    NeedsChecked,
    NotOwner,
    Owner,
    Progressed,
    StreamOut,
)
from omcore.paths import is_tmpfs
from omcore.sensors.jobs import JobMeter
from omcore.sensors.proc import stat
from omcore.text import clean
from omcore.types import (
    Check,
    JobId,
    JobView,
    Movable,
    NodeId,
    ProcKey,
    RunSpec,
)
from omcore.wire import MAX_PEER_BYTES, pack, unpack

if TYPE_CHECKING:
    from omcore.node import Node

log = logging.getLogger(__name__)

KEEP_ENDED = 50
KEEP_ENDED_S = 24 * 3600.0
LAUNCH_S = 20.0
FIND_S = 3.0
"""How long a starting engine waits for its pods before it answers faces and nodes."""
EXAMINE_AGAIN_S = 10.0
MOVES_IN = 4
"""Guests that may be on their way here at the same time."""

COMMAND_CHARS = 2048
"""Of a command line that is kept to be shown: it travels in every view of the jobs."""
MAX_LAUNCH_BYTES = MAX_PEER_BYTES - 4096
MAX_VIEWS_BYTES = MAX_PEER_BYTES * 3 // 4

FROM_OWNER = (StreamOut, Owner, NotOwner, Progressed)
ASKS_HOLDER = (
    handoff.Prepare, handoff.Freeze, handoff.Go, handoff.Abort, handoff.Reclaim, handoff.Ask, handoff.Probe,
    handoff.Adopt, handoff.Drop, handoff.Resumed, handoff.Undone,
)  # fmt: skip
"""What deserves an answer even from a node that never heard of the job (or was rebooted): else home reminds it of its
leftovers for ever, and too many of those end all moves."""


@dataclass
class _Looked:
    """A recent answer to "can it move?"."""

    at: float
    movable: Movable
    checks: tuple[Check, ...]
    needs: Needs
    rss_bytes: int


class Jobs:
    """The node's jobs."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.homes_store = HomeStore(node.places.state)
        # A record must die with the node, as the pod does that it speaks of: on a disk it would outlive a reboot.
        mortal = node.places.runtime if is_tmpfs(node.places.runtime) else node.images
        self.records = RecordStore(mortal, node.images)
        self.incarnation = incarnation(mortal).encode()
        self.homes: dict[JobId, HomeJob] = {}
        self.held: dict[JobId, HeldJob] = {}
        self._meters: dict[JobId, JobMeter] = {}
        self._figures: dict[JobId, Figures] = {}
        self._looked: dict[JobId, _Looked] = {}
        self._looking: set[JobId] = set()
        self._reserved: dict[JobId, int] = {}
        self.moving = Moving(self)

    # -- life

    async def start(self) -> None:
        """Find the jobs that went on without an engine, and finish or undo what was open."""
        records = list(self.records.load())
        self.records.sweep_images({record.job for record in records})
        # What is held comes first: a home that asks us must never hear "no copy" because we have not looked yet.
        for record in records:
            self.held[record.job] = HeldJob(self, record.job, recovered=False)
        # CRIU may be at work in a pod for minutes; until then that job answers nobody, but all else goes on.
        finding = [self.node.spawn(self.held[record.job].recover(record)) for record in records]
        if finding:
            await asyncio.wait(finding, timeout=FIND_S)
        for meta in self.homes_store.load():
            journal = self._journal(meta)
            if journal is not None:
                self.homes[meta.id] = HomeJob(self, meta, journal, new=False)
        self._forget_old()

    def _journal(self, meta: Meta) -> Journal | None:
        """The journal as the disk has it; written again and synced before anybody acts on it."""
        try:
            file = JournalFile(self.homes_store.directory(meta.id) / JOURNAL)
        except OSError as error:
            log.error("journal unreadable job=%s error=%s", meta.id[:8], error)
            return None
        try:
            if file.journal is not None:
                file.write(file.journal)
                file.sync()
            return file.journal
        except OSError as error:
            log.error("journal not synced job=%s error=%s", meta.id[:8], error)
            return None
        finally:
            file.close()

    async def close(self) -> None:
        """The engine ends; shims and jobs go on."""
        for held in self.held.values():
            await held.close()
        for home in self.homes.values():
            home.close()

    def later(self, call: Any, *args: Any) -> None:
        """Run a call after what is being done now."""
        asyncio.get_running_loop().call_soon(call, *args)

    def tick(self, now: float) -> None:
        """Once a second: repeat what is unanswered, measure what runs here, forget what ended long ago."""
        jobs: tuple[HomeJob | HeldJob, ...] = (*self.homes.values(), *self.held.values())
        for job in jobs:
            try:
                job.tick(now)
            except Exception:  # one job's trouble is not that of the others
                log.exception("tick failed job=%s", job.id[:8])
        self._measure(now)
        self._forget_old()

    def _forget_old(self) -> None:
        ended = sorted((j for j in self.homes.values() if j.ended.is_set()), key=lambda job: job.meta.ended)
        old = time.time() - KEEP_ENDED_S
        for index, job in enumerate(ended):
            if (index < len(ended) - KEEP_ENDED or job.meta.ended < old) and not job.needed:
                job.close()
                del self.homes[job.id]
                self.homes_store.forget(job.id)

    def drop_held(self, held: HeldJob) -> None:
        """This node holds nothing of the job any more."""
        self.held.pop(held.id, None)
        self._meters.pop(held.id, None)
        self._figures.pop(held.id, None)
        self.records.drop(held.id)

    # -- messages

    def received(self, sender: NodeId, message: Any) -> None:
        """A handoff or stream message from the network or from ourselves."""
        job = getattr(message, "job", None)
        if not isinstance(job, str) or not valid_job_id(job):
            raise RemoteProtocolError("a message without a job")
        home, held = self.homes.get(JobId(job)), self.held.get(JobId(job))
        if isinstance(message, handoff.Message):
            if home is not None and isinstance(message, handoff.TO_HOME):
                home.feed(Received(sender, message))
            if isinstance(message, handoff.TO_PARTICIPANT):
                if held is None and isinstance(message, ASKS_HOLDER):
                    held = self.held[JobId(job)] = HeldJob(self, JobId(job))
                    held.feed(EngineRestarted(None))
                if held is not None:
                    held.message(sender, message)
                    if held.empty:
                        self.held.pop(held.id, None)
        elif isinstance(message, FROM_OWNER):
            if home is not None:
                home.received(sender, message)
        elif held is not None:
            held.received(sender, message)
        elif isinstance(message, AskOwner):
            self.node.post(sender, NotOwner(message.job))

    async def answer(self, sender: NodeId, question: Any) -> object:
        """A question of another node about a job or about room for one."""
        match question:
            case Examine():
                return await self._examine_here(question.job, sender)
            case CheckNeeds():
                checks = await asyncio.to_thread(self._check_needs, unpack(question.needs, Needs))
                return NeedsChecked(checks, self._room())
            case Launch():
                return Launched(await self._launch(sender, question))
            case _:
                raise RemoteProtocolError("no question for jobs")

    # -- starting a job

    async def run(self, spec: RunSpec) -> HomeJob:
        """Start a job whose home is here, here or on the node `spec.on`."""
        if not spec.command or not spec.command[0] or any("\0" in word for word in spec.command):
            raise UsageError("There is no command to run.", "omview run -- COMMAND ARG...")
        owner = self.node.cluster.find(spec.on) if spec.on else self.node.me
        job, token = new_job_id(), secrets.token_bytes(16)
        meta = Meta(
            id=job,
            name=self._name(spec),
            command=shown_command(spec.command),
            user=pwd.getpwuid(os.getuid()).pw_name,
            uid=os.getuid(),
            cwd=spec.cwd,
            started=time.time(),
            tty=spec.tty,
        )
        try:
            self.homes_store.save(meta)
            home = self.homes[job] = HomeJob(self, meta, first_journal(job, owner, token), new=True)
        except OSError as error:
            self.homes_store.forget(job)
            text = f"The job cannot be written down in {self.node.places.state}: {error.strerror}."
            raise PodError(text, "Is the disk full, or not yours?") from error
        if spec.rows and spec.cols and spec.tty:
            home.terminal.window = (spec.rows, spec.cols)
        if spec.detach:
            home.terminal.type(0, b"", eof=not spec.tty)
        beginning = asyncio.create_task(self._begin(home, spec, owner, token))
        self.node.keep(beginning)
        # Who asked may hang up at any moment; a job half begun would then be in nobody's hands.
        await asyncio.shield(beginning)
        return home

    async def _begin(self, home: HomeJob, spec: RunSpec, owner: NodeId, token: bytes) -> None:
        """Start it where it shall run; only what certainly did not start is forgotten."""
        try:
            if owner == self.node.me:
                await self._start_here(home.id, spec, owner, token)
            else:
                await self._launch_at(owner, Launch(home.id, token, spec))
        except PeerUnreachable as error:
            # It may run: its node is asked, and says that it runs or that it never heard of it.
            home.launching = False
            hint = "If it started all the same, it shows up in: omview jobs"
            raise PeerUnreachable(f"{error.text.rstrip('.')}: nobody knows whether the job started.", hint) from error
        except Exception:
            home.close()
            self.homes.pop(home.id, None)
            self.homes_store.forget(home.id)
            raise
        home.launching = False
        home.started = True
        self.node.cluster.event("started", home.meta.name, f"on {self.node.cluster.name(owner)}")
        self.node.touch()

    def _name(self, spec: RunSpec) -> str:
        wanted = clean(spec.name or os.path.basename(spec.command[0]), 64) or "job"
        taken = {job.meta.name for job in self.homes.values() if not job.ended.is_set()}
        if wanted not in taken:
            return wanted
        if spec.name:
            raise UsageError(f"A job called {wanted} runs already.", "Choose another --name.")
        return next(name for n in range(2, 10_000) if (name := f"{wanted}-{n}") not in taken)

    async def _start_here(self, job: JobId, spec: RunSpec, home: NodeId, token: bytes) -> int:
        held = self.held[job] = self.held.get(job) or HeldJob(self, job)
        held.beginning = True
        try:
            pid = await held.start(spec, home, token)
        except (PodError, OSError) as error:
            self.drop_held(held)
            if isinstance(error, OSError):
                raise PodError(f"The job cannot be started: {error.strerror}") from error
            raise
        self.measure(held, self.node.now())
        return pid

    async def _launch_at(self, owner: NodeId, launch: Launch) -> None:
        name = self.node.cluster.name(owner)
        size = len(pack(launch.spec))
        if size > MAX_LAUNCH_BYTES:
            raise Refused(
                f"Arguments and environment have {size >> 10} KiB; {MAX_LAUNCH_BYTES >> 10} KiB can go to {name}.",
                "Start it here without --on, then move it: omview migrate",
            )
        await self.node.calls.ask(owner, launch, Launched, LAUNCH_S, name)

    async def _launch(self, sender: NodeId, launch: Launch) -> int:
        if not valid_job_id(launch.job) or launch.job in self.held:
            raise UsageError("That job cannot be started twice.")
        held = self.held[launch.job] = HeldJob(self, launch.job)  # before anything waits: who asks now is not told "no"
        held.beginning = True
        if not await asyncio.to_thread(os.path.isdir, launch.spec.cwd):
            self.drop_held(held)
            raise UsageError(f"{self.node.info.name} has no directory {clean(launch.spec.cwd, 200)}.")
        return await self._start_here(launch.job, launch.spec, sender, launch.token)

    def masks(self, job: JobId, epoch: tuple[int, int]) -> tuple[str, ...]:
        """Directories of the engine that a job must not see."""
        del job, epoch  # every pod hides the same: keys, sockets and the images of other jobs
        return tuple(str(path) for path in (self.node.places.state, self.node.places.runtime, self.node.images))

    # -- what is measured here

    def roots(self) -> dict[int, JobId]:
        """Root PIDs of the jobs on this node."""
        return {pid: job for job, held in self.held.items() if (pid := held.root_pid())}

    def held_roots(self) -> tuple[list[int], list[int]]:
        """Root PIDs of the jobs here whose home is here, and of guests."""
        own: list[int] = []
        guests: list[int] = []
        for held in self.held.values():
            if (pid := held.root_pid()) and held.record:
                (own if held.record.authority == self.node.me else guests).append(pid)
        return own, guests

    def counts(self) -> tuple[int, int, int]:
        """Jobs at home here, guests, jobs away."""
        own, guests = self.held_roots()
        away = sum(job.end is None and job.owner != self.node.me for job in self.homes.values())
        return len(own), len(guests), away

    def _measure(self, now: float) -> None:
        for held in tuple(self.held.values()):
            self.measure(held, now)

    def measure(self, held: HeldJob, now: float) -> None:
        """Take the figures of one job on this node; at once where it has just begun to run here."""
        job, pid = held.id, held.root_pid()
        if not pid:
            self._figures.pop(job, None)
            return
        meter = self._meters.setdefault(job, JobMeter())
        figures = meter.update(pid, now)
        looked = self._looked.get(job)
        if looked is None and job not in self._looking:
            self._looking.add(job)
            self.node.spawn(self._look_again(job))
        self._figures[job] = Figures(
            job,
            pid,
            meter.cpu_percent if figures else None,
            figures.rss_bytes if figures else None,
            figures.tasks if figures else None,
            held.stopped,
            looked.movable if looked else Movable.UNKNOWN,
            next((check.text for check in looked.checks if check.fatal), "") if looked else "",
        )

    def figures(self) -> tuple[Figures, ...]:
        """What is measured of the jobs on this node; somebody looks, so "can it move?" is looked up too."""
        now = self.node.now()
        for job in self._figures:
            looked = self._looked.get(job)
            if job not in self._looking and (looked is None or now - looked.at > EXAMINE_AGAIN_S):
                self._looking.add(job)
                self.node.spawn(self._look_again(job))
        return tuple(self._figures.values())

    def home_views(self) -> tuple[JobView, ...]:
        """The jobs whose home is here."""
        return tuple(job.view() for job in self.homes.values())

    def views_for_peers(self) -> tuple[JobView, ...]:
        """The same in the space of one message: where there are too many, those that ended longest ago stay here."""
        ordered = sorted(self.homes.values(), key=lambda job: (job.ended.is_set(), -job.meta.ended))
        room, views = MAX_VIEWS_BYTES, []
        for job in ordered:
            view = job.view()
            room -= len(pack(view))
            if room < 0:
                break
            views.append(view)
        return tuple(views)

    # -- signals and locks

    def home_of(self, job: JobId) -> HomeJob:
        """The job, whose home is here; raises `UsageError`."""
        home = self.homes.get(job)
        if home is None:
            raise UsageError("That job is not known here.", "See: omview jobs")
        return home

    def signal(self, job: JobId, signum: int) -> None:
        """Signal a job wherever it runs."""
        home = self.home_of(job)
        if home.end is not None:
            raise UsageError(f"{home.meta.name} has ended.")
        if not 1 <= signum <= 64:
            raise UsageError(f"There is no signal {signum}.")
        home.terminal.signal(signum)

    def lock(self, job: JobId, locked: bool) -> None:
        """Forbid or allow moves."""
        home = self.home_of(job)
        home.meta = replace(home.meta, locked=locked)
        self.homes_store.save(home.meta)
        self.node.touch()

    def signal_process(self, key: ProcKey, signum: int) -> None:
        """Signal a process of this node, if it is still the one that was meant; the kernel decides who may."""
        if not 1 <= signum <= 64 or key.pid <= 1:
            raise UsageError("That process cannot be signalled.")
        try:
            descriptor = os.pidfd_open(key.pid)
        except OSError as error:
            raise UsageError(f"Process {key.pid} has ended.") from error
        try:
            found = stat(key.pid)
            if found is None or found.start != key.start:
                raise UsageError(f"Process {key.pid} has ended.")
            import signal

            signal.pidfd_send_signal(descriptor, signum)
        except PermissionError as error:
            raise Refused(f"Process {key.pid} is not yours.", "You may signal what you could kill.") from error
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
            raise UsageError(f"Process {key.pid} has ended.") from error
        finally:
            os.close(descriptor)

    # -- can it move, and where to

    async def _look(self, job: JobId) -> _Looked:
        held = self.held.get(job)
        pid = held.root_pid() if held else 0
        try:
            if not pid:
                raise NotMovable("The job does not run here.")
            findings = await asyncio.to_thread(examine, pid)
            movable, checks = judge(findings)
            version = self.node.criu.version if self.node.criu else ()
            ours = list(image_room(findings.rss_bytes, str(self.node.images)))
            if not version:
                text = f"there is no CRIU on {self.node.info.name}"
                ours = [Check(False, True, "criu", text, "Run there: omview doctor --fix")]
            if ours:
                checks = (*ours, *checks)
                movable = Movable.FIX if movable is Movable.YES else movable
            needs = needs_of(findings, version)
            looked = _Looked(self.node.now(), movable, checks, needs, findings.rss_bytes)
            if job in self.held:
                self._looked[job] = looked
            return looked
        finally:
            self._looking.discard(job)

    async def _look_again(self, job: JobId) -> None:
        with contextlib.suppress(NotMovable):
            await self._look(job)

    async def _examine_here(self, job: JobId, asker: NodeId) -> Examined:
        held = self.held.get(job)
        if held is None or held.record is None or held.record.authority != asker:
            raise NotMovable("The job does not run here.")
        looked = await self._look(job)
        load = self.node.host.runnable(held.root_pid()) / self.node.sample.cores
        return Examined(looked.movable, looked.checks, pack(looked.needs), looked.rss_bytes, load)

    def _check_needs(self, needs: Needs) -> tuple[Check, ...]:
        version = self.node.criu.version if self.node.criu else ()
        return check_needs(needs, version, self._room(), str(self.node.images))

    def _room(self) -> int:
        sample = self.node.sample
        return max(0, sample.mem_total_bytes - sample.mem_used_bytes - sum(self._reserved.values()))

    def reserve(self, prepare: handoff.Prepare) -> None:
        """Keep room for a guest on its way; raises `Refused`."""
        if self.node.criu is None:
            raise Refused(f"{self.node.info.name} has no CRIU.", "Run there: omview doctor --fix")
        coming = (CopyState.INVITED, CopyState.RESTORING, CopyState.READY, CopyState.VOID)
        for job in [
            job for job in self._reserved if job not in self.held or self.held[job].machine.state not in coming
        ]:
            del self._reserved[job]
        if len(self._reserved) >= MOVES_IN and prepare.job not in self._reserved:
            raise Refused(f"{self.node.info.name} takes in {MOVES_IN} jobs already.", "Try again in a moment.")
        guests = len(self.held_roots()[1])
        if prepare.source != self.node.me and guests >= self.node.config.max_guests:
            raise Refused(f"{self.node.info.name} takes no more guests.", "Its limit is max_guests in its config.")
        if 2 * prepare.rss_bytes > self._room():
            raise Refused(
                f"{self.node.info.name} has no room: the move needs {2 * prepare.rss_bytes >> 20} MiB there.",
                "Choose another node.",
            )
        self._reserved[prepare.job] = 2 * prepare.rss_bytes

    def release(self, job: JobId) -> None:
        """The guest is here, or will not come."""
        self._reserved.pop(job, None)

    def stream_host(self, source: NodeId) -> str:
        """Our address that the source can best reach: of its family, with the longest common beginning."""
        theirs = [a.rpartition(":")[0].strip("[]") for a in self._addresses(source)]
        ours = [a.rpartition(":")[0].strip("[]") for a in self.node.info.addresses]
        if not ours:
            raise Refused(f"{self.node.info.name} listens on no address.", "omview serve --listen ADDRESS")
        return max(ours, key=lambda own: max((len(os.path.commonprefix([own, other])) for other in theirs), default=0))

    def _addresses(self, node: NodeId) -> tuple[str, ...]:
        info = self.node.cluster.infos.get(node)
        return info.addresses if info else ()


def shown_command(command: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a command line as they are shown: harmless, and cut where there are too many of them."""
    words, room = [], COMMAND_CHARS
    for word in command:
        if room <= 0:
            words.append("…")
            break
        words.append(clean(word, room))
        room -= len(words[-1]) + 1
    return tuple(words)
