"""Moves in words and bars: the running one with its steps and bytes, the ended ones with their freeze times."""

from __future__ import annotations

from omcore.types import EventView, JobView, MoveView, Step
from omview import format as fmt
from omview.model import STEPS, ended_moves, move_share, node_name, running_moves
from omview.widgets.bars import share_bar
from omview.widgets.look import Look
from omview.widgets.sheet import Ink, Sheet

_RESULT = {Step.DONE: ("moved", "accent"), Step.BACK: ("taken back", "busy b"), Step.REFUSED: ("refused", "muted")}


def pid_of(look: Look, move: MoveView) -> str:
    """The PID of the job that moves, if it is known."""
    job = next((job for job in look.view.jobs if job.id == move.job), None)
    return str(job.pid) if job is not None and job.pid else ""


def route(look: Look, move: MoveView) -> Ink:
    """From → to, by name."""
    source, dest = node_name(look.view, move.source), node_name(look.view, move.dest)
    return [(fmt.cut_middle(source, 16), "text"), (" → ", "muted"), (fmt.cut_middle(dest, 16), "text")]


def how_far(move: MoveView) -> str:
    """Bytes so far: `1.4 GiB of 2.2 GiB`, or nothing while there are none."""
    if not move.bytes_total:
        return fmt.size(move.bytes_done) if move.bytes_done else ""
    done, total = fmt.size(move.bytes_done), fmt.size(move.bytes_total)
    return f"{done.removesuffix(total[-4:])} of {total}" if done[-4:] == total[-4:] else f"{done} of {total}"


def running_words(move: MoveView) -> Ink:
    """Whether the job runs or stands still, right now."""
    if move.frozen_for_s is not None:
        return [(f"frozen for {fmt.about(move.frozen_for_s)}", "move b")]
    if move.step in {Step.FREEZE, Step.SHIP, Step.RESTORE, Step.COMMIT}:
        return [("frozen", "move b")]
    return [("still running", "text b")]


def one_line(sheet: Sheet, x: int, y: int, width: int, look: Look, move: MoveView) -> None:
    """A running move in one line: who, from where to where, step, bar, bytes, running or frozen."""
    end = x + width
    at = sheet.ink(
        x,
        y,
        [("» ", "move b"), (fmt.cut_middle(move.name, 16), "text b"), (" ", "text"), (pid_of(look, move), "faint")],
    )
    at = sheet.ink(at + 2, y, route(look, move)) + 2
    at = sheet.put(at, y, str(move.step.value), "text") + 1
    share = move_share(move)
    words = running_words(move)
    size = sum(len(text) for text, _ in words)
    if share is not None:
        bar = max(6, min(24, end - at - 6 - size - 4))
        share_bar(sheet, at, y, bar, share, "move")
        at = sheet.ink(at + bar, y, [(f"{share * 100:4.0f}%", "text b"), ("  ", "text")])
    far = how_far(move)
    if far and at + len(far) + 2 + size <= end:
        at = sheet.put(at, y, far, "muted") + 2
    if at + size <= end:
        sheet.ink(at, y, words)


def two_lines(sheet: Sheet, x: int, y: int, width: int, look: Look, move: MoveView) -> None:
    """A running move with all its steps; below them bytes, state and who asked."""
    end = x + width
    at = sheet.ink(
        x,
        y,
        [("» ", "move b"), (fmt.cut_middle(move.name, 20), "text b"), (" ", "text"), (pid_of(look, move), "faint")],
    )
    at = sheet.ink(at + 2, y, [(move.user, "muted"), ("  ", "text"), *route(look, move)]) + 3
    narrow = end - at < 60
    if not narrow:
        steps_line(sheet, at, y, end - at, move)
    parts: list[Ink] = []
    if narrow:
        parts.append([(str(move.step.value), "text b")])
    if how_far(move):
        parts.append([(how_far(move), "text")])
    parts += [running_words(move), [("for ", "muted"), (fmt.age(move.started_age_s + look.behind_s), "text")]]
    parts.append([("asked by ", "muted"), (move.by, "text")])
    at = x + 2
    for part in parts:
        if at + sum(fmt.cells(text) for text, _ in part) > end:
            break
        at = sheet.ink(at, y + 1, part) + 3


def steps_line(sheet: Sheet, x: int, y: int, width: int, move: MoveView) -> None:
    """`✓ check  » ship ━━━── 62%  · restore  · commit`."""
    done = STEPS.index(move.step) if move.step in STEPS else len(STEPS)
    words = sum(len(step.value) + 4 for step in STEPS)
    share = move_share(move)
    bar = min(24, width - words - 6) if share is not None else 0
    at = x
    for index, step in enumerate(STEPS):
        sign, spec, text = ("✓", "accent", "muted") if index < done else ("·", "faint", "faint")
        if index == done:
            sign, spec, text = "»", "move b", "text b"
        at = sheet.ink(at, y, [(sign + " ", spec), (step.value, text)])
        if index == done and bar >= 6 and share is not None:
            share_bar(sheet, at + 1, y, bar, share, "move")
            at = sheet.put(at + 1 + bar, y, f"{share * 100:4.0f}%", "text b")
        at += 2


