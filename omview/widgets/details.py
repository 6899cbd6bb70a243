"""What there is to know of one process or job: beside the list, below it, or on the whole screen."""

from __future__ import annotations

from omcore.types import Forecast, MovePlan
from omview import format as fmt
from omview.model import job_label, job_sign, movable, move_share, node_name, running_moves
from omview.processes import Seen
from omview.screens.migrate import gain_bar
from omview.widgets.bars import level, nice_top, share_bar
from omview.widgets.look import Look
from omview.widgets.moves import _RESULT, how_far, moves_of, route_short, running_words
from omview.widgets.sheet import Ink, Sheet

STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device",
    "T": "stopped",
    "t": "traced",
    "Z": "ended, not collected",
    "I": "idle",
}


def side(
    sheet: Sheet, x: int, y: int, width: int, height: int, seen: Seen, look: Look, plan: MovePlan | str | None
) -> None:
    """The pane at the right, or the full page: as many sections as fit, each whole lines."""
    sheet.clear(x, y, width, height, "surface")
    bottom = y + height
    sheet.fill(x, y, width, 1, "panel")
    sign, spec = job_sign(seen.job)
    name = job_label(seen.job) if seen.job else seen.proc.name
    sheet.ink(
        x + 2, y, [(f"{sign} ", spec), (fmt.cut_middle(name, 24), "text b"), (f" {seen.proc.key.pid or ''}", "muted")]
    )
    sheet.right(x + width - 2, y, [("e", "accent b"), (" close", "muted")])
    inner, left = width - 4, x + 2
    line = y + 2
    command = fmt.wrap(seen.proc.command, inner, 4)
    for index, text in enumerate(command):
        sheet.put(
            left + (2 if index else 0), line, fmt.crop(text, inner - (2 if index else 0)), "muted" if index else "text"
        )
        line += 1
    line += 1
    for label, value in _facts(seen, look):
        if line >= bottom:
            return
        sheet.put(left, line, label, "muted")
        sheet.ink(left + 10, line, value)
        line += 1
    line += 1
    line = _answer(sheet, left, line, inner, bottom, seen, plan)
    if seen.job is not None:
        line = _targets(sheet, left, line, inner, bottom, look, plan)
        _moves(sheet, left, line, inner, bottom, seen, look)


def _facts(seen: Seen, look: Look) -> list[tuple[str, Ink]]:
    proc, job = seen.proc, seen.job
    facts: list[tuple[str, Ink]] = [
        (
            "cpu",
            [
                (fmt.cpu(proc.cpu_percent), "text b"),
                (" % of one core   ", "faint"),
                (fmt.cpu_time(proc.cpu_time_s), "text"),
                (" so far", "faint"),
            ],
        ),
        ("memory", [(fmt.size(proc.rss_bytes), "text b")]),
        (
            "threads",
            [
                (str(proc.threads), "text"),
                ("   nice ", "faint"),
                (str(proc.nice), "text"),
                ("   ", "text"),
                (STATES.get(proc.state, proc.state), "muted"),
            ],
        ),
        ("user", [(proc.user, "text"), ("   terminal ", "faint"), (proc.tty or "none", "text")]),
    ]
    if job is not None:
        home = [(node_name(look.view, job.home), "text")]
        if job.home != job.node:
            home += [(", runs on ", "faint"), (node_name(look.view, job.node), "guest")]
        facts.append(("home", home))
        facts.append(
            (
                "started",
                [(fmt.age(job.age_s) + " ago", "text"), ("   moved ", "faint"), (fmt.count(job.moves, "time"), "text")],
            )
        )
        if job.note:
            facts.append(("note", [(fmt.cut(job.note, 40), "muted")]))
    return facts


def _answer(sheet: Sheet, x: int, y: int, width: int, bottom: int, seen: Seen, plan: MovePlan | str | None) -> int:
    word, token = movable(seen.job)
    if y + 1 >= bottom:
        return y
    sheet.title(x, y, width, "Can it move?", [(word, token)])
    y += 1
    lines: list[tuple[str, str, str]] = []
    if seen.job is None:
        kernel = seen.proc.command.startswith("[")
        text = (
            "It is part of the kernel." if kernel else "It is not a job. Start what shall move with: omview run COMMAND"
        )
        lines.append(("·", "faint", text))
    else:
        if seen.job.locked:
            lines.append(("■", "busy", "It is locked. l unlocks it."))
        if seen.job.why_not:
            lines.append(("!", "busy b", seen.job.why_not))
        if isinstance(plan, str):
            lines.append(("×", "bad", plan))
        elif plan is not None:
            for check in plan.checks[:6]:
                mark, spec = ("✓", "accent") if check.ok else ("×", "bad") if check.fatal else ("!", "busy b")
                lines.append((mark, spec, check.text))
        elif not seen.job.locked and not seen.job.why_not:
            lines.append(("…", "faint", "asking …"))
    for mark, spec, text in lines:
        for index, part in enumerate(fmt.wrap(text, width - 2, 3)):
            if y >= bottom:
                return y
            if index == 0:
                sheet.put(x, y, mark, spec)
            sheet.put(x + 2, y, part, "text" if seen.job else "muted")
            y += 1
    return y + 1


