"""The frame of every dialog: a bar at the left, one sentence, what is touched, what will be true, two buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from omview.widgets.canvas import Canvas
from omview.widgets.sheet import Hit, Sheet

if TYPE_CHECKING:
    from omview.app import OmView

Answer = TypeVar("Answer")


class Dialog(ModalScreen[Answer], Generic[Answer]):
    """A modal picture with its own keys; subclasses draw it and answer with `dismiss`."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+e", "shot", show=False),
        Binding("ctrl+t", "next_theme", show=False),
        Binding("ctrl+l", "draw_anew", show=False),
    ]
    BAR = "accent"  # move: something moves; busy: a node changes; bad: something ends; accent: nothing at risk
    WIDTH, HEIGHT = 104, 25

    @property
    def om(self) -> OmView:
        """The app, with its own type."""
        return cast("OmView", self.app)

    def compose(self) -> ComposeResult:
        """One canvas, as large as `wanted` says."""
        yield Canvas(self.om.paint, id="dialog")

    def wanted(self) -> tuple[int, int]:
        """Width and height that would be good."""
        return self.WIDTH, self.HEIGHT

    def draw(self, sheet: Sheet) -> None:
        """Draw all but the ground and the bar."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw the picture of now, as large as fits."""
        width, height = self.wanted()
        width, height = min(width, self.size.width), min(height, self.size.height)
        canvas = self.query_one("#dialog", Canvas)
        if canvas.styles.width is None or (canvas.size.width, canvas.size.height) != (width, height):
            canvas.styles.width, canvas.styles.height = width, height
        sheet = Sheet(width, height, "panel")
        for y in range(height):
            sheet.put(0, y, "▌", self.BAR)
        self.draw(sheet)
        canvas.show(sheet, self.om.paint)

    def on_mount(self) -> None:
        """The first picture."""
        self.redraw()

    def on_resize(self) -> None:
        """Fit into the new size."""
        self.call_after_refresh(self.redraw)

    def action_shot(self) -> None:
        """Save a screenshot; the note about it is seen when the dialog is closed."""
        self.om.save_shot()

    def action_next_theme(self) -> None:
        """The next of our themes."""
        self.om.next_theme()

    def action_draw_anew(self) -> None:
        """Write all cells again."""
        self.refresh(layout=True)
        self.query_one("#dialog", Canvas).refresh()

    @on(Canvas.Pressed)
    def pressed(self, event: Canvas.Pressed) -> None:
        """A key of the dialog was clicked, or something of its own."""
        kind, value = event.hit
        if kind == "key":
            self.app.simulate_key(str(value))
        else:
            self.clicked(event.hit)

    def clicked(self, hit: Hit) -> None:
        """Something of the dialog's own was clicked."""

    def on_paste(self, event: events.Paste) -> None:
        """Pasted text must not be taken for keys."""
        event.stop()


def buttons(
    sheet: Sheet, y: int, no: str, yes: str, *, on_no: bool, keys: tuple[str, str] = ("enter, n, esc", "y")
) -> None:
    """The two buttons at the right, `no` first; the chosen one is filled, its keys stand below."""
    end = sheet.width - 4
    for text, below, chosen, key in ((yes, keys[1], not on_no, "y"), (no, keys[0], on_no, "n")):
        block = f"  {text}  "
        start = end - len(block)
        sheet.fill(start, y, len(block), 1, "accent" if chosen else "sel")
        sheet.put(start, y, block, "bg b" if chosen else "text")
        if y + 1 < sheet.height:
            sheet.put(start + 2, y + 1, below, "faint")
        sheet.hit(start, y, len(block), 1, "key", key)
        end = start - 2
