"""The deputy: its parts, and the real command on real pipes and a pty against an engine played by the test."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from omcore import requests
from omcore.control import Channel, ControlServer
from omcore.types import ClusterView, JobId, JobState, JobView, NodeId
from omview.cli.run import environment, is_text
from omview.deputy import Escape, Writer, not_ignored, pack_termios, window_size

pytestmark = pytest.mark.slow
JOB = JobId("a" * 32)


@pytest.mark.parametrize(
    ("typed", "passed", "left"),
    [
        ([b"ls\r"], b"ls\r", False),
        ([b"~."], b"", True),
        ([b"~", b"."], b"", True),
        ([b"ls\r~."], b"ls\r", True),
        ([b"ls\n", b"~", b".never"], b"ls\n", True),
        ([b"a~."], b"a~.", False),
        ([b"~~."], b"~.", False),
        ([b"~~~."], b"~~.", False),
        ([b"~x~."], b"~x~.", False),
        ([b"~\r~."], b"~\r", True),
        ([b"cd ~\r"], b"cd ~\r", False),
    ],
)
def test_a_tilde_and_a_dot_leave_at_the_start_of_a_line_only(typed: list[bytes], passed: bytes, left: bool) -> None:
    escape = Escape()
    found = [escape.filter(data) for data in typed]
    assert b"".join(data for data, _ in found) == passed
    assert found[-1][1] == left


class Wrote:
    """What a writer reported."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.error: OSError | None = None
        self.event = asyncio.Event()

    def __call__(self, size: int, error: OSError | None) -> None:
        self.sizes.append(size)
        self.error = error
        self.event.set()

    async def total(self, size: int) -> None:
        while sum(self.sizes) < size:
            self.event.clear()
            await self.event.wait()


def read_all(fd: int, size: int) -> bytes:
    with open(fd, "rb") as reader:
        return reader.read(size)


async def test_a_writer_keeps_the_order_and_a_slow_reader_stops_nobody_else() -> None:
    read, write = os.pipe()
    wrote = Wrote()
    writer = Writer(write, wrote)
    parts = [bytes([65 + n]) * 50_000 for n in range(8)]  # more than a pipe holds
    for part in parts:
        writer.put(part)
    assert await asyncio.to_thread(read_all, read, 400_000) == b"".join(parts)
    await wrote.total(400_000)
    assert wrote.error is None
    writer.put(None)
    await asyncio.to_thread(writer.join)
    os.close(write)


async def test_a_writer_says_that_its_reader_is_gone_and_goes_on_counting() -> None:
    read, write = os.pipe()
    os.close(read)
    wrote = Wrote()
    writer = Writer(write, wrote)
    writer.put(b"x")
    writer.put(b"yy")
    await wrote.total(3)
    assert isinstance(wrote.error, BrokenPipeError)
    writer.put(None)
    await asyncio.to_thread(writer.join)
    os.close(write)


async def test_a_writer_waits_for_a_descriptor_that_somebody_made_non_blocking() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    wrote = Wrote()
    writer = Writer(write, wrote)
    writer.put(bytes(200_000))
    assert await asyncio.to_thread(read_all, read, 200_000) == bytes(200_000)
    await wrote.total(200_000)
    writer.put(None)
    await asyncio.to_thread(writer.join)
    os.close(write)


def test_line_settings_and_size_of_a_terminal() -> None:
    master, slave = pty.openpty()
    settings = termios.tcgetattr(slave)
    settings[6][termios.VERASE] = b"\x08"
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    termios.tcsetwinsize(slave, (33, 101))
    packed = pack_termios(slave)
    assert struct.unpack_from("4I", packed)[3] == settings[3]
    assert packed[16:][termios.VERASE] == 8
    assert window_size(slave) == (33, 101)
    os.close(master)
    os.close(slave)
    read, write = os.pipe()
    assert pack_termios(read) == b""
    assert window_size(read) == (24, 80)
    os.close(read)
    os.close(write)


def test_signals_that_the_caller_ignores_are_not_passed_on() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        assert not_ignored((signal.SIGUSR1, signal.SIGUSR2)) == (signal.SIGUSR2,)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_variables_that_are_no_text_stay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GOOD", "größe")
    monkeypatch.setenv("BAD", "\udcff")
    env = list(environment())
    assert "GOOD=größe" in env
    assert not [word for word in env if word.startswith("BAD=")]
    assert "BAD" in capsys.readouterr().err
    assert is_text("größe")
    assert not is_text("\udc80")


