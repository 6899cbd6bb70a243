"""The shared vocabulary: what a node, a job, a move and a process look like to every part of the house.

All values are frozen and hold only tuples, so that a snapshot can be compared, kept and drawn without copying.
Units: durations and ages in seconds (float), sizes in bytes (int), CPU in percent of one core, load in runnable
tasks per effective core.  Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NewType

NodeId = NewType("NodeId", str)
"""A node is its X25519 public key: 64 lower-case hexadecimal digits."""

JobId = NewType("JobId", str)
"""A job's name for machines: 32 lower-case hexadecimal digits (16 random bytes)."""

Direction = Literal["in", "out", "err", "tty"]


class NodeState(StrEnum):
    """What the viewing node believes of another node."""

    UP = "up"
    STALE = "stale"  # news older than it should be; figures are shown with their age
    LOST = "lost"  # not heard for so long that the detector gave it up


class JobState(StrEnum):
    """Where a job stands, as its home says."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"  # by its user (^Z, SIGSTOP)
    MOVING = "moving"
    DOUBT = "doubt"  # a move that only a person can settle
    ENDED = "ended"
    LOST = "lost"


class Step(StrEnum):
    """The steps of a move, in order; the last three are ends."""

    CHECK = "check"
    PREPARE = "prepare"
    FREEZE = "freeze"
    SHIP = "ship"
    RESTORE = "restore"
    COMMIT = "commit"
    DONE = "done"
    BACK = "back"  # taken back: the job goes on at the source
    REFUSED = "refused"  # nothing was touched


class Movable(StrEnum):
    """Short answer to "can it move?"."""

    YES = "yes"
    FIX = "fix"  # not now; the reason says what to change
    LOCKED = "locked"
    MOVING = "moving"
    NO = "no"
    UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class LoadSample:
    """What one node measures of itself once a second."""

    load: float = 0.0  # runnable tasks per effective core
    load_own: float = 0.0  # part of `load` made by jobs whose home is here
    load_guest: float = 0.0  # part of `load` made by guests
    cpu_percent: float = 0.0  # of all effective cores together: 0..100
    wait_percent: float | None = None  # PSI cpu "some" over 10 s; None where the kernel has none
    mem_used_bytes: int = 0
    mem_total_bytes: int = 0
    cores: float = 1.0  # effective cores: the cgroup's limit where there is one
    speed: float = 1.0
    uptime_s: float = 0.0
    net_in_bps: float = 0.0  # bytes per second
    net_out_bps: float = 0.0
    jobs_here: int = 0  # jobs running here whose home is here
    jobs_guest: int = 0
    jobs_away: int = 0


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What changes seldom about a node: spread on change, never with every load figure."""

    id: NodeId
    number: int
    name: str
    addresses: tuple[str, ...] = ()  # "host:port", "[v6]:port"; where it listens for peers
    version: str = ""
    proto: int = 1
    criu: tuple[int, ...] = ()  # (4, 2, 1); empty: none, guests cannot come
    kernel: str = ""
    arch: str = ""
    serial: int = 0  # newer wins


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as the viewing node sees it now."""

    id: NodeId
    number: int
    name: str
    state: NodeState
    me: bool
    age_s: float | None  # age of `sample`; None: never heard
    sample: LoadSample
    info: NodeInfo
    locked_jobs: int = 0
    can_guest: bool = True
    why_not: str = ""  # why it takes no guests, in words


@dataclass(frozen=True, slots=True)
class JobView:
    """One job, as its home tells."""

    id: JobId
    name: str
    command: tuple[str, ...]
    user: str
    home: int  # node number
    node: int  # node number where it runs (or is stopped)
    pid: int  # PID of its root as seen on `node`; 0: none
    state: JobState
    locked: bool = False
    moves: int = 0
    cpu_percent: float | None = None  # of one core, whole tree; None: not known
    rss_bytes: int | None = None
    tasks: int | None = None
    age_s: float = 0.0  # since it was started
    stdio: str = "pipes"  # "pty" | "pipes" | "mixed"
    attached: bool = False  # a terminal is connected now
    status: int | None = None  # exit code, or minus the signal; None: not ended
    note: str = ""  # last thing worth saying about it
    movable: Movable = Movable.UNKNOWN
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class MoveView:
    """One migration, running or ended."""

    id: str  # job id and epoch: unique, stable
    job: JobId
    name: str
    user: str
    source: int
    dest: int
    step: Step
    started_age_s: float
    bytes_done: int = 0
    bytes_total: int = 0
    freeze_s: float | None = None  # measured at the job: stop to go
    frozen_for_s: float | None = None  # while frozen: how long already
    total_s: float | None = None
    by: str = "you"
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that happened, for the list "Now" and the log."""

    serial: int
    age_s: float
    kind: str  # "moved" "taken back" "refused" "joined" "lost" "back" "started" "ended" "error"
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class ClusterView:
    """Everything a face shows, at one moment, as one node sees it."""

    me: NodeId
    number: int  # of the node that answers
    cluster: str  # name of the cluster; "" when alone
    engine: str  # "embedded" | "user" | "system"
    nodes: tuple[NodeView, ...]
    jobs: tuple[JobView, ...]
    moves: tuple[MoveView, ...]  # newest first; running ones included
    events: tuple[EventView, ...]  # newest first
    serial: int = 0
    warnings: tuple[str, ...] = ()  # e.g. "no CRIU here: omview doctor --fix"


