"""The terminal app: modes, theme, feed, and the verbs that ask the engine for something.

    code = run_app(OmView(client, connect=connect))

`client` is a ready `omcore.client.Client`; `connect` makes another one when the engine went away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import RenderableType
from textual import events
from textual.app import App
from textual.filter import NoColor
from textual.screen import Screen

from omcore.errors import OmError
from omcore.types import ClusterView, JobId, JobState, JobView, MoveResult, ProcView, Step
from omview import format as fmt
from omview.feed import Connect, EngineGone, Feed, HistoryArrived, ListFailed, SnapshotArrived
from omview.model import Book, Moments, job_label, live_jobs, move_share, node_name, running_moves
from omview.screens.base import OmScreen
from omview.screens.cluster import ClusterScreen
from omview.theme import SIXTEEN_THEME, THEMES, Paint, needs_ascii, pick_theme
from omview.widgets.canvas import Canvas, tightened
from omview.widgets.look import Look, Toast
from omview.widgets.moves import how_far
from omview.widgets.sheet import Ink

if TYPE_CHECKING:
    from omcore.client import Client  # the engine's side imports it; here it is only a word

TOAST_S = 8.0
LIST_RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Undo:
    """What `U` brings back: this job, to this node."""

    job: JobId
    name: str
    node: int


def _node_screen() -> Screen[Any]:
    from omview.screens.node import NodeScreen  # each screen is imported when it is first looked at

    return NodeScreen()


def _process_screen() -> Screen[Any]:
    from omview.screens.processes import ProcessScreen

    return ProcessScreen()


def _migration_screen() -> Screen[Any]:
    from omview.screens.migrations import MigrationScreen

    return MigrationScreen()


class OmView(App[int]):
    """The face of a cluster. `clock` gives Unix seconds; `engine_note` says where the engine runs, for `q`."""

    TITLE = "omview"
    CSS_PATH = "styles/omview.tcss"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = ""
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "cluster": ClusterScreen,
        "node": _node_screen,
        "processes": _process_screen,
        "migrations": _migration_screen,
    }
    DEFAULT_MODE = "cluster"

    def __init__(
        self,
        client: Client,
        *,
        connect: Connect | None = None,
        clock: Callable[[], float] = time.time,
        ascii: bool = False,  # noqa: A002
        theme: str = "",
        engine_note: str = "",
    ) -> None:
        chosen = theme or pick_theme(os.environ)
        signs = ascii or needs_ascii(os.environ)
        super().__init__()
        for each in THEMES:
            self.register_theme(each)
        if self.no_color:
            self._filters[:] = [NoColor()]  # Textual's own choice would be grey
            chosen = SIXTEEN_THEME
        self.animation_level = "none"
        self.clock = clock
        self.engine_note = engine_note
        self.view: ClusterView | None = None
        self.book, self.moments = Book(), Moments()
        self.node = 0
        self.toasts: list[Toast] = []
        self.undo: Undo | None = None
        self.chosen_job = ""  # a job another screen wants the process screen to show
        self.show_jobs_of = 0  # a node whose jobs the process screen shall list
        self.live = True
        self.paused = False
        self.feed = Feed(client, connect, self.post_message)
        self._signs = signs
        self._arrived = clock()
        self._gone: EngineGone | None = None
        self._retry_at = 0.0
        self._asked: set[JobId] = set()
        self.theme = chosen
        self.paint = Paint(self.current_theme, no_color=self.no_color, ascii_only=signs)

    # ---- life

    def on_mount(self) -> None:
        """Start the feed and the one timer."""
        self.theme_changed_signal.subscribe(self, lambda _: self._repaint())
        self.run_worker(self.feed.follow(), group="feed", exclusive=True)
        self._arm()

    def _arm(self) -> None:
        self.set_timer(1.005 - self.clock() % 1.0, self._tick)  # just after each full second

    def _tick(self) -> None:
        self._arm()
        now = self.clock()
        if self.view is not None and self.live:
            self.book.record(self.view, now)
        self.toasts = [toast for toast in self.toasts if not toast.ends or toast.ends > now]
        self.redraw()

    def redraw(self) -> None:
        """Draw the screen on top, if it is one of ours; what is below a dialog rests."""
        stack = self.screen_stack
        if stack and isinstance(stack[-1], OmScreen):
            stack[-1].redraw()

    def _repaint(self) -> None:
        self.paint = Paint(self.current_theme, no_color=self.no_color, ascii_only=self._signs)
        for screen in self.screen_stack:
            for canvas in screen.query(Canvas):
                canvas.show(canvas.sheet, self.paint)
        self.redraw()

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Textual's hook for output: write only the cells that changed."""
        super()._display(screen, tightened(renderable))

    def on_key(self, event: events.Key) -> None:
        """A key that nobody took: typed right behind `/`, it came before the line had the focus."""
        if isinstance(self.screen, OmScreen) and self.screen.take_early(event):
            event.stop()
            event.prevent_default()

    # ---- what arrives

    def on_snapshot_arrived(self, message: SnapshotArrived) -> None:
        """Keep it; it is drawn with the next second, or at once where a person is waiting for it."""
        before, first = self.view, self.view is None or not self.live
        if self.paused:
            return
        back = not self.live
        self.view, self.live, self._gone = message.view, True, None
        self._arrived = self.clock()
        self.moments.forget_except(message.view)
        numbers = [node.number for node in message.view.nodes]
        if self.node not in numbers:
            self.node = message.view.number if message.view.number in numbers else min(numbers, default=0)
        self._update_moving_toasts()
        if back and isinstance(self.screen, OmScreen):
            self.screen.engine_back()
        if first or before is None or (before.moves, before.jobs) != (message.view.moves, message.view.jobs):
            if first:
                self.book.record(message.view, self._arrived)
            self.redraw()

    def on_history_arrived(self, message: HistoryArrived) -> None:
        """The engine remembers more than this face has seen."""
        self.book.seed(message.history, self.clock())

    def on_engine_gone(self, message: EngineGone) -> None:
        """Say so; the last picture stays, dimmed."""
        self.live, self._gone = False, message
        self._retry_at = self.clock() + (message.retry_s or 0.0)
        self.redraw()

    def on_list_failed(self, message: ListFailed) -> None:
        """The process list ended. If the engine is gone its return will start it again, else try soon."""
        if self.live and isinstance(self.screen, OmScreen):
            self.sentence("list", f"The process list stopped: {message.reason}", spec="busy")
            self.set_timer(LIST_RETRY_S, self.screen.engine_back)

    def look(self) -> Look | None:
        """The data of the next picture; None before the first news."""
        if self.view is None:
            return None
        return Look(
            view=self.view,
            book=self.book,
            moments=self.moments,
            now=self.clock(),
            behind_s=max(0.0, self.clock() - self._arrived),
            node=self.node,
            live=self.live,
            note=self.engine_note,
        )

    def state_words(self) -> Ink:
        """The state at the right of the header."""
        if self._gone is not None:
            left = max(0, round(self._retry_at - self.clock()))
            text = f"engine gone, next try in {left} s" if self._gone.retry_s is not None else "engine gone"
            return [("× ", "bad b"), (text, "bad")]
        if self.paused:
            return [("paused", "move b")]
        stale = sum(node.state.value == "stale" for node in self.view.nodes) if self.view else 0
        lost = sum(node.state.value == "lost" for node in self.view.nodes) if self.view else 0
        if lost:
            return [("× ", "bad b"), (fmt.count(lost, "node") + " lost", "bad")]
        if stale:
            return [("~ ", "busy b"), (fmt.count(stale, "node") + " stale", "busy")]
        return [("• ", "accent"), ("live", "muted")]

    def waiting_words(self) -> str:
        """Before the first view."""
        return self._gone.reason if self._gone is not None else "Asking the engine for the cluster …"

    # ---- small things

    def go(self, screen: str) -> None:
        """Switch to another screen."""
        if screen != self.current_mode:
            self.switch_mode(screen)

    def toggle_pause(self) -> None:
        """Hold the picture, or go on."""
        self.paused = not self.paused
        self.redraw()

    def next_theme(self) -> None:
        """The next of our own themes."""
        names = [theme.name for theme in THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]

    def save_shot(self) -> None:
        """A picture of the screen, in the current directory."""
        try:
            path = self.save_screenshot()
        except OSError as error:
            self.toast("shot", [[("No screenshot: ", "bad b"), (str(error.strerror), "text")]], spec="bad")
        else:
            self.toast("shot", [[("Saved ", "text"), (fmt.cut_middle(path, 44), "text b")]])

    def try_engine_now(self) -> None:
        """Do not wait for the next try."""
        if not self.live:
            self.feed.try_now()

    def toast(self, key: str, lines: list[Ink], *, spec: str = "accent", sticky: bool = False) -> None:
        """Show a note; errors and what still happens stay until closed or replaced, equal ones are counted."""
        stays = sticky or spec == "bad"
        made = Toast(key, tuple(lines), 0.0 if stays else self.clock() + TOAST_S, spec)
        for index, old in enumerate(self.toasts):
            if old.key == key:
                same = old.lines == made.lines and not sticky
                self.toasts[index] = replace(made, times=old.times + 1) if same else made
                break
        else:
            self.toasts.append(made)
        self.redraw()

    def sentence(self, key: str, text: str, *, spec: str = "accent") -> None:
        """A toast of plain sentences, wrapped; the first line is bold."""
        lines = fmt.wrap(text, min(50, self.size.width - 6), 5)
        self.toast(key, [[(line, "text b" if index == 0 else "text")] for index, line in enumerate(lines)], spec=spec)

    def drop_toast(self) -> None:
        """Close the newest note."""
        if self.toasts:
            self.toasts.pop()
        self.redraw()

    def undo_words(self) -> str:
        """What `U` would do."""
        if self.undo is None or self.view is None:
            return ""
        known = any(job.id == self.undo.job for job in live_jobs(self.view))
        return f"{self.undo.name} to {node_name(self.view, self.undo.node)}" if known else ""

    def say_not_now(self, job: JobView | None, reason: str) -> None:
        """A key was pressed that cannot work now."""
        name = f"{job_label(job)}: " if job else ""
        self.sentence("not-now", f"Not now. {name}{reason}.", spec="busy")

    def say_no_job(self, proc: ProcView) -> None:
        """Why a process cannot be moved, and what to do."""
        if proc.command.startswith("["):
            text = f"{proc.name} is part of the kernel of this node and stays."
        else:
            text = f"{proc.name} {proc.key.pid} is not a job, so it stays where it is."
            text += " Start what shall move with: omview run COMMAND"
        self.sentence("no-job", text, spec="busy")

    # ---- verbs

    def ask(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a request to the engine beside the UI; what goes wrong becomes a note."""

        async def guarded() -> None:
            try:
                await work
            except OmError as error:
                self.sentence(f"error {name}", f"{error.title}: {error.text} {error.hint}".strip(), spec="bad")

        self.run_worker(guarded(), name=name, group="verbs")

    def ask_migrate(self, job: JobView, to: int | None = None, verb: str = "move") -> None:
        """Open the dialog that shows what a move would do."""
        self.ask(self._ask_migrate(job, to, verb), "plan")

    async def _ask_migrate(self, job: JobView, to: int | None, verb: str) -> None:
        from omview.screens.migrate import MigrateDialog

        if self.view is None:
            return
        dialog = MigrateDialog(job, self.view, to, verb)
        # At once, so that what is typed next is meant for it; it moves nothing before it knows the answer.
        self.push_screen(dialog, lambda node: self._answered(job, node))
        try:
            plan = await self.feed.client.plan(job.id)
        except OmError:
            if dialog.is_current:
                dialog.dismiss(None)
            raise
        dialog.arrived(plan)

    def _answered(self, job: JobView, node: int | None) -> None:
        if node is not None and self.view is not None:
            self.ask(self._migrate(job, node, node_name(self.view, node)), "migrate")

    async def _migrate(self, job: JobView, number: int, name: str) -> None:
        source = job.node
        self._asked.add(job.id)
        key = f"move {job.id}"
        start = node_name(self.view, source) if self.view else "?"
        self.toast(key, _moving_lines(job, start, name, "asked", None, ""), spec="move", sticky=True)
        try:
            result = await self.feed.client.migrate(job.id, str(number))  # names may be alike, numbers are not
        except OmError as error:
            result = MoveResult(job.id, start, name, False, error=error.text, hint=error.hint)
        finally:
            self._asked.discard(job.id)
        if result.ok:
            self.undo = Undo(job.id, job_label(job), source)
        self.toast(key, _result_lines(job, result), spec="accent" if result.ok else "busy")

    def _update_moving_toasts(self) -> None:
        if self.view is None:
            return
        for move in running_moves(self.view):
            job = next((job for job in self.view.jobs if job.id == move.job), None)
            if move.job in self._asked and job is not None:
                start, end = node_name(self.view, move.source), node_name(self.view, move.dest)
                lines = _moving_lines(job, start, end, move.step.value, move_share(move), how_far(move))
                if move.step in {Step.FREEZE, Step.SHIP, Step.RESTORE, Step.COMMIT}:
                    lines[1] = [*lines[1], ("  frozen", "move")]
                self.toast(f"move {move.job}", lines, spec="move", sticky=True)

    def lock(self, job: JobView) -> None:
        """Lock or unlock a job."""
        self.ask(self._lock(job, not job.locked), "lock")

    async def _lock(self, job: JobView, locked: bool) -> None:
        await self.feed.client.lock(job.id, locked)
        text = "is locked and stays where it is." if locked else "is unlocked and may move."
        self.sentence(f"lock {job.id}", f"{job_label(job)} {text} l takes it back.")

    def stop_or_continue(self, job: JobView) -> None:
        """SIGSTOP, or SIGCONT if it is stopped."""
        import signal

        stopped = job.state is JobState.STOPPED
        number = signal.SIGCONT if stopped else signal.SIGSTOP
        text = "goes on." if stopped else "is stopped. z lets it go on."
        self.ask(self._signal_job(job, int(number), f"{job_label(job)} {text}"), "signal")

    async def _signal_job(self, job: JobView, number: int, text: str) -> None:
        await self.feed.client.signal(job.id, number)
        self.sentence(f"signal {job.id}", text)

    def ask_signal(self, job: JobView | None, proc: ProcView | None) -> None:
        """Choose a signal for a job, or for a process that is no job."""
        from omview.screens.signals import SignalDialog

        if self.view is None or (job is None and proc is None):
            return
        self.push_screen(SignalDialog(job, proc, self.view), lambda number: self._send(job, proc, number))

    def _send(self, job: JobView | None, proc: ProcView | None, number: int | None) -> None:
        import signal

        if number is None:
            return
        name = signal.Signals(number).name
        if job is not None:
            self.ask(self._signal_job(job, number, f"Sent {name} to {job_label(job)}."), "signal")
        elif proc is not None:
            self.ask(self._signal_process(proc, number, f"Sent {name} to {proc.name} {proc.key.pid}."), "signal")

    async def _signal_process(self, proc: ProcView, number: int, text: str) -> None:
        await self.feed.client.signal_process(proc.key, number)
        self.sentence(f"signal {proc.key}", text)

    async def action_quit(self) -> None:
        """Textual's `ctrl+q`: the same as `q`."""
        self.quit_or_ask()

    def action_help_quit(self) -> None:
        """Textual's `ctrl+c`, which must not end anything by accident."""
        self.sentence("quit", "Press q to quit.")

    def quit_or_ask(self) -> None:
        """Quit; while something moves say first what that means."""
        moving = len(running_moves(self.view)) if self.view is not None and self.live else 0
        if not moving:
            self.exit(0)
            return
        from omview.screens.quit import QuitDialog

        embedded = self.view is not None and self.view.engine == "embedded"
        self.push_screen(QuitDialog(moving, embedded, self.engine_note), lambda yes: self.exit(0) if yes else None)


def _moving_lines(job: JobView, source: str, dest: str, step: str, share: float | None, far: str) -> list[Ink]:
    head: Ink = [
        ("» Moving ", "move b"),
        (fmt.cut_middle(job_label(job), 16), "text b"),
        (f"  {fmt.cut_middle(source, 10)} → {fmt.cut_middle(dest, 10)}", "text"),
    ]
    line: Ink = [(step, "text b")]
    if share is not None:
        full = round(share * 12)
        line += [("  " + "━" * full, "move"), ("─" * (12 - full), "line"), (f" {share * 100:3.0f}%", "text b")]
    if far:
        line.append((f"  {far}", "muted"))
    return [head, line]


def _result_lines(job: JobView, result: MoveResult) -> list[Ink]:
    name: tuple[str, str] = (fmt.cut_middle(job_label(job), 16), "text b")
    if not result.ok:
        lines = fmt.wrap(f"{result.error} {result.hint}".strip() or "No reason was given.", 50, 4)
        return [
            [("× Not moved ", "busy b"), name, (f" stays on {fmt.cut_middle(result.source, 12)}", "text")],
            *[[(line, "text")] for line in lines],
        ]
    route = f"  {fmt.cut_middle(result.source, 10)} → {fmt.cut_middle(result.dest, 10)}"
    return [
        [("✓ Moved ", "accent b"), name, (route, "text")],
        [
            ("frozen ", "muted"),
            (fmt.freeze(result.freeze_s), "text b"),
            (f"   {fmt.size(result.bytes)} in {fmt.about(result.total_s)}", "muted"),
        ],
        [("U", "accent b"), (" bring it back   ", "muted"), ("esc", "accent b"), (" close", "muted")],
    ]


def run_app(app: OmView) -> int:
    """Run to the end; the exit code of the process."""
    code = app.run()
    return code if code is not None else app.return_code or 0
