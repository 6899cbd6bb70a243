"""The process table: fixed columns per width, quick ones left of the slow one, rows as words from `processes.Row`."""

from __future__ import annotations

from dataclasses import dataclass

from omview import format as fmt
from omview.processes import Row
from omview.widgets.sheet import Sheet

# name, head, width, to the right, the order it stands for; in the order they are shown
_COLUMNS = (
    ("pid", "pid", 7, True, "pid"),
    ("user", "user", 8, False, "user"),
    ("node", "node", 8, False, "node"),
    ("home", "home", 8, False, ""),
    ("cpu", "cpu %", 7, True, "cpu"),
    ("mem", "mem", 5, True, "mem"),
    ("time", "cpu time", 9, True, "time"),
    ("moves", "moves", 5, True, ""),
    ("move", "move?", 6, False, ""),
)
_DROPPED_FIRST = ("time", "moves", "home")
COMMAND_LEAST = 24


@dataclass(frozen=True, slots=True)
class Place:
    """One column: where it starts, how wide it is, and how it is written."""

    name: str
    head: str
    x: int
    width: int
    right: bool
    order: str


def places(width: int, *, details: bool, all_nodes: bool, names: int) -> list[Place]:
    """The columns for a table of this width; the command, last, has what is left."""
    chosen = [column[0] for column in _COLUMNS]
    if details:
        chosen = [name for name in chosen if name not in {"home", "time"}]
    if not all_nodes:
        chosen.remove("node")
    if width < 70:
        chosen.remove("user")
    if width < 64:
        chosen.remove("mem")

    def wide(name: str, size: int) -> int:
        return min(max(size, names), 14 if width >= 120 else size) if name in {"node", "home"} else size

    def needed() -> int:
        return 4 + sum(wide(name, size) + 2 for name, _, size, _, _ in _COLUMNS if name in chosen)

    for name in _DROPPED_FIRST:
        if name in chosen and width - needed() < COMMAND_LEAST + (20 if name == "time" else 8):
            chosen.remove(name)
    made, x = [], 4
    for name, head, given, right, order in _COLUMNS:
        if name in chosen:
            size = wide(name, given)
            made.append(Place(name, head, x, size, right, order))
            x += size + 2
    made.append(Place("command", "command", x, max(0, width - x - 1), False, "command"))
    return made


def heads(sheet: Sheet, x0: int, y: int, columns: list[Place], order: str, reverse: bool) -> None:
    """The names of the columns; the one that orders the list has a marker."""
    for column in columns:
        ordering = column.order == order and order != ""
        mark = ("▴ " if reverse else "▾ ") if ordering else ""
        spec = "accent b" if ordering else "faint"
        if column.right:
            sheet.right(x0 + column.x + column.width, y, [(mark + column.head, spec)])
        else:
            sheet.put(x0 + column.x, y, (mark + column.head)[: column.width], spec)
        if column.order:
            sheet.hit(x0 + column.x - 2, y, column.width + 2, 1, "order", column.order)


def draw_row(
    sheet: Sheet, x0: int, y: int, width: int, columns: list[Place], row: Row, *, chosen: bool, focus: bool = True
) -> None:
    """One process; the cursor row has its own ground."""
    sheet.hit(x0, y, width, 1, "proc", row.key)
    if chosen:
        if focus:
            sheet.fill(x0, y, width, 1, "selrow")
        sheet.put(x0, y, "▌", "accent" if focus else "faint")
    sheet.put(x0 + 2, y, *row.sign)
    words: dict[str, tuple[str, str]] = {
        "pid": (row.pid, "muted"),
        "user": (row.user, row.node[1] if row.node[1] != "guest" else "text"),
        "node": row.node,
        "home": (row.home, "muted"),
        "cpu": row.cpu,
        "mem": row.mem,
        "time": (row.time, "muted"),
        "moves": (row.moves, "faint" if row.moves == fmt.ZERO else "text"),
        "move": row.move,
    }
    for column in columns[:-1]:
        text, spec = words[column.name]
        if column.right:
            sheet.right(x0 + column.x + column.width, y, [(text, spec)])
        else:
            sheet.put(x0 + column.x, y, fmt.cut_middle(text, column.width), spec)
    command = columns[-1]
    x = sheet.put(x0 + command.x, y, row.branch, "line")
    program, rest = command_words(row.program[0], row.arguments, command.width - len(row.branch))
    x = sheet.put(x, y, program, row.program[1])
    sheet.put(x, y, rest, "muted")


def command_words(program: str, arguments: str, room: int) -> tuple[str, str]:
    """The program and the rest of a command, cut in the middle to `room` cells; a path too long becomes its name."""
    whole = f"{program} {arguments}".rstrip()
    if program.startswith("/") and fmt.cells(whole) > room:
        program = program.rsplit("/", 1)[-1] or program
        whole = f"{program} {arguments}".rstrip()
    cut = fmt.cut_middle(whole, room)
    end = len(program) if cut == whole else min(len(program), cut.find("…") if "…" in cut else len(cut))
    return cut[:end], cut[end:]


def scroll_bar(sheet: Sheet, x: int, y: int, height: int, top: int, count: int) -> None:
    """One cell wide, only while there is something to scroll."""
    if count <= height or height < 3:
        return
    size = max(1, height * height // count)
    start = round(top / max(1, count - height) * (height - size))
    for row in range(size):
        sheet.put(x, y + start + row, "│", "faint")