def event_line(sheet: Sheet, x: int, y: int, width: int, look: Look, event: EventView) -> None:
    """Something that happened: time, what, who, and the rest in words."""
    specs = {"moved": "text", "lost": "bad", "error": "bad", "taken back": "busy", "refused": "busy"}
    narrow = width < 90
    at = sheet.put(x, y, fmt.clock(look.moments.of_event(event, look.now)), "faint") + 2
    sheet.put(at, y, fmt.cut(event.kind, 10), specs.get(event.kind, "muted"))
    at += 12
    subject = 16 if narrow else 28
    sheet.put(at, y, fmt.cut_middle(event.subject, subject), "text")
    at += subject + 2
    sheet.put(at, y, fmt.cut(event.text, x + width - at), "muted")


def now_section(sheet: Sheet, y: int, height: int, look: Look) -> None:
    """The section "Now": running moves, then the newest events, in `height` rows with its title."""
    moving = running_moves(look.view)
    margin = 2 if sheet.width >= 100 else 1
    width = sheet.width - 2 * margin
    figures: Ink = []
    if moving:
        figures = [(f"{len(moving)} moving", "move")]
    ended = ended_moves(look.view)
    if ended and sheet.width >= 100:
        back = sum(move.step is Step.BACK for move in ended)
        text = fmt.count(len(ended), "move") + " ended" + (f", {back} taken back" if back else "")
        figures += [("  " if figures else "", "text"), (text, "muted")]
    sheet.title(margin, y, width, "Now", figures)
    line = y + 1
    for move in moving[: height - 1]:
        one_line(sheet, margin, line, width, look, move)
        line += 1
    if not moving and not look.view.events:
        sheet.put(margin, line, "Nothing has happened yet.", "faint")
    for event in look.view.events[: max(0, y + height - line)]:
        event_line(sheet, margin, line, width, look, event)
        line += 1


def history_head(sheet: Sheet, y: int, width: int) -> None:
    """The heads of the history's columns."""
    plan = _history_plan(width)
    for head, x in plan.items():
        if head in {"frozen", "shipped", "total"}:
            sheet.right(x, y, [(head, "faint")])
        elif head == "bar":
            sheet.put(x, y, "0 s", "faint")
        else:
            sheet.put(x, y, head, "faint")


def _history_plan(width: int) -> dict[str, int]:
    """Left edges of the columns (right ends for numbers); columns are dropped whole when it gets narrow."""
    if width < 90:
        return {"time": 2, "job": 12, "from → to": 27, "frozen": 58, "result": 61}
    if width < 130:
        return {
            "time": 2,
            "job": 12,
            "user": 30,
            "from → to": 39,
            "frozen": 68,
            "shipped": 79,
            "result": 82,
            "note": 94,
        }
    return {
        "time": 2,
        "job": 12,
        "user": 31,
        "from → to": 40,
        "by": 60,
        "frozen": 80,
        "bar": 82,
        "shipped": 115,
        "total": 123,
        "result": 126,
        "note": 138,
    }


def history_line(sheet: Sheet, y: int, look: Look, move: MoveView, worst_s: float, *, chosen: bool) -> None:
    """One ended move; freeze times are bars on one scale, `worst_s` long."""
    width = sheet.width
    plan = _history_plan(width)
    sheet.hit(0, y, width, 1, "move", move.id)
    if chosen:
        sheet.fill(0, y, width, 1, "selrow")
        sheet.put(0, y, "▌", "accent")
    sheet.put(plan["time"], y, fmt.clock(look.moments.of_move(move, look.now)), "faint")
    following = plan.get("user", plan["from → to"])
    at = sheet.put(plan["job"], y, fmt.cut_middle(move.name, following - plan["job"] - 1), "text b")
    pid = pid_of(look, move)
    if at + len(pid) + 2 <= following:
        sheet.put(at + 1, y, pid, "faint")
    if "user" in plan:
        sheet.put(plan["user"], y, fmt.cut_middle(move.user, 8), "muted")
    sheet.ink(plan["from → to"], y, route_short(look, move, 8))
    if "by" in plan:
        sheet.put(plan["by"], y, fmt.cut(move.by, 12), "muted")
    if move.freeze_s is not None:
        sheet.right(plan["frozen"], y, [(fmt.freeze(move.freeze_s), "text")])
        if "bar" in plan:
            share_bar(sheet, plan["bar"], y, 22, move.freeze_s / worst_s, "calm" if move.step is Step.DONE else "busy")
    if "shipped" in plan and move.bytes_done:
        sheet.right(plan["shipped"], y, [(fmt.size(move.bytes_done), "text")])
    if "total" in plan and move.total_s is not None:
        sheet.right(plan["total"], y, [(fmt.about(move.total_s), "muted")])
    word, spec = _RESULT[move.step]
    sheet.put(plan["result"], y, word, spec)
    if "note" in plan:
        sheet.put(plan["note"], y, fmt.cut(move.error, width - 1 - plan["note"]), "muted")


def route_short(look: Look, move: MoveView, width: int) -> Ink:
    """From → to with both names cut to the same width."""
    source, dest = node_name(look.view, move.source), node_name(look.view, move.dest)
    return [(fmt.cut_middle(source, width), "text"), (" → ", "muted"), (fmt.cut_middle(dest, width), "text")]


def moves_of(look: Look, job: JobView) -> list[MoveView]:
    """All moves of one job that are remembered, newest first."""
    return [move for move in look.view.moves if move.job == job.id]
