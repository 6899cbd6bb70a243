"""The home side of a job's streams: every byte and every signal once, whatever is lost, doubled or late."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omcore.jobs.frames import STREAMS
from omcore.jobs.relay import OutRelay
from omcore.jobs.terminal import WINDOW, LogFile, Terminal
from omcore.requests import InputState, Output

KEEP = 64 * 1024


class Viewer:
    """A deputy that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def write(self, message: object) -> None:
        self.told.append(message)

    def text(self, stream: str = "out") -> bytes:
        got = [item for item in self.told if isinstance(item, Output) and item.stream == stream]
        for before, after in zip(got, got[1:], strict=False):
            assert after.offset == before.offset + len(before.data)
        return b"".join(item.data for item in got)

    def states(self) -> list[InputState]:
        return [item for item in self.told if isinstance(item, InputState)]


class Seen(Terminal):
    """A terminal whose callbacks are written down."""

    def __init__(self, directory: Path, keep: int = KEEP) -> None:
        super().__init__(directory, keep)
        self.acks: list[tuple[str, int]] = []
        self.inputs: list[tuple[int, bytes, bool]] = []
        self.signals: list[tuple[int, int]] = []
        self.on_ack = lambda *ack: self.acks.append(ack)
        self.on_input = lambda *item: self.inputs.append(item)
        self.on_signal = lambda *item: self.signals.append(item)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Seen]:
    made = Seen(tmp_path)
    yield made
    made.close()


# -- output


def test_late_repeats_are_cut_and_gaps_ignored(terminal: Seen) -> None:
    viewer = Viewer()
    terminal.attach(viewer, (0, 0, 0))
    terminal.deliver("out", 0, b"hello")
    terminal.deliver("out", 0, b"hello")
    terminal.deliver("out", 3, b"lo wor")
    terminal.deliver("out", 20, b"beyond a gap")
    assert terminal.received("out") == 9
    assert viewer.text() == b"hello wor"
    assert terminal.acks == [("out", 5), ("out", 5), ("out", 9), ("out", 9)]
    assert terminal.received("err") == 0


def test_a_restarted_home_knows_what_it_has(tmp_path: Path) -> None:
    first = Seen(tmp_path)
    first.deliver("err", 0, b"one")
    first.close()
    second = Seen(tmp_path)
    assert second.received("err") == 3
    second.deliver("err", 0, b"onetwo")
    second.acknowledge_all()
    assert second.acks[0] == ("err", 6)
    assert dict(second.acks) == {"out": 0, "err": 6, "tty": 0}
    viewer = Viewer()
    second.attach(viewer, (0, 1, 0))
    assert viewer.text("err") == b"netwo"
    second.close()


def test_the_slowest_viewer_holds_the_job_within_the_window(terminal: Seen) -> None:
    slow, quick = Viewer(), Viewer()
    for viewer in (slow, quick):
        terminal.attach(viewer, (0, 0, 0))
    data = random.Random(1).randbytes(3 * WINDOW)
    terminal.deliver("out", 0, data)
    terminal.consumed(quick, "out", len(quick.text()))
    assert terminal.acks[-1] == ("out", WINDOW)
    assert len(slow.text()) == WINDOW
    assert not terminal.drained(quick)
    while len(quick.text()) < len(data):
        terminal.consumed(quick, "out", len(quick.text()))
    assert quick.text() == data
    assert terminal.drained(quick)
    assert not terminal.drained(slow)  # which is no reason for the quick one to wait at the job's end
    assert terminal.acks[-1] == ("out", WINDOW)  # still the slow one's
    terminal.consumed(slow, "out", 100)
    assert terminal.acks[-1] == ("out", WINDOW + 100)
    terminal.detach(slow)
    assert terminal.acks[-1] == ("out", len(data))
    assert terminal.drained(slow)
    terminal.detach(slow)
    terminal.detach(quick)
    assert not terminal.attached


def test_a_viewer_cannot_claim_more_than_it_was_sent(terminal: Seen) -> None:
    viewer = Viewer()
    terminal.attach(viewer, (0, 0, 0))
    terminal.deliver("out", 0, bytes(3 * WINDOW))
    for stream, offset in (("out", 10**12), ("out", -5), ("out", 0), ("in", 3)):
        terminal.consumed(viewer, stream, offset)
    terminal.consumed(Viewer(), "out", 5)
    assert terminal.acks[-1] == ("out", WINDOW)


def test_attaching_starts_where_asked_or_at_what_nobody_saw(terminal: Seen) -> None:
    first = Viewer()
    terminal.attach(first, (0, 0, 0))
    terminal.deliver("tty", 0, b"0123456789")
    terminal.consumed(first, "tty", 6)
    terminal.detach(first)
    for offsets, replay, text in (
        ((-1, -1, -1), 0, b"6789"),
        ((-1, -1, -1), 4, b"23456789"),
        ((-1, -1, -1), 100, b"0123456789"),
        ((0, 0, 8), 100, b"89"),
        ((0, 0, 10**9), 0, b""),
    ):
        viewer = Viewer()
        terminal.attach(viewer, offsets, replay)
        assert viewer.text("tty") == text
        terminal.detach(viewer)


