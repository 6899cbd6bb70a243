"""Keys in, questions to the engine and words on the screen out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from omcore.client import Client
from omcore.errors import EngineUnreachable, Refused
from omcore.types import ClusterView, JobId, JobState, MovePlan, MoveResult, NodeState, ProcDelta, ProcKey, ProcView
from omview.app import OmView
from omview.screens.base import OmScreen
from omview.screens.processes import ProcessScreen
from omview.widgets.canvas import Canvas
from tests import demo

FFMPEG, POVRAY, MYSQLD = demo.JOBS[0], demo.JOBS[1], demo.JOBS[9]
STILL = demo.view(moves=demo.MOVES[1:], jobs=tuple(job for job in demo.JOBS if job.state is not JobState.MOVING))


def text(app: OmView) -> str:
    """What stands on the screen now."""
    canvas = app.screen.query(Canvas)
    return canvas.first().sheet.text() if canvas else ""


async def until(pilot: Pilot[int], true: Callable[[], bool]) -> None:
    """Let the app work until this holds; the test's time limit is the only clock."""
    while not true():
        await pilot.pause()


@asynccontextmanager
async def running(
    client: demo.DemoClient, *keys: str, size: tuple[int, int] = (120, 40), **more: object
) -> AsyncIterator[tuple[OmView, Pilot[int]]]:
    app = OmView(client, clock=demo.clock, **more)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.view is not None and "atlas" in text(app))
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
            if key == "3":
                await until(pilot, lambda: isinstance(app.screen, ProcessScreen) and app.screen.book.asked)
        await pilot.pause()
        yield app, pilot


async def asked(client: demo.DemoClient, pilot: Pilot[int], name: str) -> tuple[object, ...]:
    """The first such question to the engine."""
    await until(pilot, lambda: any(call[0] == name for call in client.calls))
    return next(call for call in client.calls if call[0] == name)


async def shows(app: OmView, pilot: Pilot[int], words: str) -> None:
    """Wait until the screen has these words."""
    await until(pilot, lambda: words in text(app))


async def test_the_cluster_screen_shows_every_node() -> None:
    async with running(demo.DemoClient()) as (app, _):
        for word in ("atlas", "birch", "cedar", "delta", "2.31", "ffmpeg", "Now", "1 moving"):
            assert word in text(app)


@pytest.mark.parametrize(("key", "word"), [("2", "Load per core"), ("3", "move?"), ("4", "History")])
async def test_digits_change_the_screen(key: str, word: str) -> None:
    async with running(demo.DemoClient(), key) as (app, pilot):
        await shows(app, pilot, word)
        await pilot.press("1")
        await shows(app, pilot, "Now")


async def test_m_then_y_moves_the_job_under_the_cursor_to_the_best_node() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "m") as (app, pilot):
        await shows(app, pilot, "Where to?")
        assert "best: gains 18% speed" in text(app)
        await pilot.press("y")
        assert await asked(client, pilot, "migrate") == ("migrate", FFMPEG.id, "4")
        await shows(app, pilot, "frozen 0.61 s")
        assert "U bring it back" in text(app)


@pytest.mark.parametrize("key", ["enter", "n", "escape"])
async def test_the_default_is_no(key: str) -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "m") as (app, pilot):
        await shows(app, pilot, "Where to?")
        await pilot.press(key)
        await shows(app, pilot, "move?")
        assert not [call for call in client.calls if call[0] == "migrate"]


@pytest.mark.parametrize(
    ("keys", "node"), [(("2",), "2"), (("down", "down"), "3"), (("k",), "4"), (("9", "down"), "4")]
)
async def test_digits_and_arrows_choose_the_target(keys: tuple[str, ...], node: str) -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "m") as (app, pilot):
        await shows(app, pilot, "Where to?")
        await pilot.press(*keys, "tab", "enter")
        assert (await asked(client, pilot, "migrate"))[2] == node