# -- the real command, with an engine played by the test


class Line:
    """One attached terminal, from the engine's side."""

    def __init__(self, request: Any, channel: Channel) -> None:
        self.request, self.channel = request, channel
        self.over = asyncio.Event()

    async def until(self, kind: type, **fields: Any) -> Any:
        """The next message of this kind with these fields; others are passed over."""
        while True:
            item = await self.channel.receive()
            if isinstance(item, kind) and all(getattr(item, key) == value for key, value in fields.items()):
                return item

    async def end(self, status: int | None) -> None:
        await self.channel.send(requests.JobEnded(status))
        self.over.set()


class Played:
    """An engine with one job."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: asyncio.Queue[Line] = asyncio.Queue()
        (directory / "omview").mkdir(mode=0o700)
        self.path = directory / "omview" / "engine.sock"
        self.server = ControlServer(self.path, self.handle)
        self.children: list[subprocess.Popen[bytes]] = []

    async def handle(self, message: Any, channel: Channel) -> None:
        if isinstance(message, requests.Follow):
            job = JobView(JOB, "calc", ("calc",), "ann", 1, 1, 0, JobState.RUNNING)
            await channel.send(ClusterView(NodeId("1" * 64), 1, "", "user", (), (job,), (), ()))
            return
        line = Line(message, channel)
        tty = message.spec.tty if isinstance(message, requests.Run) else (0, 1, 2)
        await channel.send(requests.Attached(JOB, 0, tty))
        await self.lines.put(line)
        await line.over.wait()

    async def restart(self) -> None:
        """End all connections; the next engine answers at the same place."""
        await self.server.close()
        self.server = ControlServer(self.path, self.handle)
        await self.server.start()

    def start(self, *words: str, redirect: str = "", **streams: Any) -> subprocess.Popen[bytes]:
        places = {f"XDG_{name}_HOME": str(self.directory / name) for name in ("STATE", "CONFIG", "DATA")}
        env = {**os.environ, **places, "XDG_RUNTIME_DIR": str(self.directory)}
        line = ["sh", "-c", f'exec "$0" "$@" {redirect}', sys.executable, "-P", "-m", "omview", *words]
        child = subprocess.Popen(line, env=env, **streams)
        self.children.append(child)
        return child

    async def close(self) -> None:
        await self.server.close()
        for child in self.children:
            child.kill()
            await asyncio.to_thread(child.wait)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
async def engine() -> AsyncIterator[Played]:
    directory = Path(tempfile.mkdtemp(prefix="omdep"))  # short: a socket's path has 107 bytes
    played = Played(directory)
    await played.server.start()
    yield played
    await played.close()
    shutil.rmtree(directory)


PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


async def status(child: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(child.wait)


class Tty:
    """A pty whose slave a child gets as its controlling terminal."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.streams: dict[str, Any] = {
            **dict.fromkeys(("stdin", "stdout", "stderr"), self.slave),
            "start_new_session": True,
            "preexec_fn": lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # its controlling terminal
        }

    def restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    async def raw(self) -> None:
        """Wait until the child has put it in raw mode; a pty tells nobody."""

        def look() -> None:
            while self.restored():
                os.sched_yield()

        await asyncio.to_thread(look)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_attach_gives_the_terminal_back_when_it_is_ended(engine: Played, number: signal.Signals) -> None:
    tty = Tty()
    child = engine.start("attach", "calc", **tty.streams)
    await engine.lines.get()
    await tty.raw()
    child.send_signal(number)
    assert await status(child) == -number
    assert tty.restored()
    tty.close()


async def test_the_escape_leaves_the_job_running_and_the_terminal_as_it_was(engine: Played) -> None:
    tty = Tty()
    child = engine.start("attach", "calc", **tty.streams)
    line = await engine.lines.get()
    await tty.raw()
    os.write(tty.master, b"ls\r~.")
    assert (await line.until(requests.Input)).data == b"ls\r"
    assert await status(child) == 0
    assert tty.restored()
    tty.close()


async def test_signals_go_to_the_job_and_its_death_is_ours(engine: Played) -> None:
    child = engine.start("run", "--", "sleep", "9", **PIPES)
    line = await engine.lines.get()
    child.send_signal(signal.SIGTERM)
    await line.until(requests.SendSignal, signum=signal.SIGTERM)
    await line.end(-signal.SIGTERM)
    assert await status(child) == -signal.SIGTERM


