"""One node as a card: title, load chart, figures, two share bars, jobs. Low cards drop parts, never cut them."""

from __future__ import annotations

from omcore.types import JobView, NodeState, NodeView
from omview import format as fmt
from omview.model import job_label, job_sign, jobs_away, jobs_on, movable, node_sign
from omview.widgets.bars import area, fit_top, level, share_bar
from omview.widgets.look import Look
from omview.widgets.sheet import Ink, Sheet

LEAST = (60, 13)
_FIGURES = 22  # columns for the figures beside the chart


def card(
    sheet: Sheet, x: int, y: int, width: int, height: int, node: NodeView, look: Look, top: float, most: int
) -> None:
    """Draw one card; all cards of the screen share `top`, the scale's end, and leave room for `most` jobs."""
    chosen = node.number == look.node
    sheet.clear(x, y, width, height, "surface")
    sheet.hit(x, y, width, height, "node", node.number)
    _title(sheet, x, y, width, node, look, chosen)
    if chosen:
        for row in range(height):
            sheet.put(x, y + row, "▌", "accent")
    here = jobs_on(look.view, node.number)
    spare = height - 3  # rows under the title and its blank line, jobs line included
    jobs = max(0, min(max(3, spare // 4), most, spare - 12 + 1)) if spare > 12 else 0
    tail = 3 + jobs if spare >= 11 else 1
    chart = height - 2 - tail - (1 if spare >= 11 else 0)
    chart = max(3, chart)
    if chart > 5 and chart % 3:
        chart -= chart % 3  # 1.0 and 2.0 of a scale of 3 then fall on the edges of rows
    _chart(sheet, x + 6, y + 2, width - 6 - _FIGURES - 4, chart, node, look, top, axis=spare >= 11)
    _figures(sheet, x + width - _FIGURES - 1, y + 2, chart, node, look)
    line = y + 2 + chart + (1 if spare >= 11 else 0)
    if spare >= 11:
        _shares(sheet, x + 2, line, width - 4, node)
        line += 2
    _jobs_line(sheet, x + 2, min(line, y + height - 1), width - 4, node, look)
    for job in here[: max(0, y + height - line - 1)]:
        line += 1
        job_line(sheet, x + 2, line, width - 4, job)


def _title(sheet: Sheet, x: int, y: int, width: int, node: NodeView, look: Look, chosen: bool) -> None:
    sheet.fill(x, y, width, 1, "selrow" if chosen else "panel")
    sign, spec = node_sign(node)
    end = sheet.ink(
        x + 2, y, [(sign + " ", spec), (f"{node.number} ", "muted"), (fmt.cut_middle(node.name, 24), "text b")]
    )
    if not node.can_guest:
        end = sheet.put(end + 2, y, "no guests", "busy")
    parts: list[Ink] = [
        [(fmt.age(look.age(node)) + " ago" if node.age_s is not None else "never heard", age_spec(node))],
        [("up ", "faint"), (fmt.age(node.sample.uptime_s), "muted")],
        [("speed ", "faint"), (f"{node.sample.speed:.2f}", "muted")],
        [(fmt.cores(node.sample.cores), "muted"), (" cores" if node.sample.cores != 1 else " core", "muted")],
    ]
    right = x + width - 2
    for part in parts:
        size = sum(len(text) for text, _ in part)
        if right - size < end + 2:
            return
        right = sheet.right(right, y, part) - 3


def age_spec(node: NodeView) -> str:
    """How the age of a node's figures looks: faint while it is fine."""
    return {NodeState.UP: "faint", NodeState.STALE: "busy i", NodeState.LOST: "bad"}[node.state]


def _chart(
    sheet: Sheet, x: int, y: int, width: int, height: int, node: NodeView, look: Look, top: float, *, axis: bool
) -> None:
    scale = fit_top(top, height)
    columns = look.book.columns(node.number, "load", width, look.now)
    area(sheet, x, y, height, columns.values, scale)
    labels(sheet, x - 1, y, height, scale)
    if axis:
        sheet.put(x, y + height, fmt.age(columns.span_s * width) + " ago", "faint")
        sheet.right(x + width, y + height, [("now", "faint")])


def labels(sheet: Sheet, end: int, y: int, height: int, scale: float) -> None:
    """The figures at the left of a chart: its top, 1.0 and 0.0, as far as they do not meet."""
    one = y + height - 1 - max(1, round(height / scale))
    sheet.right(end, y, [(f"{scale:.1f}" if scale < 9.95 else f"{scale:.0f}", "faint")])
    if height > 3 and one > y:
        sheet.right(end, one, [("1.0", "faint")])
    if height > 4:
        sheet.right(end, y + height - 1, [("0.0", "faint")])


def _figures(sheet: Sheet, x: int, y: int, room: int, node: NodeView, look: Look) -> None:
    for row, (name, value, unit) in enumerate(figures(node, look)[:room]):
        sheet.put(x, y + row, name, "muted")
        sheet.right(x + 11, y + row, [value])
        sheet.put(x + 12, y + row, unit, "faint")


def figures(node: NodeView, look: Look) -> list[tuple[str, tuple[str, str], str]]:
    """Name, (value, spec) and unit of what a node says of itself; a lost one only says so."""
    sample = node.sample
    if node.age_s is None:
        return [("load", ("?", "muted b"), "not heard yet")]
    fade = {NodeState.UP: "", NodeState.STALE: " i", NodeState.LOST: " i"}[node.state]
    mark = "" if node.state is NodeState.UP else "~"
    arrow = look.book.direction(node.number, sample.load, look.now) if not mark else ""
    rows = []
    if node.state is NodeState.LOST:
        rows.append(("lost", (fmt.age(look.age(node)), "bad b"), "not heard"))
    rows += [
        ("load", (mark + fmt.load(sample.load), f"{level(sample.load)} b{fade}"), arrow),
        ("cpu", (mark + fmt.percent(sample.cpu_percent), "text" + fade), "%"),
    ]
    if sample.wait_percent is not None:
        spec = "busy b" if sample.wait_percent >= 20 else "text"
        rows.append(("wait", (mark + fmt.percent(sample.wait_percent), spec + fade), "% of time"))
    rows.append(("net ↓", (mark + fmt.rate(sample.net_in_bps), "text" + fade), "MB/s"))
    rows.append(("net ↑", (mark + fmt.rate(sample.net_out_bps), "text" + fade), "MB/s"))
    return rows


def _shares(sheet: Sheet, x: int, y: int, width: int, node: NodeView) -> None:
    sample = node.sample
    memory: Ink = [(fmt.gib(sample.mem_used_bytes), "text"), (f" of {fmt.gib(sample.mem_total_bytes)} GiB", "faint")]
    start = sheet.right(x + width, y, memory)
    bar = max(6, (start - 2 - x - 4 - 3 - 4) // 2)
    sheet.put(x, y, "cpu", "muted")
    busy = sample.cpu_percent >= 95
    share_bar(sheet, x + 4, y, bar, sample.cpu_percent / 100, "busy" if busy else "calm")
    sheet.put(x + 4 + bar + 3, y, "mem", "muted")
    share = sample.mem_used_bytes / sample.mem_total_bytes if sample.mem_total_bytes else 0.0
    share_bar(sheet, x + 8 + bar + 3, y, bar, share, "busy" if share >= 0.9 else "mem")


def job_counts(node: NodeView, look: Look) -> tuple[int, int, int, int]:
    """Jobs of a node: at home here, guests, away, locked."""
    here = jobs_on(look.view, node.number)
    own = sum(job.home == node.number for job in here)
    return own, len(here) - own, len(jobs_away(look.view, node.number)), sum(job.locked for job in here)


def _jobs_line(sheet: Sheet, x: int, y: int, width: int, node: NodeView, look: Look) -> None:
    own, guests, away, locked = job_counts(node, look)
    at = sheet.put(x, y, "jobs", "muted") + 1
    if not own + guests + away:
        sheet.put(at, y, "none", "faint")
        return
    kinds = (
        (own, "●", "own", "here"),
        (guests, "◆", "guest", "guest" if guests == 1 else "guests"),
        (away, "◇", "own", "away"),
        (locked, "■", "busy", "locked"),
    )
    for count, sign, spec, word in kinds:
        text = f" {count} {word}"
        signs = sign * min(count, 6)
        if count and at + len(signs) + len(text) <= x + width:
            at = sheet.ink(at, y, [(signs, spec), (text, "muted")]) + 2


def cpu_ink(percent: float | None) -> Ink:
    """CPU of a job with its sign; nothing and unknown stand alone, where the figure's last digit would."""
    text = fmt.cpu(percent)
    return [(text, "text"), ("%", "faint")] if text[-1].isdigit() else [(text, "faint"), (" ", "faint")]


def job_line(sheet: Sheet, x: int, y: int, width: int, job: JobView) -> None:
    """One job in a card or list: sign, command, user, CPU, memory, and a word only if something is the matter."""
    sign, spec = job_sign(job)
    sheet.put(x, y, sign, spec)
    word, token = movable(job)
    end = x + width
    if width >= 52:
        if word not in {"yes", "?"}:
            sheet.put(end - 7, y, word, token)
        sheet.right(end - 9, y, [(fmt.mem(job.rss_bytes), "text")])
        sheet.right(end - 16, y, cpu_ink(job.cpu_percent))
        sheet.put(end - 32, y, fmt.cut_middle(job.user, 8), "muted")
        room = width - 36
    else:
        if word not in {"yes", "?"}:
            sheet.put(end - 6, y, word, token)
        sheet.right(end - 7, y, cpu_ink(job.cpu_percent))
        room = width - 15
    command = " ".join(job.command) if width >= 52 and job.command else job_label(job)
    sheet.put(x + 2, y, fmt.cut_middle(command, room), "text")
    sheet.hit(x, y, width, 1, "job", job.id)
