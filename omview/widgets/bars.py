"""Bars, trends and areas of one or more rows: all values drawn by length and sign first, colour last."""

from __future__ import annotations

from collections.abc import Sequence

from omview.widgets.sheet import Sheet

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_TOPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def level(load: float | None) -> str:
    """The token for a load figure: plain up to 1.0, then busy, over 2.0 hot; judged as it is written."""
    if load is None:
        return "muted"
    shown = round(load, 2)
    return "hot" if shown > 2.0 else "busy" if shown > 1.0 else "text"


def load_bar(
    sheet: Sheet, x: int, y: int, width: int, parts: tuple[float, float, float], scale: float, *, stale: bool = False
) -> None:
    """An open-ended bar of `own`, `guest` and `other` load with the tick at 1.0; `scale` is the load at full width."""
    own, guest, other = parts
    total = own + guest + other
    step = scale / width
    tick = min(width - 1, round(1.0 / step))
    for cell in range(width):
        middle = (cell + 0.5) * step
        if cell == tick:
            passed = total > (cell + 1) * step
            sheet.put(x + cell, y, "┃" if passed else "│", "text b" if passed else "faint")
        elif middle > total and not (cell == 0 and total > 0.005):
            continue
        elif stale:
            sheet.put(x + cell, y, "░", "faint")
        elif middle <= own:
            sheet.put(x + cell, y, "━", "own")
        elif middle <= own + guest:
            sheet.put(x + cell, y, "╍", "guest")
        else:
            sheet.put(x + cell, y, "─", "sys")


def plain_bar(sheet: Sheet, x: int, y: int, width: int, load: float, scale: float) -> None:
    """A load bar of one colour, by level, for the smallest views."""
    step = scale / width
    tick = min(width - 1, round(1.0 / step))
    spec = {"text": "calm"}.get(level(load), level(load))
    for cell in range(width):
        if cell == tick:
            passed = load > (cell + 1) * step
            sheet.put(x + cell, y, "┃" if passed else "│", "text b" if passed else "faint")
        elif (cell + 0.5) * step <= load or (cell == 0 and load > 0.005):
            sheet.put(x + cell, y, "━", spec)


def share_bar(sheet: Sheet, x: int, y: int, width: int, share: float, spec: str) -> None:
    """A part of a whole, 0..1, heavy on a thin track, in half steps; more than nothing shows at least half a step."""
    halves = round(max(0.0, min(1.0, share)) * width * 2)
    halves = max(halves, 1 if share > 0 else 0)
    full, half = divmod(halves, 2)
    sheet.put(x, y, "━" * full + "╸" * half, spec)
    sheet.put(x + full + half, y, "─" * (width - full - half), "line")


def trend(values: Sequence[float | None], top: float) -> str:
    """One row of `▁`…`▇`, a blank for a gap."""
    signs = []
    for value in values:
        if value is None:
            signs.append(" ")
        else:
            signs.append(_EIGHTHS[max(1, min(7, round(value / top * 7)))])
    return "".join(signs)


def nice_top(values: Sequence[float | None], least: float) -> float:
    """The upper end of a shared scale: at least `least`, else the next round figure that leaves little empty."""
    highest = max((value for value in values if value is not None), default=0.0)
    if highest <= least:
        return least
    power = 1.0
    while power * 10 <= highest:
        power *= 10
    while power > highest:
        power /= 10
    return next(factor * power for factor in _TOPS if factor * power >= highest)


def fit_top(top: float, height: int) -> float:
    """A scale end not under `top` with which 1.0 falls on the edge of a row, if the chart is high enough for that."""
    rows = int(height / top)
    return height / rows if rows >= 1 else top


def _row_spec(row: int, height: int, top: float, colour: str) -> str:
    """The spec of a chart row, counted from the bottom: by what the row means, never by a value."""
    if colour != "load":
        return f"{colour}:{row + 1}/{height}"
    rows = max(1, round(height / top))
    band = min(2, row // rows)
    name = ("calm", "busybar", "hotbar")[band]
    of = rows if band < 2 else max(1, height - 2 * rows)
    return f"{name}:{row - band * rows + 1}/{of}"


def area(
    sheet: Sheet, x: int, y: int, height: int, values: Sequence[float | None], top: float, colour: str = "load"
) -> None:
    """An area chart; `colour` "load" has the bands and the dotted line at 1.0, any other is one token.

    None is a gap: it stays empty, and a long one at the right end says `lost`.
    """
    for row in range(height):
        line = y + height - 1 - row
        spec = _row_spec(row, height, top, colour)
        text = "".join(_cell(value, row, height, top) for value in values)
        sheet.put(x, line, text, spec)
        if colour == "load" and row == max(1, round(height / top)) and row < height:
            for column, sign in enumerate(text):
                if sign == " ":
                    sheet.put(x + column, line, "┈", "faint")
    _say_lost(sheet, x, y + height - 1, values)


def _cell(value: float | None, row: int, height: int, top: float) -> str:
    if value is None:
        return " "
    eighths = round(value / top * height * 8)
    if value > 0:
        eighths = max(1, eighths)
    return _EIGHTHS[max(0, min(8, eighths - row * 8))]


def _say_lost(sheet: Sheet, x: int, y: int, values: Sequence[float | None]) -> None:
    gap = 0
    for value in reversed(values):
        if value is not None:
            break
        gap += 1
    if 6 <= gap < len(values):
        sheet.put(x + len(values) - gap + 1, y, "lost", "bad")
