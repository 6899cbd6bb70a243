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
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omcore.checkpoint.criu import Criu, Stdio, dump_argv, explain, last_errors, restore_argv
from omcore.errors import CheckpointFailed, PodError
from omcore.jobs import frames
from omcore.jobs.podimages import RELAY
from omcore.types import JobId, RunSpec

Phase = Literal["empty", "running", "frozen", "restored", "ended"]

_SHIM = Path(__file__).with_name("shim.py")
_SOCKET, _LOCK, _LOG = "shim.sock", "pod.lock", "shim.log"
_CREATE_S = 10.0  # a pod takes 40 ms; a machine in trouble may take longer
_GONE_S = 5.0  # from the end of the connection to the end of the pod
_FIND_S = 600.0  # criu may be at work in the pod and must not be disturbed


@dataclass(frozen=True, slots=True)
class PodSpec:
    """What a pod needs to be made."""

    job: JobId
    directory: Path  # the job's runtime directory, 0700; holds the socket, the lock, the shim's log
    criu: Criu | None
    kdat: Path | None  # this user's and node's cache of criu's kernel probes; shared by all pods
    masks: tuple[str, ...] = ()  # directories that the job must see empty; `directory` is always masked
    cgroups: tuple[Path, ...] = ()  # joined by the shim and hence by all of the job


@dataclass(frozen=True, slots=True)
class Output:
    """The job wrote `data`, from `offset` of that stream on.  Acknowledge it, or after 256 KiB the job waits."""

    stream: str  # "out" | "err" | "tty"
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class OutputEof:
    """The stream ended at `offset`."""

    stream: str
    offset: int


@dataclass(frozen=True, slots=True)
class Taken:
    """All input before `offset` is the pod's; have at most 256 KiB beyond it under way."""

    offset: int


@dataclass(frozen=True, slots=True)
class SignalTaken:
    """Signals up to this number were applied."""

    seq: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The job's root was stopped by this signal (^Z)."""

    signum: int


@dataclass(frozen=True, slots=True)
class Continued:
    """The job's root goes on."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The root ended; all output was handed over.  `status`: exit code, or minus the signal."""

    status: int
    totals: dict[str, int]


@dataclass(frozen=True, slots=True)
class Gone:
    """The shim died or another engine took the connection; not sent after `retire`, `end` or `close`."""


PodEvent = Output | OutputEof | Taken | SignalTaken | Stopped | Continued | Ended | Gone


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
        listener = await asyncio.to_thread(_spawn, spec)
        listener.close()
        pod = cls(spec.directory, spec.criu, on_event)
        await pod._connect(_CREATE_S)
        return pod

    @classmethod
    async def find(cls, directory: Path, on_event: Callable[[PodEvent], None], criu: Criu | None = None) -> Pod | None:
        """Connect to the pod that another engine run made in `directory`; None when no pod lives there.

        If criu is at work in the pod this waits for its end.
        """
        if not _alive(directory):
            return None
        pod = cls(directory, criu, on_event)
        try:
            await pod._connect(_FIND_S)
        except PodError:
            if not _alive(directory):
                return None
            raise
        return pod

    async def _connect(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            with _short(self.directory) as place:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.setblocking(False)
                sock.connect(f"{place}/{_SOCKET}")
            self.shim_pid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            self._pidfd = os.pidfd_open(self.shim_pid)
            await loop.create_connection(lambda: self._link, sock=sock)
            await asyncio.wait_for(self._greeted, timeout)
        except (OSError, TimeoutError) as error:
            self._close()
            raise PodError("the pod does not answer", f"See {self.directory / _LOG}.") from error

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

    async def retire(self) -> None:
        """Kill PID 1, and with it everything in the pod; returns when all of it is gone.  Any phase."""
        self._leaving = True
        if self._pidfd < 0:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        loop.add_reader(self._pidfd, gone.set)
        try:
            await gone.wait()  # PID 1 is reaped only after all of its namespace
        finally:
            self._close()
        for name in (_SOCKET, _LOCK):
            (self.directory / name).unlink(missing_ok=True)

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
            self.root_pid = _outer_pid(self.shim_pid, self._inner_root) if self._inner_root else 0

    def _lost(self) -> None:
        waiting: list[asyncio.Future[Any]] = [self._greeted, *self._calls.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(PodError("the pod is gone", f"See {self.directory / _LOG}."))
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
            raise PodError("the pod is gone", f"See {self.directory / _LOG}.")
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
            stdio = read_stdio(images)
        except (OSError, ValueError, KeyError, TypeError) as error:
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
    relay = frames.unpack((images / RELAY).read_bytes())["relay"]
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
        return PodError(f"{subject}: command not found", "Check the spelling, and PATH in the job's environment.")
    if step == "exec":
        return PodError(f"{subject}: {why}", "Is it a program, and may you run it?")
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


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """A name for the directory that fits into a socket address, however long its path is."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _alive(directory: Path) -> bool:
    try:
        fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _spawn(spec: PodSpec) -> socket.socket:
    """Start the shim and wait for its word (40 ms: run in a thread); returns the listening socket, ours to close."""
    if _alive(spec.directory):
        raise PodError("there is a pod already", "Retire it first.")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        (spec.directory / _SOCKET).unlink(missing_ok=True)
        with _short(spec.directory) as place:
            listener.bind(f"{place}/{_SOCKET}")
        os.chmod(spec.directory / _SOCKET, 0o600)
        listener.setblocking(False)
        config = {
            "directory": str(spec.directory),
            "listener": listener.fileno(),
            "masks": [str(spec.directory), *spec.masks],
            "cgroups": [str(path) for path in spec.cgroups],
            "kdat": str(spec.kdat) if spec.kdat else "",
        }
        with open(spec.directory / _LOG, "ab") as log:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_SHIM)],
                input=frames.pack(config),
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(listener.fileno(),),
                timeout=_CREATE_S,
                check=False,
            )
    except (OSError, subprocess.SubprocessError) as error:
        listener.close()
        raise PodError(f"a pod cannot be started: {error}") from error
    if done.stdout != b"ok":
        listener.close()
        raise _pod_error(done.stdout.decode("utf-8", "replace"), spec.directory)
    return listener


def _pod_error(text: str, directory: Path) -> PodError:
    if "unshare" in text or "uid_map" in text:
        return PodError(
            f"this system does not let you make a pod ({text})",
            "User namespaces may be switched off: see `omview doctor`.",
        )
    return PodError(f"a pod cannot be made ({text or 'the shim died'})", f"See {directory / _LOG}.")


def _outer_pid(shim: int, inner: int) -> int:
    """The PID, here, of the child of the shim that is `inner` in the pod; 0 when it is gone."""
    with contextlib.suppress(OSError, ValueError):
        for child in Path(f"/proc/{shim}/task/{shim}/children").read_text().split():
            if _inner_pid(child) == inner:
                return int(child)
    return 0


def _inner_pid(pid: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0