def _targets(sheet: Sheet, x: int, y: int, width: int, bottom: int, look: Look, plan: MovePlan | str | None) -> int:
    if not isinstance(plan, MovePlan):
        return y
    targets = [target for target in plan.targets if target.node != plan.source]
    if not targets or y + 2 >= bottom:
        return y
    sheet.title(x, y, width, "Where it could go", [("load after", "faint")])
    scale = nice_top([target.load_with for target in targets], 2.5)
    for target in targets[: max(0, min(8, bottom - y - 2))]:
        y += 1
        sheet.put(x, y, fmt.cut_middle(node_name(look.view, target.node), 9), "text b" if target.ok else "faint")
        if not target.ok:
            sheet.put(x + 10, y, fmt.cut(target.reason, width - 10), "muted")
            continue
        gain_bar(sheet, x + 10, y, 14, target.load_now, target.load_with, scale)
        sheet.ink(
            x + 26,
            y,
            [
                (fmt.load(target.load_now), "muted"),
                (" → ", "muted"),
                (fmt.load(target.load_with), f"{level(target.load_with)} b"),
            ],
        )
        best = target.verdict.startswith("best")
        if best:
            sheet.put(x + 39, y, "best", "accent")
    return y + 2


def _moves(sheet: Sheet, x: int, y: int, width: int, bottom: int, seen: Seen, look: Look) -> None:
    assert seen.job is not None
    moves = moves_of(look, seen.job)
    if not moves or y + 2 >= bottom:
        return
    sheet.title(x, y, width, "Moves so far", [(str(len(moves)), "muted")])
    for move in moves[: bottom - y - 2]:
        y += 1
        at = sheet.put(x, y, fmt.clock(look.moments.of_move(move, look.now)), "faint") + 2
        at = sheet.ink(at, y, route_short(look, move, 8)) + 2
        word, spec = _RESULT.get(move.step, (f"{move.step.value} …", "move"))
        if move.freeze_s is not None:
            sheet.ink(at, y, [("frozen ", "muted"), (fmt.freeze(move.freeze_s), "text")])
        sheet.right(x + width, y, [(word, spec)])


def below(sheet: Sheet, y: int, seen: Seen, look: Look, plan: MovePlan | str | None) -> None:
    """Four lines at the bottom: what, home and moves, best target or running move, command."""
    width = sheet.width
    job, proc = seen.job, seen.proc
    word, token = movable(job)
    answers = {
        "yes": "can move",
        "fix": "needs a fix",
        "locked": "locked",
        "moving": "moving",
        "no": "cannot move",
        "?": "not known",
    }
    name = job_label(job) if job else proc.name
    answer = "not a job" if job is None else answers[word]
    sheet.title(
        2,
        y,
        width - 3,
        f"{fmt.cut_middle(name, 24)} {proc.key.pid or ''}".rstrip(),
        [(answer, token if job else "muted")],
    )
    parts: list[Ink] = []
    if job is not None:
        parts.append([("home ", "muted"), (node_name(look.view, job.home), "text")])
        parts.append([(fmt.count(job.moves, "move") if job.moves else "never moved", "text")])
    else:
        parts.append([(f"on {seen.node}", "text")])
    parts.append([(fmt.count(proc.threads, "thread"), "text")])
    parts.append([(fmt.size(proc.rss_bytes), "text")])
    parts.append([(STATES.get(proc.state, proc.state), "muted")])
    if proc.tty:
        parts.append([(proc.tty, "text")])
    _parts(sheet, 2, y + 1, parts)
    _second(sheet, y + 2, seen, look, plan)
    sheet.put(2, y + 3, fmt.cut_middle(proc.command, width - 4), "muted")


def _parts(sheet: Sheet, x: int, y: int, parts: list[Ink]) -> None:
    for part in parts:
        if x + sum(fmt.cells(text) for text, _ in part) > sheet.width - 2:
            return
        x = sheet.ink(x, y, part) + 3


def _second(sheet: Sheet, y: int, seen: Seen, look: Look, plan: MovePlan | str | None) -> None:
    job, width = seen.job, sheet.width
    if job is None:
        text = "Only jobs can move. Start one with: omview run COMMAND"
        sheet.put(2, y, fmt.cut(text, width - 4), "muted")
        return
    move = next((move for move in running_moves(look.view) if move.job == job.id), None)
    if move is not None:
        at = sheet.ink(2, y, [("» ", "move b"), (move.step.value, "text b"), ("  ", "text")])
        share = move_share(move)
        if share is not None:
            share_bar(sheet, at, y, 16, share, "move")
            at = sheet.put(at + 16, y, f"{share * 100:4.0f}%", "text b")
        _parts(
            sheet,
            at + 2,
            y,
            [[(how_far(move), "muted")], running_words(move)] if how_far(move) else [running_words(move)],
        )
        return
    if job.locked or job.why_not or isinstance(plan, str):
        text = "It is locked. l unlocks it." if job.locked else job.why_not or str(plan)
        sheet.put(2, y, fmt.cut(text, width - 4), "busy")
        return
    if plan is None:
        sheet.put(2, y, "asking where it could go …", "faint")
        return
    best: Forecast | None = next((target for target in plan.targets if target.ok and target.node != plan.source), None)
    if best is None:
        sheet.put(2, y, "No other node takes it now.", "muted")
        return
    _parts(
        sheet,
        2,
        y,
        [
            [("best ", "muted"), (node_name(look.view, best.node), "text b")],
            [
                ("load ", "muted"),
                (f"{fmt.load(best.load_now)} → ", "text"),
                (fmt.load(best.load_with), level(best.load_with)),
            ],
            [("freeze about ", "muted"), (fmt.about(best.freeze_s), "text")],
        ],
    )
