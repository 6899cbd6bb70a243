"""What the four screens share: one canvas, the keys of the command table, and the verbs on a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from omcore.types import JobView, NodeState, ProcView
from omview import commands
from omview.commands import HIDDEN, MOVES, Situation
from omview.model import live_jobs, node_name, running_moves
from omview.widgets import frame
from omview.widgets.canvas import Canvas
from omview.widgets.look import Look
from omview.widgets.sheet import Hit, Sheet

if TYPE_CHECKING:
    from omview.app import OmView


def bindings(screen: str) -> list[BindingType]:
    """Textual's bindings for a screen, made from the one table."""
    made: list[BindingType] = [
        Binding(
            ",".join(command.keys),
            command.action,
            command.label or command.help,
            show=False,
            tooltip=command.help,
            id=f"{screen}.{command.id}",
        )
        for command in commands.of_screen(screen)
    ]
    return made + [Binding(key, action, show=False) for key, action in MOVES]


class OmScreen(Screen[None]):
    """A full screen: header, its own body, footer, toasts; drawn on one canvas when something changed."""

    NAME: ClassVar[str] = ""
    AUTO_FOCUS = ""

    @property
    def om(self) -> OmView:
        """The app, with its own type."""
        return cast("OmView", self.app)

    def compose(self) -> ComposeResult:
        """One canvas."""
        yield Canvas(self.om.paint, id="body")

    # ---- what subclasses fill in

    def draw(self, sheet: Sheet, look: Look) -> None:
        """Draw the rows between header and footer."""
        raise NotImplementedError

    def job_at_cursor(self) -> JobView | None:
        """The job that the verbs act on."""
        return None

    def proc_at_cursor(self) -> ProcView | None:
        """The process under the cursor."""
        return None

    def rows_count(self) -> int:
        """How many rows the cursor can visit."""
        return 0

    def engine_back(self) -> None:
        """The engine answers again after it was gone: ask anew for what this screen follows."""

    def take_early(self, event: events.Key) -> bool:
        """Whether a key that was typed before a line had the focus belongs into it."""
        return False

    def cursor_line(self) -> int | None:
        """The row of the screen on which the cursor is; toasts avoid it."""
        return None

    def situation(self) -> Situation:
        """All that decides which commands can work now."""
        view, job = self.om.view, self.job_at_cursor()
        lost = {node.number for node in view.nodes if node.state is NodeState.LOST} if view else set()
        return Situation(
            screen=self.NAME,
            live=self.om.live,
            nodes=len(view.nodes) if view else 0,
            node_name=node_name(view, self.om.node) if view else "",
            job=job,
            home_name=node_name(view, job.home) if view and job else "",
            proc=self.proc_at_cursor(),
            rows=self.rows_count(),
            undo=self.om.undo_words(),
            toasts=bool(self.om.toasts),
            moving=len(running_moves(view)) if view else 0,
            heard=job is None or job.node not in lost,
        )

    # ---- drawing

    def redraw(self) -> None:
        """Draw the picture of now; where it equals the last one nothing is sent."""
        if not self.is_mounted or not self.is_current or self.size.width == 0:
            return
        width, height = self.size
        sheet = Sheet(width, height)
        look, now = self.om.look(), self.om.clock()
        if width < frame.TINY[0] or height < frame.TINY[1]:
            frame.draw_tiny(sheet, look, now, self.situation().moving)
        else:
            if look is None:
                sheet.put(2, 3, self.om.waiting_words(), "muted")
            else:
                self.draw(sheet, look)
                if not self.om.live:
                    fade(sheet)
            frame.header(sheet, self.NAME, look, self.om.state_words(), now)
            frame.draw_footer(sheet, self.situation())
            frame.draw_toasts(sheet, self.om.toasts, self.cursor_line())
        self.query_one("#body", Canvas).show(sheet, self.om.paint)

    def on_resize(self) -> None:
        """One relayout, data kept."""
        self.call_after_refresh(self.redraw)

    def on_screen_resume(self) -> None:
        """Catch up with what happened while hidden."""
        self.redraw()

    # ---- keys and mouse

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """False where a command makes no sense at all; one that only cannot work now says why when pressed."""
        text = f"{action}({', '.join(map(repr, parameters))})" if parameters else action
        command = commands.by_action(self.NAME, text)
        return command is None or command.when(self.situation()) != HIDDEN

    def may(self, action: str) -> bool:
        """Whether a command can work now; says why not."""
        command = commands.by_action(self.NAME, action)
        reason = command.when(self.situation()) if command else ""
        if reason and reason != HIDDEN:
            job = self.job_at_cursor()
            self.om.say_not_now(job, reason)
        return not reason

    @on(Canvas.Pressed)
    def pressed(self, event: Canvas.Pressed) -> None:
        """Keys and tabs can be clicked; the rest is the screen's own."""
        kind, value = event.hit
        if kind == "key":
            self.app.simulate_key(str(value))
        else:
            self.clicked(event.hit, event.count)

    def clicked(self, hit: Hit, count: int) -> None:
        """Something of the body was clicked, `count` times."""

    @on(Canvas.Wheeled)
    def wheeled(self, event: Canvas.Wheeled) -> None:
        """The wheel moves the cursor."""
        self.action_down(event.lines)

    def on_paste(self, event: events.Paste) -> None:
        """Pasted text must not be taken for keys."""
        event.stop()

    def action_down(self, lines: int) -> None:
        """Move the cursor."""

    def action_right(self, cells: int) -> None:
        """Move the cursor sideways, where there is a sideways."""
        self.action_down(cells)

    def action_page(self, pages: int) -> None:
        """Move by a screenful."""
        self.action_down(pages * max(1, self.size.height - 8))

    def action_ends(self, last: int) -> None:
        """First or last row."""
        self.action_down(self.rows_count() if last else -self.rows_count())

    # ---- actions everywhere

    def action_go(self, screen: str) -> None:
        """Another screen."""
        self.om.go(screen)

    def action_pause(self) -> None:
        """Hold the picture, or go on."""
        self.om.toggle_pause()

    def action_shot(self) -> None:
        """Save a screenshot."""
        self.om.save_shot()

    def action_next_theme(self) -> None:
        """The next of our themes."""
        self.om.next_theme()

    def action_redraw(self) -> None:
        """Draw all cells anew and, if the engine is gone, try it now."""
        self.om.try_engine_now()
        self.refresh(layout=True)
        self.query_one("#body", Canvas).refresh()

    def action_leave(self) -> None:
        """Close what is open: here the newest toast."""
        self.om.drop_toast()

    def action_quit(self) -> None:
        """Quit; asks while something moves."""
        self.om.quit_or_ask()

    def action_help(self) -> None:
        """Keys and signs of this screen."""
        from omview.screens.help import HelpDialog  # with its screen: not needed for the first picture

        self.app.push_screen(HelpDialog(self.NAME))

    def action_palette(self) -> None:
        """All commands."""
        from omview.screens.palette import Palette

        self.app.push_screen(Palette(self.situation()), self._run_offer)

    def _run_offer(self, action: str | None) -> None:
        if action:
            self.run_worker(self.run_action(action), exit_on_error=True)

    # ---- verbs on a job

    def action_migrate(self) -> None:
        """Choose where; on a process that is no job, say what to do."""
        job, proc = self.job_at_cursor(), self.proc_at_cursor()
        if job is None and proc is not None:
            self.om.say_no_job(proc)
        elif job is not None and self.may("migrate"):
            self.om.ask_migrate(job)

    def action_home(self) -> None:
        """Bring it home, after the same question."""
        job = self.job_at_cursor()
        if job is not None and self.may("home"):
            self.om.ask_migrate(job, to=job.home, verb="home")

    def action_undo(self) -> None:
        """Take the last move back, after the same question."""
        if self.may("undo") and self.om.view is not None and self.om.undo is not None:
            undo = self.om.undo
            job = next((job for job in live_jobs(self.om.view) if job.id == undo.job), None)
            if job is not None:
                self.om.ask_migrate(job, to=undo.node, verb="back")

    def action_lock(self) -> None:
        """Lock or unlock; takes effect at once, for it can be taken back."""
        job = self.job_at_cursor()
        if job is not None and self.may("lock"):
            self.om.lock(job)

    def action_stop(self) -> None:
        """Stop it, or let it go on."""
        job = self.job_at_cursor()
        if job is not None and self.may("stop"):
            self.om.stop_or_continue(job)

    def action_kill(self) -> None:
        """Choose a signal."""
        if self.may("kill"):
            self.om.ask_signal(self.job_at_cursor(), self.proc_at_cursor())


def fade(sheet: Sheet) -> None:
    """The last picture stays, dimmed, while nobody knows whether it is still true."""
    for specs in sheet.specs:
        specs[:] = ["faint" if spec != "line" else "line" for spec in specs]
