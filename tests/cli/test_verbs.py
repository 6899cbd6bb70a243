"""Verbs that act: whom they mean, what they say, how they fail."""

from __future__ import annotations

import json
import signal
from importlib import import_module
from pathlib import Path

import click
import pytest

from omcore.errors import EngineUnreachable, NotMovable
from omcore.types import MoveResult
from omview.cli.naming import find_job, find_node
from omview.cli.root import VERBS
from tests.cli.fake import OVER, WORKER, FakeClient, Omview, picture


def test_every_verb_of_the_table_exists_and_explains_itself() -> None:
    for name, verb in VERBS.items():
        command = getattr(import_module(verb.module), verb.attribute)
        assert isinstance(command, click.Command), name
        assert command.help, name


def test_the_help_lists_all_verbs(omview: Omview) -> None:
    said = omview("--help")
    assert said.code == 0
    assert all(f"  {verb} " in said.out for verb in VERBS)


def test_migrate_says_what_it_did(client: FakeClient, omview: Omview) -> None:
    said = omview("migrate", "worker", "home")
    assert (said.code, said.out) == (0, "moved worker  birch -> ash  frozen 0.09 s  16 MiB in 0.4 s\n")
    assert client.told == [("migrate", WORKER, "home")]


def test_migrate_json_has_the_promised_fields(client: FakeClient, omview: Omview) -> None:
    good = json.loads(omview("migrate", "worker", "1", "--json").out)
    assert " ".join(good) == "job from to ok freeze_s total_s bytes"
    assert (good["job"], good["from"], good["to"], good["ok"]) == (WORKER, "birch", "ash", True)
    client.result = MoveResult(WORKER, "birch", "ash", False, error="It is traced.", hint="stop the tracer")
    said = omview("migrate", "worker", "1", "--json")
    bad = json.loads(said.out)
    assert (said.code, bad["ok"], bad["error"], bad["hint"]) == (1, False, "It is traced.", "stop the tracer")


def test_migrate_json_stays_json_when_the_job_is_unknown(client: FakeClient, omview: Omview) -> None:
    said = omview("migrate", "wroker", "1", "--json")
    answer = json.loads(said.out)
    assert (said.code, said.err, answer["ok"], answer["hint"]) == (1, "", False, "did you mean worker?")


def test_a_refused_move_is_one_sentence_and_a_hint(client: FakeClient, omview: Omview) -> None:
    client.result = NotMovable("It holds an io_uring.", "end that thread first")
    said = omview("migrate", "worker", "ash")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines() == [
        "omview: It holds an io_uring.",
        "  hint: end that thread first",
    ]


@pytest.mark.parametrize(
    ("words", "sentence", "hint"),
    [
        (("migrate", "wroker", "ash"), "There is no job 'wroker'.", "did you mean worker?"),
        (("migrate", "worker", "brich"), "There is no node 'brich'.", "did you mean birch?"),
        (("migrate", "worker", "9"), "There is no node '9'.", "nodes: ash, birch, cedar"),
        (("kill", "twin"), "'twin' may be any of 2 jobs.", "name one by its id: bb220000, bb330000"),
        (("lock", "\x1b[31m"), "There is no job '\\x1b[31m'.", "omview jobs lists them"),
    ],
)
def test_unknown_names_fail_and_change_nothing(
    client: FakeClient, omview: Omview, words: tuple[str, ...], sentence: str, hint: str
) -> None:
    said = omview(*words)
    assert (said.code, said.out, client.told) == (1, "", [])
    assert said.err == f"omview: {sentence}\n  hint: {hint}\n"


def test_kill_takes_signals_as_people_write_them(client: FakeClient, omview: Omview) -> None:
    for word in ("TERM", "sigterm", "15"):
        assert omview("kill", "-s", word, "worker").code == 0
    assert client.told == [("signal", WORKER, signal.SIGTERM)] * 3
    assert omview("kill", "-s", "NOSUCH", "worker").code == 2
    assert omview("kill", "-s", "0", "worker").code == 2


def test_lock_and_unlock_take_several_jobs_and_a_typo_stops_all(client: FakeClient, omview: Omview) -> None:
    assert omview("lock", "worker", "wroker").code == 1
    assert client.told == []
    assert omview("lock", "worker").out == "locked worker\n"
    assert omview("unlock", WORKER[:6]).out == "unlocked worker\n"
    assert client.told == [("lock", WORKER, True), ("lock", WORKER, False)]


def test_jobs_are_found_by_name_id_and_beginning_of_id() -> None:
    view = picture()
    assert find_job(view, "worker").id == find_job(view, WORKER).id == find_job(view, "AA11").id == WORKER
    assert find_job(view, "over").id == OVER
    assert find_node(view, "2").name == find_node(view, "birch").name


def test_wrong_usage_is_exit_code_2_with_a_hint(omview: Omview) -> None:
    said = omview("nodse")
    assert (said.code, said.err) == (2, "omview: There is no verb 'nodse'.\n  hint: did you mean nodes?\n")
    assert omview("migrate").code == 2
    assert omview("nodes", "--jsno").code == 2


def test_no_engine_is_one_line_and_a_hint(omview: Omview, monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect() -> None:
        raise EngineUnreachable("No engine runs here.", "omview serve --daemon")

    monkeypatch.setattr("omcore.client.connect", connect)
    said = omview("nodes", "--json")
    assert (said.code, said.out) == (1, "")
    assert said.err == "omview: No engine runs here.\n  hint: omview serve --daemon\n"


def test_what_nobody_foresaw_is_one_line_and_a_crash_log(
    client: FakeClient, omview: Omview, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by \x1b[31mzero")

    monkeypatch.setattr("omview.cli.listing._print_nodes", broken)
    said = omview("nodes")
    first, second = said.err.splitlines()
    assert (said.code, said.out) == (1, "")
    assert first == "omview: this should not have happened: ZeroDivisionError: by \\x1b[31mzero."
    with open(second.split("the end of ")[1]) as log:
        assert "Traceback" in log.read()


def test_the_app_without_a_terminal_names_what_to_use_instead(omview: Omview) -> None:
    said = omview()
    assert (said.code, said.out) == (1, "")
    assert "omview nodes --json" in said.err


def test_version_names_what_a_report_needs(omview: Omview) -> None:
    found = json.loads(omview("version", "--json").out)
    assert {"omview", "textual", "pyzmq", "protocol", "python", "kernel"} <= set(found)


def test_serve_refuses_an_address_that_is_none(omview: Omview) -> None:
    said = omview("serve", "--listen", "everywhere")
    assert said.code == 1
    assert said.err.startswith("omview: omview serve: listen = 'everywhere' is not an address.\n")
