"""The board's message: 48 bytes per entry, in columns.

    b"B"  type  count:u16  urgent:u16  ages: count * u32 (ms)  numbers: count * u32  serials: count * u16
    figures: count * 38 bytes

Entry 0 is the sender's own, the next `urgent` ones are urgent news (type WINDOW_URGENT: the own one too).  All
numbers are little-endian and unsigned or half/single floats; ages are relative, so no clocks need agree and
nothing can come "from the future".  A whole message is checked a column at a time before any of it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from struct import Struct, pack, unpack_from

from omcore.errors import LocalProtocolError, RemoteProtocolError
from omcore.types import LoadSample

KIND = 0x42
WINDOW, WINDOW_URGENT, PULL = 0, 1, 2

HEAD = Struct("<BBHH")
# load own guest | cpu wait | memory used, total | cores speed | uptime | net in, out | jobs
FIGURES = Struct("<eeeBBIIeeIffHHH")
FIGURES_SIZE = FIGURES.size
ENTRY_SIZE = 10 + FIGURES_SIZE
WINDOW_LIMIT = 4096
ABSURD_AGE_MS = 24 * 3600 * 1000  # no right node passes on what is a day old

MEMORY_UNIT = 64 * 1024
HALF_MAX = 65504.0
NET_MAX = 1e18
LEAST_CORES = 1 / 64
NO_WAIT = 255

# Which high bytes a column may hold: finite and not negative.  bytes.translate looks at a whole column in C.
_HALF_OK = bytes(range(0x7C))
_NET_OK = bytes(range(0x60))
_CPU_OK = bytes(range(201))
_WAIT_OK = bytes([*range(201), NO_WAIT])
_COLUMNS = (
    *((at, _HALF_OK) for at in (1, 3, 5, 17, 19)),
    *((at, _NET_OK) for at in (27, 31)),
    (6, _CPU_OK),
    (7, _WAIT_OK),
)


@dataclass(frozen=True, slots=True)
class Window:
    """A checked message, a column each; entries 1..urgent are urgent."""

    ages_ms: Sequence[int]
    numbers: Sequence[int]
    serials: Sequence[int]
    figures: bytes
    urgent: int
    own_urgent: bool


def pack_figures(s: LoadSample) -> bytes:
    """38 bytes for one sample: loads to 0.1 %, CPU to 0.5 %, memory to 64 KiB; greater values are capped.

    Raises LocalProtocolError for NaN, infinity or a negative figure: a sensor's bug, not to be spread.
    """
    figures = (s.load, s.load_own, s.load_guest, s.cpu_percent, s.wait_percent or 0.0, s.cores, s.speed)
    rates = (s.uptime_s, s.net_in_bps, s.net_out_bps)
    counts = (s.mem_used_bytes, s.mem_total_bytes, s.jobs_here, s.jobs_guest, s.jobs_away)
    if not all(isfinite(value) and value >= 0 for value in (*figures, *rates, *counts)):
        raise LocalProtocolError(f"not a load sample: {s}")
    return FIGURES.pack(
        *(min(HALF_MAX, value) for value in figures[:3]),
        _percent(s.cpu_percent),
        NO_WAIT if s.wait_percent is None else _percent(s.wait_percent),
        *(min(0xFFFFFFFF, (size + MEMORY_UNIT // 2) // MEMORY_UNIT) for size in counts[:2]),
        *(min(HALF_MAX, value) for value in figures[5:]),
        min(0xFFFFFFFF, int(s.uptime_s)),
        *(min(NET_MAX, value) for value in rates[1:]),
        *(min(0xFFFF, value) for value in counts[2:]),
    )


def unpack_figures(figures: bytes) -> LoadSample:
    """The sample in 38 checked bytes."""
    (load, own, guest, cpu, wait, used, total, cores, speed, uptime, net_in, net_out, *jobs) = FIGURES.unpack(figures)
    return LoadSample(
        load=load,
        load_own=own,
        load_guest=guest,
        cpu_percent=cpu / 2,
        wait_percent=None if wait == NO_WAIT else wait / 2,
        mem_used_bytes=used * MEMORY_UNIT,
        mem_total_bytes=total * MEMORY_UNIT,
        cores=max(LEAST_CORES, cores),  # others divide by it
        speed=max(LEAST_CORES, speed),
        uptime_s=float(uptime),
        net_in_bps=net_in,
        net_out_bps=net_out,
        jobs_here=jobs[0],
        jobs_guest=jobs[1],
        jobs_away=jobs[2],
    )


def pack_window(
    ages_ms: Iterable[int],
    numbers: Iterable[int],
    serials: Iterable[int],
    figures: Sequence[bytes],
    urgent: int,
    own_urgent: bool,
) -> bytes:
    """One message: own entry first, then `urgent` urgent ones, then the rest."""
    count = len(figures)
    columns = pack(f"<BBHH{2 * count}I{count}H", *_head(count, urgent, own_urgent), *ages_ms, *numbers, *serials)
    return columns + b"".join(figures)


def pack_pull() -> bytes:
    """The question "send me your window"."""
    return HEAD.pack(KIND, PULL, 0, 0)


def unpack_message(data: bytes, sender: int) -> Window | None:
    """Check one message as a whole; None is a pull.  Raises RemoteProtocolError for anything amiss."""
    if len(data) < HEAD.size:
        raise RemoteProtocolError(f"board: {len(data)} bytes")
    kind, type_, count, urgent = HEAD.unpack_from(data)
    if kind != KIND or type_ > PULL:
        raise RemoteProtocolError(f"board: {kind=} type={type_}")
    if type_ == PULL:
        if len(data) != HEAD.size or count or urgent:
            raise RemoteProtocolError("board: a pull with a tail")
        return None
    if not 1 <= count <= WINDOW_LIMIT or urgent >= count or len(data) != HEAD.size + count * ENTRY_SIZE:
        raise RemoteProtocolError(f"board: {count=} {urgent=} in {len(data)} bytes")
    columns = unpack_from(f"<{2 * count}I{count}H", data, HEAD.size)
    ages_ms = columns[:count]
    if max(ages_ms) > ABSURD_AGE_MS:
        raise RemoteProtocolError(f"board: an entry {max(ages_ms) / 1000:.0f} s old")
    figures = data[HEAD.size + 10 * count :]
    for at, allowed in _COLUMNS:
        if figures[at::FIGURES_SIZE].translate(None, allowed):
            raise RemoteProtocolError(f"board: bad figure at byte {at}")
    if columns[count] != sender:
        raise RemoteProtocolError("board: the first entry is not the sender's own")
    return Window(ages_ms, columns[count : 2 * count], columns[2 * count :], figures, urgent, type_ == WINDOW_URGENT)


def _head(count: int, urgent: int, own_urgent: bool) -> tuple[int, int, int, int]:
    return KIND, WINDOW_URGENT if own_urgent else WINDOW, count, urgent


def _percent(value: float) -> int:
    return min(200, round(value * 2))
