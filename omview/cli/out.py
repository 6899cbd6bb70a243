"""How verbs write: aligned text for people, one JSON value for programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from omcore.text import clean

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

GAP = "  "
NARROWEST = 12  # cells that a column which may be cut keeps
STYLES = {"": "", "bold": "1", "faint": "2", "bad": "31", "busy": "33", "good": "32"}
KIB = 1024


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; `keep` 0 says it never goes, of the others the highest goes first."""

    head: str
    align: Literal["left", "right"] = "left"
    keep: int = 0
    cut: bool = False  # cut in the middle where the line is too long


@dataclass(frozen=True, slots=True)
class Cell:
    """A text and how it is drawn; only a colour terminal sees the style, so it may not carry the meaning."""

    text: str
    style: str = ""


def print_json(value: Json) -> None:
    """One JSON value, ASCII only: no byte of it can drive a terminal."""
    text = json.dumps(value, indent=2, allow_nan=False).replace("\x7f", "\\u007f")
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> None:
    """A table with heads; on a terminal it keeps to the width, elsewhere every line is whole."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table_lines(columns, rows, width, wants_colour()):
        sys.stdout.write(line + "\n")


def table_lines(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]], width: int | None, colour: bool
) -> list[str]:
    """The lines of a table no wider than `width` cells (None: as wide as it gets)."""
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    cells = [[Cell(clean(cell.text, 4096) if cell.text else "", cell.style) for cell in row] for row in cells]
    widths = [max([len(column.head), *(len(row[at].text) for row in cells)]) for at, column in enumerate(columns)]
    shown = _fit(columns, widths, width)
    heads = [Cell(column.head, "faint") for column in columns]
    return [_line(row, columns, widths, shown, colour) for row in [heads, *cells]]


def wants_colour() -> bool:
    """Whether stdout is a terminal whose user did not say no (NO_COLOR, https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def paint(text: str, style: str, colour: bool) -> str:
    """The text in a style, or plain."""
    code = STYLES[style]
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


def cut_middle(text: str, width: int) -> str:
    """At most `width` characters: 60 % from the beginning, the rest from the end, which matters in a path."""
    if len(text) <= width:
        return text
    if width < 2:
        return "…"[:width]
    head = (width - 1) * 6 // 10
    tail = width - 1 - head
    return f"{text[:head]}…{text[len(text) - tail :]}"


def memory(size: int | None) -> str:
    """Bytes for a table, powers of 1024: 8M, 1.2G; "?" where unknown."""
    if size is None:
        return "?"
    value, unit = float(size), "B"
    for unit in ("B", "K", "M", "G", "T", "P"):
        if value < KIB or unit == "P":
            break
        value /= KIB
    return f"{value:.1f}{unit}" if value < 9.95 and unit not in "BKM" else f"{value:.0f}{unit}"


def size_words(size: int) -> str:
    """Bytes for a sentence: 16 MiB, 1.2 GiB."""
    short = re.fullmatch(r"([\d.]+)([BKMGTP])", memory(size))
    assert short is not None
    return f"{short[1]} bytes" if short[2] == "B" else f"{short[1]} {short[2]}iB"


def percent(value: float | None) -> str:
    """CPU in a table: "398", "12", "<1", "·" for nothing, "?" for unknown."""
    if value is None:
        return "?"
    if value < 0.05:
        return "·"
    return "<1" if value < 1 else f"{value:.0f}"


def age(seconds: float | None) -> str:
    """An age: 0.4 s, 19 s, 4 min, 1 h 50 m, 41 d."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} m" if hours < 24 else f"{hours // 24} d"


def cpu_time(seconds: float) -> str:
    """CPU time: 1:09:31, 9:31."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _fit(columns: Sequence[Column], widths: list[int], width: int | None) -> list[int]:
    """Which columns fit; widths of those that may be cut are reduced in place."""
    shown = list(range(len(columns)))
    if width is None:
        return shown

    def excess() -> int:
        return sum(widths[at] for at in shown) + len(GAP) * (len(shown) - 1) - width

    for at in sorted(shown, key=lambda at: columns[at].cut, reverse=True):
        if columns[at].cut and excess() > 0:
            widths[at] = max(min(widths[at], NARROWEST), widths[at] - excess())
    while excess() > 0:
        spare = [at for at in shown if columns[at].keep]
        if not spare:
            break
        shown.remove(max(spare, key=lambda at: columns[at].keep))
    return shown


def _line(
    row: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], colour: bool
) -> str:
    parts = []
    for at in shown:
        cell, column = row[at], columns[at]
        text = cut_middle(cell.text, widths[at])
        blank = " " * (widths[at] - len(text))
        painted = paint(text, cell.style, colour)
        last = at == shown[-1] and column.align == "left"
        parts.append(blank + painted if column.align == "right" else painted + ("" if last else blank))
    return GAP.join(parts)
