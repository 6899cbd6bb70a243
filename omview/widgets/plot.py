"""The zoomed chart: plotext draws all nodes with axes; the only module that imports it (130 ms, so: lazily).

plotext has one shared figure; it is cleared before each use and only drawn on the UI's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotext
from rich.text import Text

from omview import format as fmt
from omview.theme import Paint
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


def draw(
    sheet: Sheet,
    x: int,
    y: int,
    width: int,
    height: int,
    lines: Sequence[Line],
    chosen: int,
    span_s: float,
    now: float,
    paint: Paint,
) -> None:
    """Draw the lines with axes; the chosen one last, so that it lies on top; names at the right ends."""
    names = max((fmt.cells(line.name) for line in lines), default=0) + 6
    plot = width - names
    ordered = [line for index, line in enumerate(lines) if index != chosen] + [lines[chosen]]
    figure = plotext.figure
    plotext.terminal.limit(False, False)
    plotext.add_theme(
        "om",
        canvas=paint.rgb("panel"),
        text=plotext.pixel(foreground=paint.rgb("faint"), background=paint.rgb("panel")),
        sequence=[paint.rgb(line.token) for line in ordered],
    )
    figure.clear()
    figure.theme("om")
    figure.plot_size(plot, height)
    marker = "hd" if not paint.ascii_only else "*"
    for line in ordered:
        points = [(index, value) for index, value in enumerate(line.values) if value is not None]
        if points:
            xs = [(index - len(line.values)) * span_s / 60 for index, _ in points]
            figure.draw(figure.signal(xs, [value for _, value in points], marker=marker).lines())
    _copy(sheet, x, y, str(figure.build()), [line.token for line in ordered], paint)
    _names(sheet, x + plot + 1, y, height, lines, chosen)


def _copy(sheet: Sheet, x: int, y: int, ansi: str, tokens: list[str], paint: Paint) -> None:
    """Take plotext's ANSI over into cells, its colours back to tokens."""
    by_rgb = {paint.rgb(token): token for token in tokens}
    for row, line in enumerate(ansi.splitlines()):
        text = Text.from_ansi(line)
        specs = ["faint"] * len(text.plain)
        for span in text.spans:
            colour = getattr(span.style, "color", None)
            if colour is not None and colour.triplet is not None:
                token = by_rgb.get(tuple(colour.triplet), "faint")
                specs[span.start : span.end] = [token] * (span.end - span.start)
        for column, (sign, spec) in enumerate(zip(text.plain, specs, strict=True)):
            if sign != " ":
                sheet.put(x + column, y + row, sign, spec)


def _names(sheet: Sheet, x: int, y: int, height: int, lines: Sequence[Line], chosen: int) -> None:
    """Each line's name near its end, moved apart where they would meet."""
    known = [
        (index, line, next((v for v in reversed(line.values) if v is not None), None))
        for index, line in enumerate(lines)
    ]
    values = [value for line in lines for value in line.values if value is not None]
    if not values:
        return
    low, high = min(values), max(values)
    inner = max(1, height - 4)
    wanted = sorted(
        (
            (1 + round((high - (last or 0.0)) / ((high - low) or 1.0) * (inner - 1)), index, line, last)
            for index, line, last in known
        ),
        key=lambda each: each[0],
    )
    row = -1
    for place, index, line, last in wanted:
        row = max(row + 1, place)
        if row >= height - 1:
            return
        sheet.put(x, y + row, line.name, line.token + (" b" if index == chosen else ""))
        sheet.put(x + fmt.cells(line.name) + 1, y + row, fmt.load(last), "text b" if index == chosen else "muted")
