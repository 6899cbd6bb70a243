"""Numbers, sizes and times as people read them; the one place that knows how long a figure may be.

Pure.  None means "not known" and becomes `?`; a plain zero becomes `·` where a table holds many of them.
"""

from __future__ import annotations

import time
from functools import lru_cache

from rich.cells import cell_len, set_cell_size

ZERO = "·"
UNKNOWN = "?"


def load(value: float | None) -> str:
    """Runnable tasks per core in at most four cells: `2.31`, `12.3`, `123`."""
    if value is None:
        return UNKNOWN
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def cores(value: float) -> str:
    """How many cores a node may use: `8`, `0.67`."""
    return f"{round(value, 2):g}"


def percent(value: float | None) -> str:
    """A share in percent without its sign: `99`."""
    return UNKNOWN if value is None else f"{value:.0f}"


def cpu(value: float | None) -> str:
    """CPU of a process in percent of one core: `398`, `12`, `<1`, and `·` for nothing."""
    if value is None:
        return UNKNOWN
    if value < 0.05:
        return ZERO
    return "<1" if value < 1 else f"{value:.0f}"


def mem(size: int | None) -> str:
    """Bytes for a table, in powers of 1024, at most four cells: `8M`, `210M`, `1.2G`, `31G`."""
    if size is None:
        return UNKNOWN
    if size <= 0:
        return ZERO
    value, unit = size / 1024, "K"
    for following in "MGTP":
        if value < 999.5:
            break
        value, unit = value / 1024, following
    if unit in "KM" or value >= 9.95:
        return f"{value:.0f}{unit}"
    return f"{value:.1f}{unit}"


def size(value: int | None) -> str:
    """Bytes for a sentence: `1.2 GiB`, `84 MiB`."""
    if value is None:
        return UNKNOWN
    amount, unit = value / 1024, "KiB"
    for following in ("MiB", "GiB", "TiB", "PiB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1024, following
    return f"{amount:.1f} {unit}" if unit[0] not in "KM" and amount < 99.95 else f"{amount:.0f} {unit}"


def gib(value: int | None) -> str:
    """Bytes as a bare number of GiB, whole from 100 on: `41.2`, `224`."""
    if value is None:
        return UNKNOWN
    amount = value / 1024**3
    return f"{amount:.1f}" if amount < 99.95 else f"{amount:.0f}"


def rate(bytes_per_second: float | None) -> str:
    """A rate as a bare number of MB/s, one decimal under 10: `0.4`, `88`."""
    if bytes_per_second is None:
        return UNKNOWN
    value = bytes_per_second / 1e6
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def freeze(seconds: float | None) -> str:
    """How long a job stood still: `0.42 s`, from ten seconds on `11 s`."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.0f} s"


def about(seconds: float) -> str:
    """A forecast, which claims less: `0.6 s`, `11 s`."""
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def age(seconds: float | None) -> str:
    """Age, idle time or uptime: `0.4 s`, `19 s`, `4 min`, `1 h 50 m`, `41 d`."""
    if seconds is None:
        return UNKNOWN
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{int(seconds)} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 86400:
        hours, minutes = divmod(int(seconds // 60), 60)
        return f"{hours} h {minutes} m" if minutes else f"{hours} h"
    return f"{int(seconds // 86400)} d"


def cpu_time(seconds: float) -> str:
    """CPU time used so far: `1:09:31`, under an hour `9:31`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def clock(moment: float, seconds: bool = True) -> str:
    """Time of day of a Unix time, in the viewer's zone, 24 h."""
    return time.strftime("%H:%M:%S" if seconds else "%H:%M", time.localtime(moment))


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 guest`, `3 guests`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def cells(text: str) -> int:
    """How many terminal cells the text takes."""
    return len(text) if text.isascii() else cell_len(text)


def crop(text: str, width: int) -> str:
    """The first `width` cells of the text, exactly that many only if it is longer."""
    if width <= 0:
        return ""
    if text.isascii():
        return text[:width]
    return text if cell_len(text) <= width else set_cell_size(text, width)


def cut(text: str, width: int) -> str:
    """A sentence cut at its end with `…`, so that it fits."""
    return text if cells(text) <= width else crop(text, width - 1) + "…" if width > 0 else ""


@lru_cache(maxsize=2048)
def cut_middle(text: str, width: int) -> str:
    """A command or path cut in the middle, 60 % head and 40 % tail: its end matters as much as its start."""
    if cells(text) <= width:
        return text
    if width < 3:
        return crop(text, width)
    head = max(1, (width - 1) * 6 // 10)
    tail = width - 1 - head
    end = text
    while cells(end) > tail:
        end = end[1:]
    start = crop(text, head)
    return start + "…" + " " * (width - 1 - cells(start) - cells(end)) + end


def wrap(text: str, width: int, limit: int) -> list[str]:
    """Words laid out in at most `limit` lines of `width` cells; a longer word is broken, the last line is cut."""
    if width < 1 or limit < 1:
        return []
    lines = [""]
    for given in text.split():
        word = given
        if lines[-1] and cells(lines[-1]) + 1 + cells(word) <= width:
            lines[-1] += " " + word
            continue
        if lines[-1]:
            lines.append("")
        while cells(word) > width:
            head = crop(word, width)
            lines[-1] = head
            lines.append("")
            word = word[len(head.rstrip()) :] if head.rstrip() else ""
        lines[-1] = word
    lines = [line for line in lines if line]
    if len(lines) > limit:
        lines = [*lines[: limit - 1], cut(" ".join(lines[limit - 1 :]), width)]
    return lines
