"""Every message of the handoff protocol.  All are idempotent, at most 4 KiB, and name job, epoch and session.

Fields are plain (ints, strings, bytes, bools, None, tuples), so that the wire can encode them as they are.  `KINDS`
gives each its stable number on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass

from omcore.handoff.records import End, Epoch
from omcore.types import JobId, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What every message carries; `session` is what the dest drew for this move, None where it is not known."""

    job: JobId
    epoch: Epoch
    session: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare(Envelope):
    """home -> dest: make an empty pod and reserve room."""

    source: NodeId
    token: bytes
    rss_bytes: int = 0
    mode: str = "plain"
    stdio: str = "pipes"
    uid: int = 0
    digest: bytes = b""  # of the preflight both sides agreed on
    spec: bytes = b""  # what the pod maker needs; opaque here


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Envelope):
    """dest -> home: invitation accepted, session drawn."""

    address: str
    key: bytes  # one-time key of the image stream
    criu: tuple[int, ...] = ()
    incarnation: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze(Envelope):
    """home -> source: stop, dump, ship."""

    dest: NodeId
    address: str
    key: bytes
    mode: str = "plain"
    max_freeze_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Envelope):
    """dest -> home: restored and stopped; the dest's vote."""

    timings: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Go(Envelope):
    """home -> dest: the grant; resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Envelope):
    """dest -> home and source (home relays): the dest runs; the source must delete."""

    relay: bytes = b""  # counters of the streams; opaque here


@dataclass(frozen=True, slots=True, kw_only=True)
class Voided(Envelope):
    """dest -> home and source: will never run this epoch in this session."""

    images: bool
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort(Envelope):
    """home -> source: the move is undone, go on.  `dest` is for the source's tombstone."""

    dest: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone(Envelope):
    """source -> home and dest (home relays): the source runs as epoch + 1; the dest must delete."""

    reason: str = ""
    hint: str = ""
    relay: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaim(Envelope):
    """source or home -> dest: give it back; READY becomes VOID."""

    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Envelope):
    """source -> home while SEALED, and any holder's answer to PROBE: what is held."""

    state: str
    nonce: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusAck(Envelope):
    """home -> source: heard; wait, or (`reclaim`) take it back from the dest, which home cannot reach."""

    reclaim: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Envelope):
    """dest -> source while READY: answer UNDONE if *you* undid it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired(Envelope):
    """source -> home: stopped copy and images deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded(Envelope):
    """dest -> home: images deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clean(Envelope):
    """loser -> home: held nothing of this epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Envelope):
    """home -> any: what do you hold of this epoch (and session)?"""

    nonce: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCopy(Envelope):
    """any -> asker: proof that no copy of this epoch (and session) is here, nor will be."""

    answers: str  # kind of the question, lower case: "probe", "go", ...
    nonce: int = 0
    incarnation: bytes = b""
    ran: str = "unknown"  # "yes" if a note on disk says that it was granted here


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Envelope):
    """owner -> home: the job ended under this epoch."""

    end: End


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAck(Envelope):
    """home -> owner: the end is durable and all output was received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded(Envelope):
    """Who knows a higher generation -> the old authority: your journal is history."""

    authority: NodeId
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt(Envelope):
    """home -> dest: a person salvages; restore your images under this new epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Envelope):
    """home -> holder: the job is given up (or closed); delete your stopped copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Envelope):
    """holder -> home: done."""


Message = (
    Prepare
    | Prepared
    | Freeze
    | Ready
    | Go
    | Resumed
    | Voided
    | Abort
    | Undone
    | Reclaim
    | Status
    | StatusAck
    | Ask
    | Retired
    | Discarded
    | Clean
    | Probe
    | NoCopy
    | Ended
    | EndedAck
    | Superseded
    | Adopt
    | Drop
    | Dropped
)

KINDS: dict[int, type[Message]] = {
    1: Prepare,
    2: Prepared,
    3: Freeze,
    4: Ready,
    5: Go,
    6: Resumed,
    7: Voided,
    8: Abort,
    9: Undone,
    10: Reclaim,
    11: Status,
    12: StatusAck,
    13: Ask,
    14: Retired,
    15: Discarded,
    16: Clean,
    17: Probe,
    18: NoCopy,
    19: Ended,
    20: EndedAck,
    21: Superseded,
    22: Adopt,
    23: Drop,
    24: Dropped,
}
"""Number on the wire -> class; numbers are never used again for something else."""

TO_HOME = (
    Prepared, Ready, Resumed, Voided, Undone, Status, Retired, Discarded, Clean, NoCopy, Ended, Superseded, Dropped
)  # fmt: skip
"""Messages that a home machine takes; RESUMED, VOIDED and UNDONE also go to the other end (`TO_PARTICIPANT`)."""

TO_PARTICIPANT = (
    Prepare, Freeze, Go, Resumed, Voided, Abort, Undone, Reclaim, StatusAck, Ask, Probe, EndedAck, Adopt, Drop, NoCopy
)  # fmt: skip
