"""Screen 2: one node: its load over ten minutes, its figures, its jobs and guests, what happened there lately."""

from __future__ import annotations

from omcore.types import JobView, NodeState, NodeView
from omview import format as fmt
from omview.model import Metric, job_label, job_sign, jobs_away, jobs_on, movable, node_name, node_sign
from omview.screens.base import OmScreen, bindings
from omview.widgets.bars import area, fit_top, level, nice_top
from omview.widgets.cards import age_spec, cpu_ink, figures, labels
from omview.widgets.look import Look
from omview.widgets.noderows import lost_words
from omview.widgets.sheet import Hit, Ink, Sheet

_SIDE = 52


class NodeScreen(OmScreen):
    """`[` and `]` change the node, `enter` zooms the chart, up and down walk its jobs."""

    NAME = "node"
    BINDINGS = bindings("node")

    def __init__(self) -> None:
        super().__init__()
        self.job = ""
        self._line: int | None = None

    def _jobs(self) -> list[JobView]:
        view = self.om.view
        return [*jobs_on(view, self.om.node), *jobs_away(view, self.om.node)] if view else []

    def rows_count(self) -> int:
        """Jobs here and away."""
        return len(self._jobs())

    def job_at_cursor(self) -> JobView | None:
        """The chosen job."""
        jobs = self._jobs()
        return next((job for job in jobs if job.id == self.job), jobs[0] if jobs else None)

    def cursor_line(self) -> int | None:
        """Where toasts must not be."""
        return self._line

    # ---- drawing

    def draw(self, sheet: Sheet, look: Look) -> None:
        """Nodes, charts at the left, lists at the right."""
        node = look.node_view(look.node)
        if node is None:
            return
        y = 2 if sheet.height >= 30 else 1
        self._nodes_line(sheet, y, look, node)
        y += 2
        bottom = sheet.height - 1
        wide = sheet.width >= 120
        left = sheet.width - _SIDE - 4 if wide else sheet.width - 2
        self._line = None
        if wide:
            self._charts(sheet, 2, y, left - 2, bottom - 1, node, look)
            self._lists(sheet, sheet.width - _SIDE - 1, y, _SIDE, bottom, look)
        else:
            height = max(5, (bottom - y) // 2)
            self._load_chart(sheet, 1, y, left, height, node, look)
            self._lists(sheet, 1, y + height + 1, sheet.width - 2, bottom, look)

    def _nodes_line(self, sheet: Sheet, y: int, look: Look, node: NodeView) -> None:
        facts: list[Ink] = [
            [(fmt.age(look.age(node)) + " ago" if node.age_s is not None else "never heard", age_spec(node))],
            [("up ", "faint"), (fmt.age(node.sample.uptime_s), "muted")],
            [("speed ", "faint"), (f"{node.sample.speed:.2f}", "muted")],
            [(f"{fmt.cores(node.sample.cores)} cores", "text")],
            [(f"Linux {fmt.cut_middle(node.info.kernel, 16)}", "muted")],
            [
                (
                    "CRIU " + ".".join(map(str, node.info.criu)) if node.info.criu else "no CRIU",
                    "muted" if node.info.criu else "busy",
                )
            ],
        ]
        tabs: list[tuple[NodeView, str]] = [
            (each, f" {node_sign(each)[0]} {each.number} {fmt.cut_middle(each.name, 14)} ") for each in look.view.nodes
        ]
        room = sheet.width - 4 - (26 if sheet.width >= 76 else 10)
        index = next((i for i, (each, _) in enumerate(tabs) if each.number == node.number), 0)
        first = 0
        while first < index and sum(fmt.cells(text) for _, text in tabs[first : index + 1]) > room:
            first += 1
        x = 1
        for each, text in tabs[first:]:
            if x + fmt.cells(text) > room:
                break
            if each.number == node.number:
                sheet.fill(x, y, fmt.cells(text), 1, "sel")
            sheet.put(x, y, text, "text b" if each.number == node.number else "muted")
            sheet.put(x + 1, y, *node_sign(each))
            sheet.hit(x, y, fmt.cells(text), 1, "node", each.number)
            x += fmt.cells(text) + 1
        right = sheet.width - 2
        for fact in facts:
            size = sum(fmt.cells(text) for text, _ in fact)
            if right - size < x + 2:
                return
            right = sheet.right(right, y, fact) - 3

    def _load_chart(self, sheet: Sheet, x: int, y: int, width: int, height: int, node: NodeView, look: Look) -> None:
        """Title, area chart and axis in `height` rows."""
        if node.state is NodeState.LOST:
            head: Ink = [("lost, not heard for " + fmt.age(look.age(node)), "bad")]
        else:
            head = [
                (fmt.load(node.sample.load), f"{level(node.sample.load)} b"),
                (" " + look.book.direction(node.number, node.sample.load, look.now), "muted"),
            ]
            if sheet.width < 120:
                head += [
                    ("   cpu ", "muted"),
                    (fmt.percent(node.sample.cpu_percent), "text"),
                    ("%", "faint"),
                    ("   mem ", "muted"),
                    (fmt.gib(node.sample.mem_used_bytes), "text"),
                    (f" of {fmt.gib(node.sample.mem_total_bytes)} GiB", "faint"),
                ]
        sheet.title(x, y, width, "Load per core", head)
        columns = look.book.columns(node.number, "load", width - 5, look.now)
        rows = height - 2
        scale = fit_top(nice_top(columns.values, 2.0 if rows < 9 else 3.0), rows)
        area(sheet, x + 5, y + 1, rows, columns.values, scale)
        labels(sheet, x + 4, y + 1, rows, scale)
        start = look.now - columns.span_s * len(columns.values)
        sheet.put(x + 5, y + 1 + rows, fmt.clock(start, False), "faint")
        sheet.right(x + width, y + 1 + rows, [("now " + fmt.clock(look.now, False), "faint")])

    def _charts(self, sheet: Sheet, x: int, y: int, width: int, bottom: int, node: NodeView, look: Look) -> None:
        room = bottom - y
        height = room if room < 22 else max(10, room * 5 // 10)
        self._load_chart(sheet, x, y, width, height, node, look)
        y += height + 1
        pair = (bottom - y - 1) // 2
        if pair < 5:
            return
        half = (width - 3) // 2
        sample = node.sample
        share = [(fmt.percent(sample.cpu_percent), "text b"), (" %", "faint")]
        if sample.wait_percent is not None:
            share = [
                ("wait ", "muted"),
                (fmt.percent(sample.wait_percent), "busy b" if sample.wait_percent >= 20 else "text"),
                (" %   cpu ", "faint"),
                (fmt.percent(sample.cpu_percent), "text b"),
                (" %", "faint"),
            ]
        memory = [(fmt.gib(sample.mem_used_bytes), "text b"), (f" of {fmt.gib(sample.mem_total_bytes)} GiB", "faint")]
        total = float(sample.mem_total_bytes) or 1.0
        self._small(sheet, x, y, half, pair, ("CPU", share, "cpu", 100.0, "100%", "calm"), node, look)
        self._small(
            sheet, x + half + 3, y, half, pair, ("Memory", memory, "mem", total, fmt.gib(int(total)), "mem"), node, look
        )
        y += pair + 1
        for index, (name, metric, value) in enumerate(
            (("Network in", "in", sample.net_in_bps), ("Network out", "out", sample.net_out_bps))
        ):
            both = [v for m in ("in", "out") for v in look.book.columns(node.number, m, half - 5, look.now).values]
            top = nice_top([v / 1e6 if v is not None else None for v in both], 1.0) * 1e6
            head = [(fmt.rate(value), "text b"), (" MB/s", "faint")]
            at = x + index * (half + 3)
            self._small(
                sheet,
                at,
                y,
                half,
                bottom - y,
                (name, head, metric, top, fmt.rate(top), "mem" if index == 0 else "guest"),
                node,
                look,
            )

    def _small(
        self,
        sheet: Sheet,
        x: int,
        y: int,
        width: int,
        height: int,
        what: tuple[str, Ink, Metric | str, float, str, str],
        node: NodeView,
        look: Look,
    ) -> None:
        title, head, metric, top, label, colour = what
        sheet.title(x, y, width, title, head)
        columns = look.book.columns(node.number, metric, width - 5, look.now)  # type: ignore[arg-type]  # one of Metric
        area(sheet, x + 5, y + 1, height - 1, columns.values, top, colour)
        if all(value is None for value in columns.values):
            sheet.put(
                x + 5, y + height - 1, "recorded while this window is open" if width >= 41 else "no data yet", "faint"
            )
        sheet.right(x + 4, y + 1, [(label, "faint")])
        sheet.right(x + 4, y + height - 1, [("0", "faint")])

    def _lists(self, sheet: Sheet, x: int, y: int, width: int, bottom: int, look: Look) -> None:
        chosen = self.job_at_cursor()
        here = [job for job in jobs_on(look.view, look.node) if job.home == look.node]
        guests = [job for job in jobs_on(look.view, look.node) if job.home != look.node]
        away = jobs_away(look.view, look.node)
        node = look.node_view(look.node)
        if node is not None and node.state is NodeState.LOST:
            for text in fmt.wrap(lost_words(node, look), width, 4):
                sheet.put(x, y, text, "bad")
                y += 1
            y += 1
        if bottom - y >= 16:
            y = self._figures(sheet, x, y, width, look)
        for title, jobs, empty in (
            ("Jobs here", here, "No jobs of this node."),
            ("Guests", guests, "No job of another node runs here."),
            ("Away", away, ""),
        ):
            if y + 2 > bottom or (not jobs and (not empty or bottom - y < 8)):
                continue
            sheet.title(x, y, width, title, [(str(len(jobs)) if jobs else "none", "muted")])
            y += 1
            if not jobs:
                sheet.put(x, y, empty, "faint")
                y += 1
            for job in jobs[: bottom - y]:
                self._job(sheet, x, y, width, job, look, chosen is not None and job.id == chosen.id)
                y += 1
            y += 1
        name = node_name(look.view, look.node)
        lately = [event for event in look.view.events if name in event.subject or name in event.text]
        if lately and y + 2 < bottom:
            sheet.title(x, y, width, "Lately")
            for event in lately[: bottom - y - 1]:
                y += 1
                at = sheet.put(x, y, fmt.clock(look.moments.of_event(event, look.now)), "faint") + 2
                sheet.put(at, y, fmt.cut(f"{event.kind} {event.subject}", x + width - at), "muted")

    def _figures(self, sheet: Sheet, x: int, y: int, width: int, look: Look) -> int:
        node = look.node_view(look.node)
        assert node is not None
        sheet.title(x, y, width, "Now")
        for name, value, unit in figures(node, look):
            y += 1
            sheet.put(x, y, name, "muted")
            sheet.right(x + 14, y, [value])
            sheet.put(x + 15, y, unit, "faint")
        if not node.can_guest:
            y += 1
            sheet.put(x, y, fmt.cut(f"takes no guests: {node.why_not}", width), "busy")
        return y + 2

    def _job(self, sheet: Sheet, x: int, y: int, width: int, job: JobView, look: Look, chosen: bool) -> None:
        if chosen:
            sheet.fill(x - 1, y, width + 2, 1, "selrow")
            sheet.put(x - 1, y, "▌", "accent")
            self._line = y
        sign, spec = job_sign(job, look.node)
        sheet.put(x, y, sign, spec)
        word, token = movable(job)
        if job.home == look.node != job.node:
            word, token = f"→ {fmt.cut_middle(node_name(look.view, job.node), 8)}", "guest"
        end = x + width
        sheet.put(end - 10, y, word, token)
        sheet.right(end - 12, y, cpu_ink(job.cpu_percent))
        sheet.put(end - 27, y, fmt.cut_middle(job.user, 8), "muted")
        sheet.put(x + 2, y, fmt.cut_middle(" ".join(job.command) or job_label(job), width - 31), "text")
        sheet.hit(x, y, width, 1, "job", job.id)

    # ---- keys and mouse

    def action_down(self, lines: int) -> None:
        """Walk the jobs."""
        jobs = self._jobs()
        if jobs:
            index = next((i for i, job in enumerate(jobs) if job.id == self.job), 0)
            self.job = jobs[max(0, min(len(jobs) - 1, index + lines))].id
            self.redraw()

    def action_right(self, cells: int) -> None:
        """Left and right change the node."""
        self._step(cells)

    def action_node_before(self) -> None:
        """The node before."""
        self._step(-1)

    def action_node_after(self) -> None:
        """The node after."""
        self._step(1)

    def _step(self, step: int) -> None:
        if self.om.view is None or not self.om.view.nodes:
            return
        numbers = [node.number for node in self.om.view.nodes]
        index = numbers.index(self.om.node) if self.om.node in numbers else 0
        self.om.node, self.job = numbers[(index + step) % len(numbers)], ""
        self.redraw()

    def clicked(self, hit: Hit, count: int) -> None:
        """A node's tab or a job."""
        kind, value = hit
        if kind == "node" and isinstance(value, int):
            self.om.node = value
        elif kind == "job":
            self.job = str(value)
        self.redraw()

    def action_open(self) -> None:
        """The chart, with axes and all nodes."""
        from omview.screens.zoom import ZoomDialog

        self.app.push_screen(ZoomDialog())
