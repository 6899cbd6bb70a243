"""The question before quitting while something moves."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from omview import format as fmt
from omview.screens.dialog import Dialog, buttons
from omview.widgets.sheet import Sheet


class QuitDialog(Dialog[bool]):
    """Answers True: quit. `embedded`: the engine ends with this window."""

    BAR = "busy"
    WIDTH, HEIGHT = 72, 10
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n,enter", "answer(False)", show=False),
        Binding("y,q", "answer(True)", show=False),
    ]

    def __init__(self, moving: int, embedded: bool, note: str) -> None:
        super().__init__()
        self.moving, self.embedded, self.note = moving, embedded, note

    def action_answer(self, yes: bool) -> None:
        """Stay or quit."""
        self.dismiss(yes)

    def draw(self, sheet: Sheet) -> None:
        """What is moving, and what quitting means for it."""
        verb = "is" if self.moving == 1 else "are"
        sheet.put(3, 1, f"{fmt.count(self.moving, 'job')} {verb} moving.", "text b")
        text = "The engine finishes that without this window."
        if self.embedded:
            text = (
                self.note or "The engine runs in this window: the move is taken back, and the job goes on where it was."
            )
        for row, line in enumerate(fmt.wrap(text, sheet.width - 7, 3)):
            sheet.put(3, 3 + row, line, "text")
        buttons(sheet, sheet.height - 3, "Stay", "Quit", on_no=True, keys=("enter, esc", "y"))
