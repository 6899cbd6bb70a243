"""The signal menu: which one, what it does, and nothing without a yes."""

from __future__ import annotations

import signal
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from omcore.types import ClusterView, JobView, ProcView
from omview import format as fmt
from omview.model import job_label, node_name
from omview.screens.dialog import Dialog, buttons
from omview.widgets.sheet import Hit, Ink, Sheet

SIGNALS = (
    (signal.SIGTERM, "asks it to end, and lets it clean up"),
    (signal.SIGINT, "like ctrl+c in its terminal"),
    (signal.SIGHUP, "its terminal has gone; some read their settings anew"),
    (signal.SIGSTOP, "it stands still until it may go on"),
    (signal.SIGCONT, "it goes on after a stop"),
    (signal.SIGUSR1, "whatever the program made of it"),
    (signal.SIGUSR2, "whatever the program made of it"),
    (signal.SIGQUIT, "it ends and leaves a core file"),
    (signal.SIGKILL, "it ends at once and loses what is not saved"),
)


class SignalDialog(Dialog[int | None]):
    """Answers with a signal number, or None."""

    BAR = "bad"
    WIDTH, HEIGHT = 76, 18
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n,q", "no", show=False),
        Binding("y", "yes", show=False),
        Binding("enter", "press", show=False),
        Binding("down,j", "choose(1)", show=False),
        Binding("up,k", "choose(-1)", show=False),
        Binding("left,right,tab,shift+tab", "switch", show=False),
    ]

    def __init__(self, job: JobView | None, proc: ProcView | None, view: ClusterView) -> None:
        super().__init__()
        self.job, self.proc, self.view = job, proc, view
        self.at, self.on_no = 0, True

    def action_no(self) -> None:
        """Send nothing."""
        self.dismiss(None)

    def action_yes(self) -> None:
        """Send the chosen one."""
        self.dismiss(int(SIGNALS[self.at][0]))

    def action_press(self) -> None:
        """Press the chosen button."""
        if self.on_no:
            self.action_no()
        else:
            self.action_yes()

    def action_switch(self) -> None:
        """The other button."""
        self.on_no = not self.on_no
        self.redraw()

    def action_choose(self, step: int) -> None:
        """The signal above or below."""
        self.at = max(0, min(len(SIGNALS) - 1, self.at + step))
        self.redraw()

    def on_key(self, event: events.Key) -> None:
        """A digit chooses a line."""
        if event.key.isdigit() and 1 <= int(event.key) <= len(SIGNALS):
            event.stop()
            self.at = int(event.key) - 1
            self.redraw()

    def clicked(self, hit: Hit) -> None:
        """A signal was clicked: it is chosen, nothing more."""
        if hit[0] == "signal" and isinstance(hit[1], int):
            self.at = hit[1]
            self.redraw()

    def draw(self, sheet: Sheet) -> None:
        """Sentence, list, buttons."""
        if self.job is not None:
            name, user, node = job_label(self.job), self.job.user, self.job.node
            pid, tail = self.job.pid, " and all its processes"
        else:
            assert self.proc is not None
            name, user, node = self.proc.name, self.proc.user, self.proc.key.node
            pid, tail = self.proc.key.pid, ""
        ink: Ink = [
            ("Send a signal to ", "text b"),
            (fmt.cut_middle(name, 20), "move b"),
            (f" {pid or ''}", "faint"),
            (f"{tail} on {node_name(self.view, node)}", "muted"),
            (f" ({user})", "muted"),
        ]
        sheet.ink(3, 1, ink)
        room = sheet.height - 6
        first = max(0, min(self.at - room + 1, len(SIGNALS) - room))
        for index, (number, text) in list(enumerate(SIGNALS))[first : first + room]:
            y = 3 + index - first
            if index == self.at:
                sheet.fill(2, y, sheet.width - 4, 1, "sel")
            sheet.hit(2, y, sheet.width - 4, 1, "signal", index)
            sheet.right(4, y, [(str(index + 1), "accent b")])
            ends = number in {signal.SIGKILL, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
            sheet.put(6, y, number.name.removeprefix("SIG"), "text b")
            sheet.right(16, y, [(str(int(number)), "faint")])
            sheet.put(
                18,
                y,
                fmt.cut(text, sheet.width - 21),
                "bad" if number == signal.SIGKILL else "text" if ends else "muted",
            )
        buttons(sheet, sheet.height - 3, "No, send nothing", f"Yes, send {SIGNALS[self.at][0].name}", on_no=self.on_no)
