"""config.toml: good defaults, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omcore.config import ALLOWED, Config, load_config, parse_config, split_peer
from omcore.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_a_missing_file_is_a_good_one(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none.toml", {}) == Config()


def test_all_keys_are_read_and_documented(tmp_path: Path) -> None:
    text = """
        name = "birch"
        listen = ["192.168.1.5", "fe80::1%eth0"]
        port = 4821
        peers = ["ash:4820", "[fd00::5]:4820"]
        discover = false
        share = "look"
        invites = "keyholders"
        max_guests = 0
        log_level = "debug"
        keep_log_bytes = 65536
    """
    config = load_config(write(tmp_path, text), {})
    assert (config.name, config.port, config.max_guests) == ("birch", 4821, 0)
    assert config.peers == ("ash:4820", "[fd00::5]:4820")
    assert set(ALLOWED) == set(Config.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ('port = "x"', "port = 'x' is not allowed", "from 0 to 65535"),
        ("port = 70000", "port = 70000 is not allowed", "from 0 to 65535"),
        ("prot = 1", "there is no key 'prot'", "did you mean port?"),
        ('name = "a b"', "name = 'a b' is not allowed", "letters"),
        ('listen = ["all"]', "listen = 'all' is not an address", "list of addresses"),
        ('peers = ["ash"]', "peers: peer 'ash' is not host:port", "birch"),
        ("listen = [1]", "listen = [1] is not allowed", "list of addresses"),
        ("max_guests = -1", "max_guests = -1 is not allowed", "from 0 to"),
        ('log_level = "loud"', "log_level = 'loud' is not allowed", '"debug"'),
        ("port = ", "is not valid TOML", "mend that line"),
    ],
)
def test_a_mistake_names_key_value_and_what_is_allowed(tmp_path: Path, text: str, sentence: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text), {})
    assert sentence in caught.value.text
    assert hint in caught.value.hint
    assert "\n" not in caught.value.text


def test_a_file_of_other_bytes_is_one_line_too(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe\x00port")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(path, {})
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path, {})


def test_the_environment_overrides_the_file_and_is_checked_too(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "birch"')
    assert load_config(path, {"OMVIEW_NAME": "cedar"}).name == "cedar"
    with pytest.raises(ConfigError, match="environment: name"):
        load_config(path, {"OMVIEW_NAME": "no good"})


@given(
    st.dictionaries(
        st.sampled_from([*ALLOWED, "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_any_table_gives_a_config_or_one_line(raw: dict[str, object]) -> None:
    complaints = []
    try:
        parse_config(raw, "file")
    except ConfigError as error:
        complaints.append(error)
    assert all(error.hint and error.text.isprintable() for error in complaints)


def test_peers_split_into_host_and_port() -> None:
    assert split_peer("ash:4820") == ("ash", 4820)
    assert split_peer("[fd00::5]:1") == ("fd00::5", 1)
    for bad in ("ash", "ash:0", "ash:99999", "-oProxy=x:1 2", "[fd00::5]", "a:b:1"):
        with pytest.raises(ConfigError):
            split_peer(bad)