@pytest.mark.parametrize("held", [True, False])
def test_old_output_is_freed_but_what_a_viewer_needs(tmp_path: Path, held: bool) -> None:
    terminal = Seen(tmp_path)
    viewer = Viewer()
    if held:
        terminal.attach(viewer, (0, 0, 0))
    data = random.Random(2).randbytes(16 * KEEP)
    for at in range(0, len(data), KEEP):
        terminal.deliver("out", at, data[at : at + KEEP])
    log = terminal.logs["out"]
    assert log.end == len(data)
    assert log.floor == (0 if held else len(data) - KEEP)
    assert log.read(log.floor, KEEP) == data[log.floor : log.floor + KEEP]
    if not held:
        assert (tmp_path / "out").stat().st_blocks * 512 <= 2 * KEEP
    terminal.close()
    again = LogFile(tmp_path / "out", KEEP)
    assert (again.floor, again.end) == (log.floor, log.end)
    again.close()


def test_a_full_disk_counts_only_what_was_written(terminal: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 3
    write = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if offset >= room:
            raise OSError(28, "No space left on device")
        return write(fd, data[: room - offset], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    viewer = Viewer()
    terminal.attach(viewer, (0, 0, 0))
    with pytest.raises(OSError, match="No space"):
        terminal.deliver("out", 0, b"abcdef")
    assert terminal.received("out") == 3
    assert terminal.acks == []
    room = 100
    terminal.deliver("out", 0, b"abcdef")
    assert viewer.text() == b"abcdef"
    assert terminal.acks == [("out", 6)]


# -- input


def test_typed_bytes_are_taken_in_order_once(terminal: Seen) -> None:
    terminal.type(0, b"abc", False)
    terminal.type(1, b"bcde", False)  # the deputy repeats after a reconnect
    terminal.type(0, b"ab", False)
    terminal.type(9, b"gap", False)
    assert terminal.inputs == [(0, b"abc", False), (3, b"de", False)]
    assert (terminal.typed, terminal.taken) == (5, 0)


def test_the_input_window_is_bounded(terminal: Seen) -> None:
    for at in range(0, 4 * WINDOW, 1 << 16):
        terminal.type(at, bytes(1 << 16), False)
    assert terminal.typed == 2 * WINDOW
    terminal.took_input(WINDOW)
    terminal.type(2 * WINDOW, b"on", False)
    assert terminal.typed == 2 * WINDOW + 2


def test_nothing_comes_after_the_end_of_input(terminal: Seen) -> None:
    terminal.type(0, b"abc", True)
    terminal.type(3, b"d", False)
    terminal.type(3, b"", True)
    assert terminal.inputs == [(0, b"abc", True)]
    terminal.took_input(3)
    terminal.inputs.clear()
    terminal.resend_input(3, 0)
    assert terminal.inputs == [(3, b"", True)]


def test_what_was_not_taken_is_sent_again_from_there(terminal: Seen) -> None:
    viewer = Viewer()
    terminal.attach(viewer, (0, 0, 0))
    terminal.type(0, b"abc", False)
    terminal.type(3, b"def", False)
    terminal.took_input(1)
    terminal.took_input(4)
    terminal.took_input(2)
    assert viewer.states() == [InputState(6, 1), InputState(6, 4)]
    terminal.inputs.clear()
    terminal.resend_input(4, 0)
    assert terminal.inputs == [(4, b"ef", False)]
    assert terminal.waiting
    terminal.took_input(99)
    assert terminal.taken == 6
    assert not terminal.waiting


def test_while_a_move_is_open_nothing_is_forgotten(terminal: Seen) -> None:
    terminal.adopt_input(0, 0)
    terminal.type(0, b"abc", False)
    terminal.signal(10)
    terminal.moving = True
    terminal.took_input(3)
    terminal.took_signals(1)
    assert terminal.taken == 0
    terminal.inputs.clear()
    terminal.signals.clear()
    terminal.resend_input(0, 0)  # the source goes on after all
    assert terminal.inputs == [(0, b"abc", False)]
    assert terminal.signals == [(1, 10)]
    terminal.moving = False
    terminal.took_input(3)
    terminal.took_signals(1)
    assert not terminal.waiting


def test_signals_are_numbered_and_repeated_until_taken(terminal: Seen) -> None:
    terminal.adopt_input(0, 0)
    for signum in (10, 12, 10):
        terminal.signal(signum)
    assert terminal.signals == [(1, 10), (2, 12), (3, 10)]
    terminal.took_signals(1)
    terminal.signals.clear()
    terminal.resend_input(0, 0)
    assert terminal.signals == [(2, 12), (3, 10)]
    terminal.signals.clear()
    terminal.resend_input(0, 2)
    assert terminal.signals == [(3, 10)]


def test_a_restarted_home_goes_on_from_the_owners_word(terminal: Seen) -> None:
    viewer = Viewer()
    terminal.attach(viewer, (0, 0, 0))
    terminal.type(500, b"typed before", False)  # by a deputy that knows more than we do
    terminal.signal(15)
    assert terminal.inputs == []
    assert terminal.signals == []  # its number is not known yet
    terminal.adopt_input(500, 7)
    assert viewer.states()[0] == InputState(500, 0, again=True)
    assert terminal.signals == [(8, 15)]
    terminal.type(500, b"typed before", False)
    assert terminal.inputs == [(500, b"typed before", False)]
    terminal.adopt_input(500, 7)
    assert [state.again for state in viewer.states()].count(True) == 1


# -- the whole way


class Channel:
    """Loses, doubles and reorders."""

    def __init__(self, rng: random.Random, loss: float) -> None:
        self.rng, self.loss = rng, loss
        self.queue: list[Any] = []

    def put(self, item: object) -> None:
        copies = 0 if self.rng.random() < self.loss else 1 + (self.rng.random() < 0.2)
        for _ in range(copies):
            self.queue.insert(self.rng.randint(max(0, len(self.queue) - 3), len(self.queue)), item)

    def take(self) -> Any:
        return self.queue.pop(0) if self.queue else None


@settings(max_examples=40, deadline=None)
@given(
    writes=st.lists(st.tuples(st.sampled_from(STREAMS), st.binary(min_size=1, max_size=40)), max_size=30),
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.5),
)
def test_every_byte_arrives_once_over_a_bad_network(writes: list[tuple[str, bytes]], seed: int, loss: float) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        terminal = Seen(Path(directory))
        viewer = Viewer()
        terminal.attach(viewer, (0, 0, 0))
        relay = OutRelay(dict.fromkeys(STREAMS, 0))
        there, back = Channel(rng, loss), Channel(rng, loss)
        terminal.on_ack = lambda stream, offset: back.put((stream, offset))
        made = dict.fromkeys(STREAMS, b"")
        now, todo = 0.0, list(writes)
        while todo or any(relay.acked[stream] < len(made[stream]) for stream in STREAMS):
            now += 0.1
            assert now < 10_000
            if todo:
                stream, data = todo.pop(0)
                assert relay.add(stream, len(made[stream]), data, now)
                made[stream] += data
                assert not relay.add(stream, len(made[stream]) - len(data), data, now)
            relay.due(now)
            for piece in relay.outgoing():
                there.put(piece)
            while (item := there.take()) is not None:
                terminal.deliver(*item)
            while (ack := back.take()) is not None:
                relay.acknowledged(ack[0], ack[1], now)
        for stream in STREAMS:
            assert viewer.text(stream) == made[stream]
            assert terminal.received(stream) == len(made[stream])
        terminal.close()


@settings(max_examples=40, deadline=None)
@given(
    typed=st.lists(st.binary(min_size=1, max_size=9), max_size=20), seed=st.integers(0, 2**32), loss=st.floats(0, 0.5)
)
def test_every_key_and_signal_reaches_the_owner_once(typed: list[bytes], seed: int, loss: float) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        terminal = Seen(Path(directory))
        terminal.adopt_input(0, 0)
        there, back = Channel(rng, loss), Channel(rng, loss)
        terminal.on_input = lambda *item: there.put(item)
        terminal.on_signal = lambda *item: there.put(item)
        taken, applied, ended = bytearray(), list[int](), False
        for number, data in enumerate(typed):
            terminal.type(terminal.typed, data, False)
            terminal.signal(1 + number)
        terminal.type(terminal.typed, b"", True)
        rounds = 0
        while terminal.waiting or not ended:
            rounds += 1
            assert rounds < 10_000
            terminal.moving = rng.random() < 0.3
            terminal.resend_input(terminal.taken, 0)
            while (item := there.take()) is not None:
                if len(item) == 2:
                    if item[0] == len(applied) + 1:
                        applied.append(item[1])
                elif item[0] <= len(taken):
                    taken += item[1][len(taken) - item[0] :]
                    ended = ended or item[2]
                back.put((len(taken), len(applied)))
            while (said := back.take()) is not None:
                terminal.took_input(said[0])
                terminal.took_signals(said[1])
        assert bytes(taken) == b"".join(typed)
        assert applied == [1 + number for number in range(len(typed))]
        terminal.close()


def test_output_that_the_owner_forgot_and_the_disk_never_got_is_skipped_not_waited_for(terminal: Seen) -> None:
    terminal.deliver("out", 0, b"here")
    terminal.deliver("out", 10, b"gap")
    assert terminal.received("out") == 4
    assert terminal.skip("out", 2) == terminal.skip("out", 4) == terminal.skip("out", 1 << 60) == 0
    assert terminal.skip("out", 10) == 6
    terminal.deliver("out", 10, b"on")
    assert terminal.received("out") == 12
    log = terminal.logs["out"]
    assert (log.floor, log.read(log.floor, 100)) == (10, b"on")
