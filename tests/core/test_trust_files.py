import os
from pathlib import Path

import pytest

from omcore.errors import NotTrusted
from omcore.trust.files import private_directory, read_private, replace_private
from omcore.trust.keys import create_node_key, fingerprint, from_z85, generate_node_key, load_node_key, to_z85


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return private_directory(tmp_path / "state")


def test_key_is_the_same_after_loading_and_never_in_a_repr(home: Path) -> None:
    made = create_node_key(home)
    assert load_node_key(home) == made
    assert (home / "node.key").stat().st_mode & 0o777 == 0o600
    assert made.secret.hex() not in repr(made)
    assert repr(made.secret) not in repr(made)
    assert [p.name for p in home.iterdir()] == ["node.key"]


def test_key_is_never_overwritten(home: Path) -> None:
    made = create_node_key(home)
    with pytest.raises(FileExistsError):
        create_node_key(home)
    assert load_node_key(home) == made


def test_key_readable_by_others_is_refused_with_the_command(home: Path) -> None:  # SECURITY case 38
    create_node_key(home)
    (home / "node.key").chmod(0o644)
    with pytest.raises(NotTrusted) as caught:
        load_node_key(home)
    assert caught.value.hint == f"chmod 600 {home / 'node.key'}"


def test_key_that_is_a_symlink_is_refused(home: Path, tmp_path: Path) -> None:  # SECURITY case 38
    create_node_key(home)
    (home / "node.key").rename(tmp_path / "elsewhere")
    (home / "node.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotTrusted, match="symbolic link") as caught:
        load_node_key(home)
    assert "chmod 600" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_key_of_a_foreign_owner_is_refused(home: Path) -> None:  # SECURITY case 38
    create_node_key(home)
    os.chown(home / "node.key", 12345, 12345)
    with pytest.raises(NotTrusted, match="another user") as caught:
        load_node_key(home)
    assert "chown" in caught.value.hint


@pytest.mark.parametrize("length", [0, 7, 79])
def test_key_cut_short_is_refused(home: Path, length: int) -> None:  # SECURITY case 38
    create_node_key(home)
    with (home / "node.key").open("r+b") as file:
        file.truncate(length)
    with pytest.raises(NotTrusted, match="damaged"):
        load_node_key(home)


def test_key_file_that_is_a_fifo_does_not_block(home: Path) -> None:
    os.mkfifo(home / "node.key", 0o600)
    with pytest.raises(NotTrusted):
        load_node_key(home)


def test_directory_open_to_others_or_a_symlink_is_refused(tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    wide.mkdir(mode=0o755)
    with pytest.raises(NotTrusted) as caught:
        private_directory(wide)
    assert caught.value.hint == f"chmod 700 {wide}"
    link = tmp_path / "link"
    link.symlink_to(private_directory(tmp_path / "real"))
    with pytest.raises(NotTrusted):
        private_directory(link)


def test_replace_leaves_one_whole_file(home: Path) -> None:
    replace_private(home / "x", b"one")
    replace_private(home / "x", b"two")
    assert read_private(home / "x", 10) == b"two"
    assert [p.name for p in home.iterdir()] == ["x"]
    with pytest.raises(NotTrusted, match="too long"):
        read_private(home / "x", 2)


def test_fingerprint_and_z85() -> None:
    key = generate_node_key()
    assert from_z85(to_z85(key.id)) == key.id
    groups = fingerprint(key.public).split("-")
    assert [len(group) for group in groups] == [4] * 6 + [2]
