"""The engine: one node of the cluster.  Machines' outputs become I/O here, I/O becomes inputs.

One asyncio loop, a few tasks: receive packets, tick once a second, gossip at its own deadlines.  Everything that
decides is elsewhere: gossip and handoff are pure, jobs drive themselves (`omcore.jobs`), faces are answered in
`omcore.faces`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import platform
import random
import secrets
import socket
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

from omcore import __version__, messages
from omcore.audit import Audit
from omcore.calls import Calls
from omcore.checkpoint.criu import Criu, find_criu
from omcore.cluster import Cluster
from omcore.config import Config
from omcore.confirming import Confirming
from omcore.control import ControlServer
from omcore.discovery.finder import Finder, read_map
from omcore.errors import ConfigError, NotTrusted, ProtocolError, RemoteProtocolError
from omcore.faces import Faces
from omcore.gossip.config import GossipConfig
from omcore.gossip.gossip import Gossip
from omcore.gossip.modest import modest
from omcore.gossip.outputs import NodeBack, NodeJoined, NodeLeft, NodeLost, NodeSuspected, Output, Send
from omcore.insight import Insight
from omcore.introductions import Introductions
from omcore.jobs.manager import Jobs
from omcore.jobs.rename import rename_node
from omcore.membership import Membership
from omcore.messages import GOSSIP_KIND, PEER
from omcore.overview import Overview
from omcore.paths import Paths, make_images, make_private
from omcore.proclists import ProcessLists
from omcore.sensors.host import HostSensor
from omcore.sensors.procs import ProcessSensor
from omcore.signing import Signing
from omcore.text import clean
from omcore.trail import Trail
from omcore.transport.base import Failure
from omcore.transport.zmq_transport import ZmqTransport
from omcore.trust import renewal, rights
from omcore.trust.guard import Guard, Verdict
from omcore.trust.keys import NODE_KEY
from omcore.trust.passes import Role
from omcore.trust.state import State, open_state
from omcore.turning import Turning
from omcore.twin import Twin, Twins
from omcore.types import Drop, LoadSample, NodeId, NodeInfo, NodeState

log = logging.getLogger(__name__)

GOODBYES, GOODBYE_S = 4, 0.1
GOSSIP_LEAST_S = 0.02  # between two ticks
MOVES_TOLD = 20  # to other nodes, the newest
TWIN = "another engine uses this node's key: on a copied disk, remove the state directory before the first start"
DROPS = {
    Verdict.UNKNOWN: Drop.MALFORMED,
    Verdict.MALFORMED: Drop.MALFORMED,
    Verdict.RATE: Drop.TOO_MANY,
}
"""What `omview net` calls the guard's verdicts; the rest is not allowed."""
NO = {
    Verdict.ROLE: "{name} lets your node look only.",
    Verdict.SHARE: "{name} lets other nodes look only (share = look).",
    Verdict.UNSURE: "{name} was started a moment ago and does not know yet whether its roster is current.",
}
NO_HINT = {
    Verdict.ROLE: "Its pass says so. It may leave, and join again with an invitation without --look.",
    Verdict.SHARE: "Its owner can change that in its config.toml.",
    Verdict.UNSURE: "Try again when a keyholder is up: omview key show",
}


