"""Claims about who is alive, message by message, without a network."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omcore.errors import LocalProtocolError, RemoteProtocolError
from omcore.gossip import (
    GossipConfig,
    Members,
    NodeBack,
    NodeJoined,
    NodeLeft,
    NodeLost,
    NodeSuspected,
    Output,
    Send,
    Status,
)
from omcore.gossip.clock import STALL_S
from omcore.gossip.messages import INCARNATION_LIMIT, Kind, Message, Record, pack, unpack
from omcore.gossip.news import News
from omcore.gossip.roster import Pool
from omcore.gossip.suspicion import Suspicion, least_s, retransmits

CONFIG = GossipConfig()


def members(me: int = 0, n: int = 4, *, seed: int = 1, alive: bool = True, page: int = 256) -> Members:
    """A machine at time 0 that knows the others to run (incarnation 1) and has told so."""
    made = Members(me, GossipConfig(page=page), Random(seed))
    made.set_members(range(n))
    made.tick(0.0)
    if alive:
        for number in range(n):
            if number != me:
                made.receive(pack(Message(Kind.NEWS, 1)), number, 0.0)
    return made


def news(*records: Record, incarnation: int = 1) -> bytes:
    return pack(Message(Kind.NEWS, incarnation, records=records))


def suspect(number: int, by: int, incarnation: int = 1) -> Record:
    return Record(Status.SUSPECT, number, incarnation, by)


def dead(number: int, by: int, incarnation: int = 1) -> Record:
    return Record(Status.DEAD, number, incarnation, by)


def events(outputs: list[Output]) -> list[Output]:
    return [output for output in outputs if not isinstance(output, Send)]


def sends(outputs: list[Output], kind: Kind | None = None) -> list[tuple[int, Message]]:
    found = [(output.to, unpack(output.data)) for output in outputs if isinstance(output, Send)]
    return [(to, message) for to, message in found if kind in (None, message.kind)]


def run(machine: Members, since: float, until: float, answer: bool = True) -> list[Output]:
    """Tick on time; every ping is answered at once where `answer`."""
    outputs: list[Output] = []
    while machine.deadline <= until:
        now = max(since, machine.deadline)
        came = machine.tick(now)
        outputs += came
        for to, message in sends(came, Kind.PING) if answer else []:
            outputs += machine.receive(pack(Message(Kind.ACK, 1, message.a)), to, now)
    return outputs


# --- messages -----------------------------------------------------------------------------------------------

numbers = st.integers(0, 2**32 - 1)
incarnations = st.integers(0, INCARNATION_LIMIT - 1)
records = st.builds(Record, st.sampled_from(Status), numbers, incarnations, numbers)


@settings(deadline=None)
@given(st.sampled_from(Kind), incarnations, numbers, numbers, st.lists(records, max_size=5).map(tuple))
def test_a_message_survives_the_wire(kind: Kind, incarnation: int, a: int, b: int, said: tuple[Record, ...]) -> None:
    if kind in (Kind.DIGEST, Kind.PAGE):
        a, b = 0, 2**32 - 1
    got = unpack(pack(Message(kind, incarnation, a, b, said)))
    fields = {Kind.ASK: 2, Kind.DIGEST: 2, Kind.PAGE: 2, Kind.NEWS: 0}.get(kind, 1)
    assert got == Message(kind, incarnation, a if fields else 0, b if fields == 2 else 0, said)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bad_bytes_change_nothing(data: bytes) -> None:
    machine = members()
    before = [(machine.status(number), machine.incarnation) for number in range(4)]
    for candidate in (data, b"X" + data, b"M\x05\x01\0\0\0" + data + b"\0" * ((1 - len(data)) % 13)):
        with pytest.raises(RemoteProtocolError):
            machine.receive(candidate, 1, 0.0)
    assert [(machine.status(number), machine.incarnation) for number in range(4)] == before


@pytest.mark.parametrize(
    "data",
    [
        b"M\x05\x00\x00\xff\xff",
        news(suspect(1, 2))[:-13] + b"\x07" + news(suspect(1, 2))[-12:],
        news(suspect(1, 2, INCARNATION_LIMIT)),
        pack(Message(Kind.PAGE, 1, 10, 20, (suspect(21, 1),))),
        news(*[suspect(1, 2)] * 257),
        b"M",
    ],
)
def test_impossible_claims_are_refused(data: bytes) -> None:  # SECURITY case 16
    with pytest.raises(RemoteProtocolError):
        unpack(data)


# --- claims -------------------------------------------------------------------------------------------------


def test_whoever_speaks_runs() -> None:
    machine = members(alive=False)
    assert machine.status(1) is None
    assert events(machine.receive(news(), 1, 0.0)) == [NodeJoined(1)]
    assert machine.status(1) is Status.ALIVE
    assert machine.running == 2


def test_a_suspicion_of_oneself_is_objected_to_and_makes_one_doubt_oneself() -> None:  # SECURITY case 16
    machine = members()
    machine.receive(news(suspect(0, 1)), 1, 0.0)
    assert machine.incarnation == 2
    assert machine.health == 1
    out = machine.receive(pack(Message(Kind.PING, 1, 77)), 1, 0.0)
    [(to, answer)] = sends(out, Kind.ACK)
    assert (to, answer.a, answer.incarnation) == (1, 77, 2)
    assert Record(Status.ALIVE, 0, 2, 0) in answer.records
    machine.receive(news(suspect(0, 1)), 2, 0.0)  # old hat
    assert machine.incarnation == 2


def test_an_earlier_life_with_a_greater_incarnation_is_outdone() -> None:
    machine = members()
    machine.receive(news(Record(Status.ALIVE, 0, 40, 0)), 1, 0.0)
    assert machine.incarnation == 41
    machine.receive(news(dead(0, 1, INCARNATION_LIMIT - 1)), 1, 0.0)  # nothing is beyond: cannot be outdone
    assert machine.incarnation == 41


def test_an_objection_ends_the_suspicion() -> None:
    machine = members()
    assert events(machine.receive(news(suspect(2, 1)), 1, 0.0)) == [NodeSuspected(2)]
    assert machine.status(2) is Status.SUSPECT
    assert events(machine.receive(news(Record(Status.ALIVE, 2, 1, 2)), 1, 0.1)) == []
    assert events(machine.receive(news(Record(Status.ALIVE, 2, 2, 2)), 1, 0.1)) == [NodeBack(2, after_loss=False)]
    assert NodeLost(2) not in run(machine, 0.1, 60.0)


def test_a_suspicion_that_is_confirmed_ends_at_the_least_time() -> None:
    machine = members(n=6)
    for by in (1, 3, 4, 4, 5):
        machine.receive(news(suspect(2, by)), by, 0.0)
    assert NodeLost(2) not in run(machine, 0.0, 3.99)
    assert NodeLost(2) in run(machine, 3.99, 4.01)
    assert machine.status(2) is Status.DEAD
    assert machine.running == 5


def test_one_accuser_alone_must_wait_long() -> None:  # SECURITY case 16
    machine = members(n=6)
    machine.receive(news(suspect(2, 1)), 1, 0.0)
    outputs = []
    while machine.deadline < 23.9:  # answers come from all, 2's without an objection
        outputs += run(machine, 0.0, min(23.9, machine.deadline))
    assert NodeLost(2) not in outputs
    assert NodeLost(2) in run(machine, 23.9, 24.1)


def test_a_verdict_about_a_node_believed_alive_is_only_a_suspicion() -> None:
    machine = members()
    assert events(machine.receive(news(dead(2, 1)), 1, 0.0)) == [NodeSuspected(2)]
    assert NodeLost(2) in run(machine, 0.0, 4.1)


def test_a_verdict_about_a_suspect_is_taken_over() -> None:
    machine = members()
    machine.receive(news(suspect(2, 1)), 1, 0.0)
    assert events(machine.receive(news(dead(2, 3)), 3, 1.0)) == [NodeLost(2)]
    assert events(machine.receive(news(suspect(2, 1)), 3, 1.0)) == []
    assert events(machine.receive(news(dead(2, 1, 0)), 3, 1.0)) == []
    [(_, told), *_] = sends(machine.receive(pack(Message(Kind.PING, 1, 5)), 2, 1.0), Kind.ACK)[-1:]
    assert dead(2, 0) in told.records  # it still runs: it hears what is said of it
    assert events(machine.receive(news(incarnation=2), 2, 1.1)) == [NodeBack(2, after_loss=True)]


def test_a_new_suspicion_of_a_newer_incarnation_starts_anew() -> None:
    machine = members()
    machine.receive(news(suspect(2, 1)), 1, 0.0)
    out = machine.receive(news(suspect(2, 1, 3)), 1, 1.0)
    assert events(out) == [NodeBack(2, after_loss=False), NodeSuspected(2)]


def test_a_leave_is_believed_and_a_return_is_a_join() -> None:
    machine = members()
    left = Record(Status.LEFT, 2, 1, 2)
    assert events(machine.receive(news(left), 2, 0.0)) == [NodeLeft(2)]
    assert events(machine.receive(news(left, dead(2, 1), suspect(2, 1)), 1, 0.0)) == []
    assert machine.status(2) is Status.LEFT
    assert events(machine.receive(news(incarnation=9), 2, 1.0)) == [NodeJoined(2)]


def test_claims_about_nodes_never_heard_of() -> None:
    machine = members(n=8, alive=False)
    machine.receive(news(), 1, 0.0)
    out = machine.receive(news(dead(2, 1), Record(Status.LEFT, 3, 5, 3), suspect(4, 1), suspect(99, 1)), 1, 0.0)
    assert events(out) == [NodeJoined(4), NodeSuspected(4)]
    assert [machine.status(number) for number in (2, 3, 4, 5, 99)] == [
        Status.DEAD,
        Status.LEFT,
        Status.SUSPECT,
        None,
        None,
    ]
    for status in (Status.ALIVE, Status.DEAD, Status.LEFT):
        machine.receive(news(Record(status, 99, 1, 1)), 1, 0.0)
    assert machine.status(99) is None


def test_one_who_leaves_says_so_and_objects_to_nothing() -> None:
    machine = members()
    out = machine.leave(1.0)
    assert {to for to, _ in sends(out, Kind.NEWS)} == {1, 2, 3}
    assert all(Record(Status.LEFT, 0, 1, 0) in message.records for _, message in sends(out))
    machine.receive(news(suspect(0, 1)), 1, 1.0)
    assert machine.incarnation == 1
    assert machine.status(0) is Status.LEFT
    assert members(n=1).leave(1.0) == []


def test_who_is_struck_off_the_roster_is_forgotten() -> None:
    machine = members()
    machine.receive(news(suspect(2, 1)), 1, 0.0)
    machine.set_members([0, 1, 3])
    assert machine.status(2) is None
    assert machine.running == 3
    assert NodeLost(2) not in run(machine, 0.0, 40.0)
    assert machine.receive(news(suspect(1, 2)), 2, 40.0) == []
    assert machine.waited_s(2, 40.0) == 0.0
    assert machine.waited_s(3, 40.0) == pytest.approx(40.0, abs=1.0)


def test_an_incarnation_that_cannot_grow_is_our_own_bug() -> None:
    with pytest.raises(LocalProtocolError):
        Members(0, CONFIG, Random(1), incarnation=INCARNATION_LIMIT)


# --- probes -------------------------------------------------------------------------------------------------


def probe_one(machine: Members) -> tuple[float, int, int]:
    """(when, whom, sequence number) of the next probe; what else is asked is answered."""
    while True:
        now = machine.deadline
        pings = sends(machine.tick(now), Kind.PING)
        if pings:
            return now, pings[0][0], pings[0][1].a


def test_a_probe_goes_by_helpers_and_then_ends_in_suspicion() -> None:
    machine = members(n=6)
    now, target, sequence = probe_one(machine)
    asked = []
    outputs: list[Output] = []
    while machine.deadline < now + 0.99:
        outputs = machine.tick(machine.deadline)
        asked += sends(outputs, Kind.ASK)
        assert events(outputs) == []
    assert len({to for to, _ in asked}) == 3
    assert all(message.a == sequence and message.b == target and to != target for to, message in asked)
    machine.receive(pack(Message(Kind.NACK, 1, sequence)), asked[0][0], now + 0.9)
    machine.receive(pack(Message(Kind.NACK, 1, sequence)), target, now + 0.9)  # is no helper: does not count
    outputs = run(machine, now, now + 1.01, answer=False)
    assert events(outputs) == [NodeSuspected(target)]
    assert machine.health == 2  # two of three helpers were silent: perhaps it is us
    again = [message for to, message in sends(outputs, Kind.PING) if to == target]
    assert suspect(target, 0) in again[0].records  # told at once what is said of it


def test_an_answer_by_way_of_a_helper_counts_but_not_from_anybody() -> None:
    machine = members(n=6)
    now, target, sequence = probe_one(machine)
    machine.receive(pack(Message(Kind.ACK, 1, sequence)), target % 5 + 1, now + 0.2)  # neither target nor helper
    asked: list[tuple[int, Message]] = []
    while not asked:
        asked = sends(machine.tick(machine.deadline), Kind.ASK)
    machine.receive(pack(Message(Kind.ACK, 1, sequence)), asked[0][0], now + 0.8)
    assert NodeSuspected(target) not in run(machine, now, now + 1.5)
    assert machine.health == 0


def test_a_helper_passes_the_answer_on_or_says_that_none_came() -> None:
    machine = members(n=4)
    now = 0.0
    ask = pack(Message(Kind.ASK, 1, 900, 3))
    [(to, ping)] = sends(machine.receive(ask, 1, now), Kind.PING)
    assert to == 3
    out = machine.receive(pack(Message(Kind.ACK, 1, ping.a)), 3, now + 0.1)
    assert [(to, m.a) for to, m in sends(out, Kind.ACK)] == [(1, 900)]
    assert machine.receive(pack(Message(Kind.ACK, 1, ping.a)), 3, now + 0.1) == []
    machine.receive(pack(Message(Kind.ASK, 1, 901, 3)), 1, now + 0.1)
    outputs = run(machine, now, now + 0.55, answer=False)
    assert [(to, m.a) for to, m in sends(outputs, Kind.NACK)] == [(1, 901)]
    assert sends(machine.receive(pack(Message(Kind.ASK, 1, 902, 99)), 1, now + 0.55), Kind.PING) == []
    assert sends(machine.receive(pack(Message(Kind.ASK, 1, 903, 0)), 1, now + 0.55), Kind.PING) == []  # of oneself
    run(machine, now, now + 6.0)


def test_a_failed_connect_asks_others_at_once() -> None:
    machine = members(n=6)
    out = machine.failed(3, 0.0)
    assert len(sends(out, Kind.ASK)) == 3
    assert machine.failed(3, 0.0) == []
    assert NodeSuspected(3) in run(machine, 0.0, 0.6)
    assert machine.failed(3, 0.7) == []
    assert machine.failed(99, 0.7) == []


def test_a_failed_connect_with_no_helpers_makes_one_doubt_oneself() -> None:
    machine = members(n=2)
    machine.failed(1, 0.0)
    assert NodeSuspected(1) in run(machine, 0.0, 0.6, answer=False)
    assert machine.health >= 1


def test_a_node_alone_greets_those_that_are_down() -> None:
    machine = members(n=9, alive=False)
    assert len(sends(run(machine, 0.0, 1.0, answer=False), Kind.PING)) == 3


def test_a_stall_of_ours_is_no_fault_of_others() -> None:
    machine = members(n=6)
    now, target, sequence = probe_one(machine)
    late = now + 5.0
    assert events(machine.tick(late)) == []
    assert machine.health == 1
    assert machine.deadline == pytest.approx(late + STALL_S)
    machine.receive(pack(Message(Kind.ACK, 1, sequence)), target, late + 0.1)  # lay in the queue
    assert events(run(machine, late, late + 3.0)) == []


def test_one_who_is_always_late_gets_on_all_the_same() -> None:
    machine = members(n=2)
    machine.receive(news(suspect(1, 1)), 1, 0.0)
    now, outputs = 0.0, []
    while now < 60.0:
        now = max(now, machine.deadline) + 0.6
        outputs += machine.tick(now)
    assert NodeLost(1) in outputs


def test_a_clock_that_steps_back_stops_nothing() -> None:
    machine = members(n=2)
    run(machine, 0.0, 3.0)
    machine.tick(-1000.0)
    outputs = run(machine, -1000.0, -996.0)
    assert 3 <= len(sends(outputs, Kind.PING)) <= 6


# --- pages --------------------------------------------------------------------------------------------------


def test_a_newcomer_pulls_page_by_page() -> None:
    old, new = members(0, 10, page=4), members(9, 10, alive=False, page=4)
    old.receive(news(dead(5, 1), suspect(5, 1)), 1, 0.0)
    out = new.receive(news(), 0, 0.0)
    pages = 0
    while pulls := sends(out, Kind.PULL):
        [(to, pull)] = pulls
        answer = sends(old.receive(pack(pull), 9, 0.0), Kind.PAGE)
        assert to == 0
        assert len(answer) == 1
        assert len(answer[0][1].records) <= 4
        out = new.receive(pack(answer[0][1]), 0, 0.0)
        pages += 1
    assert pages == 3
    assert new.running == 10
    assert new.status(5) is Status.SUSPECT


def test_a_page_that_does_not_come_is_asked_for_again_and_then_given_up() -> None:
    machine = members(9, 10, alive=False)
    outputs = machine.receive(news(), 0, 0.0) + run(machine, 0.0, 30.0)
    assert len(sends(outputs, Kind.PULL)) == 3


def test_a_digest_is_answered_with_what_is_known_better() -> None:
    machine = members(0, 6)
    machine.receive(news(incarnation=4), 3, 0.0)
    said = (Record(Status.ALIVE, 1, 1, 1), Record(Status.ALIVE, 3, 1, 1), Record(Status.ALIVE, 4, 7, 1))
    out = machine.receive(pack(Message(Kind.DIGEST, 1, 1, 4, said)), 1, 0.0)
    [(to, page)] = sends(out, Kind.PAGE)
    assert to == 1
    assert {(record.number, record.incarnation) for record in page.records} == {(2, 1), (3, 4)}
    better = tuple(Record(Status.ALIVE, number, 9, 1) for number in range(1, 6))
    whole = (Record(Status.ALIVE, 0, 1, 0), *better)
    assert sends(machine.receive(pack(Message(Kind.DIGEST, 9, 0, 99, whole)), 1, 0.0), Kind.PAGE) == []


def test_digests_walk_through_the_pages() -> None:
    machine = members(0, 10, page=4)
    pages = [(m.a, m.b) for _, m in sends(run(machine, 0.0, 140.0), Kind.DIGEST)]
    assert pages[:4] == [(0, 3), (4, 7), (8, 0xFFFFFFFF), (0, 3)]


def test_a_page_kills_nobody_but_has_the_node_settle_it() -> None:
    machine = members(0, 4)
    out = machine.receive(pack(Message(Kind.PAGE, 1, 0, 9, (dead(2, 1), dead(0, 1)))), 1, 0.0)
    assert events(out) == []
    assert machine.status(2) is Status.ALIVE
    [(to, ping)] = sends(out, Kind.PING)
    assert to == 2
    assert ping.records == (dead(2, 0),)
    assert machine.incarnation == 2  # and what was said of itself it settles itself


def test_a_page_that_says_alive_of_a_dead_node_has_it_asked() -> None:
    machine = members(0, 4)
    machine.receive(news(suspect(2, 1), dead(2, 3)), 1, 0.0)
    out = machine.receive(pack(Message(Kind.PAGE, 1, 0, 9, (Record(Status.ALIVE, 2, 1, 1),))), 1, 0.0)
    assert [to for to, _ in sends(out, Kind.PING)] == [2]
    assert machine.status(2) is Status.DEAD
    out = machine.receive(pack(Message(Kind.PAGE, 1, 0, 9, (Record(Status.ALIVE, 2, 2, 1),))), 1, 0.0)
    assert events(out) == [NodeBack(2, after_loss=True)]


# --- small parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "least", "most", "sends_"), [(16, 4.8, 28.9, 8), (128, 8.4, 50.6, 12), (10000, 16, 96, 20)]
)
def test_suspicion_times_meet_the_table(n: int, least: float, most: float, sends_: int) -> None:
    suspicion = Suspicion(1, 0.0, n, CONFIG)
    assert suspicion.deadline == pytest.approx(most, abs=0.06)
    assert not suspicion.confirm(1)
    assert suspicion.confirm(2)
    assert least < suspicion.deadline < most
    assert suspicion.confirm(3)
    assert not suspicion.confirm(4)
    assert suspicion.deadline == pytest.approx(least, abs=0.06)
    assert least_s(n, CONFIG) == pytest.approx(least, abs=0.06)
    assert retransmits(n, CONFIG) == sends_


def test_news_goes_out_a_limited_number_of_times_least_sent_first() -> None:
    store = News()
    store.put(suspect(1, 0), 2)
    store.put(suspect(2, 0), 1)
    assert [r.number for r in store.take(but=1)] == [2]
    assert [r.number for r in store.take(room=1)] == [1]
    store.put(suspect(3, 0), 1)
    assert [r.number for r in store.take(room=1)] == [3]
    store.drop(1)
    assert len(store) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60), st.integers(0, 99))
def test_a_pool_is_a_set_with_a_fair_draw(steps: list[tuple[bool, int]], seed: int) -> None:
    pool, model = Pool(), set[int]()
    for add, number in steps:
        (pool.add if add else pool.discard)(number)
        (model.add if add else model.discard)(number)
    assert set(pool) == model
    drawn = pool.draw(Random(seed), 3, without=5)
    assert len(drawn) == len(set(drawn)) == min(3, len(model - {5}))
    assert set(drawn) <= model - {5}
