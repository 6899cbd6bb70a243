"""What a driver tells the machines.  Facts name the pod, epoch or session they speak of: late ones are ignored."""

from __future__ import annotations

from dataclasses import dataclass

from omcore.handoff.messages import Message
from omcore.handoff.records import End, Epoch, Journal, Record
from omcore.types import NodeId


@dataclass(frozen=True, slots=True)
class Received:
    """A message from an authenticated sender.  `fresh`: 16 new random bytes (used only when a PREPARE is accepted)."""

    sender: NodeId
    message: Message
    fresh: bytes = b""


# ---- home


@dataclass(frozen=True, slots=True)
class Opened:
    """First input of a home machine: the journal as read from disk, or that of a new job (`new`)."""

    journal: Journal
    new: bool = False


@dataclass(frozen=True, slots=True)
class JournalSynced:
    """The write with `sync` and this sequence reached the disk (`ok`), or nobody knows whether it did."""

    sequence: int
    ok: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class MoveRequested:
    """Move the job to `to`.  `forecast_s` is the expected freeze, `ticket` comes back in MoveEnded."""

    to: NodeId
    by: str = "you"
    ticket: str = ""
    rss_bytes: int = 0
    mode: str = "plain"
    stdio: str = "pipes"
    uid: int = 0
    digest: bytes = b""
    spec: bytes = b""
    forecast_s: float = 1.0
    max_freeze_s: float | None = None  # None: max(10 s, 3 x forecast)


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Take the open move back, if it is not too late."""


@dataclass(frozen=True, slots=True)
class AllOutputDelivered:
    """The terminal's side has everything up to the totals that AwaitOutput named."""


@dataclass(frozen=True, slots=True)
class CheckOwner:
    """The owner's node came back with another incarnation, or was unreachable: ask it whether it has the job."""

    nonce: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's choice in doubt: "rerun", "salvage" or "drop"."""

    choice: str


@dataclass(frozen=True, slots=True)
class Attested:
    """A person swears that `node` is off or was rebooted since the doubt: counts as NOCOPY from it."""

    node: NodeId


# ---- participant


@dataclass(frozen=True, slots=True)
class Facts:
    """What a starting engine finds of one job on its own node."""

    pod: Epoch | None = None  # a living pod
    images: Epoch | None = None  # whole images of this move
    end: End | None = None  # exit status that the shim left behind


@dataclass(frozen=True, slots=True)
class EngineRestarted:
    """First input of a participant machine: the record read from tmpfs (None: never heard of it) and the facts."""

    record: Record | None
    facts: Facts = Facts()


@dataclass(frozen=True, slots=True)
class PodPrepared:
    """The empty pod and the receiver of the image stream stand."""

    session: bytes
    address: str
    key: bytes
    criu: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PodFailed:
    """No room, no CRIU, no pod: the invitation cannot be accepted."""

    session: bytes
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """The first frame of the image stream came: the invitation no longer expires."""

    session: bytes


@dataclass(frozen=True, slots=True)
class StreamSealed:
    """The stream ended with a seal whose manifest, digest and sender are right; all files are on tmpfs."""

    session: bytes


@dataclass(frozen=True, slots=True)
class StreamBroken:
    """The stream ended without a good seal, or tmpfs is full.  Never after StreamSealed."""

    session: bytes
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RestoreDone:
    """The pod is restored and stopped."""

    pod: Epoch


@dataclass(frozen=True, slots=True)
class RestoreFailed:
    """The restore failed; whatever it made is killed."""

    pod: Epoch
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class DumpDone:
    """The tree is dumped and stopped, stdio drained and pulled back into the relay state."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class DumpFailed:
    """The dump failed; CRIU let go of the tree."""

    epoch: Epoch
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ShipDone:
    """All frames of the images were taken by the connection; the seal was not sent."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class ShipFailed:
    """The stream broke before the seal was sent.  After the seal: do not report it."""

    epoch: Epoch
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ResumeDone:
    """Resume or UndoFreeze took effect: the tree runs.  `relay`: its stream counters."""

    pod: Epoch
    relay: bytes = b""


@dataclass(frozen=True, slots=True)
class JobExited:
    """The job's root ended by itself or by a signal while it was running, as its shim says."""

    pod: Epoch
    end: End


@dataclass(frozen=True, slots=True)
class CopyDied:
    """The pod is gone and nobody knows its status (shim killed), or the resume of it failed."""

    pod: Epoch
    reason: str = "its pod was killed"


Input = (
    Received
    | Opened
    | JournalSynced
    | MoveRequested
    | CancelRequested
    | AllOutputDelivered
    | CheckOwner
    | Decision
    | Attested
    | EngineRestarted
    | PodPrepared
    | PodFailed
    | StreamStarted
    | StreamSealed
    | StreamBroken
    | RestoreDone
    | RestoreFailed
    | DumpDone
    | DumpFailed
    | ShipDone
    | ShipFailed
    | ResumeDone
    | JobExited
    | CopyDied
)
