"""A pod as the engine sees it: the namespaces, the PID 1 (the *shim*) and the stdio of one copy of one job.

The shim is a small program of its own (`shim.py`, `pod*.py`) that outlives the engine; this file starts it, finds it
again, and talks to it in the frames of `frames.py`.  Which call is legal in which phase:

    empty      start, restore, retire           a pod may wait here, prepared, for as long as one likes
    running    feed..., signal, resize, acknowledge, dump, retire
    frozen     undo, acknowledge, retire         the job is stopped; its relay state is in the images
    restored   resume, retire                    stopped; says nothing of its output before resume
    ended      acknowledge, end, retire

`feed`, `signal` and `resize` in another phase are ignored by the shim: after `undo` or `resume` send again from
`taken` and `signals_taken` on.  Between `dump` and its answer they are accepted and wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omcore.checkpoint.criu import Criu, Stdio, dump_argv, explain, last_errors, restore_argv
from omcore.errors import CheckpointFailed, CommandNotExecutable, CommandNotFound, PodError
from omcore.jobs import frames
from omcore.jobs.podevents import (
    Continued,
    Ended,
    Gone,
    Output,
    OutputEof,
    PodEvent,
    SignalTaken,
    Stopped,
    Taken,
)
from omcore.jobs.podimages import MAX_RELAY, RELAY
from omcore.jobs.podspawn import CREATE_S, LOCK, LOG, SOCKET, PodSpec, is_alive, outer_pid, short_name, spawn
from omcore.types import RunSpec

__all__ = [
    "Continued",
    "Counters",
    "DumpReport",
    "Ended",
    "Gone",
    "Output",
    "OutputEof",
    "Pod",
    "PodEvent",
    "PodSpec",
    "SignalTaken",
    "Stopped",
    "Taken",
]

Phase = Literal["empty", "running", "frozen", "restored", "ended"]

_GONE_S = 5.0  # from the end of the connection to the end of the pod
_FIND_S = 600.0  # criu may be at work in the pod and must not be disturbed


@dataclass(frozen=True, slots=True)
class DumpReport:
    """What a dump made; the job is stopped."""

    image_bytes: int
    tasks: int
    criu_s: float
    cut_s: float  # draining pipes and writing the relay state


@dataclass(slots=True)
class Counters:
    """How far every stream is, as last heard of the shim."""

    made: dict[str, int] = field(default_factory=dict)
    acked: dict[str, int] = field(default_factory=dict)
    taken: int = 0
    signals_taken: int = 0


class _Link(asyncio.Protocol):
    """The connection: cuts frames, knows when the shim is gone."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._splitter = frames.Splitter()
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._splitter.feed(data):
                self._pod._heard(kind, payload)
        except (ValueError, KeyError, struct.error):
            if self.transport:
                self.transport.abort()  # not our shim

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._pod._lost()


