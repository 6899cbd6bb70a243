"""The load of all nodes in one large chart, with axes."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Region

from omview import format as fmt
from omview.screens.dialog import Dialog
from omview.widgets.plot import Line, draw, token_of
from omview.widgets.sheet import Sheet

MOST = 8  # more lines than this cannot be told apart: the busiest are drawn


class ZoomDialog(Dialog[None]):
    """Closes with esc or enter; left and right choose the line on top."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,g", "close", show=False),
        Binding("right,down,right_square_bracket", "step(1)", show=False),
        Binding("left,up,left_square_bracket", "step(-1)", show=False),
    ]

    def wanted(self) -> tuple[int, int]:
        """All but a margin."""
        margin = 8 if self.size.width >= 100 else 0
        return self.size.width - margin, self.size.height - (4 if margin else 0)

    def action_close(self) -> None:
        """Back to the screen."""
        self.dismiss(None)

    def action_step(self, step: int) -> None:
        """Another node on top."""
        view = self.om.view
        if view is not None and view.nodes:
            numbers = [node.number for node in view.nodes]
            index = numbers.index(self.om.node) if self.om.node in numbers else 0
            self.om.node = numbers[(index + step) % len(numbers)]
            self.redraw()

    def draw(self, sheet: Sheet) -> None:
        """Title, chart, keys."""
        look = self.om.look()
        if look is None:
            return
        nodes = sorted(look.view.nodes, key=lambda node: (node.number != look.node, -node.sample.load))[:MOST]
        nodes.sort(key=lambda node: node.number)
        chosen = next((index for index, node in enumerate(nodes) if node.number == look.node), 0)
        name = nodes[chosen].name if nodes else ""
        sheet.ink(
            3,
            1,
            [("Load per core", "text b"), (f"   the last ten minutes, {fmt.cut_middle(name, 20)} on top", "muted")],
        )
        width = sheet.width - 6
        count = min(300, width)
        columns = [look.book.columns(node.number, "load", count, look.now) for node in nodes]
        lines = [
            Line(fmt.cut_middle(node.name, 12), column.values, token_of(index))
            for index, (node, column) in enumerate(zip(nodes, columns, strict=True))
        ]
        if any(value is not None for line in lines for value in line.values):
            area = Region(3, 3, width, sheet.height - 6)
            draw(sheet, area, lines, chosen, columns[0].span_s, self.om.paint)
        else:
            sheet.put(3, 4, "Nothing recorded yet.", "muted")
        sheet.ink(
            3,
            sheet.height - 2,
            [("← →", "accent b"), (" another node   ", "muted"), ("esc", "accent b"), (" close", "muted")],
        )
        sheet.right(sheet.width - 3, sheet.height - 2, [("minutes", "faint")])