async def test_u_brings_the_last_move_back() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "m") as (app, pilot):
        await shows(app, pilot, "Where to?")
        await pilot.press("y")
        await shows(app, pilot, "frozen 0.61 s")
        moved = replace(FFMPEG, node=4)
        client.push(replace(STILL, jobs=(moved, *STILL.jobs[1:])))
        await until(pilot, lambda: app.view is not None and app.view.jobs[0].node == 4)
        client.calls.clear()
        await pilot.press("U")
        await shows(app, pilot, "Bring back ffmpeg")
        await shows(app, pilot, "frozen about")
        await pilot.press("y")
        assert await asked(client, pilot, "migrate") == ("migrate", FFMPEG.id, "1")


async def test_h_asks_with_home_chosen() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "down", "h") as (app, pilot):
        await shows(app, pilot, "Bring home povray")
        await shows(app, pilot, "frozen about")
        await pilot.press("y")
        assert await asked(client, pilot, "migrate") == ("migrate", POVRAY.id, "1")


async def test_a_refused_move_says_why_and_that_the_job_stays() -> None:
    client = demo.DemoClient(STILL)
    client.result = MoveResult(FFMPEG.id, "atlas", "delta", False, error="delta ran out of memory.", hint="Free some.")
    async with running(client, "3", "m") as (app, pilot):
        await shows(app, pilot, "Where to?")
        await pilot.press("y")
        await shows(app, pilot, "stays on atlas")
        assert "delta ran out of memory. Free some." in text(app)
        assert app.undo is None


async def test_a_job_without_a_plan_says_why() -> None:
    client = demo.DemoClient(STILL)
    client.refuse = Refused("It holds a GPU.", "Run it without.")
    async with running(client, "3", "m") as (app, pilot):
        await until(
            pilot, lambda: any("It holds a GPU" in part for t in app.toasts for line in t.lines for part, _ in line)
        )


async def test_a_running_move_shows_steps_and_bytes() -> None:
    client = demo.DemoClient(STILL)
    client.move_gate = asyncio.Event()
    async with running(client, "3", "m") as (app, pilot):
        await shows(app, pilot, "Where to?")
        await pilot.press("y")
        await asked(client, pilot, "migrate")
        move = replace(demo.MOVES[0], job=FFMPEG.id, source=1, dest=4)
        client.push(replace(STILL, moves=(move, *STILL.moves)))
        await shows(app, pilot, "1.4 of 2.2 GiB")
        assert "Moving ffmpeg" in text(app)
        client.move_gate.set()
        await shows(app, pilot, "Moved ffmpeg")


async def test_a_process_that_is_no_job_is_told_how_to_become_one() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "end", "m") as (app, pilot):
        await shows(app, pilot, "omview run COMMAND")
        assert not [call for call in client.calls if call[0] == "migrate"]


async def test_l_locks_and_unlocks_at_once() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "l") as (app, pilot):
        assert await asked(client, pilot, "lock") == ("lock", FFMPEG.id, True)
        await shows(app, pilot, "is locked and stays where it is")
        client.calls.clear()
        await pilot.press("slash", *"mysqld", "enter", "l")
        assert await asked(client, pilot, "lock") == ("lock", MYSQLD.id, False)


async def test_a_locked_job_says_why_it_does_not_move() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "slash", *"mysqld", "enter", "m") as (app, pilot):
        await shows(app, pilot, "it is locked")


async def test_k_sends_the_chosen_signal_after_a_yes() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "K") as (app, pilot):
        await shows(app, pilot, "Send a signal to ffmpeg")
        await pilot.press("down", "y")
        assert await asked(client, pilot, "signal") == ("signal", FFMPEG.id, 2)


async def test_k_on_a_plain_process_names_it_by_its_key_and_enter_sends_nothing() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "slash", *"udevd", "enter", "K") as (app, pilot):
        await shows(app, pilot, "Send a signal to")
        await pilot.press("enter")
        await shows(app, pilot, "move?")
        await pilot.press("K")
        await shows(app, pilot, "Send a signal to")
        await pilot.press("9", "y")
        call = await asked(client, pilot, "signal_process")
        assert isinstance(call[1], ProcKey)
        assert call[2] == 9


