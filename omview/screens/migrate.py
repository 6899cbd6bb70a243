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

    def __init__(self, job: JobView, view: ClusterView, to: int | None, verb: str) -> None:
        super().__init__()
        self.job, self.view, self.verb = job, view, verb
        self.wished = to
        self.plan: MovePlan | None = None
        self.able: list[Forecast] = []
        self.others: list[Forecast] = []
        self.here: Forecast | None = None
        self.at = 0
        self.no_target = ""  # why the node that was asked for cannot be had; then nothing else moves either
        self.on_no = True
        self._typed = ""

    def arrived(self, plan: MovePlan) -> None:
        """The engine's answer: from now on a node can be chosen."""
        self.plan = plan
        self.able = [target for target in plan.targets if target.ok]
        self.others = [target for target in plan.targets if not target.ok and target.node != plan.source]
        self.here = next((target for target in plan.targets if target.node == plan.source), None)
        wanted = int(self._typed) if self._typed else self.wished
        if wanted is not None:
            self._want(wanted)
        if self.is_mounted:
            self.redraw()

    @property
    def target(self) -> Forecast | None:
        """The chosen node."""
        return self.able[self.at] if self.able and not self.no_target else None

    def wanted(self) -> tuple[int, int]:
        """A window in large terminals, the whole screen in small ones."""
        if self.plan is None:
            rows = min(len(self.view.nodes), 9)
        else:
            rows = min(len(self.able), 8) + bool(self.here) + min(3, len(self.others))
        return (104 if self.size.width >= 108 else self.size.width), min(self.size.height, 22 + rows)

    def _want(self, node: int) -> None:
        """Choose a node by number; one that cannot be had leaves nothing chosen, so that no other moves instead."""
        refusing = next((target for target in self.others if target.node == node), None)
        place = next((index for index, target in enumerate(self.able) if target.node == node), None)
        self.no_target = ""
        if place is not None:
            self.at = place
        elif refusing is not None:
            self.no_target = f"{node_name(self.view, node)} refuses: {refusing.reason} {refusing.hint}".strip()
        elif self.here is not None and self.here.node == node:
            self.no_target = f"It runs on {node_name(self.view, node)} now."
        else:
            self.no_target = f"There is no node {node}."

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
        self._typed = ""
        if self.able:
            self.at = max(0, min(len(self.able) - 1, self.at + step)) if not self.no_target else self.at
            self.no_target = ""
            self.redraw()

    def on_key(self, event: events.Key) -> None:
        """Digits choose the node with that number; those typed before the answer is here count too."""
        if event.key.isdecimal():
            event.stop()
            numbers = {str(node.number) for node in self.view.nodes}
            longer = self._typed + event.key
            self._typed = longer if any(number.startswith(longer) for number in numbers) else event.key
            if self.plan is not None:
                self._want(int(self._typed))
                self.redraw()

    def clicked(self, hit: Hit) -> None:
        """A target was clicked: it is chosen, nothing more."""
        if hit[0] == "target" and isinstance(hit[1], int):
            self.at, self.no_target, self._typed = hit[1], "", ""
            self.redraw()

    # ---- drawing

    def draw(self, sheet: Sheet) -> None:
        """Sentence, targets, time line, checks, buttons."""
        roomy = sheet.height >= 26
        y = 1
        self._sentence(sheet, y)
        if self.plan is None:
            sheet.put(3, y + 3, f"Asking where {fmt.cut_middle(job_label(self.job), 24)} could go …", "muted")
            _close(sheet, sheet.height - 3, "No, leave it")
            return
        y = self._targets(sheet, y + 3, self.plan)
        y += 1
        if self.no_target:
            for line in fmt.wrap(self.no_target, sheet.width - 6, 3):
                sheet.put(3, y, line, "busy")
                y += 1
            y += 1
        elif self.target is not None:
            y = self._timeline(sheet, y, self.target) + (1 if roomy or sheet.height >= 24 else 0)
        bottom = sheet.height - 3
        for check in self._checks(self.plan, bottom - y - (1 if roomy else 0)):
            if y >= bottom:
                break
            sign, spec = ("✓", "accent") if check.ok else ("×", "bad") if check.fatal else ("!", "busy b")
            sheet.put(3, y, sign, spec)
            text = f"{check.text} {check.hint}" if check.hint and not check.ok else check.text
            for line in fmt.wrap(text, sheet.width - 8, max(1, min(2, bottom - y))):
                sheet.put(5, y, line, "text")
                y += 1
        if self.target is not None:
            buttons(sheet, bottom, "No, leave it", "Yes, move it", on_no=self.on_no)
        else:
            _close(sheet, bottom, "No, leave it" if self.able else "Close")
        if self.able and sheet.width >= 76:
            keys: Ink = [("↑↓", "accent b"), (" or ", "muted"), ("digit", "accent b"), (" choose the node", "muted")]
            sheet.ink(3, bottom, keys)

    def _sentence(self, sheet: Sheet, y: int) -> None:
        job = self.job
        here = node_name(self.view, job.node)
        tail = "Where to?" if self.able else "It cannot move now." if self.plan is not None else ""
        if self.no_target and self.verb != "move":
            tail = "Not now."
        elif self.verb != "move" and self.target is not None and self.target.node == self.wished:
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
                (" " if tail.startswith("to ") else ". ", "muted"),
                (tail, "text b"),
            ]
        else:
            ink += [(f", on {fmt.cut_middle(here, 10)}", "muted")]
        sheet.ink(3, y, ink)
        rss_bytes = self.plan.rss_bytes if self.plan is not None else job.rss_bytes
        facts = [f"{fmt.size(rss_bytes)} of memory"]
        if job.tasks:
            facts.append(fmt.count(job.tasks, "task"))
        text = ", ".join(facts) + "."
        if job.stdio == "pty":
            text += f" Its terminal stays on {node_name(self.view, job.home)}."
        sheet.put(3, y + 1, fmt.cut(text, sheet.width - 6), "muted")

    def _targets(self, sheet: Sheet, y: int, plan: MovePlan) -> int:
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
        scale = nice_top([target.load_with for target in plan.targets], 2.5)
        rows = max(1, min(8, sheet.height - 16 - min(1, len(self.others))))
        first = max(0, min(self.at - rows + 1, len(self.able) - rows))
        for index, target in list(enumerate(self.able))[first : first + rows]:
            y += 1
            chosen = index == self.at and not self.no_target
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
                sheet.right(load_x + 20, y, [(fmt.cores(target.cores), "text")])
                sheet.right(load_x + 34, y, [(fmt.gib(target.mem_free_bytes), "text"), (" GiB", "text")])
            sheet.right(freeze, y, [(fmt.about(target.freeze_s), "text b")])
            best, verdict, room = target.verdict.startswith("best"), target.verdict, sheet.width - freeze - 5
            if fmt.cells(verdict) > room:  # the row names the node already
                verdict = verdict.replace(f" {node_name(self.view, target.node)} gets", " gets")
            if fmt.cells(verdict) > room:  # and has the sign of a home
                verdict = verdict.removesuffix(", its home")
            sheet.put(freeze + 3, y, fmt.cut(verdict, room), "accent" if best else "muted")
        if self.here is not None and wide:
            y += 1
            sheet.put(5, y, fmt.cut_middle(node_name(self.view, self.here.node), 8), "faint")
            sheet.put(load_x, y, fmt.load(self.here.load_now), "faint")
            sheet.right(load_x + 20, y, [(fmt.cores(self.here.cores), "faint")])
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

    def _checks(self, plan: MovePlan, room: int) -> list[Check]:
        """What was checked; in small windows the fine ones fold into one line."""
        checks = [check for check in plan.checks if not check.ok]
        fine = [check for check in plan.checks if check.ok]
        checks.sort(key=lambda check: not check.fatal)
        if len(checks) + len(fine) > max(1, min(room, 5)) and len(fine) > 1:
            fine = [Check(True, False, "fine", f"{len(fine)} of {len(plan.checks)} checks are fine.")]
        return (
            [*fine, *checks][: max(0, room)] if not any(c.fatal for c in checks) else [*checks, *fine][: max(0, room)]
        )


def _close(sheet: Sheet, y: int, text: str) -> None:
    """The one button of a dialog in which nothing can be chosen."""
    start = sheet.width - 4 - len(text) - 4
    sheet.fill(start, y, len(text) + 4, 1, "accent")
    sheet.put(start, y, f"  {text}  ", "bg b")
    sheet.put(start + 2, y + 1, "enter, esc", "faint")
    sheet.hit(start, y, len(text) + 4, 1, "key", "escape")


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
