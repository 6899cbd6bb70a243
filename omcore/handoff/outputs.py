"""What the machines ask of the driver.  A list of outputs is executed in order, each *finished* before the next
begins where its docstring says "finish", else merely started.
"""

from __future__ import annotations

from dataclasses import dataclass

from omcore.handoff.messages import Message, Prepare
from omcore.handoff.records import End, Epoch, Journal, Record
from omcore.types import JobId, NodeId, Step


@dataclass(frozen=True, slots=True)
class Send:
    """Give the message to the transport (or, for `to` = this node, back to the own machines); loss is allowed."""

    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Finish: write tmp, rename.  No fsync.  Nothing after it in the list may happen before."""

    record: Record


@dataclass(frozen=True, slots=True)
class ForgetRecord:
    """The tombstones are an hour old: delete the record and this machine."""

    job: JobId


@dataclass(frozen=True, slots=True)
class WriteJournal:
    """Finish the pwrite.  With `sync`: then fdatasync, and feed JournalSynced(sequence, ok) back; without: nothing."""

    sequence: int
    journal: Journal
    sync: bool


@dataclass(frozen=True, slots=True)
class PreparePod:
    """Make the empty pod and open the receiver of the stream; feed PodPrepared or PodFailed, later Stream*."""

    pod: Epoch
    session: bytes
    prepare: Prepare
    source: NodeId


@dataclass(frozen=True, slots=True)
class KillPod:
    """Finish: kill that pod, whatever it is doing (a restore under way, too); report no exit of it.  Gone is fine."""

    job: JobId
    pod: Epoch


@dataclass(frozen=True, slots=True)
class DeleteImages:
    """Delete images and stream receiver of this move; nothing there is fine."""

    job: JobId
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class StartDump:
    """Stop taking stdin and signals, dump, drain and pull back stdio; feed DumpDone or DumpFailed."""

    job: JobId
    pod: Epoch
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class StartShip:
    """Stream the images (all but the seal); feed ShipDone or ShipFailed."""

    job: JobId
    epoch: Epoch
    session: bytes
    dest: NodeId
    address: str
    key: bytes


@dataclass(frozen=True, slots=True)
class SendSeal:
    """Send the seal on the open stream.  From here on a broken stream is not reported."""

    job: JobId
    epoch: Epoch
    session: bytes


@dataclass(frozen=True, slots=True)
class StartRestore:
    """Restore the images of `images` into `pod` and leave it stopped; feed RestoreDone or RestoreFailed."""

    job: JobId
    pod: Epoch
    images: Epoch


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a restored pod go (doing it twice is harmless); feed ResumeDone, JobExited or CopyDied."""

    job: JobId
    pod: Epoch


@dataclass(frozen=True, slots=True)
class UndoFreeze:
    """First let CRIU end or kill it and stop the stream; put pulled-back stdin back; resume leaves first, root last.

    Doing it twice is harmless.  Feed ResumeDone, JobExited or CopyDied.
    """

    job: JobId
    pod: Epoch
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class NoteGrant:
    """Note on the disk, synced when convenient: this move was granted here."""

    job: JobId
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class AwaitOutput:
    """Feed AllOutputDelivered once the terminal's side has all output up to `totals` (each time this is asked)."""

    job: JobId
    end: End


@dataclass(frozen=True, slots=True)
class ReportEnd:
    """The job is closed and that is durable: the deputy exits with the status, once."""

    job: JobId
    end: End


@dataclass(frozen=True, slots=True)
class OwnerIs:
    """Who runs the job now.  Output and acks under epochs below `out_floor` are refused."""

    job: JobId
    owner: NodeId
    epoch: Epoch
    out_floor: Epoch


@dataclass(frozen=True, slots=True)
class Progress:
    """For the faces."""

    job: JobId
    epoch: Epoch
    step: Step
    text: str = ""


@dataclass(frozen=True, slots=True)
class MoveEnded:
    """A requested move is over; `reason` and `hint` are words for people where it failed."""

    job: JobId
    epoch: Epoch | None  # None: refused before it had a number
    ok: bool
    dest: NodeId
    ticket: str
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Only a person can settle this move.  `choices` are those that Decision takes now; kind 0: the doubt is over."""

    job: JobId
    kind: int
    epoch: Epoch
    holder: NodeId
    text: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DiskBad:
    """Home's disk refused a journal write; further moves of this job are refused."""

    job: JobId
    error: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message was not for its sender's role or not of this move: counted, nothing changed."""

    sender: NodeId
    kind: str
    reason: str


Output = (
    Send
    | WriteRecord
    | ForgetRecord
    | WriteJournal
    | PreparePod
    | KillPod
    | DeleteImages
    | StartDump
    | StartShip
    | SendSeal
    | StartRestore
    | Resume
    | UndoFreeze
    | NoteGrant
    | AwaitOutput
    | ReportEnd
    | OwnerIs
    | Progress
    | MoveEnded
    | Doubt
    | DiskBad
    | Dropped
)