class Node:
    """One engine.  `start`, then wait for `stopping`, then `close`."""

    def __init__(self, places: Paths, config: Config, kind: str) -> None:
        self.places = places
        self.config = config
        self.kind = kind
        self.stopping = asyncio.Event()
        self.changed = asyncio.Event()
        self.criu: Criu | None = None
        self.warnings: tuple[str, ...] = ()
        self._rng = random.Random(secrets.randbits(64))
        self._tasks: set[asyncio.Task[None]] = set()
        self.restarting = False
        self.membership = Membership(self)
        self.introductions = Introductions(self)
        self.insight = Insight(self)
        self.signing = Signing(self)
        self.turning = Turning(self)
        self.confirming = Confirming(self)
        self.twins = Twins()
        self.guard = Guard(self.role, Role.LOOK if config.share == "look" else Role.WORK)
        self.guard.on_drop = lambda node, why: self.transport.dropped(node, DROPS.get(why, Drop.NOT_ALLOWED))
        self.guard.on_cut = self._cut_off
        self.trail = Trail(self, Audit(places.state))
        self.overview = Overview(self)
        self._gossip_sooner = asyncio.Event()
        self._gossip_wakes = 0.0
        self.sample = LoadSample()

    # -- life

    async def start(self) -> None:
        """Open state, sockets and sensors; find the jobs that went on without us.  Raises `OmError`."""
        read_map(self.config, self.places.config.parent)  # before anything is begun: a wrong line must be mended
        self._lock()
        await asyncio.to_thread(self._renew)
        first = not (self.places.state / NODE_KEY).exists()
        self.state: State = await asyncio.to_thread(open_state, self.places.state, time.time())
        self.me = self.state.me
        if first:
            self.trail.note("key made", key=self.trail.key(self.me))
        self.images = make_images(self.places)
        self.criu = await asyncio.to_thread(find_criu)
        if self.criu is None:
            self.warnings = ("no CRIU here: jobs start but cannot move. omview doctor --fix gets it",)
        self.info = self._my_info(serial=int(time.time()))
        self.twins.said(self.info.serial)
        self.cluster = Cluster(self.info, self.places.state)
        self.transport = ZmqTransport(self.state.key)
        self.transport.on_failed = self._unreachable
        await self.transport.start()
        membership = self.membership
        folder = self.places.config.parent
        self.finder = Finder(self.me, self.config, folder, membership.set_peers, membership.met)
        self.calls = Calls(self.post, self._answer, secrets.randbits(30))
        self._build_on_number()
        self.host = HostSensor()
        self.jobs = Jobs(self)
        self.cluster.on_address = self.membership.addressed
        self.confirming.start()
        self.turning.warn()
        await self.membership.changed()
        self._sense()
        await self.jobs.start()
        self.control = ControlServer(self.places.socket, Faces(self).handle)
        await self.control.start()
        for work in (self._receive(), self._tick(), self._gossip_loop(), *self.finder.work()):
            self.spawn(work)
        log.info("started name=%s number=%d kind=%s", self.info.name, self.info.number, self.kind)

    def _lock(self) -> None:
        """Two engines must never load one key: the kernel's lock on the state directory says who is first."""
        make_private(self.places.state)
        make_private(self.places.runtime)
        lock = self.places.state / "lock"
        try:
            self._lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a file system that became read-only: who began there before can be locked all the same
            self._lock_fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            raise ConfigError(
                "Another engine of yours already runs on this machine.",
                "Use it: `omview` connects by itself. Or end it first: omview serve --stop",
            ) from None

    def _renew(self) -> None:
        """Finish what a leave or a rotation of our key began: from now on the new key is this node."""
        names = renewal.pending(self.places.state)
        if names is not None:
            rename_node(self.places, *names)
            renewal.finish(self.places.state, time.time())
        renewal.drop(self.places.state)

    def restart(self) -> None:
        """Begin a new life soon, when this moment's answers are out: `stopping` is set, `restarting` says why."""
        self.restarting = True
        asyncio.get_running_loop().call_later(GOODBYE_S, self.stopping.set)

    async def close(self) -> None:
        """Stop: peers see us leave, shims and jobs go on."""
        await self.control.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.calls.close()
        await self.jobs.close()
        await self._say_goodbye()
        if self.guard.sure:
            self.confirming.mark()
        await self.transport.close()
        self.jobs.records.tidy()
        os.close(self._lock_fd)
        log.info("stopped")

    async def _say_goodbye(self) -> None:
        """Tell the others that we leave, and give the words a moment to go out."""
        self._perform(self.gossip.leave(self.now()))
        if len(self.cluster.numbers) > 1:
            for _ in range(GOODBYES):
                await asyncio.sleep(GOODBYE_S)
                self._perform(self.gossip.tick(self.now()))

    def now(self) -> float:
        """Monotonic seconds: the only clock of everything here."""
        return asyncio.get_running_loop().time()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as long as the engine lives; what it did not foresee is logged, not swallowed."""
        task = asyncio.create_task(work)
        self.keep(task)
        task.add_done_callback(self._task_done)
        return task

    def keep(self, task: asyncio.Task[None]) -> None:
        """Let a task live as long as the engine; its failure is somebody else's matter."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", exc_info=error)

    def touch(self) -> None:
        """Something a face may show has changed: tell them now, not at the next second."""
        self.changed.set()
        self.changed = asyncio.Event()

    # -- who we are and who the others are

    def _my_info(self, serial: int) -> NodeInfo:
        entry = self.state.roster.entry(self.me)
        return NodeInfo(
            id=self.me,
            number=entry.number if entry else 1,
            name=self.config.name or socket.gethostname().split(".")[0] or "node",
            addresses=self.membership.listening,
            version=__version__,
            criu=self.criu.version if self.criu else (),
            kernel=platform.release(),
            arch=platform.machine(),
            serial=serial,
        )

    def numbered(self) -> None:
        """Our own entry in the roster may be new: number, info, and what is built on the number."""
        old = self.info.number
        self.info = self._my_info(serial=max(self.info.serial + 1, int(time.time())))
        self.twins.said(self.info.serial)
        self.cluster.update_me(self.info)
        if self.info.number != old:
            self._build_on_number()

    def _build_on_number(self) -> None:
        number = self.info.number
        self.gossip = Gossip(number, GossipConfig(), self._rng, int(time.time()))
        self.processes = ProcessSensor(number)
        self.lists = ProcessLists(number, self.processes, self.post, secrets.randbits(30))

    # -- packets

    def post(self, node: NodeId, message: object) -> None:
        """Send a message of the peer table to a node, ourselves included; it may be lost."""
        if node == self.me:
            asyncio.get_running_loop().call_soon(self._dispatch, node, message)
        else:
            self.transport.send(node, PEER.encode(message))

    async def _receive(self) -> None:
        while True:
            packet = await self.transport.receive()
            try:
                if packet.invitation:
                    self.membership.joins(packet)
                else:
                    self._take(packet.sender, packet.data)
            except Exception:  # a full disk, or a bug: that packet is lost, but the engine must not become deaf
                log.exception("packet failed from=%s", self.cluster.name(packet.sender))

    def _take(self, sender: NodeId, data: bytes) -> None:
        """A message of a member: judged before it is looked into."""
        kind = rights.Gossip if data[:1] == bytes((GOSSIP_KIND,)) else PEER.kinds.get(data[0]) if data else None
        try:
            if kind is messages.Call:
                call = PEER.decode(data)
                if self._may_ask(sender, call):
                    self.calls.received(sender, call)
            elif self.guard.judge(sender, kind, self.now()) is not Verdict.OK:
                return
            elif kind is rights.Gossip:
                self._gossip_came(sender, data[1:])
            else:
                self._dispatch(sender, PEER.decode(data))
        except ProtocolError as error:
            self.guard.drop(sender, Verdict.MALFORMED, self.now())
            log.warning("bad packet from=%s error=%s", self.cluster.name(sender), error)

    def _gossip_came(self, sender: NodeId, data: bytes) -> None:
        number = self.cluster.number(sender)
        if not number:
            return  # a member whose number another one has: it will get a new one
        some = modest(data, number) if self.role(sender) is Role.LOOK else data
        if some is not None:
            self._perform(self.gossip.receive(some, number, self.now()))

    def _may_ask(self, sender: NodeId, call: messages.Call) -> bool:
        """Whether to work on a question; a no is told where the one who asks may be an honest engine."""
        verdict = self.guard.judge(sender, PEER.kinds.get(call.body[0]) if call.body else None, self.now())
        if verdict in NO:
            text = NO[verdict].format(name=self.info.name)
            self.post(sender, messages.Answer(call.number, b"", NotTrusted.__name__, text, NO_HINT[verdict]))
        return verdict is Verdict.OK

    def role(self, node: NodeId) -> Role | None:
        """The roster's word about a node; None: no member."""
        entry = self.state.roster.entry(node)
        return entry.role if entry and self.state.roster.is_member(node, time.time()) else None

    def heard_of_me(self, teller: NodeId, info: NodeInfo) -> None:
        """Hearsay about this node: where it is of another engine under our key, both say so and the later one stops."""
        twin = self.twins.judge(teller, info)
        if twin is Twin.NONE or self.stopping.is_set():
            return
        where = clean(", ".join(info.addresses[:4]), 200)
        text = f"another engine uses this node's key, at {where}: was its disk copied?"
        if TWIN not in self.warnings:
            self.warnings += (TWIN,)
            self.cluster.event("error", self.info.name, text)
            self.trail.note("key twice", key=self.trail.key(self.me), address=where, stops=twin is Twin.EARLIER)
            log.error("key twice address=%s", where)
        if twin is Twin.EARLIER:
            self.stopping.set()

    def _cut_off(self, node: NodeId) -> None:
        self.cluster.event("error", self.cluster.name(node), "sent nonsense again and again: cut off for a minute")
        self.trail.note("limit", node=self.cluster.name(node), key=self.trail.key(node), what="cut off for a minute")
        self.membership.set_peers()

    def _dispatch(self, sender: NodeId, message: Any) -> None:
        match message:
            case messages.Call() | messages.Answer():
                self.calls.received(sender, message)
            case messages.Hello():
                self.membership.hello(sender, message)
            case messages.WatchProcesses():
                self.lists.watched_by(sender, message, self.now())
            case messages.Processes():
                self.lists.page(sender, message)
            case _:
                self.jobs.received(sender, message)

    def _unreachable(self, failure: Failure) -> None:
        number = self.cluster.number(failure.node)
        if number:
            self._perform(self.gossip.failed(number, self.now()))

    # -- gossip

    def _perform(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(to, data):
                    node = self.cluster.numbers.get(to)
                    if node is not None:
                        self.transport.send(node, bytes((GOSSIP_KIND,)) + data)
                case NodeLost(number):
                    self._event("lost", number, "not heard of any more; its jobs are not started again")
                case NodeBack(number, after_loss):
                    if after_loss:
                        self._event("back", number, "heard of again")
                        self.membership.greet([self.cluster.numbers[number]])
                case NodeLeft(number):
                    self._event("left", number, "its engine was stopped")
                case NodeJoined() | NodeSuspected():
                    pass
        if self.gossip.deadline < self._gossip_wakes - GOSSIP_LEAST_S:
            self._gossip_sooner.set()

    def _event(self, kind: str, number: int, text: str) -> None:
        log.info("%s node=%d", kind, number)
        self.cluster.event(kind, self.cluster.name(number), text)
        self.touch()

    async def _gossip_loop(self) -> None:
        """Tick the gossip when it is due, also where a message that came brought that forward."""
        while True:
            wait_s = max(GOSSIP_LEAST_S, self.gossip.deadline - self.now())
            self._gossip_wakes = self.now() + wait_s
            self._gossip_sooner.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._gossip_sooner.wait()
            with _going_on("gossip"):
                self._perform(self.gossip.tick(self.now()))

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + 1.0, loop.time())
            await asyncio.sleep(due - loop.time())
            with _going_on("tick"):
                await self._second(loop.time())

    async def _second(self, now: float) -> None:
        """What is done once a second."""
        self._sense()
        self.cluster.record(
            (number, sample.load if sample and state is not NodeState.LOST else None)
            for number, state, sample, _ in self.gossip.view(now)
        )
        self.membership.tick(now)
        self.introductions.tick(now)
        self.confirming.tick(now)
        self.trail.tick()
        self.jobs.tick(now)  # after those: it writes, and a full disk must not keep them from their turn
        self.processes.mark(self.jobs.roots())
        await self.lists.tick(now)

    def _sense(self) -> None:
        now = self.now()
        own, guests = self.jobs.held_roots()
        here, guest, away = self.jobs.counts()
        sample = self.host.sample(now, own, guests)
        self.sample = replace(sample, jobs_here=here, jobs_guest=guest, jobs_away=away)
        self.gossip.refresh(self.sample, now)

    # -- answers to other nodes

    async def _answer(self, sender: NodeId, question: Any) -> object:
        with self.trail.order(sender, question):
            return await self._answer_it(sender, question)

    async def _answer_it(self, sender: NodeId, question: Any) -> object:
        match question:
            case messages.AskJobs():
                moves = self.jobs.moving.moves(self.now())[:MOVES_TOLD]
                return messages.Jobs(self.jobs.views_for_peers(), self.jobs.figures(), moves)
            case messages.AskRoster():
                return self.membership.roster_page(question.page)
            case messages.AskInfos():
                return self.introductions.answer(question)
            case messages.AskBoard():
                return self.insight.answer()
            case messages.SignalHere():
                self.jobs.signal_process(question.key, question.signum)
                return messages.Nothing()
            case (
                messages.AskAdmit()
                | messages.AskForget()
                | messages.AskLeave()
                | messages.AskRekey()
                | messages.TakeEntries()
                | messages.TakeKey()
            ):
                return await self.signing.answer(sender, question)
            case messages.Forward():
                return messages.Forwarded(await Faces(self).forwarded(question.request))
            case messages.Examine() | messages.CheckNeeds() | messages.Launch():
                return await self.jobs.answer(sender, question)
            case _:
                raise RemoteProtocolError(f"{type(question).__name__} is no question")


@contextlib.contextmanager
def _going_on(what: str) -> Iterator[None]:
    """One round that fails is logged; the next one comes all the same."""
    try:
        yield
    except Exception:
        log.exception("%s failed", what)
