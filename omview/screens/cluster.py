"""Screen 1: all nodes as cards or rows, and what happens now."""

from __future__ import annotations

from dataclasses import replace

from omcore.types import NodeView
from omview import format as fmt
from omview.commands import Situation
from omview.model import jobs_on, running_moves, sums
from omview.screens.base import OmScreen, bindings
from omview.widgets import noderows
from omview.widgets.bars import load_bar, nice_top, share_bar
from omview.widgets.cards import LEAST, card
from omview.widgets.look import Look
from omview.widgets.moves import event_line, now_section, one_line
from omview.widgets.proctable import scroll_bar
from omview.widgets.sheet import Hit, Ink, Sheet


class ClusterScreen(OmScreen):
    """Who is crowded, who has room, what moves."""

    NAME = "cluster"
    BINDINGS = bindings("cluster")

    def __init__(self) -> None:
        super().__init__()
        self._layout_wish = "auto"
        self._columns = 1
        self._line: int | None = None
        self._shown, self._fit = "rows", False

    def situation(self) -> Situation:
        """The base, and how the nodes are shown."""
        return replace(super().situation(), layout=self._shown, cards_fit=self._fit)

    def rows_count(self) -> int:
        """The nodes."""
        return len(self.om.view.nodes) if self.om.view else 0

    def cursor_line(self) -> int | None:
        """Rows have a cursor line, cards have not."""
        return self._line

    def draw(self, sheet: Sheet, look: Look) -> None:
        """Sums, nodes, now."""
        wide = sheet.width >= 100
        top = 2 if sheet.height >= 30 else 1
        _sums_line(sheet, top, look)
        y = top + 2
        if look.view.warnings:
            sheet.ink(
                2 if wide else 1, top + 1, [("! ", "busy b"), (fmt.cut(look.view.warnings[0], sheet.width - 6), "busy")]
            )
            y += 1
        nodes = list(look.view.nodes)
        now_height = 1 if sheet.height < 30 else max(3, min(6, sheet.height // 8))
        bottom = sheet.height - 1 - now_height
        alone = 11 if len(nodes) == 1 and sheet.height >= 30 else 0
        self._line = None
        if not self._cards(sheet, y, bottom - 1 - alone, nodes, look):
            self._rows(sheet, y, bottom - 1 - alone, nodes, look)
        if alone:
            _alone(sheet, bottom - alone)
        if now_height == 1:
            _now_line(sheet, bottom, look)
        else:
            now_section(sheet, bottom, now_height, look)

    def _cards(self, sheet: Sheet, top: int, bottom: int, nodes: list[NodeView], look: Look) -> bool:
        self._fit, self._shown = False, "rows"
        if not nodes:
            return False
        columns = max(1, min(len(nodes), (sheet.width - 2) // (LEAST[0] + 2)))
        while columns > 1 and -(-len(nodes) // columns) == -(-len(nodes) // (columns - 1)):
            columns -= 1  # as few columns as rows allow: wider cards
        lines = -(-len(nodes) // columns)
        height = (bottom - top + 1) // lines - 1
        if height < LEAST[1] or sheet.width < LEAST[0] + 4:
            return False
        self._fit = True
        if self._layout_wish == "rows":
            return False
        self._shown = "cards"
        height = min(height, 36)
        width = (sheet.width - 2 - 2 * columns) // columns
        self._columns = columns
        loads = [
            value for node in nodes for value in look.book.columns(node.number, "load", width - 32, look.now).values
        ]
        scale = nice_top(loads, 3.0)
        most = max(len(jobs_on(look.view, node.number)) for node in nodes)
        for index, node in enumerate(nodes):
            row, column = divmod(index, columns)
            card(sheet, 2 + column * (width + 2), top + row * (height + 1), width, height, node, look, scale, most)
        return True

    def _rows(self, sheet: Sheet, top: int, bottom: int, nodes: list[NodeView], look: Look) -> None:
        self._columns = 1
        room = bottom - top
        detail = max(8, room - len(nodes) - 2)
        listed = min(len(nodes), max(3, room - detail - 2))
        if room - listed - 2 < 8:
            detail, listed = 0, min(len(nodes), room)
        else:
            detail = room - listed - 2
        index = next((i for i, node in enumerate(nodes) if node.number == look.node), 0)
        first = max(0, min(index - listed // 2, len(nodes) - listed))
        scale = nice_top([node.sample.load for node in nodes], 2.5)
        noderows.rows(sheet, top, listed + 1, nodes, look, scale, first)
        scroll_bar(sheet, sheet.width - 1, top + 1, listed, first, len(nodes))
        self._line = top + 1 + index - first
        if detail and nodes:
            loads = [value for node in nodes for value in look.book.columns(node.number, "load", 40, look.now).values]
            noderows.detail(sheet, top + listed + 2, detail, nodes[index], look, nice_top(loads, 3.0))

    # ---- keys and mouse

    def _move(self, step: int) -> None:
        if self.om.view is None or not self.om.view.nodes:
            return
        numbers = [node.number for node in self.om.view.nodes]
        index = numbers.index(self.om.node) if self.om.node in numbers else 0
        self.om.node = numbers[max(0, min(len(numbers) - 1, index + step))]
        self.redraw()

    def action_down(self, lines: int) -> None:
        """The node below."""
        index_step = lines * self._columns if abs(lines) == 1 else lines
        count = self.rows_count()
        numbers = [node.number for node in self.om.view.nodes] if self.om.view else []
        index = numbers.index(self.om.node) if self.om.node in numbers else 0
        if 0 <= index + index_step < count or abs(lines) > 1:
            self._move(index_step)

    def action_right(self, cells: int) -> None:
        """The node beside."""
        self._move(cells)

    def clicked(self, hit: Hit, count: int) -> None:
        """A node or one of its jobs."""
        kind, value = hit
        if kind == "node" and isinstance(value, int):
            self.om.node = value
            if count > 1:
                self.action_open()
        elif kind == "job":
            self.om.chosen_job = str(value)
            self.om.go("processes")
        self.redraw()

    def action_open(self) -> None:
        """This node on its own screen."""
        self.om.go("node")

    def action_move_from(self) -> None:
        """Choose a job of this node on the process screen."""
        self.om.show_jobs_of = self.om.node
        self.om.go("processes")

    def action_zoom(self) -> None:
        """All nodes in one chart, with axes."""
        from omview.screens.zoom import ZoomDialog  # plotext: 130 ms to import

        self.app.push_screen(ZoomDialog())

    def action_layout(self, wish: str) -> None:
        """Cards, rows, or what fits."""
        self._layout_wish = wish
        self.redraw()


def _sums_line(sheet: Sheet, y: int, look: Look) -> None:
    """Load, balance, memory, nodes and jobs of the whole cluster; what does not fit is left out whole."""
    total = sums(look.view)
    wide = sheet.width >= 120
    x = 2 if sheet.width >= 100 else 1
    at = sheet.ink(
        x, y, [("Load ", "muted"), (fmt.load(total.load), "text b"), (" per core" if wide else "", "faint")]
    ) + (2 if wide else 1)
    bar = 16 if wide else 8
    other = max(0.0, total.load - total.own - total.guest)
    load_bar(sheet, at, y, bar, (total.own, total.guest, other), nice_top([total.load], 1.25))
    at += bar + (4 if wide else 2)
    parts: list[Ink] = []
    lost: Ink = []
    for number, word, spec in ((total.stale, "stale", "busy"), (total.lost, "lost", "bad")):
        if number:
            lost += [(f"  {number} {word}", spec)]
    parts.append([("Nodes ", "muted"), (str(total.up), "text b"), *lost])
    jobs: Ink = [("Jobs ", "muted"), (str(total.jobs), "text b")]
    if total.jobs:
        jobs += [("  ● ", "own"), (f"{total.home} at home" if wide else str(total.home), "muted")]
        if total.away:
            jobs += [("  ◆ ", "guest"), (f"{total.away} away" if wide else str(total.away), "muted")]
        if total.locked:
            jobs += [("  ■ ", "busy"), (f"{total.locked} locked" if wide else str(total.locked), "muted")]
    memory: Ink = [
        ("Memory " if wide else "mem ", "muted"),
        (fmt.gib(total.mem_used_bytes), "text b"),
        (f" of {fmt.gib(total.mem_total_bytes)} GiB", "faint"),
    ]
    parts += [memory, jobs]
    if total.balance_percent is not None:
        parts.append([("Balance ", "muted"), (f"{total.balance_percent:.0f}%", "text b")])
    for part in parts:
        size = sum(fmt.cells(text) for text, _ in part)
        bar = 12 if wide and part is memory else 0
        if at + size + (bar + 1 if bar else 0) > sheet.width - 1:
            continue
        at = sheet.ink(at, y, part)
        if bar and total.mem_total_bytes:
            share_bar(sheet, at + 1, y, bar, total.mem_used_bytes / total.mem_total_bytes, "mem")
            at += bar + 1
        at += 4 if wide else 2


def _now_line(sheet: Sheet, y: int, look: Look) -> None:
    """In short windows: the running move, else the newest event, in one line."""
    moving = running_moves(look.view)
    if moving:
        one_line(sheet, 1, y, sheet.width - 2, look, moving[0])
    elif look.view.events:
        event_line(sheet, 1, y, sheet.width - 2, look, look.view.events[0])


_STEPS = (
    ("Start something that can move", "omview run COMMAND", "It runs as always. Only the words in front are new."),
    (
        "Make a cluster of test machines",
        "omview lab up -n 3",
        "Three hosts inside this one, each with an engine of its own.",
    ),
    ("Move it", "m", "Pick the job, pick the node. Its terminal stays where it is."),
)


def _alone(sheet: Sheet, y: int) -> None:
    """What to do on a machine that knows no other."""
    sheet.put(2, y, "This machine is on its own. Three steps to a cluster:", "text b")
    for index, (what, how, why) in enumerate(_STEPS):
        line = y + 2 + index * 3
        sheet.fill(2, line, 3, 1, "accent")
        sheet.put(2, line, f" {index + 1} ", "bg b")
        sheet.put(7, line, what, "text b")
        sheet.put(42, line, how, "own b")
        sheet.put(7, line + 1, why, "muted")