class Pod:
    """One pod, connected.  Made by `create` or `find`; events come in order on the event loop, one call each."""

    def __init__(self, directory: Path, criu: Criu | None, on_event: Callable[[PodEvent], None]) -> None:
        self.directory = directory
        self.phase: Phase = "empty"
        self.root_pid = 0
        self.shim_pid = 0
        self.tty: tuple[int, ...] = ()
        self.counters = Counters()
        self.stopped = 0  # signal that stopped the root; 0: it runs
        self.status: int | None = None
        self.criu = criu
        self._on_event = on_event
        self._link = _Link(self)
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_call = int.from_bytes(os.urandom(4), "little")
        self._pidfd = -1
        self._dead = asyncio.Event()
        self._leaving = False
        self._patience: asyncio.TimerHandle | None = None
        self._inner_root = 0
        self._key = ""
        self._userns = False

    # -- making, finding, leaving

    @classmethod
    async def create(cls, spec: PodSpec, on_event: Callable[[PodEvent], None]) -> Pod:
        """Make an empty pod.  Raises PodError in words when the system does not allow it."""
        spec.directory.mkdir(mode=0o700, exist_ok=True)
        listener = await asyncio.to_thread(spawn, spec)
        listener.close()
        pod = cls(spec.directory, spec.criu, on_event)
        await pod._connect(CREATE_S)
        return pod

    @classmethod
    async def find(cls, directory: Path, on_event: Callable[[PodEvent], None], criu: Criu | None = None) -> Pod | None:
        """Connect to the pod that another engine run made in `directory`; None when no pod lives there.

        If criu is at work in the pod this waits for its end.
        """
        if not is_alive(directory):
            return None
        pod = cls(directory, criu, on_event)
        try:
            await pod._connect(_FIND_S)
        except PodError:
            if not is_alive(directory):
                return None
            raise
        return pod

    async def _connect(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            with short_name(self.directory) as place:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.setblocking(False)
                sock.connect(f"{place}/{SOCKET}")
            self.shim_pid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            self._pidfd = os.pidfd_open(self.shim_pid)
            await loop.create_connection(lambda: self._link, sock=sock)
            await asyncio.wait_for(self._greeted, timeout)
        except (OSError, TimeoutError) as error:
            self._close()
            raise PodError("the pod does not answer", f"See {self.directory / LOG}.") from error

    async def close(self) -> None:
        """Leave; the pod stays and keeps the job."""
        self._leaving = True
        self._close()

    def _close(self) -> None:
        self._leaving = True
        if self._link.transport:
            self._link.transport.abort()
        if self._patience:
            self._patience.cancel()
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def listen(self, on_event: Callable[[PodEvent], None]) -> None:
        """Send events to somebody else from now on."""
        self._on_event = on_event

    def kill(self) -> None:
        """Kill PID 1 now: nothing of the pod runs again.  `retire` waits until all of it is gone."""
        self._leaving = True
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            # PID 1 is reaped only after all of its namespace
            asyncio.get_running_loop().add_reader(self._pidfd, self._buried)

    def _buried(self) -> None:
        self._close()
        for name in (SOCKET, LOCK):
            (self.directory / name).unlink(missing_ok=True)
        self._dead.set()

    async def retire(self) -> None:
        """Kill PID 1, and with it everything in the pod; returns when all of it is gone.  Any phase."""
        self.kill()
        if self._pidfd >= 0:
            await self._dead.wait()

    async def end(self) -> None:
        """Tell the shim of an ended job to go.  Raises PodError in another phase."""
        if self.phase != "ended":
            raise PodError(f"the job has not ended: the pod is {self.phase}")
        await self.retire()

    # -- what the shim says

    def _heard(self, kind: int, payload: bytes) -> None:
        if kind == frames.K_OUT:
            number, offset = frames.OUT.unpack_from(payload)
            data = payload[frames.OUT.size :]
            stream = frames.STREAMS[number]
            self.counters.made[stream] = max(self.counters.made.get(stream, 0), offset + len(data))
            self._on_event(Output(stream, offset, data))
        elif kind == frames.K_REPLY:
            self._replied(frames.unpack(payload))
        elif kind == frames.K_STATE:
            self._learn(frames.unpack(payload))
            if not self._greeted.done():
                self._greeted.set_result(None)
                if self.stopped:
                    self._on_event(Stopped(self.stopped))
        else:
            self._heard_small(kind, payload)

    def _heard_small(self, kind: int, payload: bytes) -> None:
        if kind == frames.K_OUT_EOF:
            number, offset = frames.OUT.unpack(payload)
            self._on_event(OutputEof(frames.STREAMS[number], offset))
        elif kind == frames.K_TAKEN:
            (self.counters.taken,) = frames.IN.unpack(payload)
            self._on_event(Taken(self.counters.taken))
        elif kind == frames.K_SIGNAL_TAKEN:
            self.counters.signals_taken, _ = frames.SIGNAL.unpack(payload)
            self._on_event(SignalTaken(self.counters.signals_taken))
        elif kind == frames.K_STOPPED:
            self.stopped = payload[0]
            self._on_event(Stopped(self.stopped) if self.stopped else Continued())
        elif kind == frames.K_ENDED:
            ended = frames.unpack(payload)
            self.phase, self.status, self.root_pid = "ended", ended["status"], 0
            self._on_event(Ended(ended["status"], ended["totals"]))

    def _replied(self, answer: dict[str, Any]) -> None:
        self._learn(answer["state"])
        waiting = self._calls.pop(answer["id"], None)
        if waiting and not waiting.done():
            waiting.set_result(answer)

    def _learn(self, state: dict[str, Any]) -> None:
        # ended only with the event Ended, which comes after all output
        self.phase = state["phase"] if state["phase"] != "ended" or self.phase == "ended" else "running"
        self.stopped = state["stopped"]
        self.tty = tuple(state["tty"])
        for name, (made, acked, _) in state["streams"].items():
            self.counters.made[name] = made
            self.counters.acked[name] = acked
        self.counters.taken = state["taken"]
        self.counters.signals_taken = state["signals"]
        self._key, self._userns = state["key"], state["userns"]
        if state["root"] != self._inner_root or not self.root_pid:
            self._inner_root = state["root"]
            self.root_pid = outer_pid(self.shim_pid, self._inner_root) if self._inner_root else 0

    def _lost(self) -> None:
        waiting: list[asyncio.Future[Any]] = [self._greeted, *self._calls.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(PodError("the pod is gone", f"See {self.directory / LOG}."))
                future.exception()  # nobody may be waiting any more
        self._calls.clear()
        if not self._leaving and self._pidfd >= 0:
            # the socket closes first; PID 1 is dead only when all of its namespace is
            loop = asyncio.get_running_loop()
            loop.add_reader(self._pidfd, self._gone)
            self._patience = loop.call_later(_GONE_S, self._gone)

    def _gone(self) -> None:
        """The shim is dead, or another engine took the connection."""
        if not self._leaving:
            self._close()
            self._on_event(Gone())

    # -- stdio

    def feed(self, offset: int, data: bytes) -> None:
        """Input of the job from `offset` on; overlap is cut, a gap ignored, more than the window lost."""
        for start in range(0, len(data), frames.MAX_DATA):
            piece = data[start : start + frames.MAX_DATA]
            self._write(frames.frame(frames.K_IN, frames.IN.pack(offset + start), piece))

    def feed_eof(self, offset: int) -> None:
        """Input ends at `offset`: a pipe is closed then, a pty is not."""
        self._write(frames.frame(frames.K_IN_EOF, frames.IN.pack(offset)))

    def acknowledge(self, stream: str, offset: int) -> None:
        """The shim may forget output before `offset`."""
        self.counters.acked[stream] = max(self.counters.acked.get(stream, 0), offset)
        self._write(frames.frame(frames.K_ACK, frames.OUT.pack(frames.STREAMS.index(stream), offset)))

    def signal(self, seq: int, signum: int) -> None:
        """Send a signal to the root's process group, SIGKILL to all of the job; only the next number counts."""
        self._write(frames.frame(frames.K_SIGNAL, frames.SIGNAL.pack(seq, signum)))

    def close_output(self, stream: str) -> None:
        """Nobody reads this stream any more: the job's next write to that pipe gets SIGPIPE; a pty stays open."""
        self._write(frames.frame(frames.K_CLOSE, frames.OUT.pack(frames.STREAMS.index(stream), 0)))

    def resize(self, rows: int, cols: int) -> None:
        """Window size of the pty; the kernel sends SIGWINCH."""
        size = frames.SIZE.pack(min(rows, 0xFFFF), min(cols, 0xFFFF))
        self._write(frames.frame(frames.K_RESIZE, size))

    def _write(self, data: bytes) -> None:
        if self._link.transport and not self._link.lost.is_set():
            self._link.transport.write(data)

    # -- calls

    async def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        if self._link.lost.is_set():
            raise PodError("the pod is gone", f"See {self.directory / LOG}.")
        self._next_call = (self._next_call + 1) & 0xFFFFFFFF
        number = self._next_call
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        call = {"id": number, "op": operation, **arguments}
        self._write(frames.frame(frames.K_CALL, frames.pack(call)))
        try:
            return await answer
        finally:
            self._calls.pop(number, None)

    async def start(self, run: RunSpec) -> int:
        """Start the job's root; returns its PID here.  Raises PodError with the reason in words."""
        if not run.command:
            raise PodError("there is no command to run")
        answer = await self._call(
            "start",
            run={
                "command": run.command,
                "cwd": run.cwd,
                "env": run.env,
                "tty": run.tty,
                "rows": run.rows,
                "cols": run.cols,
                "term": run.term,
                "umask": run.umask,
                "limits": run.limits,
            },
        )
        if not answer["ok"]:
            raise _start_error(answer)
        return self.root_pid

    async def dump(self, images: Path, timeout: float) -> DumpReport:
        """Dump the running job into the existing, absolute directory `images` and leave it stopped (phase frozen).

        `timeout` in seconds > 0.  Raises CheckpointFailed; the job then runs on as if nothing had been, or has ended.
        """
        argv = dump_argv(self._need_criu(), self._inner_root, self._key, self._userns)
        answer = await self._call("dump", images=str(images), argv=argv, timeout=_seconds(timeout))
        if not answer["ok"]:
            raise _checkpoint_error(answer)
        return DumpReport(answer["bytes"], answer["tasks"], answer["criu_s"] / 1e6, answer["cut_s"] / 1e6)

    async def undo(self) -> None:
        """Let the frozen job go on here.  Raises CheckpointFailed when it is not frozen."""
        await self._simple("undo")

    async def restore(self, images: Path, timeout: float) -> float:
        """Restore a dumped job into this empty pod, stopped (phase restored); returns criu's own seconds.

        Raises CheckpointFailed; the pod is then empty again, but better retired.
        """
        try:
            stdio = await asyncio.to_thread(read_stdio, images)  # another node wrote it: it may be big
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointFailed("the image has no readable relay state", "", str(error)) from error
        argv = restore_argv(self._need_criu(), stdio, self._userns)
        answer = await self._call("restore", images=str(images), argv=argv, timeout=_seconds(timeout))
        if not answer["ok"]:
            raise _checkpoint_error(answer)
        return float(answer["criu_s"]) / 1e6

    async def resume(self) -> None:
        """Let the restored job go on.  Raises CheckpointFailed when it is not restored."""
        await self._simple("resume")

    async def _simple(self, operation: str) -> None:
        answer = await self._call(operation)
        if not answer["ok"]:
            raise _checkpoint_error(answer)

    def _need_criu(self) -> Criu:
        if self.criu is None:
            raise CheckpointFailed("there is no CRIU here", "Run `omview doctor --fix`.")
        return self.criu


def read_stdio(images: Path) -> Stdio:
    """What CRIU must be handed at the restore of these images; raises OSError, ValueError or KeyError."""
    with open(images / RELAY, "rb") as file:
        data = file.read(MAX_RELAY + 1)
    if len(data) > MAX_RELAY:
        raise ValueError(f"{RELAY} is too large")
    relay = frames.unpack(data)["relay"]
    at_end = tuple({"out": 1, "err": 2}.get(name, 0) for name, stream in relay["streams"].items() if stream[2])
    key = str(relay["pty"][0]) if relay["pty"] else ""
    if not all(c in "0123456789abcdef:" for c in key):
        raise ValueError("the terminal's name is damaged")
    return Stdio(tuple(relay["tty"]), tuple(map(int, relay["inodes"])), key, at_end)


def _seconds(timeout: float) -> int:
    return max(1, round(timeout))


def _start_error(answer: dict[str, Any]) -> PodError:
    if "step" not in answer:
        return PodError(answer["text"], answer["hint"])
    why = os.strerror(answer["errno"])
    step, subject = answer["step"], answer["subject"]
    if step == "exec" and answer["errno"] == errno.ENOENT:
        if "/" in subject and os.path.exists(subject):
            return CommandNotExecutable(f"{subject}: what should run it was not found", "See its first line: #!")
        hint = "Check the spelling, and PATH in the job's environment."
        return CommandNotFound(f"{subject}: command not found", hint)
    if step == "exec":
        return CommandNotExecutable(f"{subject}: {why}", "Is it a program, and may you run it?")
    if step == "cwd":
        return PodError(f"{subject}: {why}", "The working directory must exist inside the pod; /run is empty there.")
    return PodError(f"cannot start the job ({step} {subject}): {why}")


def _checkpoint_error(answer: dict[str, Any]) -> CheckpointFailed:
    log = answer["log"]
    if not log:
        return CheckpointFailed(answer["text"], answer["hint"])
    sentence, hint = explain(log)
    if "took longer" in answer["text"]:
        sentence = answer["text"]
    return CheckpointFailed(sentence, hint, "\n".join(last_errors(log)[-8:]))
