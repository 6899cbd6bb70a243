"""A sheet of cells to draw on: what a screen puts here, `Canvas` shows.

Drawing is by coordinates and always clipped, so nothing can overflow; equal rows of two sheets compare fast.
"""

from __future__ import annotations

from dataclasses import dataclass

from omview.format import cells, crop, cut

Hit = tuple[str, object]
"""What a click on a spot means: a kind such as "node" or "key", and its value."""

Ink = list[tuple[str, str]]
"""A run of texts with their specs."""

_TWINS = (
    "•. ●* ◆@ ◇a ■# »> ·- ✓y …~ →> ↑^ ↓v ⌂H ▌> ▾v ▴^ ░: ━= ╍+ ─- │| ┃| ╸= ┈. ×x "
    '▁_ ▂. ▃. ▄- ▅= ▆= ▇# █# ├| └` ›> “" ”" –-'
)
ASCII = str.maketrans({pair[0]: pair[1] for pair in _TWINS.split()})


def to_ascii(text: str) -> str:
    """The text with our signs replaced by their ASCII twins and the rest of the world by `?`, equally wide."""
    text = text.translate(ASCII)
    return text if text.isascii() else "".join(ch if ch.isascii() else "?" * cells(ch) for ch in text)


def _in_cells(text: str) -> list[str]:
    """One entry per cell: a wide character and an empty one, a combining mark together with what it stands on."""
    found: list[str] = []
    for sign in text:
        width = cells(sign)
        if width == 0 and found:
            found[-1 if found[-1] else -2] += sign
        else:
            found += [sign, ""][:width]
    return found


@dataclass(frozen=True, slots=True)
class Area:
    """A spot that can be clicked."""

    x: int
    y: int
    width: int
    height: int
    hit: Hit


class Sheet:
    """`width` x `height` cells, each with a character, a spec and a ground token."""

    __slots__ = ("areas", "chars", "grounds", "height", "specs", "width")

    def __init__(self, width: int, height: int, ground: str = "bg") -> None:
        self.width, self.height = width, height
        self.chars = [[" "] * width for _ in range(height)]
        self.specs = [["text"] * width for _ in range(height)]
        self.grounds = [[ground] * width for _ in range(height)]
        self.areas: list[Area] = []

    def put(self, x: int, y: int, text: str, spec: str = "text") -> int:
        """Write text at a cell, clipped to the sheet; returns the column after it."""
        if not text.isprintable():  # the engine has cleaned it; here a cell must hold what a cell can hold
            text = "".join(sign if sign.isprintable() else "?" for sign in text)
        end = x + cells(text)
        if not 0 <= y < self.height or x >= self.width or end <= 0 or not text:
            return end
        if x < 0:
            text, x = text[-x:], 0
        text = crop(text, self.width - x)
        count = cells(text)
        self.chars[y][x : x + count] = text if count == len(text) else _in_cells(text)[:count]
        self.specs[y][x : x + count] = [spec] * count
        return end

    def ink(self, x: int, y: int, ink: Ink) -> int:
        """Write several texts one after another; returns the column after them."""
        for text, spec in ink:
            x = self.put(x, y, text, spec)
        return x

    def right(self, end: int, y: int, ink: Ink) -> int:
        """Write so that the last cell is just before column `end`; returns the first column used."""
        start = end - sum(cells(text) for text, _ in ink)
        self.ink(start, y, ink)
        return start

    def fill(self, x: int, y: int, width: int, height: int, ground: str) -> None:
        """Give a rectangle another ground; what is written there stays."""
        x0, x1 = max(0, x), min(self.width, x + width)
        for row in range(max(0, y), min(self.height, y + height)):
            self.grounds[row][x0:x1] = [ground] * max(0, x1 - x0)

    def clear(self, x: int, y: int, width: int, height: int, ground: str) -> None:
        """Blank a rectangle."""
        self.fill(x, y, width, height, ground)
        for row in range(y, y + height):
            self.put(x, row, " " * width)

    def hit(self, x: int, y: int, width: int, height: int, kind: str, value: object = None) -> None:
        """Say what a click on this rectangle means; later ones win."""
        self.areas.append(Area(x, y, width, height, (kind, value)))

    def at(self, x: int, y: int) -> Hit | None:
        """What a click at this cell means."""
        for area in reversed(self.areas):
            if area.x <= x < area.x + area.width and area.y <= y < area.y + area.height:
                return area.hit
        return None

    def title(self, x: int, y: int, width: int, text: str, figures: Ink | None = None, spec: str = "text b") -> None:
        """A section's head: its name, a hairline, and its own figures at the right end."""
        start = self.put(x, y, cut(text, width), spec) + 1
        end = x + width
        ink = list(figures or ())
        while ink and sum(cells(part) for part, _ in ink) > end - start - 2:
            ink.pop(0)  # the last figure is the one that matters most
        if ink:
            end = self.right(x + width, y, ink) - 1
        self.put(start, y, "─" * (end - start), "line")

    def paste(self, other: Sheet, x: int, y: int) -> None:
        """Lay another sheet on this one; it must fit."""
        for row in range(other.height):
            self.chars[y + row][x : x + other.width] = other.chars[row]
            self.specs[y + row][x : x + other.width] = other.specs[row]
            self.grounds[y + row][x : x + other.width] = other.grounds[row]
        for area in other.areas:
            self.hit(area.x + x, area.y + y, area.width, area.height, *area.hit)

    def text(self) -> str:
        """The characters only, for tests."""
        return "\n".join("".join(row).rstrip() for row in self.chars)
