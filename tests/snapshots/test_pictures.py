"""Pictures of the screens with fixed data; `pytest --snapshot-update` renews them on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from omcore.types import ClusterView, JobState, NodeState
from omview.app import OmView
from omview.screens.processes import ProcessScreen
from omview.widgets.canvas import Canvas
from tests import demo

SMALL, LARGE = (80, 24), (160, 50)


def lost() -> ClusterView:
    """cedar is lost, birch is stale."""
    nodes = (
        demo.node(1),
        demo.node(2, state=NodeState.STALE, age_s=7.0),
        demo.node(3, state=NodeState.LOST, age_s=23.0),
        demo.node(4),
    )
    return demo.view(nodes=nodes)


def still() -> ClusterView:
    """Nothing moves."""
    return demo.view(moves=demo.MOVES[1:], jobs=tuple(job for job in demo.JOBS if job.state is not JobState.MOVING))


def alone() -> ClusterView:
    """One machine, no jobs, nothing happened."""
    return demo.view(nodes=(demo.node(1),), jobs=(), moves=(), events=(), cluster="")


CASES: dict[str, tuple[Callable[[], ClusterView], tuple[str, ...], tuple[int, int], dict[str, object]]] = {
    "cluster_cards": (demo.view, (), LARGE, {}),
    "cluster_rows": (demo.view, (), SMALL, {}),
    "cluster_day": (demo.view, (), LARGE, {"theme": "om-day"}),
    "cluster_sixteen": (demo.view, (), SMALL, {"theme": "om-16"}),
    "cluster_ascii": (demo.view, (), SMALL, {"ascii": True}),
    "cluster_lost": (lost, (), LARGE, {}),
    "cluster_lost_small": (lost, ("down", "down"), SMALL, {}),
    "cluster_alone": (alone, (), LARGE, {}),
    "cluster_tiny": (demo.view, (), (38, 9), {}),
    "node": (demo.view, ("2",), LARGE, {}),
    "processes": (demo.view, ("3",), LARGE, {}),
    "processes_small": (demo.view, ("3", "down"), SMALL, {}),
    "processes_ascii": (demo.view, ("3",), SMALL, {"ascii": True}),
    "processes_filtered": (demo.view, ("3", "slash", *"!kernel cpu>50", "enter", "t"), (100, 30), {}),
    "migrate": (still, ("3", "m"), LARGE, {}),
    "migrate_small": (still, ("3", "m"), SMALL, {}),
    "migrations": (demo.view, ("4",), LARGE, {}),
    "help": (demo.view, ("3", "question_mark"), LARGE, {}),
    "palette": (demo.view, ("3", "ctrl+p", *"mo"), LARGE, {}),
    "signals": (still, ("3", "K"), SMALL, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_picture(case: str, snap_compare: Callable[..., bool]) -> None:
    view, keys, size, more = CASES[case]
    app = OmView(demo.DemoClient(view()), clock=demo.clock, **more)  # type: ignore[arg-type]

    async def press(pilot: Pilot[int]) -> None:
        def drawn() -> str:
            canvas = app.screen.query(Canvas)
            return canvas.first().sheet.text() if canvas else ""

        while "atlas" not in drawn():
            await pilot.pause()
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
            while key == "3" and not (
                isinstance(app.screen, ProcessScreen) and app.screen.rows and "ffmpeg" in drawn()
            ):
                await pilot.pause()
        wanted = {"m": "Where to?", "K": "Send a signal", "2": "Jobs here", "4": "History"}.get(
            keys[-1] if keys else ""
        )
        while wanted and wanted not in drawn():
            await pilot.pause()
        while any(worker.group in {"forecast", "verbs"} and worker.is_running for worker in app.workers):
            await pilot.pause()
        app.redraw()
        await pilot.pause()

    assert snap_compare(app, terminal_size=size, run_before=press)


def test_there_are_not_too_many_pictures() -> None:
    assert len(CASES) <= 20
