"""What a face and the engine say to each other over the control socket.

Each frame is `u32 length | u32 request | kind byte | MessagePack`.  A face numbers its requests; the engine answers
with any number of items under that number, then `Done` or `Failed`.  Frames for an attached terminal go both ways
under the number of the `Attach` or `Run` that opened it.
"""

from __future__ import annotations

import msgspec

from omcore.types import (
    BoardView,
    ClusterView,
    JobId,
    KeysView,
    MovePlan,
    MoveResult,
    NetView,
    ProcDelta,
    ProcKey,
    RunSpec,
    SecurityView,
    Series,
)
from omcore.wire import MAX_CONTROL_BYTES, PROTO, Codec


class Hello(msgspec.Struct, frozen=True):
    """First frame of a face."""

    proto: int = PROTO


class Follow(msgspec.Struct, frozen=True):
    """Send `ClusterView`s: one now, then one on change; `once` ends after the first."""

    once: bool = False


class FollowProcesses(msgspec.Struct, frozen=True):
    """Send `ProcDelta`s of these nodes (none: all), once a second; `once` ends after one full list of each."""

    nodes: tuple[int, ...] = ()
    once: bool = False


class AskHistory(msgspec.Struct, frozen=True):
    """Send one `Histories`."""


class Histories(msgspec.Struct, frozen=True):
    """Load of all nodes over the last minutes."""

    series: tuple[Series, ...]


class AskBoards(msgspec.Struct, frozen=True):
    """Send this node's `BoardView`; with `everybody` also those of all others, as they come."""

    everybody: bool = False


class AskNet(msgspec.Struct, frozen=True):
    """Send one `NetView`."""


class AskPlan(msgspec.Struct, frozen=True):
    """Send one `MovePlan`."""

    job: JobId


class Migrate(msgspec.Struct, frozen=True):
    """Move a job; answers one `MoveResult` when it ended."""

    job: JobId
    to: str


class Lock(msgspec.Struct, frozen=True):
    """Forbid or allow moves of a job."""

    job: JobId
    locked: bool


class Signal(msgspec.Struct, frozen=True):
    """Signal a job wherever it runs."""

    job: JobId
    signum: int


class SignalProcess(msgspec.Struct, frozen=True):
    """Signal any process of any node."""

    key: ProcKey
    signum: int


class Run(msgspec.Struct, frozen=True):
    """Start a job; answers `Attached` and, unless detached, streams its terminal."""

    spec: RunSpec


class Attach(msgspec.Struct, frozen=True):
    """Connect a terminal to a job.

    `offsets` = (out, err, tty) already written by a deputy that reconnects; -1: from what nobody has seen yet.
    `view_only` sends output only (logs --follow).
    """

    job: JobId
    offsets: tuple[int, int, int] = (-1, -1, -1)
    rows: int = 0
    cols: int = 0
    view_only: bool = False


class AskLogs(msgspec.Struct, frozen=True):
    """Send the kept output of a job as `Output` items, oldest first."""

    job: JobId
    follow: bool = False


class Invite(msgspec.Struct, frozen=True):
    """Make an invitation; answers one `Text` with the token.  With `look` it admits to the figures only."""

    look: bool = False


class Join(msgspec.Struct, frozen=True):
    """Join another cluster with a token; answers one `Text`."""

    token: str


class Forget(msgspec.Struct, frozen=True):
    """Remove a node from the cluster for good; `with_invited`: and all that it brought.  Answers one `Text`."""

    node: str
    with_invited: bool = False


class Leave(msgspec.Struct, frozen=True):
    """Leave the cluster; `anyway`: whatever speaks against it.  Answers one `Text`, then the engine starts anew."""

    anyway: bool = False


class AskKeys(msgspec.Struct, frozen=True):
    """Send one `KeysView`."""


class RotateKey(msgspec.Struct, frozen=True):
    """Replace the cluster key, or this node's own (`node`); answers one `Text`."""

    node: bool = False


