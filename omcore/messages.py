"""What nodes say to each other: one closed table.  The sender is the transport's word, never a field here.

Loss is normal, so every message is either repeated until answered (`Call`, the handoff's) or made good by the next
(`Hello`, lists, acknowledgements).  Gossip travels as raw bytes under a kind of its own, see `node.py`.
"""

from __future__ import annotations

import msgspec

from omcore.handoff import messages as handoff
from omcore.types import Check, JobId, JobView, Movable, MoveView, NodeId, NodeInfo, ProcDelta, ProcKey, RunSpec
from omcore.wire import MAX_PEER_BYTES, Codec


class Hello(msgspec.Struct, frozen=True):
    """Who I am and whom I know; `want`: please answer with yours."""

    info: NodeInfo
    known: tuple[NodeInfo, ...] = ()
    want: bool = False
    roster: bytes = b""  # digest of the sender's roster
    head: bytes = b""  # the newest word of a keyholder about the roster that the sender has


class Call(msgspec.Struct, frozen=True):
    """A question; repeated until the `Answer` comes; the same number from the same node is answered once."""

    number: int
    body: bytes  # a message of this table


class Answer(msgspec.Struct, frozen=True):
    """The answer to a `Call`; an empty `error` means `body` holds a message of this table."""

    number: int
    body: bytes = b""
    error: str = ""  # class of omcore.errors
    text: str = ""
    hint: str = ""


class Nothing(msgspec.Struct, frozen=True):
    """An answer without content."""


class AskRoster(msgspec.Struct, frozen=True):
    """Send me one page of your roster."""

    page: int


class RosterPage(msgspec.Struct, frozen=True):
    """Answer to `AskRoster`: entries, which verify themselves."""

    entries: bytes
    pages: int
    turns: bytes = b""


class AskAdmit(msgspec.Struct, frozen=True):
    """To a keyholder: sign a pass for this node, which used an invitation of mine; answered by a `RosterPage`."""

    node: NodeId
    role: int


class AskForget(msgspec.Struct, frozen=True):
    """To a keyholder: sign the removal of this node, or of all that it brought as well; answered by a `RosterPage`."""

    node: NodeId
    with_invited: bool = False


class AskLeave(msgspec.Struct, frozen=True):
    """To a keyholder: sign my own removal; answered by a `RosterPage`."""


class AskRekey(msgspec.Struct, frozen=True):
    """To a keyholder: from now on this is my key; answered by a `RosterPage`."""

    node: NodeId


class TakeEntries(msgspec.Struct, frozen=True):
    """News of the roster, at once; they verify themselves."""

    entries: bytes
    turns: bytes = b""


class TakeKey(msgspec.Struct, frozen=True):
    """From a keyholder: be one too."""

    public: bytes
    secret: bytes
    turns: bytes = b""

    def __repr__(self) -> str:
        return "TakeKey(...)"


class AskJobs(msgspec.Struct, frozen=True):
    """Which jobs have their home at you, how did they move, and which run at you?"""


class Figures(msgspec.Struct, frozen=True):
    """What the node that runs a job measures of it."""

    job: JobId
    pid: int
    cpu_percent: float | None
    rss_bytes: int | None
    tasks: int | None
    stopped: bool
    movable: Movable = Movable.UNKNOWN
    why_not: str = ""


class Jobs(msgspec.Struct, frozen=True):
    """Answer to `AskJobs`."""

    homes: tuple[JobView, ...]
    held: tuple[Figures, ...]
    moves: tuple[MoveView, ...] = ()


class WatchProcesses(msgspec.Struct, frozen=True):
    """Send me your process list: full once, then differences each second, for the next five seconds."""

    watch: int  # number of this watch; a new one starts with a full list
    have: int  # serial of the last page of this watch that arrived in order


class Processes(msgspec.Struct, frozen=True):
    """One page of a watched process list; pages are numbered without gaps."""

    watch: int
    serial: int
    delta: ProcDelta
    more: bool = False


class Examine(msgspec.Struct, frozen=True):
    """To the node that runs a job: can it move, and what does it need elsewhere?"""

    job: JobId


class Examined(msgspec.Struct, frozen=True):
    """Answer to `Examine`; `needs` is a packed `preflight.Needs`."""

    movable: Movable
    checks: tuple[Check, ...]
    needs: bytes
    rss_bytes: int
    load: float  # runnable tasks of the job, per core of its node