@dataclass(frozen=True, slots=True)
class ProcKey:
    """A process for as long as it lives: node, PID and start time (clock ticks since that node's boot)."""

    node: int
    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class ProcView:
    """One row of a process list, as the node that has the process tells."""

    key: ProcKey
    ppid: int
    user: str
    state: str  # one letter of /proc/PID/stat
    cpu_percent: float  # of one core
    rss_bytes: int
    cpu_time_s: float
    threads: int
    name: str  # comm
    command: str  # whole command line, cleaned; "[name]" for kernel threads
    tty: str = ""
    nice: int = 0
    job: JobId | None = None  # the job it belongs to
    root: bool = False  # it is that job's root


@dataclass(frozen=True, slots=True)
class ProcDelta:
    """A difference of process lists; `full` says: forget all you had of these nodes first."""

    nodes: tuple[int, ...]  # which nodes this speaks of
    changed: tuple[ProcView, ...] = ()
    gone: tuple[ProcKey, ...] = ()
    full: bool = False
    missing: tuple[int, ...] = ()  # asked, did not answer in time


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What `migrate` reports when the move has ended, however it ended."""

    job: JobId
    source: str  # node names, for people
    dest: str
    ok: bool
    freeze_s: float | None = None
    total_s: float = 0.0
    bytes: int = 0
    error: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a move to one node would do, for the dialog; asks nothing of the job."""

    node: int
    ok: bool
    load_now: float
    load_with: float
    freeze_s: float
    mem_free_bytes: int
    cores: float
    verdict: str  # "best: gains 18% speed", "slower: 4 cores only", "it is here"
    reason: str = ""  # why not
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One line under "can it move?"."""

    ok: bool  # False with `fatal` False: worth knowing
    fatal: bool
    code: str  # stable, e.g. "io_uring", "file_missing"
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class MovePlan:
    """All that the migrate dialog shows: targets best first, then what was checked."""

    job: JobId
    source: int
    rss_bytes: int
    targets: tuple[Forecast, ...]
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What `omview run` asks the engine to start."""

    command: tuple[str, ...]
    cwd: str
    env: tuple[str, ...]  # "KEY=value"
    name: str = ""
    on: str = ""  # node name or number; "" here
    detach: bool = False
    tty: tuple[int, ...] = ()  # which of 0, 1, 2 are the pod's pty; the others are pipes
    rows: int = 24
    cols: int = 80
    term: bytes = b""  # packed termios of the caller's terminal; b"" defaults
    umask: int = 0o022
    limits: tuple[tuple[int, int, int], ...] = ()  # (resource, soft, hard)


@dataclass(frozen=True, slots=True)
class Keyholder:
    """A node that holds the cluster key; `up`: it is heard of."""

    name: str
    fingerprint: str
    up: bool
    me: bool = False


