"""Nodes as rows: one line each, columns dropped whole when it gets narrow; then the chosen node below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omcore.types import NodeState, NodeView
from omview import format as fmt
from omview.model import job_label, job_sign, jobs_on, movable, node_sign
from omview.widgets.bars import area, fit_top, level, load_bar, share_bar, trend
from omview.widgets.cards import age_spec, cpu_ink, figures, job_counts, labels
from omview.widgets.look import Look
from omview.widgets.sheet import Ink, Sheet


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where the columns of this width start."""

    name: int
    bar: int
    load: int  # its right end
    trend: int
    trend_width: int
    cpu: int  # right end
    mem: int
    mem_bar: int
    jobs: int
    extra: tuple[tuple[str, int, Callable[[NodeView], str]], ...]  # head, right end, value
    bar_width: int


_EXTRAS: tuple[tuple[str, int, Callable[[NodeView], str]], ...] = (
    ("wait %", 6, lambda node: fmt.percent(node.sample.wait_percent) if node.sample.wait_percent is not None else ""),
    ("cores", 5, lambda node: fmt.cores(node.sample.cores)),
    ("up", 9, lambda node: fmt.age(node.sample.uptime_s)),
    ("speed", 5, lambda node: f"{node.sample.speed:.2f}"),
    ("in MB/s", 7, lambda node: fmt.rate(node.sample.net_in_bps)),
    ("out MB/s", 8, lambda node: fmt.rate(node.sample.net_out_bps)),
)


def _plan(width: int, names: int, waits: bool) -> _Plan:
    name_width = min(max(8, names), 10 if width < 100 else 20)
    mem_bar = 4 if width >= 80 else 0
    trend_width = 8 if width >= 72 else 0
    fixed = 6 + name_width + 2 + 9 + (trend_width + 3 if trend_width else 0) + 7 + 5 + mem_bar + 1 + 12 + 8
    spare = width - fixed - 13 + (6 if trend_width and width < 100 else 3 if not trend_width else 0)
    extra = []
    for head, size, value in _EXTRAS if waits else _EXTRAS[1:]:
        if spare >= size + 2 + 6 and width >= 100:
            spare -= size + 2
            extra.append((head, size, value))
    bar_width = 13 + max(-5, min(spare, 47))
    more = max(0, spare - 47)
    trend_width = trend_width + min(more, 30) if trend_width else 0
    bar = 6 + name_width + 1
    load = bar + bar_width + 2 + 5
    at = load + 3
    trend_at = at
    at += trend_width + 2 if trend_width else 0
    cpu = at + 5
    mem = cpu + 2
    jobs = mem + mem_bar + 6
    at = jobs + 13
    placed = []
    for head, size, value in extra:
        placed.append((head, at + size, value))
        at += size + 2
    return _Plan(6, bar, load, trend_at, trend_width, cpu, mem, mem_bar, jobs, tuple(placed), bar_width)


def rows(sheet: Sheet, y: int, height: int, nodes: list[NodeView], look: Look, scale: float, first: int) -> None:
    """The head and as many nodes as fit, from index `first`."""
    waits = any(node.sample.wait_percent is not None for node in nodes)  # else nobody here can tell it
    plan = _plan(sheet.width, max((fmt.cells(node.name) for node in nodes), default=4), waits)
    _heads(sheet, y, plan)
    for index, node in enumerate(nodes[first : first + height - 1]):
        _row(sheet, y + 1 + index, node, look, plan, scale)


def _heads(sheet: Sheet, y: int, plan: _Plan) -> None:
    sheet.right(5, y, [("#", "faint")])
    sheet.put(plan.name, y, "node", "faint")
    sheet.put(plan.bar, y, "load per core", "faint")
    if plan.trend_width:
        sheet.put(plan.trend, y, "10 min", "faint")
    sheet.right(plan.cpu - 1, y, [("cpu", "faint")])
    sheet.put(plan.mem, y, "mem", "faint")
    sheet.put(plan.jobs, y, "jobs", "faint")
    for head, end, _ in plan.extra:
        sheet.right(end, y, [(head, "faint")])
    sheet.right(sheet.width - 1, y, [("age", "faint")])


