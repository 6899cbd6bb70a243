"""The widget that shows a `Sheet`, redrawing only the cells that changed, and the updates that write only these.

Textual 8.2 writes a changed span from the left edge of its widget, and each run of cells with its whole look and a
reset.  `TightUpdate` crops the span on the left as well and says of each look only what differs from the one before:
that lets one canvas hold a whole screen without costing more bytes than many small widgets would.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby

from rich.color import ColorSystem
from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import RenderResult
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from omview.theme import Paint
from omview.widgets.sheet import Hit, Sheet, to_ascii

_GAP = 10  # unchanged cells that are cheaper to write again than to jump over


@lru_cache(maxsize=8192)
def change(before: Style | None, after: Style, system: ColorSystem) -> str:
    """The shortest sequence that takes the terminal from one look to another; None is the terminal's own."""
    codes: list[str] = []
    for name, on, off in _FLAGS:
        was, now = bool(before and getattr(before, name)), bool(getattr(after, name))
        if was and not now:
            codes.append(off)
        elif now and (not was or (off == "22" and "22" in codes)):
            codes.append(on)
    for foreground in (True, False):
        old = (before.color if foreground else before.bgcolor) if before else None
        new = after.color if foreground else after.bgcolor
        if new == old:
            continue
        if new is None:
            codes.append("39" if foreground else "49")
        else:
            codes.extend(new.downgrade(system).get_ansi_codes(foreground))
    return f"\x1b[{';'.join(codes)}m" if codes else ""


_FLAGS = (
    ("dim", "2", "22"),
    ("bold", "1", "22"),
    ("italic", "3", "23"),
    ("underline", "4", "24"),
    ("reverse", "7", "27"),
)


class _Pen:
    """Writes segments one after another and says each time only what changes."""

    def __init__(self, console: Console) -> None:
        names = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT, "truecolor": ColorSystem.TRUECOLOR}
        self._system = names.get(console.color_system or "", ColorSystem.TRUECOLOR)
        self._style: Style | None = None
        self.out: list[str] = []

    def jump(self, x: int, y: int) -> None:
        """Go to a cell."""
        self.out.append(f"\x1b[{y + 1};{x + 1}H")

    def write(self, strip: Strip) -> None:
        """Write a strip where the pen is."""
        for text, style, control in strip:
            if control:
                self.out.append(text)
                continue
            wanted = style or _PLAIN
            if wanted is not self._style:
                if self._style is not None and text.isspace() and _same_ground(self._style, wanted):
                    self.out.append(text)  # on blanks only the ground is seen
                    continue
                self.out.append(change(self._style, wanted, self._system))
                self._style = wanted
            self.out.append(text)

    def end(self) -> str:
        """All of it; leaves the terminal in its own look."""
        return "".join(self.out) + "\x1b[0m"


_PLAIN = Style.null()


@lru_cache(maxsize=8192)
def _same_ground(one: Style, other: Style) -> bool:
    lines = one.reverse or other.reverse or one.underline or other.underline
    return not lines and one.bgcolor == other.bgcolor


class TightUpdate(ChopsUpdate):
    """Textual's partial update, cropped on both sides to what really changed."""

    def render_segments(self, console: Console) -> str:
        """The bytes for the terminal: a jump and the changed cells, for each span."""
        pen = _Pen(console)
        for y, x1, x2 in self.spans:
            at = -1
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or x >= x2 or end <= x1:
                    continue
                start, stop = max(x, x1), min(end, x2)
                if start != at:
                    pen.jump(start, y)
                pen.write(strip.crop(start - x, stop - x))
                at = stop
        return pen.end()


class TightFrame(LayoutUpdate):
    """Textual's full update in about a third of its bytes."""

    def render_segments(self, console: Console) -> str:
        """The bytes for the terminal: every row."""
        pen = _Pen(console)
        for y, line in enumerate(self.strips, self.region.y):
            pen.jump(self.region.x, y)
            for strip in line:
                pen.write(strip)
        return pen.end()


def tightened(update: RenderableType | None) -> RenderableType | None:
    """The same update with fewer bytes, if it is one that we know."""
    if type(update) is ChopsUpdate:
        return TightUpdate(update.chops, update.spans, update.chop_ends)
    if type(update) is LayoutUpdate:
        return TightFrame(update.strips, update.region)
    return update


def spans(old: Sheet, new: Sheet, y: int) -> list[tuple[int, int]]:
    """The column ranges in which row `y` of two equally wide sheets differs; near ones are joined."""
    found: list[tuple[int, int]] = []
    before = zip(old.chars[y], old.specs[y], old.grounds[y], strict=True)
    after = zip(new.chars[y], new.specs[y], new.grounds[y], strict=True)
    for x, (a, b) in enumerate(zip(before, after, strict=True)):
        if a == b:
            continue
        if found and x - found[-1][1] < _GAP:
            found[-1] = (found[-1][0], x + 1)
        else:
            found.append((x, x + 1))
    if found and "" in (*old.chars[y], *new.chars[y]):  # a wide character must not be torn
        return [(0, new.width)]
    return found


class Canvas(Widget):
    """Shows a sheet; reports clicks as `Canvas.Pressed` and the wheel as `Canvas.Wheeled`."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"
    ALLOW_SELECT = False

    class Pressed(Message):
        """Somebody clicked on a spot that means something."""

        def __init__(self, hit: Hit, count: int) -> None:
            super().__init__()
            self.hit, self.count = hit, count

    class Wheeled(Message):
        """The wheel was turned: `lines` down (positive) or up."""

        def __init__(self, lines: int) -> None:
            super().__init__()
            self.lines = lines

    def __init__(self, paint: Paint, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._paint = paint
        self._sheet = Sheet(0, 0)

    @property
    def sheet(self) -> Sheet:
        """What is shown now."""
        return self._sheet

    def show(self, sheet: Sheet, paint: Paint) -> None:
        """Show this; draws nothing where it equals what is shown."""
        old, self._sheet = self._sheet, sheet
        if paint is not self._paint or (old.width, old.height) != (sheet.width, sheet.height):
            self._paint = paint
            self.refresh()
            return
        regions = []
        for y in range(sheet.height):
            same = old.chars[y] == sheet.chars[y] and old.specs[y] == sheet.specs[y]
            if not same or old.grounds[y] != sheet.grounds[y]:
                regions += [Region(x1, y, x2 - x1, 1) for x1, x2 in spans(old, sheet, y)]
        if regions:
            self.refresh(*regions)

    def render(self) -> RenderResult:
        """Not used: the Line API below draws."""
        return ""

    def render_line(self, y: int) -> Strip:
        """One row as runs of equal style."""
        sheet, paint = self._sheet, self._paint
        if y >= sheet.height:
            return Strip.blank(self.size.width, paint("text", "bg"))
        row = sheet.chars[y]
        segments, x = [], 0
        for look, run in groupby(zip(sheet.specs[y], sheet.grounds[y], strict=True)):
            end = x + sum(1 for _ in run)
            text = "".join(row[x:end])
            segments.append(Segment(to_ascii(text) if paint.ascii_only else text, paint(*look)))
            x = end
        return Strip(segments, sheet.width).adjust_cell_length(self.size.width, paint("text", "bg"))

    def on_click(self, event: events.Click) -> None:
        """Find out what was clicked and report it."""
        hit = self._sheet.at(event.x, event.y)
        if hit is not None:
            self.post_message(self.Pressed(hit, event.chain))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Three rows down."""
        event.stop()
        self.post_message(self.Wheeled(3))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Three rows up."""
        event.stop()
        self.post_message(self.Wheeled(-3))
