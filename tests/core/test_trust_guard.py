"""Who may say what and how often: the table of rights, the rates, and what happens to whoever insists."""

from __future__ import annotations

import pytest

from omcore import messages
from omcore.errors import RemoteProtocolError
from omcore.gossip import codec
from omcore.gossip.messages import Kind, Message, Record, Status, pack, unpack
from omcore.gossip.modest import modest
from omcore.handoff import messages as handoff
from omcore.messages import PEER
from omcore.trust.guard import BAD_LIMIT, CUT_S, Guard, Verdict
from omcore.trust.passes import Role
from omcore.trust.rights import RIGHTS, Gossip, Rate
from omcore.types import LoadSample, NodeId

LOOKER, WORKER, STRANGER = (NodeId(letter * 64) for letter in "abc")
ROLES = {LOOKER: Role.LOOK, WORKER: Role.WORK}


@pytest.fixture
def guard() -> Guard:
    return Guard(ROLES.get)


def test_every_kind_on_the_wire_stands_in_the_table_once() -> None:
    kinds = set(PEER.kinds.values())
    assert kinds - {messages.Call} == set(RIGHTS) - {Gossip}  # a Call is judged by what it asks


@pytest.mark.parametrize("kind", [None, messages.Call, str, Guard])
def test_what_is_not_in_the_table_is_said_by_nobody(guard: Guard, kind: type | None) -> None:
    for sender in (LOOKER, WORKER, STRANGER):
        assert guard.judge(sender, kind, 0.0) is Verdict.UNKNOWN
    assert guard.dropped[WORKER, Verdict.UNKNOWN] == 1


@pytest.mark.parametrize(
    "kind",
    [
        messages.SignalHere, messages.Launch, messages.Forward, messages.WatchProcesses, messages.Examine,
        messages.StreamIn, handoff.Prepare, handoff.Freeze, handoff.Go, handoff.Ended, handoff.Drop,
    ],
)  # fmt: skip
def test_a_look_member_orders_nothing(guard: Guard, kind: type) -> None:  # SECURITY case 14
    assert guard.judge(LOOKER, kind, 0.0) is Verdict.ROLE
    assert guard.judge(STRANGER, kind, 0.0) is Verdict.ROLE
    assert guard.judge(WORKER, kind, 0.0) is Verdict.OK


@pytest.mark.parametrize("kind", [messages.Hello, messages.AskRoster, messages.AskJobs, Gossip])
def test_a_look_member_sees_figures(guard: Guard, kind: type) -> None:
    assert guard.judge(LOOKER, kind, 0.0) is Verdict.OK


def test_a_node_that_shares_figures_only_obeys_nobody_and_cuts_nobody() -> None:
    guard = Guard(ROLES.get, share=Role.LOOK)
    assert guard.judge(WORKER, messages.AskJobs, 0.0) is Verdict.OK
    for _ in range(3 * BAD_LIMIT):
        assert guard.judge(WORKER, messages.Launch, 0.0) is Verdict.SHARE
    assert not guard.is_cut(WORKER, 0.0)


def test_nothing_new_is_obeyed_while_the_roster_may_be_old(guard: Guard) -> None:  # SECURITY case 13
    guard.sure = False
    new: list[type] = [messages.Launch, messages.SignalHere, messages.Forward, handoff.Prepare, messages.CheckNeeds]
    assert {guard.judge(WORKER, kind, 0.0) for kind in new} == {Verdict.UNSURE}
    begun: list[type] = [handoff.Go, messages.StreamIn, messages.AskRoster, messages.Hello]
    assert {guard.judge(WORKER, kind, 0.0) for kind in begun} == {Verdict.OK}


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        (messages.Hello, Rate.TALK),
        (messages.SignalHere, Rate.ORDER),
        (messages.WatchProcesses, Rate.LIST),
    ],
)
def test_each_key_has_its_own_rate(guard: Guard, kind: type, rate: Rate) -> None:
    burst, per_s = rate.value
    said = [guard.judge(WORKER, kind, 5.0) for _ in range(int(burst) + 3)]
    assert said.count(Verdict.OK) == burst
    assert said[-1] is Verdict.RATE
    assert guard.judge(WORKER, kind, 5.0 + 1.01 / per_s) is Verdict.OK
    assert guard.judge(WORKER, kind, 5.0 + 1.01 / per_s) is Verdict.RATE
    assert guard.dropped[WORKER, Verdict.RATE] == 4
    assert not guard.is_cut(WORKER, 5.0)
    other = Guard(lambda node: Role.WORK)
    other.judge(WORKER, kind, 5.0)
    assert other.judge(STRANGER, kind, 5.0) is Verdict.OK


