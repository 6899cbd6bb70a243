"""Real pods for tests: a sink that checks offsets, and a job that can hop from pod to pod."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from omcore.checkpoint.criu import find_criu
from omcore.jobs.pod import (
    Continued,
    Ended,
    Gone,
    Output,
    Pod,
    PodEvent,
    PodSpec,
    SignalTaken,
    Stopped,
    Taken,
)
from omcore.types import JobId, RunSpec

CRIU = find_criu()
PYTHON = os.path.realpath(sys.executable)
LIMIT_S = 40.0

WAIT_FOR_SIGNALS = """
import os, signal, sys
wanted = {int(word) for word in sys.argv[1:]}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
os.write(1, b"up\\n")
while True:
    number = signal.sigwait(wanted)
    size = os.get_terminal_size(1) if os.isatty(1) else (0, 0)
    os.write(1, b"got %d %d %d\\n" % (number, size[1], size[0]))
"""
"""A program that tells each signal it gets, and the window size; blocked signals, so that none is between two steps."""


class Sink:
    """Takes a job's events from whichever pod has it: every byte once, in order, the same when it comes twice."""

    def __init__(self) -> None:
        self.got = {"out": bytearray(), "err": bytearray(), "tty": bytearray()}
        self.ended: Ended | None = None
        self.stopped = 0
        self.taken = 0
        self.signals = 0
        self.gone = False
        self.ack = True
        self.pod: Pod | None = None
        self._changed = asyncio.Event()

    def __call__(self, event: PodEvent) -> None:
        match event:
            case Output(stream, offset, data):
                have = self.got[stream]
                assert offset <= len(have), f"gap in {stream}: {offset} after {len(have)}"
                repeat = bytes(have[offset : offset + len(data)])
                assert repeat == data[: len(repeat)], "another byte at the same offset"
                have += data[len(repeat) :]
                if self.ack and self.pod:
                    self.pod.acknowledge(stream, len(have))
            case Ended():
                self.ended = event
            case Stopped(signum):
                self.stopped = signum
            case Continued():
                self.stopped = 0
            case Taken(offset):
                self.taken = offset
            case SignalTaken(seq):
                self.signals = seq
            case Gone():
                self.gone = True
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for the events that make the condition true."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def status(self) -> int:
        """Wait for the end; what came must be the totals."""
        await self.until(lambda: self.ended)
        assert self.ended is not None
        for stream, total in self.ended.totals.items():
            assert len(self.got[stream]) == total
        return self.ended.status

    async def more(self, stream: str, count: int) -> None:
        """Wait for `count` more bytes of a stream, or the end."""
        goal = len(self.got[stream]) + count
        await self.until(lambda: len(self.got[stream]) >= goal or self.ended)

    def out(self, stream: str = "out") -> bytes:
        return bytes(self.got[stream])


class Home:
    """A scratch directory on a tmpfs with all pods that were made in it."""

    def __init__(self) -> None:
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.path = Path(tempfile.mkdtemp(prefix="omview-test-", dir=place))
        self.pods: list[Pod] = []
        self.made = 0

    def spec(self) -> PodSpec:
        self.made += 1
        directory = self.path / f"pod{self.made}"
        return PodSpec(JobId("0" * 32), directory, CRIU, self.path / "kdat")

    async def pod(self, on_event: Callable[[PodEvent], None]) -> Pod:
        pod = await Pod.create(self.spec(), on_event)
        self.pods.append(pod)
        return pod

    def images(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="images-", dir=self.path))

    async def start(self, command: Iterable[str], tty: tuple[int, ...] = (), **more: object) -> Job:
        sink = Sink()
        job = Job(self, sink, await self.pod(sink))
        sink.pod = job.pod
        env = (f"PATH={os.environ['PATH']}", "HOME=/", "TERM=dumb", "PS1=> ", "LC_ALL=C.UTF-8")
        run = RunSpec(tuple(command), cwd="/", env=env, tty=tty, rows=24, cols=80)
        await job.pod.start(run)
        return job

    async def clean(self) -> None:
        for pod in self.pods:
            await pod.retire()
        shutil.rmtree(self.path)


class Job:
    """A job in its present pod."""

    def __init__(self, home: Home, sink: Sink, pod: Pod) -> None:
        self.home = home
        self.sink = sink
        self.pod = pod
        self.typed = b""
        self.seq = 0

    def type(self, data: bytes) -> None:
        self.pod.feed(len(self.typed), data)
        self.typed += data

    def eof(self) -> None:
        self.pod.feed_eof(len(self.typed))

    def kill(self, signum: int) -> None:
        self.seq += 1
        self.pod.signal(self.seq, signum)

    async def move_to(self, other: Pod, images: Path | None = None) -> None:
        images = images or self.home.images()
        await self.pod.dump(images, 20)
        await other.restore(images, 20)
        await self.pod.retire()
        await self.go_on(other)
        shutil.rmtree(images)

    async def go_on(self, other: Pod) -> None:
        """Resume in this pod; then all that was ever typed is said again: it takes what it has not."""
        self.pod = self.sink.pod = other
        await other.resume()
        other.feed(0, self.typed)  # before the resume it would be ignored

    async def hop(self) -> None:
        await self.move_to(await self.home.pod(self.sink))


@asynccontextmanager
async def home() -> AsyncIterator[Home]:
    """A scratch home; all its pods are gone afterwards."""
    place = Home()
    try:
        yield place
    finally:
        await place.clean()