def _row(sheet: Sheet, y: int, node: NodeView, look: Look, plan: _Plan, scale: float) -> None:
    sheet.hit(0, y, sheet.width, 1, "node", node.number)
    if node.number == look.node:
        sheet.fill(0, y, sheet.width, 1, "selrow")
        sheet.put(0, y, "▌", "accent")
    sign, spec = node_sign(node)
    sheet.put(1, y, sign, spec)
    sheet.right(5, y, [(str(node.number), "muted")])
    sheet.put(plan.name, y, fmt.cut_middle(node.name, plan.bar - plan.name - 1), "text b")
    sheet.right(sheet.width - 1, y, [(fmt.age(look.age(node)), age_spec(node))])
    if node.age_s is None or node.state is NodeState.LOST:
        word = "never heard" if node.age_s is None else f"lost, not heard for {fmt.age(look.age(node))}"
        sheet.put(plan.bar, y, word, "bad" if node.age_s is not None else "muted")
        _counts(sheet, plan.jobs, y, node, look)
        return
    sample, stale = node.sample, node.state is NodeState.STALE
    other = max(0.0, sample.load - sample.load_own - sample.load_guest)
    load_bar(sheet, plan.bar, y, plan.bar_width, (sample.load_own, sample.load_guest, other), scale, stale=stale)
    italic = " i" if stale else ""
    arrow = " " if stale else look.book.direction(node.number, sample.load, look.now)
    mark = "~" if stale else ""
    sheet.right(plan.load, y, [(mark + fmt.load(sample.load), f"{level(sample.load)} b{italic}")])
    sheet.put(plan.load, y, arrow, "muted")
    if plan.trend_width:
        values = look.book.columns(node.number, "load", plan.trend_width, look.now).values
        sheet.put(plan.trend, y, trend(values, max(scale, 2.5)), "calm")
    sheet.right(plan.cpu, y, [(mark + fmt.percent(sample.cpu_percent), "text" + italic), ("%", "faint")])
    share = sample.mem_used_bytes / sample.mem_total_bytes if sample.mem_total_bytes else 0.0
    if plan.mem_bar:
        share_bar(sheet, plan.mem, y, plan.mem_bar, share, "busy" if share >= 0.9 else "mem")
    sheet.right(plan.mem + plan.mem_bar + 4, y, [(fmt.percent(share * 100), "text" + italic), ("%", "faint")])
    _counts(sheet, plan.jobs, y, node, look)
    for _, end, value in plan.extra:
        sheet.right(end, y, [(value(node), "muted" + italic)])


def _counts(sheet: Sheet, x: int, y: int, node: NodeView, look: Look) -> None:
    own, guests, away, _ = job_counts(node, look)
    end = sheet.width - 2 - len(fmt.age(look.age(node)))  # the age stands at the right
    if not own + guests + away:
        sheet.put(x, y, "·", "faint")
    for count, sign, spec in ((own, "●", "own"), (guests, "◆", "guest"), (away, "◇", "own")):
        if count and x + 1 + len(str(count)) <= end:
            x = sheet.ink(x, y, [(sign, spec), (str(count), "text")]) + 1


def detail(sheet: Sheet, y: int, height: int, node: NodeView, look: Look, top: float) -> None:
    """The chosen node below the rows: chart at the left, figures and its busiest jobs at the right."""
    width = sheet.width
    split = width * 6 // 10 if width < 120 else width - 62
    sheet.title(2, y, split - 2, f"{node.number} {node.name}")
    side = split + 2
    head: list[Ink] = [
        [(f"{fmt.cores(node.sample.cores)} cores", "muted")],
        [("speed ", "faint"), (f"{node.sample.speed:.2f}", "muted")],
        [("up ", "faint"), (fmt.age(node.sample.uptime_s), "muted")],
    ]
    at = side
    for part in head:
        if at + sum(len(text) for text, _ in part) <= width - 1:
            at = sheet.ink(at, y, part) + 2
    chart = height - 2
    scale = fit_top(top, chart)
    columns = look.book.columns(node.number, "load", split - 6, look.now)
    area(sheet, 5, y + 1, chart, columns.values, scale)
    labels(sheet, 4, y + 1, chart, scale)
    sheet.put(5, y + 1 + chart, fmt.age(columns.span_s * (split - 6)) + " ago", "faint")
    sheet.right(split - 1, y + 1 + chart, [("now", "faint")])
    line = y + 1
    if node.state is NodeState.LOST:
        for text in fmt.wrap(lost_words(node, look), width - side - 2, 5):
            sheet.put(side, line, text, "bad")
            line += 1
        line += 1
    here = jobs_on(look.view, node.number)
    shown = figures(node, look)[1:] if node.state is not NodeState.LOST else []
    for name, value, unit in shown[: max(1, height - 2 - min(4, len(here)))]:
        sheet.put(side, line, name, "muted")
        sheet.right(side + 11, line, [value])
        sheet.put(side + 12, line, unit, "faint")
        line += 1
    line += bool(shown)
    if not here:
        sheet.put(side, line, "No jobs here.", "faint")
    for job in here[: max(0, y + height - line)]:
        sign, spec = job_sign(job)
        word, token = movable(job)
        sheet.put(side, line, sign, spec)
        room = width - 1 - side - 2 - 6 - 8
        sheet.put(side + 2, line, fmt.cut_middle(job_label(job), room), "text")
        sheet.right(width - 8, line, cpu_ink(job.cpu_percent))
        if word not in {"yes", "?"}:
            sheet.put(width - 7, line, word, token)
        sheet.hit(side, line, width - side, 1, "job", job.id)
        line += 1


def lost_words(node: NodeView, look: Look) -> str:
    """What is known of a node that is not heard any more."""
    age = look.age(node)
    if age is None:
        return f"{node.name} was never heard."
    jobs = len(jobs_on(look.view, node.number))
    text = f"{node.name} has not been heard for {fmt.age(age)}. Its figures are from {fmt.clock(look.now - age)}."
    if jobs:
        runs = "job runs" if jobs == 1 else "jobs run"
        text += f" {jobs} {runs} there; nothing is started again until it is known to be gone."
    return text
