"""The zoomed chart: plotext draws all nodes with axes; the only module that imports it (130 ms, so: lazily).

plotext has one shared figure; it is cleared before each use and only drawn on the UI's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotext
from rich.text import Text
from textual.geometry import Region

from omview import format as fmt
from omview.theme import Paint
from omview.widgets.bars import nice_top
from omview.widgets.sheet import Sheet

_TOKENS = ("own", "guest", "mem", "move", "busy", "muted", "hot", "accent")


@dataclass(frozen=True, slots=True)
class Line:
    """One node's load."""

    name: str
    values: tuple[float | None, ...]
    token: str


def token_of(index: int) -> str:
    """The colour of the n-th line; its name stands at its end, so colours may repeat."""
    return _TOKENS[index % len(_TOKENS)]


def draw(sheet: Sheet, area: Region, lines: Sequence[Line], chosen: int, span_s: float, paint: Paint) -> None:
    """Draw the lines with axes; the chosen one last, so that it lies on top; names at the right ends."""
    names = max((fmt.cells(line.name) for line in lines), default=0) + 6
    width = area.width - names
    ordered = [line for index, line in enumerate(lines) if index != chosen] + [lines[chosen]]
    top = nice_top([value for line in lines for value in line.values], 1.5)
    figure = plotext.figure
    plotext.terminal.limit(False, False)
    faint = plotext.pixel(foreground=paint.rgb("faint"), background=paint.rgb("panel"))
    plotext.add_theme("om", canvas=paint.rgb("panel"), text=faint, sequence=[paint.rgb(line.token) for line in ordered])
    figure.clear()
    figure.theme("om")
    figure.plot_size(width, area.height)
    figure.axes(False, side="upper", axis="x")
    figure.axes(False, side="right", axis="y")
    figure.line(1.0, "h", pixel=faint, style="dotted")
    for line in ordered:
        points = [(index, value) for index, value in enumerate(line.values) if value is not None]
        if points:
            xs = [(index + 1 - len(line.values)) * span_s / 60 for index, _ in points]
            marker = "*" if paint.ascii_only else "hd"
            figure.draw(figure.signal(xs, [value for _, value in points], marker=marker).lines())
    figure.ruler("y", "left").lim(0, top)
    parts = next((parts for parts in (5, 4, 3) if f"{top / parts:.2e}"[:4] in {"1.00", "2.00", "5.00"}), 5)
    steps = [top * part / parts for part in range(parts + 1)]
    figure.ruler("y", "left").ticks(steps, [f"{step:.1f}" if top < 20 else f"{step:.0f}" for step in steps])
    figure.ruler("x", "lower").lim(-10, 0)
    figure.ruler("x", "lower").ticks([-10, -8, -6, -4, -2, 0], ["-10", "-8", "-6", "-4", "-2", "now"])
    _copy(sheet, area.x, area.y, str(figure.build()), ordered, paint)
    _names(sheet, area.x + width + 1, area.y, area.height - 2, lines, chosen, top)


def _copy(sheet: Sheet, x: int, y: int, ansi: str, lines: Sequence[Line], paint: Paint) -> None:
    """Take plotext's ANSI over into cells, its colours back to tokens."""
    by_rgb = {paint.rgb(line.token): line.token for line in lines}
    for row, text in enumerate(Text.from_ansi(line) for line in ansi.splitlines()):
        specs = ["faint"] * len(text.plain)
        for span in text.spans:
            colour = getattr(span.style, "color", None)
            if colour is not None and colour.triplet is not None:
                token = by_rgb.get(tuple(colour.triplet), "faint")
                specs[span.start : span.end] = [token] * (span.end - span.start)
        for column, (sign, spec) in enumerate(zip(text.plain, specs, strict=True)):
            if sign != " ":
                sheet.put(x + column, y + row, sign, spec)


def _names(sheet: Sheet, x: int, y: int, height: int, lines: Sequence[Line], chosen: int, top: float) -> None:
    """Each line's name at its end, moved apart where they would meet."""
    wanted = []
    for index, line in enumerate(lines):
        last = next((value for value in reversed(line.values) if value is not None), None)
        wanted.append((round((1 - (last or 0.0) / top) * (height - 1)), index, line, last))
    wanted.sort(key=lambda each: each[0])
    rows = [place for place, *_ in wanted]
    for index in range(1, len(rows)):
        rows[index] = max(rows[index], rows[index - 1] + 1)
    if rows and rows[-1] >= height:  # pushed out at the bottom: move the last ones up
        rows[-1] = height - 1
        for index in range(len(rows) - 2, -1, -1):
            rows[index] = min(rows[index], rows[index + 1] - 1)
    for row, (_, index, line, last) in zip(rows, wanted, strict=True):
        if row >= 0:
            end = sheet.put(x, y + row, line.name, line.token + (" b" if index == chosen else ""))
            sheet.put(end + 1, y + row, fmt.load(last), "text b" if index == chosen else "muted")