async def test_z_stops_a_job() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "z") as (app, pilot):
        assert await asked(client, pilot, "signal") == ("signal", FFMPEG.id, 19)
        await shows(app, pilot, "z lets it go on")


async def test_the_filter_works_while_it_is_typed_and_esc_clears_it() -> None:
    async with running(demo.DemoClient(), "3", "slash", *"cpu>300") as (app, pilot):
        await shows(app, pilot, "3 of 402 shown")
        assert "make" not in text(app).split("move?")[0]
        await pilot.press("escape")
        assert isinstance(app.screen, ProcessScreen)
        assert app.screen.text == "cpu>300"
        await pilot.press("escape")
        await shows(app, pilot, "402 of 402 shown")


async def test_the_cursor_goes_with_its_job_to_the_other_node() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "slash", *"python", "enter") as (app, pilot):
        screen = app.screen
        assert isinstance(screen, ProcessScreen)
        await until(pilot, lambda: screen.job_at_cursor() is not None)
        job = screen.job_at_cursor()
        assert job is not None
        old = screen.proc_at_cursor()
        assert old is not None
        other = next(n for n in (2, 3) if n != job.node)
        jobs = tuple(replace(each, node=other) if each.id == job.id else each for each in STILL.jobs)
        client.push(demo.view(moves=demo.MOVES[1:], jobs=jobs, serial=2))
        await until(pilot, lambda: app.view is not None and app.view.serial == 2)  # told before the process goes
        client.deltas.put_nowait(ProcDelta((job.node,), gone=(old.key,)))
        await until(pilot, lambda: old.key not in screen.book.procs)
        screen.redraw()
        on_the_way = screen.job_at_cursor()
        assert on_the_way is not None
        assert on_the_way.id == job.id
        new = replace(old, key=ProcKey(other, 77, 5))
        client.deltas.put_nowait(ProcDelta((other,), changed=(new,)))
        await until(pilot, lambda: new.key in screen.book.procs)
        screen.redraw()
        assert screen.proc_at_cursor() == new


async def test_a_screenshot_can_be_taken_of_a_dialog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    async with running(demo.DemoClient(STILL), "3", "m") as (app, pilot):
        await shows(app, pilot, "Where to?")
        await pilot.press("ctrl+e")
        await until(pilot, lambda: bool(list(tmp_path.glob("*.svg"))))
        await shows(app, pilot, "Where to?")


async def test_quick_typing_goes_where_it_belongs() -> None:
    async with running(demo.DemoClient(STILL), "3") as (app, pilot):
        for key in ("slash", *"make", "enter", "m"):  # all at once, as over a slow link
            app.post_message(events.Key(key, {"slash": "/", "enter": "\r"}.get(key, key)))
        await shows(app, pilot, "Move make 9188")
        await pilot.press("escape")
        await shows(app, pilot, "of 402 shown   esc clear")
        screen = app.screen
        assert isinstance(screen, ProcessScreen)
        assert screen.text == "make"
        assert not app.paused


async def test_a_wrong_filter_keeps_the_last_one_that_worked() -> None:
    async with running(demo.DemoClient(), "3", "slash", *"ffmpeg", "enter") as (app, pilot):
        screen = app.screen
        assert isinstance(screen, ProcessScreen)
        screen._set_filter("cpu>>5")
        await shows(app, pilot, "cpu>>5: a number is expected after >")
        assert screen.rows_count() == 1
        screen._set_filter("nothing-has-this")
        await shows(app, pilot, "Nothing matches nothing-has-this. 402 processes are hidden.")


