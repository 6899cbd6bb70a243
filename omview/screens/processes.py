"""Screen 3: the processes of all nodes or of one, and what can be done with those that are jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from textual import events, on
from textual.app import ComposeResult
from textual.screen import ModalScreen
from textual.widgets import Input
from textual.worker import Worker

from omcore.errors import OmError
from omcore.types import JobId, JobState, JobView, MovePlan, NodeState, ProcDelta, ProcKey, ProcView
from omview import format as fmt
from omview import processes as procs
from omview.commands import Situation
from omview.model import live_jobs, movable, node_name, running_moves
from omview.processes import FilterError, ProcBook, Seen, Test
from omview.screens.base import OmScreen, bindings
from omview.widgets import details, proctable
from omview.widgets.look import Look
from omview.widgets.sheet import Hit, Ink, Sheet

REORDER_S = 2.0  # rows that jump every second cannot be read
HOLD_S = 3.0  # after the cursor was moved
SETTLE_S = 3.0  # the first list knows no CPU yet: it is ordered each second, and the cursor stays on top
FOLLOW_S = 4.0  # how long the cursor waits for its job to turn up on the node it went to
PLAN_S = 6.0  # how long a forecast in the details stays good
SIDE_WIDTH = 54


class Entry(Input):
    """The line for the filter. It closes with the key itself: what is typed behind it is meant for the list."""

    def __init__(self, close: Callable[[], None]) -> None:
        super().__init__(id="entry", compact=True, select_on_focus=False)
        self.cursor_blink = False
        self._close = close

    def on_key(self, event: events.Key) -> None:
        """Before Textual's own handling."""
        late = not self.has_class("-open")
        if late:
            self.app.post_message(events.Key(event.key, event.character))
        elif event.key in {"enter", "escape"}:
            self._close()
        else:
            return
        event.stop()
        event.prevent_default()


