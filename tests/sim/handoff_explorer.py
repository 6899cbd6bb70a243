"""Explores the real handoff machines: every order of messages, faults and timers within bounds, breadth first.

The network is the set of all messages ever sent: any of them may arrive at any time, again or never.  That is loss,
repeat, reorder and delay at once.  A crash may fall between any two outputs of one input.  Time is abstract: a timer
that is armed may fire whenever it likes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from omcore.handoff import Home, HomeState, Participant, Timer
from omcore.handoff.inputs import (
    AllOutputDelivered,
    CancelRequested,
    CheckOwner,
    CopyDied,
    Decision,
    DumpDone,
    DumpFailed,
    EngineRestarted,
    Facts,
    JobExited,
    JournalSynced,
    MoveRequested,
    Opened,
    PodFailed,
    PodPrepared,
    Received,
    RestoreDone,
    RestoreFailed,
    ResumeDone,
    ShipDone,
    ShipFailed,
    StreamBroken,
    StreamSealed,
)  # fmt: skip
from omcore.handoff.machine import Machine
from omcore.handoff.messages import TO_HOME, TO_PARTICIPANT, Message
from omcore.handoff.outputs import (
    DeleteImages,
    KillPod,
    PreparePod,
    Resume,
    Send,
    SendSeal,
    StartRestore,
    UndoFreeze,
    WriteJournal,
    WriteRecord,
)  # fmt: skip
from omcore.handoff.records import CopyState, End, Epoch, How, Journal, Record, first_journal, first_record
from omcore.types import JobId, NodeId

JOB = JobId("0" * 32)
TOKEN = b"t" * 16
Pods = tuple[tuple[Epoch, str], ...]  # name, "empty" | "restoring" | "stopped" | "running"
EFFECTS = (
    Send, WriteRecord, WriteJournal, PreparePod, KillPod, DeleteImages, SendSeal, StartRestore, Resume, UndoFreeze
)  # fmt: skip


class Violation(AssertionError):
    """An invariant does not hold; the text ends with the way to it."""


@dataclass(frozen=True)
class Bounds:
    """How much may happen."""

    home: str = "h"
    source: str = "s"
    moves: tuple[str, ...] = ("d",)
    engine_crashes: int = 0
    node_crashes: int = 0
    sync_failures: int = 0
    deaths: int = 0  # of a stopped copy
    exits: int = 0
    failures: int = 0  # dump, ship, restore, invitation
    cancels: int = 0
    decisions: int = 0
    crashing: str = "hsd"  # which nodes may crash
    eager: bool = False  # local acts end at once (crashes still come between): far fewer orders
    shortest: bool = False  # breadth first: slower, but the way to a violation is a shortest one
    max_states: int = 2_000_000

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted({self.home, self.source, *self.moves}))


BUDGETS = ("moved", "engine_crashes", "node_crashes", "sync_failures", "deaths", "exits", "failures", "cancels",
           "decisions")  # fmt: skip


@dataclass(frozen=True)
class Ghost:
    """What only the checker knows."""

    ran: int = 1  # highest number under which anything was resumed
    ran_at: str = ""
    granted: int = 1  # highest number that a record announced as running
    exited: bool = False
    decided: bool = False
    dropped: bool = False


class Node(NamedTuple):
    """One node: its participant and record (as numbers), its pods, its tmpfs."""

    machine: int
    record: int
    pods: Pods = ()
    images: frozenset[Epoch] = frozenset()
    draws: int = 0  # sessions drawn


class World(NamedTuple):
    """One state of everything; machines, journals, nodes and the ghost are numbers (`Explorer.thing`)."""

    home: int
    durable: int
    unsynced: tuple[int, ...]
    nodes: tuple[int, ...]
    net: int
    left: tuple[int, ...]
    ghost: int


_SKIP = {"_out", "_now", "_jitter", "_spoken", "_step_s", "timing", "sequence", "timers"}


def _slots(kind: type[Machine]) -> tuple[str, ...]:
    names = [name for cls in kind.__mro__ for name in getattr(cls, "__slots__", ())]
    return tuple(sorted(set(names) - _SKIP))


class Explorer:
    """Search over `World`s from one start, with the transitions of the machines memoised."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.names = bounds.nodes
        self._ids: dict[Any, int] = {}
        self._things: list[Any] = []
        self._memo: dict[tuple[int, Any], tuple[int, tuple[Any, ...]]] = {}
        self._bits: dict[Any, int] = {}
        self._mail: list[tuple[str, str, Any]] = []  # to, sender, message or seal's session
        self._label: list[tuple[int, str, bool, bool]] = []  # node, text, for home, for the participant
        self._interned: dict[Any, Any] = {}
        self.home_slots = _slots(Home)
        self.part_slots = _slots(Participant)
        self.parents: dict[World, tuple[World, str] | None] = {}

    # ---- machines as numbers

    def intern(self, thing: Any) -> int:
        found = self._ids.get(thing)
        if found is None:
            found = self._ids[thing] = len(self._things)
            self._things.append(thing)
        return found

    def thing(self, number: int) -> Any:
        return self._things[number]

    def node(self, world: World, i: int) -> Node:
        found: Node = self._things[world.nodes[i]]
        return found

    def held(self, world: World, i: int) -> Record | None:
        found: Record | None = self._things[self.node(world, i).record]
        return found

    def ghost(self, world: World) -> Ghost:
        found: Ghost = self._things[world.ghost]
        return found

    def haunt(self, world: World, **changes: Any) -> World:
        return world._replace(ghost=self.intern(replace(self.ghost(world), **changes)))

    def change(self, world: World, i: int, **changes: Any) -> World:
        number = self.intern(self.node(world, i)._replace(**changes))
        return world._replace(nodes=(*world.nodes[:i], number, *world.nodes[i + 1 :]))

    def _freeze(self, machine: Machine) -> int:
        slots = self.home_slots if isinstance(machine, Home) else self.part_slots
        timers = tuple(sorted(t for t, _ in machine.timers if t not in (Timer.RESEND, Timer.FORGET)))
        return self.intern((type(machine), timers, *(getattr(machine, s) for s in slots)))

    def thaw(self, number: int) -> Any:
        kind, timers, *values = self._things[number]
        machine: Machine = kind(JOB, NodeId(""))
        for name, value in zip(self.home_slots if kind is Home else self.part_slots, values, strict=True):
            setattr(machine, name, value)
        machine.timers = tuple((t, 0.0) for t in timers)
        if not (isinstance(machine, Home) and machine.journal is None):
            machine._spoken = tuple(machine.voice())
        return machine

    def step(self, number: int, key: Any, event: Any = None) -> tuple[int, tuple[Any, ...]]:
        """New number and outputs; `key` is the event or stands for it."""
        found = self._memo.get((number, key))
        if found is None:
            machine = self.thaw(number)
            event = key if event is None else event
            if isinstance(event, Timer):
                machine._begin(0.0, 0.0)
                machine._stop(event)
                machine.expired(event)
                out = machine._finish()
            else:
                out = machine.handle(event, 0.0)
            kept = tuple(self._compile(machine.me, o) for o in out if isinstance(o, EFFECTS))
            found = self._memo[number, key] = (self._freeze(machine), kept)
        return found

    def _compile(self, me: str, output: Any) -> Any:
        match output:
            case Send(to, message):
                return 1 << self._bit(to, me, message)
            case WriteRecord(record):
                return ("record", self.intern(record))
            case WriteJournal(_, journal, _):
                return ("journal", self.intern(journal))
        return output

    def _bit(self, to: str, sender: str, what: Any) -> int:
        mail = (to, sender, what)
        bit = self._bits.get(mail)
        if bit is None:
            bit = self._bits[mail] = len(self._mail)
            self._mail.append(mail)
            self._label.append(self._describe_mail(mail))
        return bit

    def _describe_mail(self, mail: tuple[str, str, Any]) -> tuple[int, str, bool, bool]:
        to, sender, what = mail
        i = self.names.index(to)
        if isinstance(what, bytes):
            return i, f"{sender} => {to}: seal", False, False
        text = f"{sender} -> {to}: {type(what).__name__}{what.epoch.number}"
        return i, text, to == self.bounds.home and isinstance(what, TO_HOME), isinstance(what, TO_PARTICIPANT)

    # ---- the start

    def start(self) -> World:
        b = self.bounds
        journal = first_journal(JOB, NodeId(b.source), TOKEN)
        home = self._freeze(Home(JOB, NodeId(b.home)))
        nodes = []
        nothing = self.intern(None)
        for name in self.names:
            machine = self._freeze(Participant(JOB, NodeId(name)))
            node = Node(machine, nothing)
            if name == b.source:
                record = first_record(JOB, NodeId(b.home), TOKEN)
                machine, _ = self.step(machine, EngineRestarted(record, Facts(pod=record.pod)))
                node = Node(machine, self.intern(record), ((record.pod, "running"),))
            nodes.append(self.intern(node))
        left = (0, *(getattr(b, name) for name in BUDGETS[1:]))
        ghost = self.intern(Ghost(ran_at=b.source))
        world = World(home, self.intern(journal), (), tuple(nodes), 0, left, ghost)
        world = self._home(world, Opened(journal, new=True))[0]
        return self._synced(world, ok=True)

    # ---- carrying out outputs

    def _home(self, world: World, key: Any, event: Any = None) -> list[World]:
        """All worlds after home took an event: whole, and cut short by a crash after each output."""
        number, out = self.step(world.home, key, event)
        if number == world.home and not out:
            return [world]
        return self._perform(world._replace(home=number), self.bounds.home, out)

    def _part(self, world: World, name: str, key: Any, event: Any = None) -> list[World]:
        i = self.names.index(name)
        machine = self.node(world, i).machine
        number, out = self.step(machine, key, event)
        if number == machine and not out:
            return [world]
        return self._perform(self.change(world, i, machine=number), name, out)

    def _perform(self, world: World, name: str, out: tuple[Any, ...]) -> list[World]:
        cut: list[World] = []
        if all(type(one) is int for one in out) and not (world.left[1] or world.left[2]):
            net = world.net
            for one in out:
                net |= one
            return [world._replace(net=net)]
        for n, output in enumerate(out):
            if n and (world.left[1] or world.left[2]):
                cut += self._crashes(world, name)
            world = self._effect(world, name, output)
        return [world, *cut]

    def _effect(self, world: World, name: str, output: Any) -> World:
        i = self.names.index(name)
        node = self.node(world, i)
        match output:
            case int():
                return world._replace(net=world.net | output)
            case ("record", number):
                return self._record(world, i, number)
            case ("journal", number):
                self._check_end(world, self.thing(number))
                return world._replace(unsynced=(*world.unsynced, number))
            case PreparePod(pod=pod):
                return self.change(world, i, pods=(*node.pods, (pod, "empty")), draws=node.draws + 1)
            case KillPod(_, pod):
                return self._kill(world, i, pod)
            case DeleteImages(_, epoch):
                return self._delete(world, i, epoch)
            case SendSeal(_, _, session):
                record = self.held(world, i)
                if record is None or record.state is not CopyState.SEALED or record.peer is None:
                    raise Violation("SEAL before its record")
                return world._replace(net=world.net | 1 << self._bit(record.peer, name, session))
            case StartRestore(_, pod, _):
                rest = tuple(p for p in node.pods if p[0] != pod)
                return self.change(world, i, pods=(*rest, (pod, "restoring")))
            case Resume(_, pod) | UndoFreeze(_, pod, _):
                return self._resume(world, i, pod)
        raise AssertionError(output)

    def _record(self, world: World, i: int, number: int) -> World:
        world = self.change(world, i, record=number)
        record: Record = self.thing(number)
        if record.state is CopyState.RUNNING and record.epoch.number > self.ghost(world).granted:
            world = self.haunt(world, granted=record.epoch.number)
        return world

    def _resume(self, world: World, i: int, pod: Epoch) -> World:
        node, record = self.node(world, i), self.held(world, i)
        state = dict(node.pods).get(pod)
        if state not in ("stopped", "running"):
            return world
        if record is None or record.state is not CopyState.RUNNING or record.pod != pod:
            raise Violation("resume before its record")
        world = self.change(world, i, pods=tuple((p, "running" if p == pod else s) for p, s in node.pods))
        n, ghost = record.epoch.number, self.ghost(world)
        if ghost.ran >= n - n % 2 and (ghost.ran, ghost.ran_at) != (n, self.names[i]) and not ghost.decided:
            raise Violation(f"I3: {self.names[i]} resumes under {n}, but {ghost.ran_at} ran under {ghost.ran}")
        return self.haunt(world, ran=n, ran_at=self.names[i])

    def _kill(self, world: World, i: int, pod: Epoch) -> World:
        node, record = self.node(world, i), self.held(world, i)
        state = dict(node.pods).get(pod)
        if state is None:
            return world
        if state == "running" and not (record and record.state is CopyState.ENDED):
            raise Violation("a running pod is killed")
        if record and record.state is CopyState.SEALED and record.move and pod == record.pod:
            self._check_destroy(world, record.move, "sealed copy")
        return self.change(world, i, pods=tuple(p for p in node.pods if p[0] != pod))

    def _delete(self, world: World, i: int, epoch: Epoch) -> World:
        node, record = self.node(world, i), self.held(world, i)
        if epoch not in node.images:
            return world
        if not record or record.state not in (CopyState.ENDED, CopyState.FROZEN):
            self._check_destroy(world, epoch, "images")
        return self.change(world, i, images=node.images - {epoch})

    def _check_destroy(self, world: World, m: Epoch, what: str) -> None:
        ghost = self.ghost(world)
        if max(ghost.ran, ghost.granted) >= m.number or ghost.dropped or self.thing(world.durable).end is not None:
            return
        raise Violation(f"I6: {what} of {m.number} destroyed, but nobody ran under it")

    def _check_end(self, world: World, journal: Journal) -> None:
        end = journal.end
        if end is None or self.thing(world.durable).end is not None:
            return
        if end.how in (How.EXITED, How.KILLED) and not self.ghost(world).exited:
            raise Violation("an end is reported, but the job did not end")
        if end.how is How.LOST and (held := self._holder(world)):
            raise Violation(f"I2: declared lost, but {held}")

    def _holder(self, world: World) -> str:
        ghost = self.ghost(world)
        for i, name in enumerate(self.names):
            node, record = self.node(world, i), self.held(world, i)
            if any(s == "running" for _, s in node.pods):
                return f"it runs at {name}"
            if record is None or record.move is None:
                continue
            past = max(ghost.ran, ghost.granted) >= record.move.number
            if not past and record.state is CopyState.SEALED and (record.move in node.images or node.pods):
                return f"{name} holds its sealed copy"
            if not past and node.images and record.state is not CopyState.INVITED:
                return f"{name} holds its images"
        return ""

    # ---- crashes

    def _spend(self, world: World, budget: str) -> World | None:
        i = BUDGETS.index(budget)
        if world.left[i] <= 0:
            return None
        return world._replace(left=(*world.left[:i], world.left[i] - 1, *world.left[i + 1 :]))

    def _crashes(self, world: World, name: str) -> list[World]:
        found: list[World] = []
        if name not in self.bounds.crashing:
            return found
        if (after := self._spend(world, "engine_crashes")) is not None:
            found += self._engine_crash(after, name)
        if (after := self._spend(world, "node_crashes")) is not None:
            found += self._node_crash(after, name)
        return found

    def _engine_crash(self, world: World, name: str) -> list[World]:
        i = self.names.index(name)
        node, record = self.node(world, i), self.held(world, i)
        alive = tuple(p for p in node.pods if p[1] in ("stopped", "running"))
        fresh = self._freeze(Participant(JOB, NodeId(name)))
        world = self.change(world, i, machine=fresh, pods=alive)
        whole = max(node.images, default=None)
        facts = Facts(pod=alive[-1][0] if alive else None, images=whole)
        if record is not None:
            wanted = [p for p, _ in alive if p == record.pod]
            facts = replace(facts, pod=wanted[0] if wanted else facts.pod)
        worlds = [world]
        if name == self.bounds.home:
            read = world.unsynced[-1] if world.unsynced else world.durable
            worlds = self._open(world, self.thing(read))
        out: list[World] = []
        for w in worlds:
            out += self._part(w, name, EngineRestarted(record, facts))
        return out

    def _node_crash(self, world: World, name: str) -> list[World]:
        i = self.names.index(name)
        fresh = self._freeze(Participant(JOB, NodeId(name)))
        world = self.change(world, i, machine=fresh, record=self.intern(None), pods=(), images=frozenset())
        if name != self.bounds.home:
            return [world]
        found: list[World] = []
        for read in {world.durable, *world.unsynced}:
            found += self._open(world._replace(durable=read, unsynced=()), self.thing(read))
        return found

    def _open(self, world: World, journal: Journal) -> list[World]:
        world = world._replace(home=self._freeze(Home(JOB, NodeId(self.bounds.home))))
        return self._home(world, Opened(journal))

    def _synced(self, world: World, ok: bool) -> World:
        return self._synced_all(world, ok)[0]

    def _synced_all(self, world: World, ok: bool) -> list[World]:
        if ok and world.unsynced:
            world = world._replace(durable=world.unsynced[-1], unsynced=())
        return self._home(world, JournalSynced(0, ok, "" if ok else "EIO"))

    # ---- what may happen next

    def next(self, world: World) -> Iterator[tuple[str, World]]:
        if self.bounds.eager and (acts := list(self._acts(world))):
            yield from acts
            for name in self.names:
                for after in self._crashes(world, name):
                    yield f"{name}: crash", after
            return
        yield from self._deliveries(world)
        yield from self._home_events(world)
        for i, name in enumerate(self.names):
            for what, event, changed in self._local(world, i):
                for after in self._part(changed, name, event):
                    yield f"{name}: {what}", after
            for after in self._crashes(world, name):
                yield f"{name}: crash", after

    def _acts(self, world: World) -> Iterator[tuple[str, World]]:
        """The first local act that can end now, however it may end; nothing if there is none."""
        if self.value(world.home, "syncing") is not None:
            yield from self._home_events(world)
            return
        for i, name in enumerate(self.names):
            acts = [a for a in self._local(world, i) if not a[0].startswith(("timer", "job", "stopped", "stream"))]
            if acts:
                for what, event, changed in acts:
                    for after in self._part(changed, name, event):
                        yield f"{name}: {what}", after
                return

    def _deliveries(self, world: World) -> Iterator[tuple[str, World]]:
        rest = world.net
        while rest:
            low = rest & -rest
            rest ^= low
            yield from self.deliver(world, low.bit_length() - 1)

    def deliver(self, world: World, bit: int) -> list[tuple[str, World]]:
        """One message to home and, apart from it, to the participant; nothing if nothing would change."""
        i, text, for_home, for_part = self._label[bit]
        found: list[tuple[str, World]] = []
        if for_home and self._matters(world, world.home, bit, bit):
            found += [(text, after) for after in self._home(world, bit)]
        if for_part:
            node: Node = self._things[world.nodes[i]]
            key = bit + (node.draws << 32)
            if self._matters(world, node.machine, key, bit):
                found += [(text + " (p)", after) for after in self._part(world, self.names[i], key)]
        if not for_home and not for_part:
            found += self._seal(world, i, bit, text)
        return found

    def _matters(self, world: World, machine: int, key: int, bit: int) -> bool:
        made = self._memo.get((machine, key))
        if made is None:
            to, sender, what = self._mail[bit]
            session = f"{to}{key >> 32}".ljust(16).encode()
            made = self.step(machine, key, Received(NodeId(sender), what, session))
        number, out = made
        if number != machine:
            return True
        net = world.net
        return any(type(one) is not int or one & net != one for one in out)

    def _seal(self, world: World, i: int, bit: int, text: str) -> list[tuple[str, World]]:
        record, session = self.held(world, i), self._mail[bit][2]
        if record is None or record.state is not CopyState.INVITED or record.session != session:
            return []
        changed = self.change(world, i, images=self.node(world, i).images | {record.pod})
        return [(text, after) for after in self._part(changed, self.names[i], StreamSealed(session))]

    def value(self, number: int, name: str) -> Any:
        kind, _, *values = self._things[number]
        slots = self.home_slots if kind is Home else self.part_slots
        return values[slots.index(name)]

    def timers(self, number: int) -> tuple[Timer, ...]:
        found: tuple[Timer, ...] = self._things[number][1]
        return found

    def _home_events(self, world: World) -> Iterator[tuple[str, World]]:
        h = world.home
        if self.value(h, "syncing") is not None:
            for after in self._synced_all(world, ok=True):
                yield "h: synced", after
            if (spent := self._spend(world, "sync_failures")) is not None:
                for after in self._synced_all(spent, ok=False):
                    yield "h: sync failed", after
        else:
            for timer in self.timers(h):
                for after in self._home(world, timer):
                    yield f"h: timer {timer}", after
            if self.value(h, "ending") is not None:
                for after in self._home(world, AllOutputDelivered()):
                    yield "h: delivered", after
        state = self.value(h, "state")
        yield from self._people(world, state)

    def _people(self, world: World, state: HomeState) -> Iterator[tuple[str, World]]:
        h, moved = world.home, world.left[0]
        if moved < len(self.bounds.moves) and state is HomeState.IDLE:
            spent = world._replace(left=(moved + 1, *world.left[1:]))
            for after in self._home(spent, MoveRequested(NodeId(self.bounds.moves[moved]))):
                yield f"h: move to {self.bounds.moves[moved]}", after
        if state not in (HomeState.IDLE, HomeState.CLOSED) and (w := self._spend(world, "cancels")) is not None:
            for after in self._home(w, CancelRequested()):
                yield "h: cancel", after
        if state in (HomeState.DOUBT1, HomeState.DOUBT2):
            for choice in ("rerun", "salvage", "drop"):
                if (w := self._spend(world, "decisions")) is not None:
                    yield from self.decide(w, choice)
        if state is HomeState.IDLE and world.left[2] < self.bounds.node_crashes and not self.value(h, "asking_owner"):
            for after in self._home(world, CheckOwner()):
                yield "h: check owner", after

    def decide(self, world: World, choice: str) -> Iterator[tuple[str, World]]:
        world = self.haunt(world, decided=True, dropped=self.ghost(world).dropped or choice == "drop")
        for after in self._home(world, Decision(choice)):
            yield f"h: {choice}", after

    def _local(self, world: World, i: int) -> Iterator[tuple[str, Any, World]]:
        """Facts that the node's own driver may report now: (text, input, world with the fact)."""
        node = self.node(world, i)
        for timer in self.timers(node.machine):
            yield f"timer {timer}", timer, world
        yield from self._deaths(world, i)
        r: Record | None = self.value(node.machine, "record")
        if r is None or r.move is None:
            return
        pods = dict(node.pods)
        failing = self._spend(world, "failures")
        if r.state is CopyState.FROZEN:
            yield from self._frozen(world, i, r, pods)
        elif r.state is CopyState.INVITED and r.session:
            if self.value(node.machine, "invitation") is None:
                yield "pod", PodPrepared(r.session, "a", b"k"), world
                if failing:
                    yield "no pod", PodFailed(r.session, "no room"), failing
            elif failing:
                yield "stream broken", StreamBroken(r.session, "broken"), failing
        for pod, state in node.pods:
            if state == "restoring":
                done = self.change(world, i, pods=self._set(node, pod, "stopped"))
                yield "restored", RestoreDone(pod), done
                if failing:
                    gone = self.change(failing, i, pods=self._set(node, pod, None))
                    yield "restore failed", self._restore_failed(gone, i, pod), gone
        if r.state is CopyState.RUNNING and not r.resumed and not r.rebuild:
            if pods.get(r.pod) == "running":
                yield "resumed", ResumeDone(r.pod), world
            elif r.pod not in pods:
                yield "resume failed", CopyDied(r.pod), self._ended_ghost(world)

    def _restore_failed(self, world: World, i: int, pod: Epoch) -> RestoreFailed:
        return RestoreFailed(pod, "no memory")

    def _ended_ghost(self, world: World) -> World:
        return self.haunt(world, exited=True)

    def _frozen(self, world: World, i: int, r: Record, pods: dict[Epoch, str]) -> Iterator[tuple[str, Any, World]]:
        node, m = self.node(world, i), r.move
        if m is None:
            return
        failing = self._spend(world, "failures")
        if pods.get(r.pod) == "running":
            stopped = self.change(world, i, pods=self._set(node, r.pod, "stopped"), images=node.images | {m})
            yield "dumped", DumpDone(m), stopped
            if failing:
                yield "dump failed", DumpFailed(m, "io_uring"), failing
        elif pods.get(r.pod) == "stopped":
            yield "shipped", ShipDone(m), world
            if failing:
                yield "ship failed", ShipFailed(m, "link"), failing

    def _deaths(self, world: World, i: int) -> Iterator[tuple[str, Any, World]]:
        node = self.node(world, i)
        for pod, state in node.pods:
            less = self._set(node, pod, None)
            if state == "running" and (spent := self._spend(world, "exits")) is not None:
                gone = self._ended_ghost(self.change(spent, i, pods=less))
                yield "job exits", JobExited(pod, End(How.EXITED, 0)), gone
            if state == "stopped" and (spent := self._spend(world, "deaths")) is not None:
                gone = self.change(spent, i, pods=less)
                record = self.held(world, i)
                if record and record.state in (CopyState.FROZEN, CopyState.RUNNING):
                    gone = self._ended_ghost(gone)
                yield "stopped copy dies", CopyDied(pod), gone

    def _set(self, node: Node, pod: Epoch, state: str | None) -> Pods:
        rest = tuple((p, state if p == pod and state else s) for p, s in node.pods if p != pod or state)
        return tuple(sorted(rest))

    # ---- the search

    def run(self) -> list[World]:
        """All reachable worlds; raises Violation with the way to the first bad one."""
        first = self.start()
        self.parents = {first: None}
        nets: dict[World, list[int]] = {first._replace(net=0): [first.net]}
        todo = deque([first])
        take = todo.popleft if self.bounds.shortest else todo.pop
        while todo:
            world = take()
            try:
                for text, after in self.next(world):
                    if after in self.parents or self._covered(nets, after):
                        continue
                    self.parents[after] = (world, text)
                    self._check(after)
                    todo.append(after)
            except Violation as error:
                raise Violation(f"{error}\n{self.way(world)}") from None
            if len(self.parents) > self.bounds.max_states:
                raise AssertionError(f"more than {self.bounds.max_states} states: choose smaller bounds")
        return list(self.parents)

    @staticmethod
    def _covered(nets: dict[World, list[int]], world: World) -> bool:
        """Whether the same world with at least these messages was seen: it can do all that this one can."""
        rest = world._replace(net=0)
        known = nets.get(rest)
        if known is None:
            nets[rest] = [world.net]
            return False
        net = world.net
        for one in known:
            if one & net == net:
                return True
        known[:] = [one for one in known if one & net != one]
        known.append(net)
        return False

    def _check(self, world: World) -> None:
        running = [
            n for n, x in zip(self.names, world.nodes, strict=True) for _, s in self.thing(x).pods if s == "running"
        ]
        if len(running) > 1:
            raise Violation(f"I1: runs at {running}\n{self.way(world)}")

    def way(self, key: World) -> str:
        """The steps from the start to a world."""
        steps: list[str] = []
        while (parent := self.parents.get(key)) is not None:
            key, text = parent
            steps.append(text)
        return "\n".join(reversed(steps))