def test_a_clock_that_stands_or_goes_back_gives_nothing_away(guard: Guard) -> None:
    for at in (9.0, 9.0, 8.0, 7.0, 9.0):
        guard.judge(WORKER, messages.WatchProcesses, at)
    assert guard.judge(WORKER, messages.WatchProcesses, 7.0) is Verdict.RATE


def test_twenty_bad_messages_in_a_minute_cut_for_a_minute(guard: Guard) -> None:
    cut: list[NodeId] = []
    guard.on_cut = cut.append
    for second in range(BAD_LIMIT - 1):
        guard.judge(LOOKER, messages.Launch, float(second))
    assert not guard.is_cut(LOOKER, 19.0)
    guard.drop(LOOKER, Verdict.MALFORMED, 20.0)
    assert cut == [LOOKER]
    assert guard.is_cut(LOOKER, 20.0 + CUT_S - 0.1)
    assert guard.next_end(21.0) == 20.0 + CUT_S
    assert not guard.is_cut(LOOKER, 20.0 + CUT_S)
    assert guard.next_end(20.0 + CUT_S) is None
    assert not guard.is_cut(WORKER, 20.0)


def test_now_and_then_a_bad_message_cuts_nobody(guard: Guard) -> None:
    for minute in range(3 * BAD_LIMIT):
        guard.judge(LOOKER, None, minute * 5.0)
    assert not guard.is_cut(LOOKER, 300.0)


def test_who_is_no_member_any_more_is_forgotten(guard: Guard) -> None:
    guard.judge(LOOKER, None, 0.0)
    guard.judge(WORKER, messages.Hello, 0.0)
    guard.keep([WORKER])
    assert not guard.dropped
    assert set(guard._keys) == {WORKER}


# -- gossip of a look member


def records(*numbers: int, status: Status = Status.DEAD) -> tuple[Record, ...]:
    return tuple(Record(status, number, 1, 7) for number in numbers)


@pytest.mark.parametrize("kind", [Kind.PING, Kind.ACK, Kind.NACK, Kind.NEWS])
def test_of_others_a_look_member_says_nothing(kind: Kind) -> None:
    passengers = records(3, 7) + records(7, status=Status.LEFT) + records(4, status=Status.ALIVE)
    some = modest(pack(Message(kind, 5, 9 if kind is not Kind.NEWS else 0, 0, passengers)), 7)
    assert some is not None
    assert unpack(some).records == records(7, status=Status.LEFT)


def test_a_look_member_may_ask_but_not_answer_for_the_table() -> None:
    asked = modest(pack(Message(Kind.DIGEST, 5, 1, 99, records(3))), 7)
    assert asked is not None
    assert unpack(asked) == Message(Kind.DIGEST, 5, 1, 99)
    pull = codec.pack_pull()
    assert modest(pull, 7) == pull
    for kind in (Kind.PAGE, Kind.ASK):
        assert modest(pack(Message(kind, 5, 1, 99)), 7) is None


def test_of_a_look_members_board_only_its_own_line_counts() -> None:
    numbers = (7, 3, 4)
    figures = [codec.pack_figures(LoadSample(load=float(number))) for number in numbers]
    some = modest(codec.pack_window([1, 2, 3], numbers, [5, 6, 7], figures, 1, True), 7)
    assert some is not None
    window = codec.unpack_message(some, 7)
    assert window is not None
    assert (list(window.numbers), list(window.serials), list(window.ages_ms)) == ([7], [5], [1])
    assert window.figures == figures[0]
    assert window.own_urgent
    assert not window.urgent


@pytest.mark.parametrize("data", [b"", b"X", b"B", b"M", b"B" + bytes(5), b"M" + bytes(5)])
def test_rubbish_is_told_apart(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        modest(data, 7)
