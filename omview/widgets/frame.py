"""What every screen has: header, footer, toasts, and the views for windows that are too small."""

from __future__ import annotations

from collections.abc import Sequence

from omcore.types import NodeView
from omview import format as fmt
from omview.commands import Command, Situation, footer, key_name, label
from omview.model import node_sign, sums
from omview.widgets.bars import level, nice_top, plain_bar
from omview.widgets.look import Look, Toast
from omview.widgets.sheet import Ink, Sheet

TABS = (
    ("cluster", "1", "Cluster", "Cluster"),
    ("node", "2", "Node", "Node"),
    ("processes", "3", "Processes", "Procs"),
    ("migrations", "4", "Migrations", "Moves"),
)
TINY = (60, 16)
NAME_ONLY = (20, 3)
TOAST_WIDTH = 54


def header(sheet: Sheet, screen: str, look: Look | None, state: Ink, now: float) -> None:
    """Row 0: name, tabs, state and clock; what does not fit is left out whole."""
    width = sheet.width
    sheet.fill(0, 0, width, 1, "surface")
    x = 1
    if width >= 100:
        x = sheet.put(x, 0, "omview", "accent b") + 2
    for name, digit, long, short in TABS:
        active = name == screen
        text = (long if width >= 100 else short) if width >= 80 or active else ""
        block = f" {digit} {text} " if text else f" {digit} "
        if active:
            sheet.fill(x, 0, len(block), 1, "accent")
            sheet.put(x, 0, block, "bg b")
        else:
            sheet.put(x, 0, f" {digit} ", "faint")
            sheet.put(x + 3, 0, text, "muted")
        sheet.hit(x, 0, len(block), 1, "key", digit)
        x += len(block)
    right: Ink = [*state, ("  ", "text"), (fmt.clock(now, width >= 132), "text")]
    if look is not None and width >= 132:
        me = next((node.name for node in look.view.nodes if node.me), "")
        right = [
            (fmt.cut_middle(look.view.cluster, 20), "text b"),
            ("  on ", "faint"),
            (fmt.cut_middle(me, 16), "muted"),
            ("   ", "text"),
            *right,
        ]
    while sum(fmt.cells(text) for text, _ in right) > width - x - 2 and len(right) > 1:
        right = right[1:]
    sheet.right(width - 1, 0, right)


def draw_footer(sheet: Sheet, now: Situation) -> None:
    """The last row: keys that work now, cut whole from the right; help and the palette always stay."""
    y, width = sheet.height - 1, sheet.width
    sheet.fill(0, y, width, 1, "surface")
    tail = [("question_mark", "help", "?"), ("ctrl+p", "all commands", "ctrl+p")]
    if width < 100:
        tail = tail[:1]
    end = width - 1
    for key, text, shown in reversed(tail):
        start = sheet.right(end, y, [(shown, "accent b"), (" " + text, "muted")])
        sheet.hit(start, y, end - start, 1, "key", key)
        end = start - 2
    x = 1
    for command in footer(now):
        text = f" {label(command, now)}"
        size = len(_key(command)) + len(text)
        if x + size > end:
            break
        sheet.hit(x, y, size, 1, "key", command.keys[0])
        x = sheet.ink(x, y, [(_key(command), "accent b"), (text, "muted")]) + 2


def _key(command: Command) -> str:
    return "[ ]" if command.id == "show.next" else key_name(command.keys[0])


def draw_toasts(sheet: Sheet, toasts: Sequence[Toast], avoid: int | None) -> None:
    """The newest three at the bottom right, never over row `avoid` (the cursor's)."""
    width = min(TOAST_WIDTH, sheet.width - 2)
    bottom = sheet.height - 1
    for toast in list(reversed(toasts))[:3]:
        height = len(toast.lines)
        top = bottom - height
        if avoid is not None and top <= avoid < bottom:
            top, bottom = avoid - height, avoid
        if top < 2:
            return
        x = sheet.width - width - 1
        for row in range(height):
            sheet.put(x - 1, top + row, " ")
        sheet.clear(x, top, width, height, "panel")
        for row, line in enumerate(toast.lines):
            sheet.put(x, top + row, "▌", toast.spec)
            sheet.ink(x + 2, top + row, line)
        if toast.times > 1:
            sheet.right(x + width - 1, top, [(f"{toast.times} times", "faint")])
        sheet.hit(x, top, width, height, "key", "escape")
        bottom = top - 1


def draw_tiny(sheet: Sheet, look: Look | None, now: float, moving: int) -> None:
    """Under 60x16: sums, one load bar a node, how to get the rest."""
    width, height = sheet.width, sheet.height
    if width < NAME_ONLY[0] or height < NAME_ONLY[1]:
        sheet.put(0, 0, "omview", "accent b")
        return
    sheet.fill(0, 0, width, 1, "surface")
    sheet.put(1, 0, "omview", "accent b")
    sheet.right(
        width - 1,
        0,
        [
            ("•" if look and look.live else "×", "accent" if look and look.live else "bad"),
            (" " + fmt.clock(now, False), "text"),
        ],
    )
    if look is not None:
        total = sums(look.view)
        y = 2 if height >= 8 else 1
        x = sheet.ink(
            1,
            y,
            [
                ("Load ", "muted"),
                (fmt.load(total.load), "text b"),
                ("  " + fmt.count(len(look.view.nodes), "node"), "muted"),
            ],
        )
        if moving and x + 12 < width:
            sheet.ink(x + 2, y, [("» ", "move b"), (f"{moving} moving", "muted")])
        _tiny_nodes(sheet, look.view.nodes, y + 1, height - 1)
    sheet.fill(0, height - 1, width, 1, "surface")
    sheet.put(
        1,
        height - 1,
        f"{width}x{height}: full view from {TINY[0]}x{TINY[1]}" if width >= 38 else f"{width}x{height}",
        "muted",
    )
    sheet.right(width - 1, height - 1, [("q", "accent b"), (" quit", "muted")])


def _tiny_nodes(sheet: Sheet, nodes: Sequence[NodeView], top: int, bottom: int) -> None:
    wide = min(max((fmt.cells(node.name) for node in nodes), default=4), sheet.width // 3)
    bar = 5 + wide
    span = sheet.width - bar - 7
    scale = nice_top([node.sample.load for node in nodes], 2.5)
    room = bottom - top
    shown = nodes if len(nodes) <= room else nodes[: max(0, room - 1)]
    for row, node in enumerate(shown):
        y = top + row
        sign, spec = node_sign(node)
        sheet.put(1, y, sign, spec)
        sheet.put(3, y, fmt.cut_middle(node.name, wide), "text")
        known = node.age_s is not None and sign != "×"
        if span >= 6 and known:
            plain_bar(sheet, bar, y, span, node.sample.load, scale)
        figure = fmt.load(node.sample.load) if known else "?" if sign != "×" else "lost"
        sheet.right(sheet.width - 1, y, [(figure, f"{level(node.sample.load)} b")])
    if len(shown) < len(nodes):
        sheet.put(3, top + len(shown), f"… {len(nodes) - len(shown)} more", "faint")
