"""openmosix.map: all five forms, and for every mistake the file and the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omcore.config import Config
from omcore.discovery.finder import read_map
from omcore.discovery.openmosix import parse_map
from omcore.errors import ConfigError


def hosts(text: str) -> list[tuple[int, str]]:
    return [(entry.number, entry.host) for entry in parse_map(text, "map")]


def test_plain_lines_also_with_a_name() -> None:
    text = "# nodes\n1 192.168.1.1 1\n2 192.168.1.2 1 # the second\n\n3 node3\t1\n4 192.168.1.4 1\n"
    assert hosts(text) == [(1, "192.168.1.1"), (2, "192.168.1.2"), (3, "node3"), (4, "192.168.1.4")]


def test_a_range_counts_number_and_last_byte() -> None:
    assert hosts("1 192.168.1.1 4") == [(n, f"192.168.1.{n}") for n in (1, 2, 3, 4)]


def test_mixed_ranges() -> None:
    found = hosts("1 10.0.0.1   2\n3 10.0.0.100 2\n5 10.0.0.150 1")
    assert found == [(1, "10.0.0.1"), (2, "10.0.0.2"), (3, "10.0.0.100"), (4, "10.0.0.101"), (5, "10.0.0.150")]


@pytest.mark.parametrize("word", ["ALIAS", "alias", "0"])
def test_a_second_interface_of_a_node(word: str) -> None:
    entries = parse_map(f"1 192.168.1.1 4\n4 192.168.10.10 {word}", "map")
    assert [(entry.number, entry.host, entry.alias) for entry in entries[3:]] == [
        (4, "192.168.1.4", False),
        (4, "192.168.10.10", True),
    ]
    assert hosts(f"4 192.168.10.10 {word}\n4 192.168.1.4 1") == [(4, "192.168.10.10"), (4, "192.168.1.4")]


def test_scattered_addresses() -> None:
    text = "1 192.168.10.220 1\n2 192.168.10.78 1\n3 192.168.10.84 1"
    assert hosts(text) == [(1, "192.168.10.220"), (2, "192.168.10.78"), (3, "192.168.10.84")]


def test_ipv6_has_a_line_of_its_own() -> None:
    assert hosts("1 fd00::5 1\n2 FD00:0::6 1") == [(1, "fd00::5"), (2, "fd00::6")]


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("1 10.0.0.1", 1, "2 word(s)"),
        ("# x\n1 10.0.0.1 1 1", 2, "4 word(s)"),
        ("1 10.0.0.1 1\nx 10.0.0.2 1", 2, "'x' is no node number"),
        ("0 10.0.0.1 1", 1, "'0' is no node number"),
        ("65536 10.0.0.1 1", 1, "no node number"),
        ("65535 10.0.0.1 2", 1, "run past 65535"),
        ("1 10.0.0.1 many", 1, "'many' is no count"),
        ("1 10.0.0.1 -1", 1, "is no count"),
        ("1 node3 2", 1, "'node3' is a name"),
        ("1 10.0.0.250 10", 1, "past its last byte"),
        ("1 fd00::1 2", 1, "IPv6"),
        ("1 10.0.0.300 1", 1, "neither an address nor a host name"),
        ("1 -oProxyCommand=x 1", 1, "neither an address nor a host name"),
        ("1 0.0.0.0 1", 1, "not the address of one machine"),
        ("1 10.0.0.1 4\n\n4 10.0.0.9 1", 3, "node 4 is in line 1 already"),
        ("1 10.0.0.1 4\n9 10.0.0.3 1", 2, "10.0.0.3 is in line 1 already"),
        ("1 Birch 1\n2 birch 1", 2, "birch is in line 1 already"),
        ("1 10.0.0.1 1\n7 10.0.1.1 ALIAS", 2, "no line defines node 7"),
        ("1 \x1b[2J 1", 1, "neither an address nor a host name"),
    ],
)
def test_a_mistake_names_file_and_line(text: str, line: int, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_map(text, "room.map")
    assert caught.value.text.startswith(f"room.map, line {line}: ")
    assert sentence in caught.value.text
    assert caught.value.hint
    assert caught.value.text.isprintable()


@given(st.text() | st.from_regex(r"(\d{1,6} [0-9a-z.:]{1,15} (\d{1,6}|ALIAS)\n){1,5}"))
def test_any_text_gives_entries_or_one_line(text: str) -> None:
    complaints = []
    try:
        parse_map(text, "map")
    except ConfigError as error:
        complaints.append(error)
    assert all(error.text.startswith("map, line ") and "\n" not in error.text for error in complaints)


def test_the_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "room.map").write_text("1 10.0.0.1 2")
    assert len(read_map(Config(map="room.map"), tmp_path)) == 2
    assert len(read_map(Config(map=str(tmp_path / "room.map")), Path("/nowhere"))) == 2
    assert read_map(Config(), tmp_path) == ()


def test_a_file_that_cannot_be_a_map_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "room.map"
    config = Config(map="room.map")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_map(config, tmp_path)
    path.write_bytes(b"1 10.0.0.1 1\n\xff\xfe")
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        read_map(config, tmp_path)
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match="too long"):
        read_map(config, tmp_path)
    path.write_text("#\n" * 5000 + "1 10.0.0.1 1")
    with pytest.raises(ConfigError, match="at most 4096 lines"):
        read_map(config, tmp_path)