async def test_the_cursor_follows_its_process() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "down", "down") as (app, pilot):
        screen = app.screen
        assert isinstance(screen, ProcessScreen)
        chosen = screen.key
        busy = tuple(
            replace(proc, cpu_percent=500.0 + proc.key.pid) for proc in client.procs if proc.command.startswith("cron")
        )
        client.deltas.put_nowait(ProcDelta((1, 2, 3, 4), busy))
        await until(pilot, lambda: any(proc.cpu_percent > 500 for proc in screen.book.procs.values()))
        screen._stale_order = True
        app.redraw()
        assert screen.key == chosen
        assert screen.rows[0][0].proc.name == "cron"
        gone = next(proc for proc in client.procs if proc.key == chosen)
        client.deltas.put_nowait(ProcDelta((1, 2, 3, 4), (), (gone.key,)))
        await until(pilot, lambda: gone.key not in screen.book.procs)
        app.redraw()
        assert screen.key != chosen
        assert screen.current() is not None


async def test_a_broken_process_list_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omview.app.LIST_RETRY_S", 0.01)
    client = demo.DemoClient(STILL)
    async with running(client, "3") as (app, pilot):
        client.deltas.put_nowait(None)
        await shows(app, pilot, "The process list stopped: the list broke")
        await until(pilot, lambda: client.calls.count(("processes", ())) == 2)


async def test_waiting_for_a_plan_is_said_in_words() -> None:
    client = demo.DemoClient(STILL)
    gate = asyncio.Event()
    plan = client.plan

    async def slow(job: JobId) -> MovePlan:
        await gate.wait()
        return await plan(job)

    async with running(client, "3") as (app, pilot):
        client.plan = slow  # type: ignore[method-assign]
        await pilot.press("m")
        await shows(app, pilot, "Asking where ffmpeg could go …")
        await pilot.press("y", "2")
        gate.set()
        await shows(app, pilot, "Where to?")
        assert not [call for call in client.calls if call[0] == "migrate"]
        await pilot.press("y")
        assert (await asked(client, pilot, "migrate"))[2] == "2"


async def test_a_node_that_refuses_or_is_not_there_is_no_target_and_nor_is_another_instead() -> None:
    client = demo.DemoClient(STILL)
    plan = client.plan

    async def choosy(job: JobId) -> MovePlan:
        made = await plan(job)
        birch = replace(made.targets[0], node=2, ok=False, reason="it is full.", hint="Drain it.")
        return replace(made, targets=(*(each for each in made.targets if each.node != 2), birch))

    client.plan = choosy  # type: ignore[method-assign]
    async with running(client, "3", "m") as (app, pilot):
        await shows(app, pilot, "frozen about")
        await pilot.press("2")
        await shows(app, pilot, "birch refuses: it is full. Drain it.")
        await pilot.press("y", "tab", "7")
        await shows(app, pilot, "There is no node 7.")
        await pilot.press("y")
        assert "frozen about" not in text(app)
        await pilot.press("4")
        await shows(app, pilot, "frozen about")
        await pilot.press("y")
        assert (await asked(client, pilot, "migrate"))[2] == "4"


async def test_brackets_choose_the_node_and_a_node_lists_its_deputies() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "right_square_bracket", "right_square_bracket") as (app, pilot):
        await until(pilot, lambda: ("processes", (2,)) in client.calls)
        await shows(app, pilot, "gnuplot → delta")
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: ("processes", (1,)) in client.calls)
        await pilot.press("backslash")
        await shows(app, pilot, "All 4 nodes")


async def test_order_tree_and_jobs_only() -> None:
    async with running(demo.DemoClient(), "3", "o") as (app, pilot):
        screen = app.screen
        assert isinstance(screen, ProcessScreen)
        assert screen.order == "mem"
        await pilot.press("O", "t", "v")
        assert (screen.reversed, screen.as_tree, screen.jobs_only) == (True, True, True)
        assert screen.rows_count() == len(demo.JOBS)
        await pilot.press("escape")
        assert not screen.jobs_only
        await pilot.press("enter")
        await shows(app, pilot, "Can it move?")


async def test_m_on_a_node_lists_its_jobs() -> None:
    async with running(demo.DemoClient(), "right", "m") as (app, pilot):
        await until(pilot, lambda: isinstance(app.screen, ProcessScreen) and app.screen.rows_count() > 0)
        assert isinstance(app.screen, ProcessScreen)
        assert (app.screen.only, app.screen.jobs_only) == (2, True)


