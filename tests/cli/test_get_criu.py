"""Getting CRIU: once, whole or not at all, with one sentence for each thing that stands in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from omcore.checkpoint.get import (
    MINIMUM,
    NoCriu,
    find_mirror,
    get_criu,
    main,
    prefix_command,
    prefix_version,
)
from omcore.paths import find_paths


def fake_program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def fake_prefix(prefix: Path, version: str) -> None:
    """A prefix whose "loader" answers for the program it is given: enough to look like an installed CRIU."""
    libraries = prefix / "root/usr/lib/some-linux-gnu"
    libraries.mkdir(parents=True)
    (libraries / "libc.so.6").touch()
    fake_program(libraries, "ld-linux-some.so.1", f"echo Version: {version}")
    (prefix / "root/usr/sbin").mkdir(parents=True)
    (prefix / "root/usr/sbin/criu").touch()


def test_a_prefix_is_recognised_whatever_the_architecture(tmp_path: Path) -> None:
    assert prefix_command(tmp_path) == ()
    assert prefix_version(tmp_path) == ()
    fake_prefix(tmp_path, "4.2.1")
    libraries = tmp_path / "root/usr/lib/some-linux-gnu"
    assert prefix_command(tmp_path) == (
        str(libraries / "ld-linux-some.so.1"),
        "--library-path",
        str(libraries),
        str(tmp_path / "root/usr/sbin/criu"),
    )
    assert prefix_version(tmp_path) == (4, 2, 1)


def test_what_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_prefix(tmp_path / "criu", "4.3")
    monkeypatch.setattr("shutil.which", lambda *_a, **_k: pytest.fail("nothing was to be looked for"))
    assert get_criu(tmp_path / "criu") == tmp_path / "criu"


def test_without_apt_the_way_by_hand_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_a, **_k: None)
    with pytest.raises(NoCriu, match="no apt-get here") as caught:
        get_criu(tmp_path / "criu")
    assert "OMVIEW_CRIU" in caught.value.hint


@pytest.mark.parametrize(
    ("complaint", "hint"),
    [
        ("E: Failed to fetch http://mirror/x  Could not resolve 'mirror'", "is there a network"),
        ("E: The repository is not signed.", "debian-archive-keyring"),
        ("E: Unable to locate package criu", "OMVIEW_CRIU"),
        ("E: You don't have enough free space in /x", "make room"),
    ],
)
def test_what_apt_complains_of_becomes_one_sentence_and_the_old_tree_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: str, hint: str
) -> None:
    monkeypatch.setattr("omcore.checkpoint.get.find_mirror", lambda: "http://mirror/debian")
    fake_program(tmp_path / "bin", "apt-get", f'echo "{complaint}" >&2; exit 100')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    fake_prefix(tmp_path / "data/criu", "3.17")
    with pytest.raises(NoCriu) as caught:
        get_criu(tmp_path / "data/criu")
    assert hint in caught.value.hint
    assert "\n" not in caught.value.text
    assert prefix_version(tmp_path / "data/criu") == (3, 17)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"criu", ".criu.lock"}


def test_another_distribution_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "apt-get", "echo \"'http://mirror/ubuntu/dists/noble/InRelease' x 0\"")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    with pytest.raises(NoCriu, match="not configured with a Debian mirror"):
        find_mirror()


def test_the_mirror_is_known_before_any_list_was_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omcore.checkpoint.get._codename", lambda: "bookworm")
    plan = "case $* in *print-uris*) echo \"'http://mirror/debian/dists/bookworm/InRelease' x 0\";; esac"
    fake_program(tmp_path / "bin", "apt-get", plan)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert find_mirror() == "http://mirror/debian/"


@pytest.mark.criu
def test_make_criu_finds_it_done(capsys: pytest.CaptureFixture[str]) -> None:
    """`make test` got it before; the real thing runs by its own loader."""
    if prefix_version(find_paths().criu) < MINIMUM:
        pytest.skip("this user has no CRIU of his own: make criu")
    assert main() == 0
    assert capsys.readouterr().out.startswith("CRIU 4.")