class AcceptKey(msgspec.Struct, frozen=True):
    """Of two rival new cluster keys, follow the one with this fingerprint; answers one `Text`."""

    fingerprint: str


class AskSecurity(msgspec.Struct, frozen=True):
    """Send one `SecurityView`."""


class ExportKey(msgspec.Struct, frozen=True):
    """Send the cluster key, sealed with a passphrase, as one `Sealed`."""

    passphrase: str

    def __repr__(self) -> str:
        return "ExportKey(...)"


class Sealed(msgspec.Struct, frozen=True):
    """The content of a backup file."""

    data: bytes


class ImportKey(msgspec.Struct, frozen=True):
    """Become a keyholder by a backup; answers one `Text`."""

    data: bytes
    passphrase: str

    def __repr__(self) -> str:
        return "ImportKey(...)"


class ShareKey(msgspec.Struct, frozen=True):
    """Make another node a keyholder; answers one `Text`."""

    node: str


class Stop(msgspec.Struct, frozen=True):
    """End the engine; jobs go on under their shims."""


class Attached(msgspec.Struct, frozen=True):
    """A terminal is connected: where the streams stand."""

    job: JobId
    typed: int  # offset the next typed byte gets
    tty: tuple[int, ...]  # which of 0, 1, 2 are the pod's pty
    name: str = ""


class Output(msgspec.Struct, frozen=True):
    """Bytes of a stream at an absolute offset."""

    stream: str  # out, err, tty
    offset: int
    data: bytes


class Consumed(msgspec.Struct, frozen=True):
    """The deputy has written everything of `stream` before `offset`."""

    stream: str
    offset: int


class Input(msgspec.Struct, frozen=True):
    """Typed bytes at an absolute offset; `eof`: nothing comes after them."""

    offset: int
    data: bytes
    eof: bool = False


class InputState(msgspec.Struct, frozen=True):
    """`typed`: next offset expected; `taken`: the job has all before this for good, the deputy may forget it.

    `again`: bytes beyond `typed` were not accepted (the engine is new and knew nothing of those before), send them
    again from there.
    """

    typed: int
    taken: int
    again: bool = False


class CloseOutput(msgspec.Struct, frozen=True):
    """The reader of this stream is gone (`| head`): the job shall see its pipe closed."""

    stream: str


class Resize(msgspec.Struct, frozen=True):
    """The caller's window."""

    rows: int
    cols: int


class SendSignal(msgspec.Struct, frozen=True):
    """A signal the deputy received, for its job."""

    signum: int


class Stopped(msgspec.Struct, frozen=True):
    """The job was stopped by this signal (^Z)."""

    signum: int


class Notice(msgspec.Struct, frozen=True):
    """One line for the person at the terminal."""

    text: str


class JobEnded(msgspec.Struct, frozen=True):
    """The job has ended and all its output was delivered: exit code, or minus the signal; None: lost."""

    status: int | None
    text: str = ""


class Text(msgspec.Struct, frozen=True):
    """An answer in words."""

    text: str


class Done(msgspec.Struct, frozen=True):
    """The request is answered in full."""


class Failed(msgspec.Struct, frozen=True):
    """The request failed; `kind` is the error class of omcore.errors."""

    kind: str
    text: str
    hint: str = ""


class Cancel(msgspec.Struct, frozen=True):
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
        36: AskBoards,
        37: AskNet,
        50: Leave,
        51: AskKeys,
        52: KeysView,
        53: ExportKey,
        54: Sealed,
        55: ImportKey,
        56: ShareKey,
        57: AskSecurity,
        58: SecurityView,
        59: RotateKey,
        60: AcceptKey,
        40: ClusterView,
        41: ProcDelta,
        42: MovePlan,
        43: MoveResult,
        48: BoardView,
        49: NetView,
    },
    MAX_CONTROL_BYTES,
)
