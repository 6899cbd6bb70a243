"""The question before a move: where it could go, what would happen, and that nothing happens without a yes."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from omcore.types import Check, ClusterView, Forecast, JobView, MovePlan
from omview import format as fmt
from omview.model import job_label, node_name
from omview.screens.dialog import Dialog, buttons
from omview.widgets.bars import level, nice_top
from omview.widgets.sheet import Hit, Ink, Sheet

_VERBS = {"move": "Move", "home": "Bring home", "back": "Bring back"}


class MigrateDialog(Dialog[int | None]):
    """Answers with a node number, or None: leave it. `verb` is "move", "home" or "back"."""

    BAR = "move"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,n,q", "no", show=False),
        Binding("y", "yes", show=False),
        Binding("enter", "press", show=False),
        Binding("down,j", "choose(1)", show=False),
        Binding("up,k", "choose(-1)", show=False),
        Binding("left,right,tab,shift+tab", "switch", show=False),
    ]

    def __init__(self, plan: MovePlan, job: JobView, view: ClusterView, to: int | None, verb: str) -> None:
        super().__init__()
        self.plan, self.job, self.view, self.verb = plan, job, view, verb
        self.able = [target for target in plan.targets if target.ok]
        self.others = [target for target in plan.targets if not target.ok and target.node != plan.source]
        self.here = next((target for target in plan.targets if target.node == plan.source), None)
        self.at = next((i for i, target in enumerate(self.able) if target.node == to), 0)
        self.wished = to
        self.on_no = True

    @property
    def target(self) -> Forecast | None:
        """The chosen node."""
        return self.able[self.at] if self.able else None

    def wanted(self) -> tuple[int, int]:
        """A window in large terminals, the whole screen in small ones."""
        rows = min(len(self.able), 8) + bool(self.here) + min(3, len(self.others))
        return (104 if self.size.width >= 108 else self.size.width), min(self.size.height, 22 + rows)

    # ---- keys

    def action_no(self) -> None:
        """Leave it where it is."""
        self.dismiss(None)

    def action_yes(self) -> None:
        """Move it."""
        if self.target is not None:
            self.dismiss(self.target.node)

    def action_press(self) -> None:
        """Press the chosen button."""
        if self.on_no:
            self.action_no()
        else:
            self.action_yes()

    def action_switch(self) -> None:
        """The other button."""
        if self.target is not None:
            self.on_no = not self.on_no
            self.redraw()

    def action_choose(self, step: int) -> None:
        """The target above or below."""
        if self.able:
            self.at = max(0, min(len(self.able) - 1, self.at + step))
            self.redraw()

    def on_key(self, event: events.Key) -> None:
        """A digit chooses the node with that number."""
        if event.key.isdigit():
            event.stop()
            for index, target in enumerate(self.able):
                if str(target.node) == event.key:
                    self.at = index
                    self.redraw()

    def clicked(self, hit: Hit) -> None:
        """A target was clicked: it is chosen, nothing more."""
        if hit[0] == "target" and isinstance(hit[1], int):
            self.at = hit[1]
            self.redraw()

    # ---- drawing

    def draw(self, sheet: Sheet) -> None:
        """Sentence, targets, time line, checks, buttons."""
        roomy = sheet.height >= 26
        y = 1
        self._sentence(sheet, y)
        y = self._targets(sheet, y + 3)
        y += 1
        if self.target is not None:
            y = self._timeline(sheet, y, self.target) + (1 if roomy or sheet.height >= 24 else 0)
        bottom = sheet.height - 3
        for check in self._checks(bottom - y - (1 if roomy else 0)):
            if y >= bottom:
                break
            sign, spec = ("✓", "accent") if check.ok else ("×", "bad") if check.fatal else ("!", "busy b")
            sheet.put(3, y, sign, spec)
            text = f"{check.text} {check.hint}" if check.hint and not check.ok else check.text
            for line in fmt.wrap(text, sheet.width - 8, max(1, min(2, bottom - y))):
                sheet.put(5, y, line, "text")
                y += 1
        no = "No, leave it" if self.target is not None else "Close"
        if self.target is not None:
            buttons(sheet, bottom, no, "Yes, move it", on_no=self.on_no)
            if sheet.width >= 76:
                keys: Ink = [
                    ("↑↓", "accent b"),
                    (" or ", "muted"),
                    ("digit", "accent b"),
                    (" choose the node", "muted"),
                ]
                sheet.ink(3, bottom, keys)
        else:
            start = sheet.width - 4 - len(no) - 4
            sheet.fill(start, bottom, len(no) + 4, 1, "accent")
            sheet.put(start, bottom, f"  {no}  ", "bg b")
            sheet.put(start + 2, bottom + 1, "enter, esc", "faint")
            sheet.hit(start, bottom, len(no) + 4, 1, "key", "escape")

    def _sentence(self, sheet: Sheet, y: int) -> None:
        job = self.job
        here = node_name(self.view, job.node)
        tail = "Where to?" if self.able else "It cannot move now."
        if self.verb != "move" and self.target is not None and self.target.node == self.wished:
            tail = f"to {node_name(self.view, self.target.node)}?"
        name = fmt.cut_middle(job_label(job), 24)
        ink: Ink = [
            (f"{_VERBS[self.verb]} ", "text b"),
            (name, "move b"),
            (f" {job.pid or ''}", "faint"),
            ("  of ", "muted"),
            (fmt.cut_middle(job.user, 12), "muted"),
        ]
        if sheet.width >= 76:
            ink += [
                (", now on ", "muted"),
                (fmt.cut_middle(here, 16), "text b"),
                (". " if tail[0].isupper() else " ", "muted"),
                (tail, "text b"),
            ]
        else:
            ink += [(f", on {fmt.cut_middle(here, 10)}", "muted")]
        sheet.ink(3, y, ink)
        facts = [f"{fmt.size(self.plan.rss_bytes)} of memory"]
        if job.tasks:
            facts.append(fmt.count(job.tasks, "task"))
        text = ", ".join(facts) + "."
        if job.stdio == "pty":
            text += f" Its terminal stays on {node_name(self.view, job.home)}."
        sheet.put(3, y + 1, fmt.cut(text, sheet.width - 6), "muted")

    def _targets(self, sheet: Sheet, y: int) -> int:
        wide = sheet.width >= 100
        bar_x, bar_width = 16, 12 if wide else 10 if sheet.width >= 76 else 0
        load_x = bar_x + bar_width + (1 if bar_width else -1)
        freeze = load_x + (44 if wide else 20)
        sheet.put(5, y, "node", "faint")
        sheet.put(bar_x if bar_width else load_x, y, "load now → with it" if bar_width else "now → with", "faint")
        sheet.right(freeze, y, [("freeze", "faint")])
        if wide:
            sheet.right(load_x + 20, y, [("cores", "faint")])
            sheet.right(load_x + 34, y, [("memory free", "faint")])
        sheet.put(freeze + 3, y, "what would happen", "faint")
        scale = nice_top([target.load_with for target in self.plan.targets], 2.5)
        rows = max(1, min(8, sheet.height - 16 - min(1, len(self.others))))
        first = max(0, min(self.at - rows + 1, len(self.able) - rows))
        for index, target in list(enumerate(self.able))[first : first + rows]:
            y += 1
            chosen = index == self.at
            if chosen:
                sheet.fill(2, y, sheet.width - 4, 1, "sel")
            sheet.hit(2, y, sheet.width - 4, 1, "target", index)
            sheet.right(4, y, [(str(target.node), "accent b")])
            home = " ⌂" if target.node == self.job.home else ""
            sheet.put(5, y, fmt.cut_middle(node_name(self.view, target.node), 8) + home, "text b")
            if bar_width:
                gain_bar(sheet, bar_x, y, bar_width, target.load_now, target.load_with, scale)
            spec = level(target.load_with)
            sheet.ink(
                load_x,
                y,
                [
                    (f"{fmt.load(target.load_now):>4}", "muted"),
                    (" → ", "muted"),
                    (fmt.load(target.load_with), f"{spec} b"),
                ],
            )
            if wide:
                sheet.right(load_x + 20, y, [(f"{target.cores:g}", "text")])
                sheet.right(load_x + 34, y, [(fmt.gib(target.mem_free_bytes), "text"), (" GiB", "text")])
            sheet.right(freeze, y, [(fmt.about(target.freeze_s), "text b")])
            best = target.verdict.startswith("best")
            sheet.put(freeze + 3, y, fmt.cut(target.verdict, sheet.width - freeze - 5), "accent" if best else "muted")
        if self.here is not None and wide:
            y += 1
            sheet.put(5, y, fmt.cut_middle(node_name(self.view, self.here.node), 8), "faint")
            sheet.put(load_x, y, fmt.load(self.here.load_now), "faint")
            sheet.right(load_x + 20, y, [(f"{self.here.cores:g}", "faint")])
            sheet.right(load_x + 34, y, [(fmt.gib(self.here.mem_free_bytes) + " GiB", "faint")])
            home = "it is here, and at home" if self.job.home == self.here.node else "it is here"
            sheet.put(freeze + 3, y, home, "faint")
        for refusing in self.others[: 3 if sheet.height >= 26 else 1]:
            y += 1
            more = len(self.others) - 1 if sheet.height < 26 else 0
            text = f"{node_name(self.view, refusing.node)} refuses: {refusing.reason} {refusing.hint}".strip()
            sheet.put(5, y, fmt.cut(text + (f" ({more} more)" if more else ""), sheet.width - 8), "muted")
        return y + 1

    def _timeline(self, sheet: Sheet, y: int, target: Forecast) -> int:
        name = fmt.cut_middle(node_name(self.view, target.node), 14)
        sheet.title(3, y, sheet.width - 6, f"If you move it to {name}", [("forecast", "faint")])
        width = sheet.width - 6
        parts = (
            ("check", 10, "calm"),
            ("prepare", 12, "calm"),
            ("freeze", 10, "move"),
            ("ship", 12, "move"),
            ("restore", 12, "move"),
        )
        unit = width / 80
        x = 3
        edges: dict[str, int] = {}
        for word, share, spec in parts:
            size = max(len(word) + 1, int(share * unit)) - 1
            edges[word] = x
            sheet.put(x, y + 1, "━" * size, f"{spec} b")
            sheet.put(x, y + 2, word, "text" if spec == "move" else "muted")
            x += size + 1
        sheet.put(x, y + 1, "━" * (sheet.width - 3 - x), "guest b" if target.node != self.job.home else "own b")
        sheet.put(x, y + 2, f"goes on on {name}", "muted")
        sheet.put(3, y + 3, fmt.cut(f"runs on {node_name(self.view, self.job.node)}", edges["freeze"] - 5), "muted")
        sheet.put(edges["freeze"], y + 3, f"frozen about {fmt.about(target.freeze_s)}", "move b")
        sheet.put(x, y + 3, f"runs on {name}", "muted")
        return y + 4

    def _checks(self, room: int) -> list[Check]:
        """What was checked; in small windows the fine ones fold into one line."""
        checks = [check for check in self.plan.checks if not check.ok]
        fine = [check for check in self.plan.checks if check.ok]
        checks.sort(key=lambda check: not check.fatal)
        if len(checks) + len(fine) > max(1, min(room, 5)) and len(fine) > 1:
            fine = [Check(True, False, "fine", f"{len(fine)} of {len(self.plan.checks)} checks are fine.")]
        return (
            [*fine, *checks][: max(0, room)] if not any(c.fatal for c in checks) else [*checks, *fine][: max(0, room)]
        )


def gain_bar(sheet: Sheet, x: int, y: int, width: int, now: float, with_it: float, scale: float) -> None:
    """A load bar before → after: thin what is there now, heavy what the job adds; the tick is 1.0."""
    step = scale / width
    tick = min(width - 1, round(1.0 / step))
    for cell in range(width):
        middle = (cell + 0.5) * step
        if cell == tick:
            passed = with_it > (cell + 1) * step
            sheet.put(x + cell, y, "┃" if passed else "│", "text b" if passed else "faint")
        elif middle <= now:
            sheet.put(x + cell, y, "─", "sys")
        elif middle <= with_it or (now < middle and middle - step < with_it and with_it - now > 0.01):
            sheet.put(x + cell, y, "━", "own")
