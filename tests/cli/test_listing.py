"""The listings: fields of --json, tables that fit, nothing of a terminal in a pipe."""

from __future__ import annotations

import json

import pytest

from omcore.types import ProcDelta
from omview.cli import out
from omview.cli.listing import ending, gather_processes
from tests.cli.fake import OVER, WORKER, FakeClient, Omview, proc

NODE_FIELDS = "name number state load cpu_percent mem_used_bytes mem_total_bytes cores age_s"
JOB_FIELDS = "id name command user home node pid state locked moves"


def test_nodes_json_has_the_promised_fields(client: FakeClient, omview: Omview) -> None:
    rows = json.loads(omview("nodes", "--json").out)
    assert [" ".join(row) for row in rows] == [NODE_FIELDS] * 3
    assert rows[0] | {"age_s": 0.4} == {
        "name": "ash",
        "number": 1,
        "state": "up",
        "load": 1.25,
        "cpu_percent": 62.5,
        "mem_used_bytes": 1 << 30,
        "mem_total_bytes": 4 << 30,
        "cores": 2.0,
        "age_s": 0.4,
    }
    assert client.closed


def test_figures_of_a_node_never_heard_are_null_not_zero(client: FakeClient, omview: Omview) -> None:
    cedar = json.loads(omview("nodes", "--json").out)[2]
    assert (cedar["state"], cedar["load"], cedar["age_s"]) == ("lost", None, None)
    assert "?" in omview("nodes").out.splitlines()[3]


def test_jobs_json_has_the_promised_fields(client: FakeClient, omview: Omview) -> None:
    rows = json.loads(omview("jobs", "--json").out)
    assert {" ".join(row) for row in rows} == {JOB_FIELDS}
    worker = rows[0]
    assert (worker["home"], worker["node"], worker["moves"]) == ("ash", "birch", 3)
    assert worker["command"] == "sleep '1 000'"


def test_ended_jobs_are_listed_only_on_request(client: FakeClient, omview: Omview) -> None:
    assert OVER not in {row["id"] for row in json.loads(omview("jobs", "--json").out)}
    assert OVER in {row["id"] for row in json.loads(omview("jobs", "--all", "--json").out)}


def test_ps_shows_the_busiest_of_all_nodes_first(client: FakeClient, omview: Omview) -> None:
    rows = json.loads(omview("ps", "--json").out)
    assert [(row["node"], row["pid"]) for row in rows] == [("ash", 11), ("birch", 20), ("ash", 10)]
    assert [row["job"] for row in rows] == [WORKER, None, None]


def test_ps_options_choose_and_order(client: FakeClient, omview: Omview) -> None:
    assert [row["pid"] for row in json.loads(omview("ps", "--json", "--node", "2").out)] == [20]
    assert [row["pid"] for row in json.loads(omview("ps", "--json", "--jobs").out)] == [11]
    assert [row["pid"] for row in json.loads(omview("ps", "--json", "--sort", "pid", "-n", "2").out)] == [10, 11]
    assert omview("ps", "--sort", "colour").code == 2


def test_ps_names_a_node_that_does_not_answer(client: FakeClient, omview: Omview) -> None:
    client.deltas[1] = ProcDelta((), missing=(2,))
    said = omview("ps")
    assert (said.code, said.err) == (0, "omview: birch did not answer in time.\n")
    assert "busy --flag" in said.out


async def test_a_first_list_without_cpu_figures_is_followed_by_one_more(client: FakeClient) -> None:
    client.deltas = [
        ProcDelta((1,), (proc(1, 10, 0.0, "init"), proc(1, 11, 0.0, "gone")), full=True),
        ProcDelta((1,), (proc(1, 10, 7.0, "init"),), gone=(proc(1, 11, 0.0, "gone").key,)),
        ProcDelta((1,), (proc(1, 99, 7.0, "late"),)),
    ]
    rows, missing = await gather_processes(client, {1})
    assert [(row.key.pid, row.cpu_percent) for row in rows] == [(10, 7.0)]
    assert missing == set()


def test_a_pipe_gets_whole_lines_without_colour(client: FakeClient, omview: Omview) -> None:
    for verb in ("nodes", "jobs", "ps"):
        said = omview(verb)
        assert said.code == 0
        assert "\x1b" not in said.out
        assert said.out.isprintable() or "\n" in said.out


@pytest.mark.parametrize("width", [200, 80, 60, 40])
def test_a_table_keeps_to_the_width(width: int) -> None:
    columns = (out.Column("NAME"), out.Column("NR", "right", keep=1), out.Column("COMMAND", cut=True))
    lines = out.table_lines(columns, [["birch", "12", "python3 " + "x" * 300 + " end.py"]], width, colour=False)
    assert max(map(len, lines)) <= width
    assert lines[1].startswith("birch")
    assert lines[1].endswith("d.py")


def test_columns_that_may_go_go_where_it_is_narrow() -> None:
    columns = (out.Column("NAME"), out.Column("NR", "right", keep=1), out.Column("AGE", keep=2))
    assert out.table_lines(columns, [["birch", "12", "0.4 s"]], 11, colour=False) == ["NAME   NR", "birch  12"]


def test_foreign_text_cannot_drive_the_terminal() -> None:
    lines = out.table_lines((out.Column("NAME"),), [["\x1b]52;evil\x07\u202e"]], None, colour=True)
    assert lines[1] == "\\x1b]52;evil\\x07\\u202e"


def test_json_holds_no_control_byte(capsys: pytest.CaptureFixture[str]) -> None:
    out.print_json(["\x1b[31m\x7f\x9b\n"])
    printed = capsys.readouterr().out
    assert json.loads(printed) == ["\x1b[31m\x7f\x9b\n"]
    assert printed.replace("\n", "").isascii()
    assert printed.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("size", "table", "words"),
    [(0, "0B", "0 bytes"), (8 << 20, "8M", "8 MiB"), (1288490189, "1.2G", "1.2 GiB"), (31 << 30, "31G", "31 GiB")],
)
def test_sizes_read_as_the_house_writes_them(size: int, table: str, words: str) -> None:
    assert (out.memory(size), out.size_words(size)) == (table, words)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0.4 s"), (19.4, "19 s"), (250, "4 min"), (6600, "1 h 50 m"), (3600000, "41 d"), (None, "?")],
)
def test_ages_read_as_the_house_writes_them(seconds: float | None, words: str) -> None:
    assert out.age(seconds) == words


def test_percent_tells_nothing_from_little_and_unknown() -> None:
    assert [out.percent(value) for value in (None, 0.0, 0.4, 12.4, 398.0)] == ["?", "·", "<1", "12", "398"]
    assert out.cpu_time(4171) == "1:09:31"


def test_how_a_job_ended_is_said_for_people() -> None:
    assert [ending(status) for status in (0, 7, -9, -64, -99)] == [
        "0",
        "7",
        "by SIGKILL",
        "by SIGRTMAX",
        "by signal 99",
    ]