class ProcessScreen(OmScreen):
    """The list, its filter, the details of the row under the cursor."""

    NAME = "processes"
    BINDINGS = bindings("processes")

    def __init__(self) -> None:
        super().__init__()
        self.book = ProcBook()
        self.only: int | None = None  # a node number; None: all nodes
        self.order, self.reversed, self.as_tree, self.jobs_only = "cpu", False, False, False
        self.text, self.error = "", ""
        self._test: Test | None = None
        self.rows: list[tuple[Seen, str]] = []
        self.key: ProcKey | None = None
        self._seen: Seen | None = None  # what the cursor is on; kept while its job is between two nodes
        self._gone_at = 0.0
        self._at = 0
        self._touched = False  # whether anybody pressed a key here yet
        self.top, self._room = 0, 1
        self.beside, self.full = True, False
        self._line = 0
        self._ordered_at = self._moved_at = self._asked_at = 0.0
        self._stale_order = True
        self._order: list[ProcKey] = []
        self._total = 0
        self._stream: Worker[None] | None = None
        self._plans: dict[JobId, tuple[float, MovePlan | str]] = {}
        self._entry_at = (0, 0, 0)

    def compose(self) -> ComposeResult:
        """The canvas, and the line one types a filter into."""
        yield from super().compose()
        yield Entry(self._close_entry)

    # ---- data

    def on_screen_resume(self) -> None:
        """Ask for the lists again, and take up what another screen wants to show."""
        wished, self.om.show_jobs_of = self.om.show_jobs_of, 0
        if wished:
            self.only, self.jobs_only, self._stale_order = wished, True, True
        if self._stream is None or self._stream.is_finished or wished:
            self._listen()
        self._take_wish()
        super().on_screen_resume()

    def on_screen_suspend(self) -> None:
        """Nobody looks: stop asking. Below a dialog the list goes on."""
        if not isinstance(self.app.screen, ModalScreen) and self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def engine_back(self) -> None:
        """Ask for the lists again."""
        if self.is_current and (self._stream is None or self._stream.is_finished):
            self._listen()

    def _listen(self) -> None:
        nodes = () if self.only is None else (self.only,)
        follow = partial(self.om.feed.processes, nodes, self._take)
        self._stream = self.run_worker(follow, group="list", exclusive=True)

    def _take(self, delta: ProcDelta) -> None:
        first = not self.book.asked or delta.full
        self.book.apply(delta)
        if first:
            self._stale_order, self._asked_at = True, self.om.clock()
            self._take_wish()
            self.redraw()  # later ones wait for the next second

    def _take_wish(self) -> None:
        if self.om.chosen_job:
            root = next((p.key for p in self.book.procs.values() if p.job == self.om.chosen_job and p.root), None)
            if root is not None:
                self.key, self.om.chosen_job, self._moved_at = root, "", self.om.clock()
                self._stale_order = True

    def _collect(self, look: Look) -> None:
        """Filter and order; the order is kept for a while so that rows can be read."""
        now = look.now
        known = [p for p in self.book.procs.values() if self.only is None or p.key.node == self.only]
        self._total = len(known)
        if self.only is not None:
            known += procs.deputies(look.view, self.only)
        seen = procs.see(known, look.view, self._test, self.jobs_only)
        settling = now - self._asked_at < SETTLE_S
        rest = now - self._moved_at < HOLD_S or (now - self._ordered_at < REORDER_S and not settling)
        if rest and not self._stale_order:
            seen = procs.keep_order(seen, self._order)
        else:
            seen = procs.sort(seen, self.order, self.reversed)
            self._ordered_at, self._stale_order = now, False
        before = self._index()
        self._order = [each.proc.key for each in seen]
        self.rows = procs.tree(seen) if self.as_tree else [(each, "") for each in seen]
        if settling and not self._touched and self._moved_at == 0.0:
            self.key, self._seen, self._line, before = None, None, 0, 0
        self._find_cursor(before, look)

    def _find_cursor(self, before: int, look: Look) -> None:
        keys = [each.proc.key for each, _ in self.rows]
        if self.key not in keys:
            self.key = self._heir(look) or (keys[max(0, min(before, len(keys) - 1))] if keys else self.key)
        if self.key in keys:
            self._at = keys.index(self.key)
            self._seen, self._gone_at = self.rows[self._at][0], 0.0
            self.top = self._at - self._line
        elif self._gone_at == 0.0:
            self._seen = None

    def _heir(self, look: Look) -> ProcKey | None:
        """Where the cursor goes when its process has left with its job: after it; the old key while it is under way."""
        if self._seen is None or self._seen.job is None or self.key in self.book.procs:
            return None
        proc, known = self._seen.proc, self._seen.job.id
        job = next((job for job in live_jobs(look.view) if job.id == known), None)
        left = job is not None and (job.node != proc.key.node or job.state is JobState.MOVING)
        if job is None or not (left or proc.root):
            return None  # one of many processes of a job that stays: its neighbour will do
        roots = (each.proc.key for each, _ in self.rows if each.job and each.job.id == job.id and each.proc.root)
        if (root := next(roots, None)) is not None or not left:
            self._stale_order = True  # new rows stand at the end
            return root
        self._gone_at = self._gone_at or look.now
        self._seen = replace(self._seen, job=job)
        return self.key if look.now - self._gone_at < FOLLOW_S else None

    def _index(self) -> int:
        found = (i for i, (each, _) in enumerate(self.rows) if each.proc.key == self.key)
        return next(found, max(0, min(self._at, len(self.rows) - 1)))

    def current(self) -> Seen | None:
        """The row under the cursor."""
        found = (each for each, _ in self.rows if each.proc.key == self.key)
        return next(found, self._seen if self._gone_at else None)

    def job_at_cursor(self) -> JobView | None:
        """The job the row belongs to."""
        seen = self.current()
        return seen.job if seen else None

    def proc_at_cursor(self) -> ProcView | None:
        """The process of the row."""
        seen = self.current()
        return seen.proc if seen else None

    def rows_count(self) -> int:
        """Rows after filtering."""
        return len(self.rows)

    def cursor_line(self) -> int | None:
        """Where toasts must not be."""
        return None if self.full else self._table_y + 1 + self._line

    def situation(self) -> Situation:
        """The base, and whether there is something for esc to undo."""
        filtered, typing = bool(self.text) or self.jobs_only, self.focused is not None
        return replace(super().situation(), filtered=filtered, zoomed=self.full, typing=typing)

    # ---- forecast for the details

    def _plan(self, look: Look) -> MovePlan | str | None:
        job = self.job_at_cursor()
        if job is None or job.locked or movable(job)[0] == "moving":
            return None
        known = self._plans.get(job.id)
        if (known is None or look.now - known[0] > PLAN_S) and look.now - self._moved_at >= 0.2 and self.om.live:
            self._plans[job.id] = (look.now, known[1] if known else "") if known else (look.now, "")
            # the coroutine is made by the worker: one that is replaced before it began must not be left unawaited
            work = partial(self._ask_plan, job.id)
            self._forecast: Worker[None] = self.run_worker(work, group="forecast", exclusive=True)
        answer = self._plans.get(job.id)
        return answer[1] if answer and answer[1] else None

    async def _ask_plan(self, job: JobId) -> None:
        try:
            answer: MovePlan | str = await self.om.feed.client.plan(job)
        except OmError as error:
            answer = f"{error.text} {error.hint}".strip()
        self._plans = {job: (self.om.clock(), answer)}
        self.redraw()

    # ---- drawing

    _table_y = 2

    def draw(self, sheet: Sheet, look: Look) -> None:
        """Second line, filter bar, table, details."""
        self._collect(look)
        tall = sheet.height >= 30
        y = 1
        if tall:
            self._second_line(sheet, 2, look)
            y = 3
        self._filter_bar(sheet, y)
        self._table_y = y + (2 if tall else 1)
        plan = self._plan(look)
        seen = self.current()
        if self.full and seen is not None:
            details.side(sheet, 2, self._table_y, sheet.width - 4, sheet.height - 1 - self._table_y, seen, look, plan)
            return
        pane = sheet.width >= 140 and self.beside and seen is not None
        width = sheet.width - SIDE_WIDTH - 1 if pane else sheet.width
        low = seen is not None and not pane and sheet.height >= 20 and self.beside
        bottom = sheet.height - 1 - (5 if low else 0)
        self._table(sheet, width, bottom, look, details_open=pane)
        if pane and seen is not None:
            top = self._table_y
            details.side(sheet, sheet.width - SIDE_WIDTH, top, SIDE_WIDTH, sheet.height - 1 - top, seen, look, plan)
        elif low and seen is not None:
            details.below(sheet, sheet.height - 5, seen, look, plan)

    def _second_line(self, sheet: Sheet, y: int, look: Look) -> None:
        count = len(look.view.nodes)
        where = f"All {count} nodes" if self.only is None else node_name(look.view, self.only)
        x = sheet.put(2, y, where if count != 1 else node_name(look.view, look.view.number), "text b") + 3
        if count > 1:
            x = sheet.ink(x, y, [("[ ]", "accent b"), (" one node" if self.only is None else " other node", "muted")])
            if self.only is not None:
                x = sheet.ink(x + 3, y, [("\\", "accent b"), (" all nodes", "muted")])
            x += 5
        if self.as_tree:
            x = sheet.put(x, y, "tree", "text b") + 3
        if self.jobs_only:
            x = sheet.put(x, y, "jobs only", "text b") + 3
        x = sheet.ink(x, y, [("order ", "muted"), (self.order + (", reversed" if self.reversed else ""), "text b")])
        jobs = live_jobs(look.view)
        can = sum(movable(job)[0] == "yes" for job in jobs)
        away, moving = sum(job.node != job.home for job in jobs), len(running_moves(look.view))
        ink: Ink = [
            (str(self._total), "text b"),
            (" processes   ", "muted"),
            (str(can), "text b"),
            (" can move   ", "muted"),
            (str(away), "text b"),
            (" away", "muted"),
        ]
        if moving:
            ink += [("   ", "text"), (str(moving), "move b"), (" moving", "muted")]
        if x + sum(len(text) for text, _ in ink) + 3 < sheet.width:
            sheet.right(sheet.width - 2, y, ink)

    def _filter_bar(self, sheet: Sheet, y: int) -> None:
        sheet.fill(0, y, sheet.width, 1, "panel")
        sheet.put(1, y, "/", "accent b")
        sheet.hit(0, y, sheet.width, 1, "key", "slash")
        tail: Ink = [(str(len(self.rows)), "text b"), (f" of {self._total}", "muted")]
        if sheet.width >= 100:
            tail.append((" shown", "muted"))
            if self.text:
                tail += [("   ", "text"), ("esc", "accent b"), (" clear", "muted")]
        if sheet.height < 30 and self.only is not None:
            tail = [
                ("on ", "faint"),
                (node_name(self.om.view, self.only) if self.om.view else "", "text b"),
                ("   ", "text"),
                *tail,
            ]
        end = sheet.right(sheet.width - 2, y, tail)
        room = end - 5
        if sheet.width >= 100 and not self.text:
            room -= len("   esc clear")  # it comes with the first letter, and the line one types into must not cover it
        self._entry_at = (3, y, room)
        if self.error:
            sheet.put(3, y, fmt.cut(f"{self.error}. Shown is the last filter that worked.", room), "busy")
        elif self.text:
            sheet.ink(3, y, highlight(fmt.cut(self.text, room)))
        elif self.jobs_only:
            sheet.put(3, y, fmt.cut("jobs only;  v shows all processes", room), "faint")
        else:
            x = sheet.put(3, y, "type to filter:", "faint")
            for example in procs.EXAMPLES:
                if x + 2 + len(example) > 3 + room:
                    break
                x = sheet.put(x + 2, y, example, "faint")

    def _table(self, sheet: Sheet, width: int, bottom: int, look: Look, *, details_open: bool) -> None:
        names = {node.number: node.name for node in look.view.nodes}
        longest = max((fmt.cells(name) for name in names.values()), default=4)
        columns = proctable.places(width, details=details_open, all_nodes=self.only is None, names=longest)
        y = self._table_y
        proctable.heads(sheet, 0, y, columns, self.order, self.reversed)
        self._room = max(1, bottom - y - 1)
        self.top = max(0, min(self.top, len(self.rows) - self._room))
        index = self._index()
        if index < self.top:
            self.top = index
        elif index >= self.top + self._room:
            self.top = index - self._room + 1
        self._line = index - self.top
        stale = {*self.book.missing, *(node.number for node in look.view.nodes if node.state is not NodeState.UP)}
        for offset, (seen, branch) in enumerate(self.rows[self.top : self.top + self._room]):
            row = procs.row(seen, branch, names, self.only, seen.proc.key.node in stale)
            proctable.draw_row(sheet, 0, y + 1 + offset, width - 1, columns, row, chosen=seen.proc.key == self.key)
        proctable.scroll_bar(sheet, width - 1, y + 1, self._room, self.top, len(self.rows))
        if not self.rows:
            self._say_empty(sheet, y + 2, width, look)

    def _say_empty(self, sheet: Sheet, y: int, width: int, look: Look) -> None:
        if not self.book.asked:
            which = node_name(look.view, self.only) if self.only is not None else "the nodes"
            text = f"Asking {which} for the processes …"
        elif self.text:
            text = f"Nothing matches {self.text}. {self._total} processes are hidden. esc clears the filter."
        elif self.jobs_only:
            text = "No jobs here. A job is a program that omview may move. Start one: omview run COMMAND"
        else:
            text = "No processes are known."
        for row, line in enumerate(fmt.wrap(text, width - 6, 3)):
            sheet.put(4, y + row, line, "muted")

    # ---- keys

    def on_key(self) -> None:
        """From now on the cursor stays on its process."""
        self._touched = True

    def action_down(self, lines: int) -> None:
        """Move the cursor by rows."""
        if self.rows:
            index = max(0, min(len(self.rows) - 1, self._index() + lines))
            self.key = self.rows[index][0].proc.key
            self._line += index - (self.top + self._line)
            self._line = max(0, min(self._room - 1, self._line))
            self._moved_at = self.om.clock()
            self.redraw()

    def action_right(self, cells: int) -> None:
        """There is no sideways here."""

    def action_page(self, pages: int) -> None:
        """Move by a screenful."""
        self.action_down(pages * max(1, self._room - 1))

    def action_open(self) -> None:
        """Details on the whole screen, and back."""
        self.full = not self.full
        self.redraw()

    def action_side(self) -> None:
        """Details beside or below the list, on and off."""
        if self.full:
            self.full = False
        else:
            self.beside = not self.beside
        self.redraw()

    def action_order(self) -> None:
        """The next column orders the list."""
        self._set_order(procs.ORDERS[(procs.ORDERS.index(self.order) + 1) % len(procs.ORDERS)])

    def _set_order(self, order: str) -> None:
        self.reversed = not self.reversed if order == self.order else False
        self.order, self._stale_order = order, True
        self.redraw()

    def action_reverse(self) -> None:
        """The other way round."""
        self.reversed, self._stale_order = not self.reversed, True
        self.redraw()

    def action_tree(self) -> None:
        """Tree or flat."""
        self.as_tree, self._stale_order = not self.as_tree, True
        self.redraw()

    def action_jobs_only(self) -> None:
        """Only the roots of jobs, or everything."""
        self.jobs_only, self._stale_order = not self.jobs_only, True
        self.redraw()

    def _show_node(self, number: int | None) -> None:
        self.only, self._stale_order = number, True
        if number is not None:
            self.om.node = number
        self.book.clear()
        self._listen()
        self.redraw()

    def action_node_before(self) -> None:
        """The node before, after the first one all."""
        self._step_node(-1)

    def action_node_after(self) -> None:
        """The next node, after the last one all."""
        self._step_node(1)

    def _step_node(self, step: int) -> None:
        choices: list[int | None] = [None, *(node.number for node in self.om.view.nodes)] if self.om.view else [None]
        at = choices.index(self.only) if self.only in choices else 0
        self._show_node(choices[(at + step) % len(choices)])

    def action_all_nodes(self) -> None:
        """All nodes."""
        self._show_node(None)

    def action_copy(self) -> None:
        """The whole command to the clipboard."""
        proc = self.proc_at_cursor()
        if proc is not None:
            self.app.copy_to_clipboard(proc.command)
            self.om.sentence("copy", f"Copied the command of {proc.name} {proc.key.pid}.")

    def action_leave(self) -> None:
        """Close the line one types into, then the page, the notes, the filter, and jobs only."""
        if self.focused is not None:
            self._close_entry()
        elif self.full:
            self.full = False
        elif self.om.toasts:
            self.om.drop_toast()
        elif self.text or self.error:
            self._set_filter("")
        else:
            self.jobs_only, self._stale_order = False, True
        self.redraw()

    def clicked(self, hit: Hit, count: int) -> None:
        """A row or a head."""
        kind, value = hit
        if kind == "proc" and isinstance(value, ProcKey):
            self.action_down(next((i for i, (s, _) in enumerate(self.rows) if s.proc.key == value), 0) - self._index())
            if count > 1:
                self.action_open()
        elif kind == "order":
            self._set_order(str(value))

    # ---- filter

    def action_filter(self) -> None:
        """Type a filter; it works while it is typed."""
        entry = self.query_one("#entry", Input)
        x, y, width = self._entry_at
        entry.styles.offset = (x, y)
        entry.styles.width = width
        entry.value = self.text
        entry.cursor_position = len(self.text)
        # At once and not by `focus()`, which waits its turn: what is typed behind the slash belongs into the line.
        entry.add_class("-open")
        entry.display = True
        self.set_focus(entry)

    def take_early(self, event: events.Key) -> bool:
        """Letters reach the screen as long as the line has not the focus; they are in the order they were typed."""
        if not isinstance(self.focused, Entry):
            return False
        if event.key in {"enter", "escape"}:
            self._close_entry()
        elif event.is_printable and event.character:
            self.focused.insert_text_at_cursor(event.character)
        else:
            return False
        return True

    def _close_entry(self) -> None:
        entry = self.query_one("#entry", Input)
        entry.remove_class("-open")
        entry.display = False
        self.set_focus(None)
        self._set_filter(entry.value)  # the news of the last letter may still be under way

    @on(Input.Changed, "#entry")
    def typed(self, event: Input.Changed) -> None:
        """Each letter counts."""
        self._set_filter(event.value)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a filter is typed, esc has something to close."""
        if action == "leave" and self.focused is not None:
            return True
        return super().check_action(action, parameters)

    def _set_filter(self, text: str) -> None:
        self.text, self._stale_order = text, True
        try:
            self._test, self.error = procs.parse_filter(text), ""
        except FilterError as error:
            self.error = str(error)
        self.redraw()


def highlight(text: str) -> Ink:
    """A filter with its fields and negations marked."""
    ink: Ink = []
    for index, word in enumerate(text.split(" ")):
        if index:
            ink.append((" ", "text"))
        sign = next((sign for sign in (">=", "<=", "!=", ">", "<", "=") if sign in word), "")
        if word.startswith("!"):
            ink.append(("!", "hot b"))
            word = word[1:]
        if sign:
            name, _, value = word.partition(sign)
            ink += [(name, "own"), (sign, "muted"), (value, "text b")]
        else:
            ink.append((word, "text b"))
    return [(part, spec) for part, spec in ink if part]
