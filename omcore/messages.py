"""What nodes say to each other: one closed table.  The sender is the transport's word, never a field here.

Loss is normal, so every message is either repeated until answered (`Call`, the handoff's) or made good by the next
(`Hello`, lists, acknowledgements).  Gossip travels as raw bytes under a kind of its own, see `node.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from omcore.handoff import messages as handoff
from omcore.types import Check, JobId, JobView, Movable, NodeInfo, ProcDelta, ProcKey, RunSpec
from omcore.wire import MAX_PEER_BYTES, Codec


@dataclass(frozen=True, slots=True)
class Hello:
    """Who I am and whom I know; `want`: please answer with yours."""

    info: NodeInfo
    known: tuple[NodeInfo, ...] = ()
    want: bool = False
    roster: bytes = b""  # digest of the sender's roster


@dataclass(frozen=True, slots=True)
class Call:
    """A question; repeated until the `Answer` comes; the same number from the same node is answered once."""

    number: int
    body: bytes  # a message of this table


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a `Call`; an empty `error` means `body` holds a message of this table."""

    number: int
    body: bytes = b""
    error: str = ""  # class of omcore.errors
    text: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Nothing:
    """An answer without content."""


@dataclass(frozen=True, slots=True)
class AskRoster:
    """Send me one page of your roster."""

    page: int


@dataclass(frozen=True, slots=True)
class RosterPage:
    """Answer to `AskRoster`: entries, which verify themselves."""

    entries: bytes
    pages: int


@dataclass(frozen=True, slots=True)
class AskJobs:
    """Which jobs have their home at you, and which run at you?"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the node that runs a job measures of it."""

    job: JobId
    pid: int
    cpu_percent: float | None
    rss_bytes: int | None
    tasks: int | None
    stopped: bool
    movable: Movable = Movable.UNKNOWN
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Jobs:
    """Answer to `AskJobs`."""

    homes: tuple[JobView, ...]
    held: tuple[Figures, ...]


@dataclass(frozen=True, slots=True)
class WatchProcesses:
    """Send me your process list: full once, then differences each second, for the next five seconds."""

    watch: int  # number of this watch; a new one starts with a full list
    have: int  # serial of the last page of this watch that arrived in order


@dataclass(frozen=True, slots=True)
class Processes:
    """One page of a watched process list; pages are numbered without gaps."""

    watch: int
    serial: int
    delta: ProcDelta
    more: bool = False


@dataclass(frozen=True, slots=True)
class Examine:
    """To the node that runs a job: can it move, and what does it need elsewhere?"""

    job: JobId


@dataclass(frozen=True, slots=True)
class Examined:
    """Answer to `Examine`; `needs` is a packed `preflight.Needs`."""

    movable: Movable
    checks: tuple[Check, ...]
    needs: bytes
    rss_bytes: int
    load: float  # runnable tasks of the job, per core of its node


@dataclass(frozen=True, slots=True)
class CheckNeeds:
    """To a possible destination: could this job live with you?"""

    needs: bytes


@dataclass(frozen=True, slots=True)
class NeedsChecked:
    """Answer to `CheckNeeds`."""

    checks: tuple[Check, ...]
    room_bytes: int


@dataclass(frozen=True, slots=True)
class Forward:
    """To a job's home: this request of a face at another node (a message of omcore.requests, encoded)."""

    request: bytes


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Answer to `Forward`, encoded in the same way; empty: done."""

    answer: bytes = b""


@dataclass(frozen=True, slots=True)
class SignalHere:
    """Signal a process of yours, as the user of this cluster."""

    key: ProcKey
    signum: int


@dataclass(frozen=True, slots=True)
class Launch:
    """Start this job at you; its home is the sender."""

    job: JobId
    token: bytes
    spec: RunSpec


@dataclass(frozen=True, slots=True)
class Launched:
    """Answer to `Launch`."""

    pid: int


@dataclass(frozen=True, slots=True)
class StreamOut:
    """Output of a job, from its owner to its home."""

    job: JobId
    generation: int
    epoch: int
    stream: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamAck:
    """Home has this stream before `offset`."""

    job: JobId
    stream: str
    offset: int


@dataclass(frozen=True, slots=True)
class StreamIn:
    """Typed bytes, from home to owner; `eof`: nothing comes after them."""

    job: JobId
    offset: int
    data: bytes
    eof: bool = False


@dataclass(frozen=True, slots=True)
class StreamSignal:
    """A numbered signal, from home to owner."""

    job: JobId
    seq: int
    signum: int


@dataclass(frozen=True, slots=True)
class StreamResize:
    """The window at home."""

    job: JobId
    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class StreamClose:
    """Nobody reads this output stream any more."""

    job: JobId
    stream: str


@dataclass(frozen=True, slots=True)
class Owner:
    """From owner to home: I run it under this epoch, and this is what I have taken; sent on every change and once a
    second until `Welcome`."""

    job: JobId
    generation: int
    epoch: int
    taken: int
    sig_taken: int
    stopped: int = 0  # signal that stopped it; 0: runs
    hello: bool = False  # I am new or was restarted: tell me where you stand


@dataclass(frozen=True, slots=True)
class Welcome:
    """From home to owner after `Owner(hello)`: what I have received."""

    job: JobId
    received: tuple[int, int, int]  # out, err, tty


@dataclass(frozen=True, slots=True)
class AskOwner:
    """From home: do you run this job, and how far are its streams?"""

    job: JobId


@dataclass(frozen=True, slots=True)
class NotOwner:
    """Answer to `AskOwner`: I do not run it (home asks properly, with a PROBE, before it believes anything)."""

    job: JobId


@dataclass(frozen=True, slots=True)
class Progressed:
    """From source and dest to home, for the faces only; nothing is decided by it.

    `step` is a `Step`; `frozen_s` is the part of the freeze that was spent at the sender.
    """

    job: JobId
    generation: int
    epoch: int
    step: str
    done: int = 0
    total: int = 0
    frozen_s: float = 0.0


GOSSIP_KIND = 0

PEER = Codec(
    {
        1: Hello,
        2: Call,
        3: Answer,
        4: Nothing,
        5: AskJobs,
        6: Jobs,
        7: WatchProcesses,
        8: Processes,
        9: Examine,
        10: Examined,
        11: CheckNeeds,
        12: NeedsChecked,
        13: Forward,
        14: Forwarded,
        15: SignalHere,
        16: Launch,
        17: Launched,
        18: AskRoster,
        19: RosterPage,
        32: StreamOut,
        33: StreamAck,
        34: StreamIn,
        35: StreamSignal,
        36: StreamResize,
        37: StreamClose,
        38: Owner,
        39: Welcome,
        40: AskOwner,
        41: NotOwner,
        42: Progressed,
        **{64 + number: kind for number, kind in handoff.KINDS.items()},
    },
    MAX_PEER_BYTES,
)
