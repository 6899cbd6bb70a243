"""`omview sim gossip`: what it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest

from tests.cli.fake import Omview

FIELDS = (
    "nodes window rounds seed loss dead split_s avg_age max_age p50 p90 p99 predicted published messages_per_node_s "
    "bytes_per_node_s board_messages_per_node_s board_bytes_per_node_s detection split false_suspicions false_deaths"
)


@pytest.mark.slow
def test_json_has_the_promised_fields(omview: Omview) -> None:
    said = omview("sim", "gossip", "-n", "16", "-w", "8", "--rounds", "60", "--json")
    found = json.loads(said.out)
    assert (said.code, said.err) == (0, "")
    assert " ".join(found) == FIELDS
    assert found["avg_age"] == pytest.approx(3.29, rel=0.1)
    assert (found["detection"], found["split"], found["false_deaths"]) == (None, None, 0)
    assert found["board_messages_per_node_s"] == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_json_tells_of_crashes_and_cuts(omview: Omview) -> None:
    said = omview(
        "sim", "gossip", "-n", "12", "--rounds", "3", "--dead", "0.1", "--split", "40", "--loss", "0.02", "--json"
    )
    found = json.loads(said.out)
    assert " ".join(found["detection"]) == (
        "crashed suspected_s first_s first_p95_s everybody_s everybody_most_s predicted_first_s missed"
    )
    assert " ".join(found["split"]) == "for_s avg_age max_age p50 p90 p99 predicted heal_s"
    assert found["detection"]["crashed"] == 1
    assert 4.0 < found["detection"]["first_s"] < 12.0


@pytest.mark.slow
def test_the_table_puts_measured_beside_predicted_and_published(omview: Omview) -> None:
    lines = omview("sim", "gossip", "-n", "24", "-w", "4", "--dead", "0.05", "--split", "30").out.splitlines()
    assert lines[0] == "24 nodes, window 4, 30 intervals measured, seed 1"
    assert lines[2].split() == ["MEASURED", "PREDICTED", "PUBLISHED"]
    assert lines[3].startswith("average age, s")
    assert len(lines[3].split()) == 6
    assert any(line.startswith("1 crashed: suspected after, s") for line in lines)
    assert any(line.startswith("healed after, s") for line in lines)
    assert lines[-1].split() == ["wrongly", "dead", "0", "0"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-n", "1"], "-n must be from 2 to 20000, not 1."),
        (["-n", "16", "-w", "17"], "-w must be from 1 to 16, not 17."),
        (["--loss", "1.5"], "--loss must be from 0 to 0.9, not 1.5."),
        (["--dead", "nan"], "--dead must be from 0 to 0.9, not nan."),
        (["--split", "-3"], "--split must be from 0 to 36000, not -3."),
        (["--rounds", "many"], "Invalid value for '--rounds': 'many' is not a valid integer."),
    ],
)
def test_bad_input_is_one_sentence_and_a_hint(words: list[str], text: str, omview: Omview) -> None:
    said = omview("sim", "gossip", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.splitlines() == [f"omview: {text}", "  hint: omview sim gossip --help"]