async def test_hidden_screens_ask_for_nothing() -> None:
    client = demo.DemoClient()
    async with running(client, "3", "1") as (app, pilot):
        await shows(app, pilot, "Now")
        assert not [worker for worker in app.workers if worker.group == "list" and worker.is_running]


async def test_equal_pictures_draw_nothing() -> None:
    async with running(demo.DemoClient(), "3") as (app, pilot):
        canvas = app.screen.query_one(Canvas)
        await pilot.pause()
        drawn: list[object] = []
        canvas.refresh = lambda *regions, **_: drawn.append(regions)  # type: ignore[assignment,method-assign]
        app.redraw()
        assert not drawn


async def test_when_the_engine_goes_the_picture_stays_and_it_tries_again() -> None:
    client, other = demo.DemoClient(), demo.DemoClient()
    attempts: list[int] = []

    async def connect() -> Client:
        attempts.append(1)
        if len(attempts) == 1:
            raise EngineUnreachable("nobody answers")
        return other

    async with running(client, connect=connect) as (app, pilot):
        client.gone = "the engine ended"
        client.push()
        await shows(app, pilot, "engine gone, next try in 1 s")
        assert "atlas" in text(app)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: len(attempts) == 1)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.live)
        await shows(app, pilot, "live")


async def test_without_a_way_back_it_says_so() -> None:
    client = demo.DemoClient()
    async with running(client) as (app, pilot):
        client.gone = "the engine ended"
        client.push()
        await shows(app, pilot, "engine gone")
        assert "next try" not in text(app)
        assert "m move a job" not in text(app)


async def test_q_quits_at_once_when_nothing_moves() -> None:
    async with running(demo.DemoClient(STILL), "q") as (app, _):
        assert app.return_value == 0


async def test_q_asks_while_something_moves_and_says_what_it_means() -> None:
    embedded = demo.view(engine="embedded")
    async with running(demo.DemoClient(embedded), "q") as (app, pilot):
        await shows(app, pilot, "1 job is moving.")
        assert "The engine runs in this window" in text(app)
        await pilot.press("enter")
        await shows(app, pilot, "Now")
        await pilot.press("q")
        await shows(app, pilot, "1 job is moving.")
        await pilot.press("y")
    assert app.return_value == 0


async def test_help_is_made_from_the_table_and_typing_searches() -> None:
    async with running(demo.DemoClient(), "3", "question_mark", size=(160, 50)) as (app, pilot):
        await shows(app, pilot, "migrate: choose where")
        await pilot.press(*"unlock")
        await until(pilot, lambda: "migrate: choose where" not in text(app))
        assert "lock, unlock" in text(app)
        await pilot.press("escape", "escape")
        await shows(app, pilot, "cpu %")


async def test_the_palette_does_what_its_line_says() -> None:
    client = demo.DemoClient(STILL)
    async with running(client, "3", "ctrl+p", *"lock ffm", "enter") as (app, pilot):
        assert await asked(client, pilot, "lock") == ("lock", FFMPEG.id, True)


async def test_the_palette_runs_commands_with_arguments() -> None:
    async with running(demo.DemoClient(), "colon", *"go to migr", "enter") as (app, pilot):
        await until(pilot, lambda: app.current_mode == "migrations")


@pytest.mark.parametrize("size", [(59, 20), (38, 9), (80, 15)])
async def test_small_windows_are_still_useful(size: tuple[int, int]) -> None:
    async with running(demo.DemoClient(), size=size) as (app, _):
        assert "2.31" in text(app)
        assert "quit" in text(app)


async def test_the_smallest_window_shows_the_name() -> None:
    app = OmView(demo.DemoClient(), clock=demo.clock)
    async with app.run_test(size=(19, 2)) as pilot:
        await until(pilot, lambda: app.view is not None)
        app.redraw()
        assert text(app).strip() == "omview"
        await pilot.resize_terminal(100, 30)
        await shows(app, pilot, "birch")