# ---- what must come true once faults are over


def describe(explorer: Explorer, world: World) -> str:
    """One world, for a failing test."""
    state = explorer.value(world.home, "state")
    lines = [f"home {state} {explorer.value(world.home, 'journal')}"]
    for i, name in enumerate(explorer.names):
        node = explorer.node(world, i)
        lines.append(f"{name} {explorer.held(world, i)} {node.pods} {sorted(node.images)}")
    return "\n".join(lines)


class Healer:
    """From one world: an empty network, no more faults, resending on; until nothing changes any more."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer

    def settle(self, world: World) -> World:
        """The quiet end.  Raises Violation if there is none within 60 rounds."""
        e = self.explorer
        world = world._replace(net=0, left=(len(e.bounds.moves), *([0] * (len(BUDGETS) - 1))))
        world = e._home(world, CheckOwner())[0]
        for _ in range(60):
            before = world
            world = self._quiet(self._resend(world))
            if world._replace(net=0) == before._replace(net=0) and (late := self._late(world)) is not None:
                world = late
            elif world._replace(net=0) == before._replace(net=0):
                return world
        raise Violation(f"never quiet\n{describe(e, world)}")

    def _quiet(self, world: World) -> World:
        """Deliver everything once, in order, and let every local act finish."""
        e = self.explorer
        for _ in range(2000):
            after = self._act(world)
            if after is not None:
                world = after
                continue
            if not world.net:
                return world
            bit = (world.net & -world.net).bit_length() - 1
            world = world._replace(net=world.net & ~(1 << bit))
            world = self._both(world, bit)
        raise Violation(f"endless talk\n{describe(e, world)}")

    def _both(self, world: World, bit: int) -> World:
        """To home first, then to the participant of the same node; no crashes."""
        e = self.explorer
        i, text, for_home, for_part = e._label[bit]
        if for_home and e._matters(world, world.home, bit, bit):
            world = e._home(world, bit)[0]
        if for_part:
            node = e.node(world, i)
            key = bit + (node.draws << 32)
            if e._matters(world, node.machine, key, bit):
                world = e._part(world, e.names[i], key)[0]
        for _, after in e._seal(world, i, bit, text)[:1] if not for_home and not for_part else []:
            world = after
        return world

    def _act(self, world: World) -> World | None:
        e = self.explorer
        if e.value(world.home, "syncing") is not None:
            return e._synced(world, ok=True)
        if e.value(world.home, "ending") is not None:
            return e._home(world, AllOutputDelivered())[0]
        for i, name in enumerate(e.names):
            for what, event, changed in e._local(world, i):
                if not what.startswith("timer"):
                    return e._part(changed, name, event)[0]
        return None

    def _resend(self, world: World) -> World:
        e = self.explorer
        numbers = [world.home, *(e.node(world, i).machine for i in range(len(e.names)))]
        for machine in map(e.thaw, numbers):
            for to, message in machine.voice():
                world = world._replace(net=world.net | 1 << e._bit(to, machine.me, message))
        return world

    def _late(self, world: World) -> World | None:
        """Nothing moves: time passes, all timers fire."""
        e = self.explorer
        after = world
        for timer in e.timers(world.home):
            after = e._home(after, timer)[0]
        for i, name in enumerate(e.names):
            for timer in e.timers(e.node(world, i).machine):
                after = e._part(after, name, timer)[0]
        return after if after != world else None

    def check(self, world: World) -> World:
        """I2, I5, I7 at the quiet end; a doubt is settled once with each choice."""
        end = self.settle(world)
        e = self.explorer
        state = e.value(end.home, "state")
        if state in (HomeState.DOUBT1, HomeState.DOUBT2):
            for choice in ("rerun" if state is HomeState.DOUBT1 else "salvage", "drop"):
                for _, decided in e.decide(end, choice):
                    self._judge(self.settle(decided), decided=True)
                    break
        else:
            self._judge(end, decided=False)
        return end

    def _judge(self, world: World, decided: bool) -> None:
        e = self.explorer
        journal: Journal = e.value(world.home, "journal")
        state = e.value(world.home, "state")
        nodes: list[Node] = [e.thing(n) for n in world.nodes]
        running = [n for n, node in enumerate(nodes) for p, s in node.pods if s == "running"]
        stopped = [p for node in nodes for p in node.pods if p[1] != "running"]
        holders = [e.thing(n.record).state for n in nodes if e.thing(n.record)]
        text = describe(e, world)
        if state is HomeState.IDLE:
            if len(running) != 1:
                raise Violation(f"I2: {len(running)} copies run\n{text}")
            at, record = e.names[running[0]], e.held(world, running[0])
            if journal.owner != at or record is None or journal.epoch != record.epoch:
                raise Violation(f"I7: the journal names another owner\n{text}")
        elif state is HomeState.CLOSED:
            if running or journal.end is None:
                raise Violation(f"I2: closed, but a copy runs\n{text}")
        else:
            raise Violation(f"I2: {state} for ever\n{text}")
        if stopped or any(n.images for n in nodes) or journal.leftovers:
            raise Violation(f"I5: something is left\n{text}")
        if set(holders) - {CopyState.RUNNING, CopyState.GONE}:
            raise Violation(f"I5: {holders}\n{text}")


def sizes(worlds: list[World]) -> int:
    """How many distinct combinations of node states there are, whatever the network."""
    return len({w._replace(net=0, left=()) for w in worlds})


__all__ = ["Bounds", "Explorer", "Healer", "Violation", "describe", "fields", "sizes", "Message"]
