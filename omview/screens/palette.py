"""All commands by name: type a few letters, enter does it; what cannot be done now is there with its reason."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from omview import format as fmt
from omview.commands import Offer, Situation, key_name, palette, search
from omview.screens.dialog import Dialog
from omview.widgets.sheet import Hit, Sheet


class Palette(Dialog[str | None]):
    """Answers with the action to run, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+p", "close", show=False),
        Binding("enter", "run", show=False),
        Binding("down,ctrl+n", "choose(1)", show=False),
        Binding("up", "choose(-1)", show=False),
        Binding("pagedown", "choose(6)", show=False),
        Binding("pageup", "choose(-6)", show=False),
        Binding("backspace", "erase", show=False),
        Binding("ctrl+u", "clear", show=False),
    ]
    WIDTH, HEIGHT = 84, 22

    def __init__(self, situation: Situation) -> None:
        super().__init__()
        self.all = palette(situation)
        self.text = ""
        self.at = 0

    @property
    def hits(self) -> list[Offer]:
        """What matches."""
        return search(self.all, self.text)

    def action_close(self) -> None:
        """Do nothing."""
        self.dismiss(None)

    def action_run(self) -> None:
        """Do the chosen one, if it can be done."""
        hits = self.hits
        if hits and hits[self.at].able:
            self.dismiss(hits[self.at].command.action)

    def action_choose(self, step: int) -> None:
        """The line above or below."""
        self.at = max(0, min(len(self.hits) - 1, self.at + step))
        self.redraw()

    def action_erase(self) -> None:
        """Take back a letter."""
        self._type(self.text[:-1])

    def action_clear(self) -> None:
        """Take back all."""
        self._type("")

    def on_key(self, event: events.Key) -> None:
        """Letters are typed."""
        if event.is_printable and event.character:
            event.stop()
            self._type(self.text + event.character)

    def _type(self, text: str) -> None:
        self.text, self.at = text, 0
        self.redraw()

    def clicked(self, hit: Hit) -> None:
        """A line was clicked: do it."""
        if hit[0] == "offer" and isinstance(hit[1], int):
            self.at = hit[1]
            self.action_run()

    def draw(self, sheet: Sheet) -> None:
        """What is typed, the hits, the keys."""
        hits = self.hits
        x = sheet.ink(3, 1, [("› ", "accent b"), (fmt.cut(self.text, sheet.width - 24), "text b")])
        sheet.fill(x, 1, 1, 1, "accent")
        if not self.text:
            sheet.put(x + 2, 1, "type what you want to do", "faint")
        sheet.right(sheet.width - 3, 1, [(f"{len(hits)} of {len(self.all)}", "muted")])
        sheet.put(3, 2, "─" * (sheet.width - 6), "line")
        room = (sheet.height - 6) // 2
        first = max(0, min(self.at - room + 1, len(hits) - room))
        for index, offer in list(enumerate(hits))[first : first + room]:
            y = 3 + (index - first) * 2
            if index == self.at:
                sheet.fill(1, y, sheet.width - 2, 2, "sel")
            sheet.hit(1, y, sheet.width - 2, 2, "offer", index)
            sheet.put(
                3,
                y,
                fmt.cut(offer.title, sheet.width - 16),
                ("text b" if index == self.at else "text") if offer.able else "faint",
            )
            sheet.put(5, y + 1, fmt.cut(offer.note, sheet.width - 10), "muted" if offer.able else "faint")
            sheet.right(sheet.width - 3, y, [(key_name(offer.command.keys[0]), "accent b" if offer.able else "faint")])
        if not hits:
            sheet.put(3, 4, "No command has these words.", "muted")
        sheet.ink(
            3,
            sheet.height - 2,
            [
                ("enter", "accent b"),
                (" do it   ", "muted"),
                ("↑↓", "accent b"),
                (" choose   ", "muted"),
                ("esc", "accent b"),
                (" close", "muted"),
            ],
        )
