"""What a face and the engine say to each other over the control socket.

Each frame is `u32 length | u32 request | kind byte | MessagePack`.  A face numbers its requests; the engine answers
with any number of items under that number, then `Done` or `Failed`.  Frames for an attached terminal go both ways
under the number of the `Attach` or `Run` that opened it.
"""

from __future__ import annotations

from dataclasses import dataclass

from omcore.types import (
    ClusterView,
    JobId,
    MovePlan,
    MoveResult,
    ProcDelta,
    ProcKey,
    RunSpec,
    Series,
)
from omcore.wire import MAX_CONTROL_BYTES, PROTO, Codec


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame of a face."""

    proto: int = PROTO


@dataclass(frozen=True, slots=True)
class Follow:
    """Send `ClusterView`s: one now, then one on change; `once` ends after the first."""

    once: bool = False


@dataclass(frozen=True, slots=True)
class FollowProcesses:
    """Send `ProcDelta`s of these nodes (none: all), once a second; `once` ends after one full list of each."""

    nodes: tuple[int, ...] = ()
    once: bool = False


@dataclass(frozen=True, slots=True)
class AskHistory:
    """Send one `Histories`."""


@dataclass(frozen=True, slots=True)
class Histories:
    """Load of all nodes over the last minutes."""

    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class AskPlan:
    """Send one `MovePlan`."""

    job: JobId


@dataclass(frozen=True, slots=True)
class Migrate:
    """Move a job; answers one `MoveResult` when it ended."""

    job: JobId
    to: str


@dataclass(frozen=True, slots=True)
class Lock:
    """Forbid or allow moves of a job."""

    job: JobId
    locked: bool


@dataclass(frozen=True, slots=True)
class Signal:
    """Signal a job wherever it runs."""

    job: JobId
    signum: int


@dataclass(frozen=True, slots=True)
class SignalProcess:
    """Signal any process of any node."""

    key: ProcKey
    signum: int


@dataclass(frozen=True, slots=True)
class Run:
    """Start a job; answers `Attached` and, unless detached, streams its terminal."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class Attach:
    """Connect a terminal to a job.

    `offsets` = (out, err, tty) already written by a deputy that reconnects; -1: from what nobody has seen yet.
    `view_only` sends output only (logs --follow).
    """

    job: JobId
    offsets: tuple[int, int, int] = (-1, -1, -1)
    rows: int = 0
    cols: int = 0
    view_only: bool = False


@dataclass(frozen=True, slots=True)
class AskLogs:
    """Send the kept output of a job as `Output` items, oldest first."""

    job: JobId
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Invite:
    """Make an invitation; answers one `Text` with the token."""


@dataclass(frozen=True, slots=True)
class Join:
    """Join another cluster with a token; answers one `Text`."""

    token: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove a node from the cluster for good."""

    node: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the engine; jobs go on under their shims."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A terminal is connected: where the streams stand."""

    job: JobId
    typed: int  # offset the next typed byte gets
    tty: tuple[int, ...]  # which of 0, 1, 2 are the pod's pty
    name: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes of a stream at an absolute offset."""

    stream: str  # out, err, tty
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Consumed:
    """The deputy has written everything of `stream` before `offset`."""

    stream: str
    offset: int


@dataclass(frozen=True, slots=True)
class Input:
    """Typed bytes at an absolute offset; `eof`: nothing comes after them."""

    offset: int
    data: bytes
    eof: bool = False


@dataclass(frozen=True, slots=True)
class InputState:
    """`typed`: next offset expected; `taken`: the job has all before this for good, the deputy may forget it.

    `again`: bytes beyond `typed` were not accepted (the engine is new and knew nothing of those before), send them
    again from there.
    """

    typed: int
    taken: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class CloseOutput:
    """The reader of this stream is gone (`| head`): the job shall see its pipe closed."""

    stream: str


@dataclass(frozen=True, slots=True)
class Resize:
    """The caller's window."""

    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class SendSignal:
    """A signal the deputy received, for its job."""

    signum: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The job was stopped by this signal (^Z)."""

    signum: int


@dataclass(frozen=True, slots=True)
class Notice:
    """One line for the person at the terminal."""

    text: str


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job has ended and all its output was delivered: exit code, or minus the signal; None: lost."""

    status: int | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """An answer in words."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The request is answered in full."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed; `kind` is the error class of omcore.errors."""

    kind: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The face no longer wants this request's items."""


CONTROL = Codec(
    {
        1: Hello,
        2: Follow,
        3: FollowProcesses,
        4: AskHistory,
        5: Histories,
        6: AskPlan,
        7: Migrate,
        8: Lock,
        9: Signal,
        10: SignalProcess,
        11: Run,
        12: Attach,
        13: AskLogs,
        14: Invite,
        15: Join,
        16: Forget,
        17: Stop,
        20: Attached,
        21: Output,
        22: Consumed,
        23: Input,
        24: InputState,
        25: Resize,
        26: SendSignal,
        27: Stopped,
        28: Notice,
        29: JobEnded,
        30: Text,
        31: Done,
        32: Failed,
        33: Cancel,
        34: CloseOutput,
        40: ClusterView,
        41: ProcDelta,
        42: MovePlan,
        43: MoveResult,
    },
    MAX_CONTROL_BYTES,
)
