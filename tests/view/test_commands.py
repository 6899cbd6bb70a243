from dataclasses import replace

import pytest

from omcore.types import JobState
from omview import commands
from omview.commands import ALL, COMMANDS, HIDDEN, Situation
from omview.screens.base import OmScreen, bindings
from tests import demo

FFMPEG, POVRAY, MYSQLD = demo.JOBS[0], demo.JOBS[1], demo.JOBS[9]


def at(screen: str = "processes", **more: object) -> Situation:
    """A situation with four nodes and the cursor on ffmpeg."""
    proc = next(each for each in demo.processes() if each.job == FFMPEG.id)
    made = Situation(screen, True, 4, "atlas", FFMPEG, "atlas", proc, 400)
    return replace(made, **more)  # type: ignore[arg-type]


def offered(now: Situation) -> set[str]:
    return {command.id for command in commands.footer(now)}


def test_every_command_has_id_keys_help_and_screens() -> None:
    assert len({command.id for command in COMMANDS}) == len(COMMANDS)
    for command in COMMANDS:
        assert command.keys
        assert command.help
        assert len(command.help) <= 26, command.id  # a column of the help is not wider
        assert set(command.screens) <= set(ALL)
        assert command.group in {"job", "node", "shown", "everywhere"}


@pytest.mark.parametrize("screen", ALL)
def test_no_key_means_two_things_on_one_screen(screen: str) -> None:
    keys = [key for command in commands.of_screen(screen) for key in command.keys]
    keys += [key for key, _ in commands.MOVES]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("screen", ALL)
def test_every_binding_has_id_and_tooltip_and_an_action(screen: str) -> None:
    from omview.screens.cluster import ClusterScreen
    from omview.screens.migrations import MigrationScreen
    from omview.screens.node import NodeScreen
    from omview.screens.processes import ProcessScreen

    classes: dict[str, type[OmScreen]] = {
        each.NAME: each for each in (ClusterScreen, NodeScreen, ProcessScreen, MigrationScreen)
    }
    for command, binding in zip(commands.of_screen(screen), bindings(screen), strict=False):
        assert getattr(binding, "id", None) == f"{screen}.{command.id}"
        assert getattr(binding, "tooltip", "")
        assert hasattr(classes[screen], "action_" + command.action.partition("(")[0])


def test_a_letter_that_acts_means_the_same_wherever_it_works() -> None:
    for key in "hlzKU":
        assert len({command.action for command in COMMANDS if key in command.keys}) == 1


def test_the_footer_offers_only_what_works_now() -> None:
    assert {"job.migrate", "job.lock", "job.kill"} <= offered(at())
    assert "job.home" not in offered(at())  # it is at home
    assert "job.home" in offered(at(job=POVRAY))
    assert "job.migrate" not in offered(at(job=MYSQLD))
    assert "job.migrate" not in offered(at(nodes=1))
    assert not {"job.migrate", "job.lock"} & offered(at(live=False))
    moving = replace(FFMPEG, state=JobState.MOVING)
    assert not {"job.migrate", "job.lock", "job.home"} & offered(at(job=moving))
    assert "job.lock" not in offered(at(job=None))
    assert "job.migrate" not in offered(at(job=None))  # it can be pressed, but only to be told what to do
    assert "job.migrate" not in offered(at(job=None, proc=None))
    assert "job.undo" not in offered(at())
    assert "job.undo" in offered(at(undo="ffmpeg to atlas"))
    assert "app.escape" in offered(at(filtered=True))
    assert "go.processes" not in offered(at())
    assert "show.next" not in offered(at(nodes=1))
    assert "job.details" not in offered(at(rows=0))
    assert offered(at(typing=True)) == {"job.details", "app.escape"}  # all letters go into the filter
    assert not {"show.filter", "show.order", "show.jobs"} & offered(at(zoomed=True))
    assert not {"job.migrate", "job.lock", "job.kill"} & offered(at(heard=False))


def test_reasons_are_words() -> None:
    reasons = {command.id: command.when for command in COMMANDS}
    assert reasons["job.migrate"](at(job=MYSQLD)) == "it is locked"
    assert reasons["job.migrate"](at(nodes=1)) == "there is no other node"
    assert reasons["job.home"](at()) == "it is at home"
    assert reasons["job.home"](at(job=None)) == HIDDEN
    assert reasons["job.lock"](at(live=False)) == "the engine does not answer"
    assert reasons["job.lock"](at(job=replace(FFMPEG, state=JobState.ENDED))) == "it has ended"
    assert reasons["job.kill"](at(job=None, proc=None)) == HIDDEN
    assert reasons["job.undo"](at()) == "nothing was moved from here yet"
    assert reasons["show.cards"](at("cluster", layout="rows")) == "the window is too small for cards"
    assert reasons["show.cards"](at("cluster", layout="rows", cards_fit=True)) == ""
    assert reasons["show.cards"](at("cluster", layout="cards")) == HIDDEN
    assert reasons["show.rows"](at("cluster", layout="cards")) == ""


def test_labels_say_what_the_key_would_do_now() -> None:
    table = {command.id: command for command in COMMANDS}
    assert commands.label(table["job.lock"], at()) == "lock"
    assert commands.label(table["job.lock"], at(job=MYSQLD)) == "unlock"
    assert commands.label(table["job.stop"], at(job=replace(FFMPEG, state=JobState.STOPPED))) == "go on"
    assert commands.label(table["app.escape"], at(filtered=True)) == "clear"
    assert commands.label(table["app.escape"], at(toasts=True)) == "close"


def test_the_palette_names_things_and_says_why_not() -> None:
    offers = commands.palette(at(job=MYSQLD))
    titles = {offer.title: offer for offer in offers}
    assert titles["Move mysqld 1410 to …"].note == "not now: it is locked"
    assert not titles["Move mysqld 1410 to …"].able
    assert all("{" not in title for title in titles)
    assert not any("Move" in offer.title for offer in commands.palette(at(job=None)))


def test_the_palette_finds_words_in_any_order() -> None:
    offers = commands.palette(at())
    assert commands.search(offers, "ffm mov")[0].title == "Move ffmpeg 31207 to …"
    assert commands.search(offers, "") != []
    assert commands.search(offers, "no such words") == []
    assert commands.search(offers, "lock")[0].title == "Lock or unlock ffmpeg 31207"


def test_actions_are_found_by_name() -> None:
    found = commands.by_action("cluster", "go('node')")
    assert found is not None
    assert found.id == "go.node"
    assert commands.by_action("cluster", "migrate") is None
    assert commands.key_name("slash") == "/"
