"""The sequences of the protocol, step by step, on the real machines with a network that does what the test says."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from omcore.errors import LocalProtocolError
from omcore.handoff import Home, HomeState, Participant
from omcore.handoff.inputs import (
    AllOutputDelivered,
    CancelRequested,
    CheckOwner,
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
    StreamBroken,
    StreamSealed,
)  # fmt: skip
from omcore.handoff.messages import (
    TO_HOME,
    TO_PARTICIPANT,
    Abort,
    Freeze,
    Go,
    Prepare,
    Resumed,
    Superseded,
    Undone,
    Voided,
)  # fmt: skip
from omcore.handoff.outputs import (
    AwaitOutput,
    DiskBad,
    Doubt,
    Dropped,
    MoveEnded,
    Output,
    PreparePod,
    ReportEnd,
    Resume,
    Send,
    SendSeal,
    StartDump,
    StartRestore,
    StartShip,
    UndoFreeze,
    WriteJournal,
)  # fmt: skip
from omcore.handoff.records import CopyState, End, Epoch, How, first_journal, first_record
from omcore.types import JobId, NodeId

JOB = JobId("1" * 32)
TOKEN = b"t" * 16
H, S, D = NodeId("h"), NodeId("s"), NodeId("d")
FATE = {"prepare", "dump", "ship", "restore", "sync"}


class Room:
    """Three nodes and a network in order; `fail` names what goes wrong, `cut` the (from, to) pairs that are cut."""

    def __init__(self, *fail: str) -> None:
        assert set(fail) <= FATE
        self.fail = set(fail)
        self.cut: set[tuple[str, str]] = set()
        self.now = 0.0
        self.mail: deque[tuple[NodeId, NodeId, Any]] = deque()
        self.seen: list[Output] = []
        self.said: list[str] = []
        self.home = Home(JOB, H)
        self.parts = {n: Participant(JOB, n) for n in (H, S, D)}
        record = first_record(JOB, H, TOKEN)
        self.do(S, self.parts[S].handle(EngineRestarted(record, Facts(pod=record.pod)), 0.0))
        self.tell_home(Opened(first_journal(JOB, S, TOKEN), new=True))

    def tell_home(self, event: Any) -> None:
        self.do(H, self.home.handle(event, self.now))

    def tell(self, node: NodeId, event: Any) -> None:
        self.do(node, self.parts[node].handle(event, self.now))

    def do(self, node: NodeId, outputs: list[Output]) -> None:
        for output in outputs:
            self.seen.append(output)
            if isinstance(output, Send):
                self.said.append(f"{node}>{output.to} {type(output.message).__name__}")
                if (node, output.to) not in self.cut:
                    self.mail.append((node, output.to, output.message))
            elif isinstance(output, WriteJournal) and output.sync:
                bad = "sync" in self.fail and output.journal.epoch.number == 2
                self.tell_home(JournalSynced(output.sequence, not bad, "EIO" if bad else ""))
            elif isinstance(output, AwaitOutput):
                self.tell_home(AllOutputDelivered())
            else:
                self.work(node, output)

    def work(self, node: NodeId, output: Output) -> None:
        """What a node's own driver would report."""
        match output:
            case PreparePod(session=s) if "prepare" in self.fail:
                self.tell(node, PodFailed(s, "no room", "free some memory"))
            case PreparePod(session=s):
                self.tell(node, PodPrepared(s, "10.0.0.1:1", b"key"))
            case StartDump(epoch=m) if "dump" in self.fail:
                self.tell(node, DumpFailed(m, "io_uring is in use", "run it without"))
            case StartDump(epoch=m):
                self.tell(node, DumpDone(m))
            case StartShip(dest=to, session=s) if "ship" in self.fail:
                self.tell(to, StreamBroken(s, "tmpfs is full"))
            case StartShip(epoch=m):
                self.tell(node, ShipDone(m))
            case SendSeal(session=s):
                record = self.parts[node].record
                assert record is not None
                assert record.peer is not None
                self.tell(record.peer, StreamSealed(s))
            case StartRestore(pod=pod) if "restore" in self.fail:
                self.tell(node, RestoreFailed(pod, "ran out of memory"))
            case StartRestore(pod=pod):
                self.tell(node, RestoreDone(pod))
            case Resume(pod=pod) | UndoFreeze(pod=pod):
                self.tell(node, ResumeDone(pod))

    def run(self) -> None:
        """Deliver all mail, in order."""
        while self.mail:
            self.deliver()

    def deliver(self) -> None:
        """The oldest mail."""
        sender, to, message = self.mail.popleft()
        if to == H and isinstance(message, TO_HOME):
            self.tell_home(Received(sender, message))
        if isinstance(message, TO_PARTICIPANT):
            self.tell(to, Received(sender, message, b"%-16s" % to.encode()))

    def wait(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        until = self.now + seconds
        while True:
            due = [m.deadline for m in (self.home, *self.parts.values()) if m.deadline is not None]
            if not due or min(due) > until:
                break
            self.now = max(self.now, *[min(due)])
            self.do(H, self.home.tick(self.now))
            for name, part in self.parts.items():
                self.do(name, part.tick(self.now))
            self.run()
        self.now = until

    def home_is(self, state: HomeState) -> bool:
        return self.home.state is state

    def move(self) -> None:
        self.tell_home(MoveRequested(D, ticket="T"))
        self.run()

    def reboot(self, node: NodeId) -> None:
        self.parts[node] = Participant(JOB, node, incarnation=b"new")

    @property
    def ended(self) -> MoveEnded:
        return [o for o in self.seen if isinstance(o, MoveEnded)][-1]

    def runs_at(self, node: NodeId, number: int) -> bool:
        record = self.parts[node].record
        journal = self.home.book
        here = record is not None and record.state is CopyState.RUNNING and record.resumed
        return here and record is not None and record.epoch == journal.epoch == (0, number) and journal.owner == node


def test_the_happy_path() -> None:
    room = Room()
    room.move()
    assert room.runs_at(D, 2)
    assert room.ended.ok
    assert room.ended.ticket == "T"
    assert room.parts[S].state is CopyState.GONE
    assert room.home.book.leftovers == ()
    assert [s for s in room.said if "Status" not in s and "Clean" not in s] == [
        "h>d Prepare", "d>h Prepared", "h>s Freeze", "d>h Ready", "d>s Ask", "h>d Go", "d>h Resumed", "d>s Resumed",
        "h>s Resumed", "s>h Retired", "s>h Retired",
    ]  # fmt: skip
    assert room.home.deadline is None


@pytest.mark.parametrize(
    ("what", "words"),
    [("prepare", "no room"), ("dump", "io_uring"), ("ship", "tmpfs is full"), ("restore", "ran out of memory")],
)
def test_a_failure_before_the_commit_leaves_the_job_at_the_source(what: str, words: str) -> None:
    room = Room(what)
    room.move()
    assert room.runs_at(S, 1 if what == "prepare" else 3)
    assert not room.ended.ok
    assert words in room.ended.reason
    if what == "dump":
        assert room.ended.hint == "run it without"
    assert room.parts[D].state is CopyState.GONE
    assert room.home.book.leftovers == ()


def test_a_failed_sync_of_the_commit_takes_the_job_back() -> None:
    room = Room("sync")
    room.move()
    assert room.runs_at(S, 3)
    assert any(isinstance(o, DiskBad) for o in room.seen)
    assert "h>d Go" not in room.said
    room.move()
    assert "EIO" in room.ended.reason


def test_a_destination_that_does_not_answer_is_given_up() -> None:
    room = Room()
    room.cut = {(H, D)}
    room.move()
    room.wait(9.9)
    assert room.home_is(HomeState.PREPARING)
    room.wait(0.2)
    assert room.home_is(HomeState.IDLE)
    assert "did not answer" in room.ended.reason
    room.cut = set()
    room.wait(10.0)
    assert room.runs_at(S, 1)
    assert room.home.book.leftovers == ()


def test_cancel_works_before_the_commit_and_not_after() -> None:
    room = Room()
    room.tell_home(MoveRequested(D))
    room.tell_home(CancelRequested())
    room.run()
    assert room.runs_at(S, 1)
    room = Room()
    room.cut = {(H, D)}
    room.move()
    room.tell_home(CancelRequested())
    assert room.ended.reason == "cancelled"


def test_source_and_dest_take_it_back_without_home() -> None:
    room = Room()
    room.tell_home(MoveRequested(D))
    while "d>h Ready" not in room.said:
        room.deliver()
    room.mail.clear()
    room.cut = {(S, H), (H, S), (D, H), (H, D)}
    room.wait(12.0)
    assert room.parts[S].state is CopyState.RUNNING
    assert room.parts[D].state is CopyState.GONE
    room.cut = set()
    room.wait(12.0)
    assert room.runs_at(S, 3)


def test_a_lost_message_is_said_again() -> None:
    room = Room()
    room.cut = {(H, D)}
    room.tell_home(MoveRequested(D))
    room.cut = set()
    room.run()
    assert room.home_is(HomeState.PREPARING)
    room.wait(1.0)
    assert room.runs_at(D, 2)


def _committed_but_unheard(room: Room) -> None:
    room.cut = {(D, S), (S, D)}
    room.tell_home(MoveRequested(D))
    deliver = room.do

    def stop_at_go(node: NodeId, outputs: list[Output]) -> None:
        if any(isinstance(o, Send) and isinstance(o.message, Go) for o in outputs):
            room.cut = {(H, D), (D, H), (S, D), (D, S)}
        deliver(node, outputs)

    room.do = stop_at_go  # type: ignore[method-assign]  # the network is cut in the very moment of GO
    room.run()
    room.do = deliver  # type: ignore[method-assign]
    assert room.home_is(HomeState.COMMITTED)


def test_a_destination_that_reboots_after_the_commit_is_a_doubt_that_a_person_settles() -> None:
    room = Room()
    _committed_but_unheard(room)
    room.wait(30.0)
    assert room.home_is(HomeState.COMMITTED)
    assert room.parts[S].state is CopyState.SEALED
    room.reboot(D)
    room.cut = set()
    room.wait(12.0)
    doubt = [o for o in room.seen if isinstance(o, Doubt)][-1]
    assert (doubt.kind, doubt.choices) == (1, ("rerun", "drop"))
    room.tell_home(Decision("rerun"))
    room.run()
    assert room.runs_at(S, 3)
    assert room.home.book.out_floor == (0, 3)


def test_a_doubt_can_be_dropped() -> None:
    room = Room()
    _committed_but_unheard(room)
    room.reboot(D)
    room.cut = set()
    room.wait(12.0)
    room.tell_home(Decision("drop"))
    room.run()
    assert room.home_is(HomeState.CLOSED)
    assert [o.end.how for o in room.seen if isinstance(o, ReportEnd)] == [How.DROPPED]
    assert room.parts[S].state is CopyState.GONE


def test_the_end_is_acknowledged_once_it_is_durable() -> None:
    room = Room()
    room.move()
    room.tell(D, JobExited(Epoch(0, 2), End(How.EXITED, 7)))
    room.run()
    assert room.home_is(HomeState.CLOSED)
    assert [o.end.status for o in room.seen if isinstance(o, ReportEnd)] == [7]
    assert room.parts[D].state is CopyState.GONE


def test_a_rebooted_owner_means_a_lost_job() -> None:
    room = Room()
    room.reboot(S)
    room.tell_home(CheckOwner())
    room.run()
    assert room.home.book.end is not None
    assert room.home.book.end.how is How.LOST


def test_a_restarted_home_asks_and_believes_the_owner() -> None:
    room = Room()
    room.move()
    journal = room.home.book
    room.home = Home(JOB, H, sequence=9)
    room.tell_home(Opened(journal))
    room.run()
    assert room.runs_at(D, 2)
    assert room.home.deadline is None


def test_strangers_are_dropped_and_counted() -> None:
    room = Room()
    m = Epoch(0, 2)
    freeze = Freeze(job=JOB, epoch=m, session=b"s" * 16, dest=D, address="a", key=b"k")
    for message in (freeze, Abort(job=JOB, epoch=m, dest=D), Resumed(job=JOB, epoch=m), Undone(job=JOB, epoch=m)):
        outputs = room.parts[S].handle(Received(D, message), 0.0)
        assert [type(o) for o in outputs] == [Dropped]
    assert room.parts[S].state is CopyState.RUNNING


def test_a_wrong_session_is_never_a_voided() -> None:
    room = Room()
    _committed_but_unheard(room)
    wrong = Voided(job=JOB, epoch=Epoch(0, 2), session=b"x" * 16, images=True)
    room.tell(S, Received(D, wrong))
    room.tell_home(Received(D, wrong))
    assert room.parts[S].state is CopyState.SEALED
    assert room.home_is(HomeState.COMMITTED)


def test_an_abort_that_overtakes_its_freeze_leaves_a_trace() -> None:
    room = Room()
    m, session = Epoch(0, 2), b"s" * 16
    room.tell(S, Received(H, Abort(job=JOB, epoch=m, session=session, dest=D)))
    room.tell(S, Received(H, Freeze(job=JOB, epoch=m, session=session, dest=D, address="a", key=b"k")))
    assert room.parts[S].state is CopyState.RUNNING
    assert room.said == ["s>h Undone", "s>d Undone", "s>h Undone"]


def test_a_late_invitation_is_refused() -> None:
    room = Room("restore")
    room.move()
    late = Prepare(job=JOB, epoch=Epoch(0, 2), source=S, token=TOKEN)
    room.tell(D, Received(H, late, b"f" * 16))
    assert room.parts[D].state is CopyState.GONE


def test_only_the_token_supersedes_a_journal() -> None:
    room = Room()
    room.tell_home(Received(D, Superseded(job=JOB, epoch=Epoch(1, 0), authority=D, token=b"guess")))
    assert room.home_is(HomeState.IDLE)
    room.tell_home(Received(D, Superseded(job=JOB, epoch=Epoch(1, 0), authority=D, token=TOKEN)))
    assert room.home_is(HomeState.CLOSED)


def test_the_latest_request_waits_in_the_one_slot() -> None:
    room = Room()
    room.tell_home(MoveRequested(D, ticket="1"))
    room.tell_home(MoveRequested(S, ticket="2"))
    room.tell_home(MoveRequested(H, ticket="3"))
    room.run()
    assert [o.ticket for o in room.seen if isinstance(o, MoveEnded)] == ["2", "1", "3"]
    assert room.runs_at(H, 4)


def test_an_input_of_the_other_machine_is_our_own_bug() -> None:
    with pytest.raises(LocalProtocolError):
        Participant(JOB, S).handle(CancelRequested(), 0.0)
    with pytest.raises(LocalProtocolError):
        Home(JOB, H).handle(DumpDone(Epoch(0, 2)), 0.0)