@dataclass(frozen=True, slots=True)
class KeysView:
    """Who this node is, who may change the membership, and how the roster stands; nothing in it is secret.

    `roster_age_s`: since a keyholder last confirmed the roster; None: not since the start.
    """

    node: str  # fingerprints
    cluster: str
    epoch: int
    keyholders: tuple[Keyholder, ...]
    members: int
    removals: int
    invitations: int
    backup: bool  # this key was exported here
    roster_age_s: float | None = None
    turns: tuple[str, ...] = ()  # fingerprints of rival new keys: the membership is frozen


@dataclass(frozen=True, slots=True)
class Dropped:
    """Messages of a member that were not taken."""

    node: str
    why: str
    count: int


@dataclass(frozen=True, slots=True)
class SecurityView:
    """What an engine lets others do, where it listens, and what it refused since its start."""

    me: NodeId
    kind: str
    listening: tuple[str, ...]
    share: str
    invites: str
    discover: bool
    refused: int  # connections with a key that nobody admitted
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class DoctorLine:
    """One finding of `omview doctor`."""

    level: Literal["ok", "warn", "bad"]
    subject: str
    text: str
    fix: str = ""


class Drop(StrEnum):
    """Why a message was not delivered; a closed list, so that counters stay few."""

    STRANGER = "stranger"  # came: nobody who may talk to us proved to have sent it
    MALFORMED = "malformed"  # came: not what its kind must look like
    NOT_ALLOWED = "not_allowed"  # came: its sender may not say that, or not yet
    TOO_MANY = "too_many"  # came: more than one key may send
    NO_ADDRESS = "no_address"  # not sent: nobody knows where that node is
    WAITING = "waiting"  # not sent: its addresses did not answer, and the pause before the next dial runs
    QUEUE_FULL = "queue_full"  # not sent: the connection takes no more just now
    CUT = "cut"  # sent, but the connection was never made


class LinkState(StrEnum):
    """The connection that a node made to another one (the other's to it is another connection)."""

    UP = "up"
    DIALLING = "dialling"
    WAITING = "waiting"  # it failed; dialled again after a pause
    IDLE = "idle"  # none is needed just now
    NOWHERE = "nowhere"  # no address known


@dataclass(frozen=True, slots=True)
class Link:
    """What went between this node and one member since the start; bytes of messages, without what encryption adds."""

    state: LinkState = LinkState.IDLE
    address: str = ""  # dialled now, or next
    retry_s: float | None = None  # until it may be dialled again
    heard_s: float | None = None  # since its last message; None: never
    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    dials: int = 0
    failures: int = 0
    error: str = ""  # the last failure, in words
    dropped: tuple[tuple[Drop, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PeerNet:
    """One member in `NetView`."""

    node: int
    name: str
    link: Link


@dataclass(frozen=True, slots=True)
class NetView:
    """What a node sees of its network."""

    node: int
    name: str
    listening: tuple[str, ...]
    discovery: str  # what it does, in words
    up_s: float  # since the counters began
    peers: tuple[PeerNet, ...]
    dials: int  # connections this node has made, open now
    dials_most: int
    inbound: int  # connections that members made to this node, open now
    inbound_most: int
    refused: int  # handshakes with a key that nobody admitted
    dropped: tuple[tuple[Drop, int], ...] = ()  # of nobody known


@dataclass(frozen=True, slots=True)
class BoardRow:
    """What one node knows of another."""

    node: int
    state: NodeState
    age_s: float | None  # of the figures; None: never heard
    load: float | None


@dataclass(frozen=True, slots=True)
class BoardView:
    """One node's board: who it knows, and how old that is.  With an `error` it did not answer."""

    node: int
    name: str
    rows: tuple[BoardRow, ...] = ()
    window: int = 0  # entries in a message
    stale_after_s: float = 0.0
    expected_age_s: float | None = None  # average that theory promises; None: alone
    error: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Load history of one node for a chart: oldest first, one value per `step_s`; None is a gap."""

    node: int
    step_s: float
    values: tuple[float | None, ...] = field(default=())