async def test_what_the_caller_ignores_does_not_reach_the_job(engine: Played) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    child = engine.start("run", "--", "sleep", "9", **PIPES, preexec_fn=ignore)
    line = await engine.lines.get()
    child.send_signal(signal.SIGHUP)
    child.send_signal(signal.SIGUSR1)
    assert (await line.until(requests.SendSignal)).signum == signal.SIGUSR1
    await line.end(7)
    assert await status(child) == 7


@pytest.mark.parametrize("redirect", ["<&-", "</proc/version"])
async def test_an_input_that_ends_is_told_whatever_it_is(engine: Played, redirect: str) -> None:
    child = engine.start("run", "--", "cat", redirect=redirect, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    line = await engine.lines.get()
    got = b""
    while True:
        item = await line.until(requests.Input)
        got += item.data
        if item.eof:
            break
    assert got.startswith(b"Linux") == ("version" in redirect)
    await line.end(0)
    assert await status(child) == 0


async def test_output_that_cannot_be_written_is_said_and_fails(engine: Played) -> None:
    child = engine.start("run", "--", "yes", redirect=">/dev/full", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    line = await engine.lines.get()
    await line.channel.send(requests.Output("out", 0, b"y\n"))
    assert (await line.until(requests.CloseOutput)).stream == "out"
    await line.end(0)
    assert await status(child) == 1
    assert child.stderr is not None
    assert b"No space left" in child.stderr.read()


async def test_a_reader_that_left_closes_the_jobs_pipe_without_a_word(engine: Played) -> None:
    child = engine.start("run", "--", "yes", **PIPES)
    line = await engine.lines.get()
    assert child.stdout is not None
    child.stdout.close()
    await line.channel.send(requests.Output("out", 0, b"y\n"))
    assert (await line.until(requests.CloseOutput)).stream == "out"
    await line.end(-signal.SIGPIPE)
    assert await status(child) == -signal.SIGPIPE
    assert child.stderr is not None
    assert child.stderr.read() == b""


async def test_a_reader_of_an_attached_job_leaves_alone(engine: Played) -> None:
    child = engine.start("attach", "calc", **PIPES)
    line = await engine.lines.get()
    assert child.stdout is not None
    child.stdout.close()
    await line.channel.send(requests.Output("out", 0, b"y\n"))
    closing = asyncio.ensure_future(line.until(requests.CloseOutput))
    done, _ = await asyncio.wait({closing, asyncio.ensure_future(status(child))}, return_when=asyncio.FIRST_COMPLETED)
    assert closing not in done
    assert await status(child) == -signal.SIGPIPE
    closing.cancel()


async def test_nothing_is_doubled_or_lost_over_a_restart_of_the_engine(engine: Played) -> None:
    child = engine.start("run", "--", "cat", **PIPES)
    line = await engine.lines.get()
    assert child.stdin is not None
    assert child.stdout is not None
    data = bytes(range(256)) * 800  # more than a pipe holds: part of it waits in the deputy
    for at in range(0, len(data), 65536):
        await line.channel.send(requests.Output("out", at, data[at : at + 65536]))
    child.stdin.write(b"typed")
    child.stdin.flush()
    await line.until(requests.Input, data=b"typed")
    await line.channel.send(requests.InputState(5, 2))
    await engine.restart()
    line = await engine.lines.get()
    assert line.request.job == JOB
    start = line.request.offsets[0]
    again = [requests.Output("out", at, data[at : at + 9999]) for at in range(start, len(data), 9999)]
    for item in again:
        await line.channel.send(item)
    # This engine knows nothing of what was typed until the job's owner tells it.
    await line.channel.send(requests.InputState(3, 0, again=True))
    assert (await line.until(requests.Input, offset=3)).data == b"ed"
    closing = asyncio.ensure_future(line.end(0))
    assert await asyncio.to_thread(child.stdout.read) == data
    await closing
    assert await status(child) == 0


async def test_output_that_was_not_kept_is_said_and_the_rest_goes_on(engine: Played) -> None:
    child = engine.start("run", "--", "x", **PIPES)
    line = await engine.lines.get()
    await line.channel.send(requests.Output("out", 0, b"one\n"))
    await line.channel.send(requests.Output("out", 1000, b"two\n"))
    await line.until(requests.Consumed, offset=1004)
    await line.end(0)
    out, err = await asyncio.to_thread(child.communicate)
    assert out == b"one\ntwo\n"
    assert b"996 bytes" in err
