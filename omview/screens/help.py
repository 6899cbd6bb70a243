"""Help, made from the table of commands: keys of this screen, keys of every screen, signs."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from omview import format as fmt
from omview.commands import Command, key_name, of_screen
from omview.screens.dialog import Dialog
from omview.widgets.sheet import Ink, Sheet

_TITLES = {"cluster": "Cluster", "node": "Node", "processes": "Processes", "migrations": "Migrations"}
_GROUPS = {
    "job": "On the job under the cursor",
    "node": "On the node",
    "shown": "What is shown",
    "everywhere": "Everywhere",
}
SIGNS: tuple[tuple[str, str, str], ...] = (
    ("●", "own", "job at home"),
    ("◆", "guest", "guest: its home is elsewhere"),
    ("◇", "own", "away: its deputy is here"),
    ("■", "busy", "locked"),
    ("»", "move", "moving"),
    ("~", "busy", "older than it should be"),
    ("×", "bad", "lost, failed"),
    ("?", "muted", "not known"),
    ("┃", "text b", "1.0: one task per core"),
)
_EXAMPLES = ("cpu>50 user=ana", "node=at* movable", "mem>2G !locked", '"train.py" or moves>1', "job   !kernel")


class HelpDialog(Dialog[None]):
    """Closes with esc; typing searches."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,question_mark", "close", show=False)]

    def __init__(self, screen: str) -> None:
        super().__init__()
        self.of = screen
        self.text = ""
        self.top = 0
        self._last = 0

    def wanted(self) -> tuple[int, int]:
        """Three columns where there is room."""
        width = 118 if self.size.width >= 122 else self.size.width
        return width, min(self.size.height, 33 if width == 118 else self.size.height)

    def action_close(self) -> None:
        """First forget the search, then close."""
        if self.text:
            self.text = ""
            self.redraw()
        else:
            self.dismiss(None)

    def on_key(self, event: events.Key) -> None:
        """Letters search, arrows scroll."""
        if event.key in {"down", "pagedown", "up", "pageup"}:
            step = {"down": 1, "up": -1, "pagedown": 8, "pageup": -8}[event.key]
            self.top = max(0, min(self._last, self.top + step))
        elif event.key == "backspace":
            self.text = self.text[:-1]
        elif event.is_printable and event.character:
            self.text, self.top = self.text + event.character, 0
        else:
            return
        event.stop()
        self.redraw()

    def draw(self, sheet: Sheet) -> None:
        """Head, columns, foot."""
        sheet.ink(3, 1, [(_TITLES[self.of], "text b"), ("   keys and signs of this screen", "muted")])
        tail: Ink = [("esc", "accent b"), (" close", "muted")]
        search: Ink = (
            [("type", "accent b"), (" to search   ", "muted")]
            if not self.text
            else [("search: ", "muted"), (fmt.cut(self.text, 20), "text b"), ("   ", "text")]
        )
        if sheet.width >= 76:
            tail = [*search, *tail]
        sheet.right(sheet.width - 3, 1, tail)
        columns = self._columns()
        if sheet.width < 118:
            columns = [[line for column in columns for line in [*column, []]]]
        height = sheet.height - 7 if sheet.width >= 118 else sheet.height - 4
        self._last = max(0, max(len(column) for column in columns) - height)
        width = (sheet.width - 6) // len(columns)
        for index, column in enumerate(columns):
            for row, line in enumerate(column[self.top : self.top + height]):
                sheet.ink(3 + index * width, 3 + row, line)
        if self._last:
            sheet.right(sheet.width - 3, sheet.height - 1, [("↓ more" if self.top < self._last else "↑ top", "faint")])
        if sheet.width >= 118:
            y = sheet.height - 4
            sheet.put(3, y, "─" * (sheet.width - 6), "line")
            sheet.ink(
                3,
                y + 1,
                [
                    ("move?  ", "text b"),
                    ("yes", "accent"),
                    (" can move now   ", "muted"),
                    ("fix", "busy"),
                    (" can after the fix in its details   ", "muted"),
                    ("locked", "busy"),
                    (" not allowed   ", "muted"),
                    ("no", "text"),
                    (" cannot", "muted"),
                ],
            )
            sheet.ink(
                3,
                y + 2,
                [
                    ("Capitals", "text b"),
                    ("  end something or act on more than one. What cannot be taken back asks first.", "muted"),
                ],
            )

    def _columns(self) -> list[list[Ink]]:
        first: list[Ink] = []
        last: list[Ink] = []
        for group in ("job", "node"):
            first += self._group(group)
        middle = self._group("shown")
        if self.of == "processes":
            middle += self._block("Filter, by example", [[(text, "own")] for text in _EXAMPLES])
        last += self._group("everywhere")
        signs: list[Ink] = [[(f"{sign:<10}", spec), (text, "muted")] for sign, spec, text in SIGNS]
        side = middle if self.of in {"node", "migrations", "cluster"} else last
        side += self._block("Signs", signs)
        return [first, middle, last]

    def _group(self, group: str) -> list[Ink]:
        lines: list[Ink] = [self._line(command) for command in of_screen(self.of) if command.group == group]
        return self._block(_GROUPS[group], lines)

    def _block(self, title: str, lines: list[Ink]) -> list[Ink]:
        needle = self.text.lower()
        kept = [line for line in lines if needle in "".join(text for text, _ in line).lower()]
        return [[(title, "text b")], *kept, []] if kept else []

    @staticmethod
    def _line(command: Command) -> Ink:
        keys = " ".join(key_name(key) for key in command.keys)
        return [(f"{keys:<9} ", "accent b"), (command.help, "muted")]