async def test_resizing_keeps_the_data() -> None:
    async with running(demo.DemoClient(), "3", "down", size=(160, 50)) as (app, pilot):
        screen = app.screen
        assert isinstance(screen, ProcessScreen)
        key = screen.key
        await pilot.resize_terminal(80, 24)
        await shows(app, pilot, "4 Moves")
        assert screen.key == key


def _lost(number: int) -> ClusterView:
    nodes = tuple(demo.node(n, state=NodeState.LOST, age_s=20.0) if n == number else demo.node(n) for n in (1, 2, 3, 4))
    return demo.view(nodes=nodes)


async def test_a_lost_node_says_what_follows() -> None:
    async with running(demo.DemoClient(_lost(3)), "down", "down", size=(100, 30)) as (app, pilot):
        await shows(app, pilot, "lost, not heard for 20 s")
        assert "1 node lost" in text(app)
        await pilot.press("enter")
        await shows(app, pilot, "cedar has not been heard for 20 s")


async def test_themes_and_pause_and_copy() -> None:
    async with running(demo.DemoClient(), "3", "ctrl+t") as (app, pilot):
        assert app.theme == "om-day"
        await pilot.press("p")
        await shows(app, pilot, "paused")
        await pilot.press("p", "ctrl+y")
        await until(pilot, lambda: app.clipboard == " ".join(FFMPEG.command))


async def test_clicks_do_what_they_point_at() -> None:
    async with running(demo.DemoClient(), size=(100, 30)) as (app, pilot):
        y = next(i for i, line in enumerate(text(app).splitlines()) if "cedar" in line)
        await pilot.click(Canvas, offset=(10, y))
        await until(pilot, lambda: app.node == 3)
        x = text(app).splitlines()[0].index("3 Processes")
        await pilot.click(Canvas, offset=(x, 0))
        await until(pilot, lambda: app.current_mode == "processes")
        await until(pilot, lambda: isinstance(app.screen, ProcessScreen) and app.screen.rows_count() > 0)
        screen = app.screen
        assert isinstance(screen, ProcessScreen)
        await until(pilot, lambda: "povray" in text(app))
        lines = text(app).splitlines()
        await pilot.click(Canvas, offset=(8, next(i for i, line in enumerate(lines) if "povray" in line)))
        await until(pilot, lambda: screen.job_at_cursor() is not None and screen.job_at_cursor() != FFMPEG)
        await pilot.click(Canvas, offset=(lines[5].index("mem"), 5))
        await until(pilot, lambda: screen.order == "mem")


async def test_the_zoomed_chart_names_every_line() -> None:
    async with running(demo.DemoClient(), "g", size=(160, 50)) as (app, pilot):
        await shows(app, pilot, "the last ten minutes")
        for name in demo.NAMES:
            assert name in text(app)
        await pilot.press("right", "escape")
        assert app.node == 2


async def test_foreign_text_is_never_markup() -> None:
    evil = ProcView(ProcKey(1, 666, 1), 1, "[red]eve", "R", 900.0, 1024, 1.0, 1, "x", "[bold]x[/bold] [link=y]")
    client = demo.DemoClient(procs=(*demo.processes(), evil))
    async with running(client, "3") as (app, pilot):
        await shows(app, pilot, "[bold]x[/bold]")


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (100, 30), (139, 33), (160, 50), (240, 70)])
@pytest.mark.parametrize("screen", ["cluster", "node", "processes", "migrations"])
async def test_every_size_draws(screen: str, size: tuple[int, int]) -> None:
    async with running(demo.DemoClient(_lost(2)), size=size) as (app, pilot):
        app.go(screen)
        await until(pilot, lambda: isinstance(app.screen, OmScreen) and screen == app.screen.NAME)
        await shows(app, pilot, "? help")
        sheet = app.screen.query_one(Canvas).sheet
        assert (sheet.width, sheet.height) == size
        assert "? help" in text(app).splitlines()[-1]