class CheckNeeds(msgspec.Struct, frozen=True):
    """To a possible destination: could this job live with you?"""

    needs: bytes


class NeedsChecked(msgspec.Struct, frozen=True):
    """Answer to `CheckNeeds`."""

    checks: tuple[Check, ...]
    room_bytes: int


class Forward(msgspec.Struct, frozen=True):
    """To a job's home: this request of a face at another node (a message of omcore.requests, encoded)."""

    request: bytes


class Forwarded(msgspec.Struct, frozen=True):
    """Answer to `Forward`, encoded in the same way; empty: done."""

    answer: bytes = b""


class SignalHere(msgspec.Struct, frozen=True):
    """Signal a process of yours, as the user of this cluster."""

    key: ProcKey
    signum: int


class Launch(msgspec.Struct, frozen=True):
    """Start this job at you; its home is the sender."""

    job: JobId
    token: bytes
    spec: RunSpec


class Launched(msgspec.Struct, frozen=True):
    """Answer to `Launch`."""

    pid: int


class StreamOut(msgspec.Struct, frozen=True):
    """Output of a job, from its owner to its home."""

    job: JobId
    generation: int
    epoch: int
    stream: str
    offset: int
    data: bytes


class StreamAck(msgspec.Struct, frozen=True):
    """Home has this stream before `offset`."""

    job: JobId
    stream: str
    offset: int


class StreamIn(msgspec.Struct, frozen=True):
    """Typed bytes, from home to owner; `eof`: nothing comes after them."""

    job: JobId
    offset: int
    data: bytes
    eof: bool = False


class StreamSignal(msgspec.Struct, frozen=True):
    """A numbered signal, from home to owner."""

    job: JobId
    seq: int
    signum: int


class StreamResize(msgspec.Struct, frozen=True):
    """The window at home."""

    job: JobId
    rows: int
    cols: int


class StreamClose(msgspec.Struct, frozen=True):
    """Nobody reads this output stream any more."""

    job: JobId
    stream: str


class Owner(msgspec.Struct, frozen=True):
    """From owner to home: I run it under this epoch, and this is what I have taken; sent on every change and once a
    second until `Welcome`."""

    job: JobId
    generation: int
    epoch: int
    taken: int
    sig_taken: int
    stopped: int = 0  # signal that stopped it; 0: runs
    hello: bool = False  # I am new or was restarted: tell me where you stand
    acked: tuple[int, int, int] = (0, 0, 0)  # with hello: output before this I have forgotten, for you had it


class Welcome(msgspec.Struct, frozen=True):
    """From home to owner after `Owner(hello)`: what I have received."""

    job: JobId
    received: tuple[int, int, int]  # out, err, tty


class AskOwner(msgspec.Struct, frozen=True):
    """From home: do you run this job, and how far are its streams?"""

    job: JobId


class NotOwner(msgspec.Struct, frozen=True):
    """Answer to `AskOwner`: I do not run it (home asks properly, with a PROBE, before it believes anything)."""

    job: JobId


class Progressed(msgspec.Struct, frozen=True):
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


class AskInfos(msgspec.Struct, frozen=True):
    """What have you heard of these node numbers? (name, addresses)"""

    numbers: tuple[int, ...]


class Infos(msgspec.Struct, frozen=True):
    """Answer to `AskInfos`: of those it has heard of, in their own words."""

    infos: tuple[NodeInfo, ...]


class AskBoard(msgspec.Struct, frozen=True):
    """What do you know of all nodes, and how old is it?"""


class BoardRows(msgspec.Struct, frozen=True):
    """Answer to `AskBoard`: columns, ten thousand nodes fit.  An age of -1: never heard; loads are hundredths."""

    numbers: tuple[int, ...]
    states: bytes  # one each, index into `NodeState`
    ages_ms: tuple[int, ...]
    loads: tuple[int, ...]
    window: int
    stale_after_s: float


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
        24: AskAdmit,
        25: AskForget,
        26: AskLeave,
        27: AskRekey,
        28: TakeEntries,
        29: TakeKey,
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
        48: AskInfos,
        49: Infos,
        50: AskBoard,
        51: BoardRows,
        **{64 + number: kind for number, kind in handoff.KINDS.items()},
    },
    MAX_PEER_BYTES,
)
