"""Screen 4: what moves now, step by step, and what has moved, with its freeze times on one scale."""

from __future__ import annotations

from omcore.types import JobView, MoveView, Step
from omview import format as fmt
from omview.model import ended_moves, live_jobs, running_moves
from omview.screens.base import OmScreen, bindings
from omview.widgets.bars import nice_top
from omview.widgets.look import Look
from omview.widgets.moves import history_head, history_line, two_lines
from omview.widgets.proctable import scroll_bar
from omview.widgets.sheet import Hit, Ink, Sheet


class MigrationScreen(OmScreen):
    """Running moves above, history below; the cursor walks the history."""

    NAME = "migrations"
    BINDINGS = bindings("migrations")

    def __init__(self) -> None:
        super().__init__()
        self.chosen = ""  # a move's id
        self.top = 0
        self._line: int | None = None

    def _all(self) -> list[MoveView]:
        view = self.om.view
        return [*running_moves(view), *ended_moves(view)] if view else []

    def rows_count(self) -> int:
        """Running and ended moves."""
        return len(self._all())

    def _index(self) -> int:
        return next((i for i, move in enumerate(self._all()) if move.id == self.chosen), 0)

    def job_at_cursor(self) -> JobView | None:
        """The job of the chosen move, if it still runs."""
        moves = self._all()
        if not moves or self.om.view is None:
            return None
        wanted = moves[self._index()].job
        return next((job for job in live_jobs(self.om.view) if job.id == wanted), None)

    def cursor_line(self) -> int | None:
        """Where toasts must not be."""
        return self._line

    def action_down(self, lines: int) -> None:
        """Walk through running and ended moves."""
        moves = self._all()
        if moves:
            self.chosen = moves[max(0, min(len(moves) - 1, self._index() + lines))].id
            self.redraw()

    def action_right(self, cells: int) -> None:
        """There is no sideways here."""

    def clicked(self, hit: Hit, count: int) -> None:
        """A move was clicked."""
        if hit[0] == "move":
            self.chosen = str(hit[1])
            self.redraw()

    def draw(self, sheet: Sheet, look: Look) -> None:
        """Two lists."""
        running, ended = running_moves(look.view), ended_moves(look.view)
        index = self._index()
        y = 2 if sheet.height >= 30 else 1
        sheet.title(2, y, sheet.width - 4, "Running", [(str(len(running)), "move b" if running else "muted")])
        y += 1
        self._line = None
        if not running:
            sheet.put(2, y, "Nothing moves now.", "faint")
            y += 1
        room = max(1, (sheet.height - y - 8) // 2)
        for number, move in enumerate(running[:room]):
            if number == index:
                sheet.put(0, y, "▌", "accent")
                sheet.put(0, y + 1, "▌", "accent")
                self._line = y
            sheet.hit(0, y, sheet.width, 2, "move", move.id)
            two_lines(sheet, 2, y, sheet.width - 4, look, move)
            y += 2
        if len(running) > room:
            sheet.put(2, y, f"… and {len(running) - room} more", "faint")
            y += 1
        self._history(sheet, y + 1, ended, index - len(running), look)

    def _history(self, sheet: Sheet, y: int, ended: list[MoveView], index: int, look: Look) -> None:
        freezes = sorted(move.freeze_s for move in ended if move.freeze_s is not None)
        figures: Ink = [(str(len(ended)), "muted")]
        if freezes and sheet.width >= 76:
            back = sum(move.step is Step.BACK for move in ended)
            figures = [
                (fmt.count(len(ended), "move"), "text b"),
                (f", {back} taken back" if back else "", "muted"),
                (", frozen ", "muted"),
                (fmt.freeze(freezes[len(freezes) // 2]), "text b"),
                (" in the middle, ", "muted"),
                (fmt.freeze(freezes[-1]), "text b"),
                (" at worst", "muted"),
            ]
            figures = [part for part in figures if part[0]]
        sheet.title(2, y, sheet.width - 4, "History", figures)
        if not ended:
            sheet.put(2, y + 1, "Nothing was moved yet. On a job, m asks where to.", "faint")
            return
        worst = nice_top(freezes, 1.0)
        history_head(sheet, y + 1, sheet.width)
        if sheet.width >= 130:
            sheet.right(105, y + 1, [(fmt.about(worst), "faint")])
        rows = sheet.height - 1 - (y + 2)
        self.top = max(0, min(self.top, len(ended) - rows))
        if index >= 0:
            self.top = min(max(self.top, index - rows + 1), index)
        for number, move in enumerate(ended[self.top : self.top + rows]):
            line = y + 2 + number
            chosen = self.top + number == index
            if chosen:
                self._line = line
            history_line(sheet, line, look, move, worst, chosen=chosen)
        scroll_bar(sheet, sheet.width - 1, y + 2, rows, self.top, len(ended))
