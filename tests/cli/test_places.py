"""Where things lie, and what is refused as a place for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from omcore.errors import ConfigError, NotTrusted
from omcore.paths import SOCKET_NAME_MAX, find_paths, host_tag, is_tmpfs, make_images, make_private


def test_xdg_variables_decide_and_relative_ones_do_not() -> None:
    env = {"HOME": "/home/ana", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r", "XDG_DATA_HOME": "not/absolute"}
    places = find_paths(env, uid=1000)
    assert places.state == Path("/s/omview") / host_tag()
    assert places.socket == Path("/r/omview/engine.sock")
    assert places.criu == Path("/home/ana/.local/share/omview/criu")
    assert places.config == Path("/home/ana/.config/omview/config.toml")


def test_two_engines_of_one_user_have_images_apart() -> None:
    one, two = (find_paths({"HOME": "/h", "XDG_RUNTIME_DIR": f"/r{n}"}, uid=1000) for n in (1, 2))
    assert one.images != two.images


def test_root_without_a_session_uses_run_and_others_fall_back_to_their_state() -> None:
    assert find_paths({"HOME": "/root"}, uid=0).runtime == Path("/run/omview")
    nobody = find_paths({"HOME": "/h"}, uid=4_000_000)
    assert nobody.runtime == nobody.state / "run"


def test_a_socket_name_too_long_for_the_kernel_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError) as caught:
        find_paths({"HOME": "/h", "XDG_RUNTIME_DIR": "/" + "r" * SOCKET_NAME_MAX}, uid=1000)
    assert "XDG_RUNTIME_DIR" in caught.value.hint


def test_homes_shared_by_two_machines_get_two_directories(tmp_path: Path) -> None:
    tags = set()
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}\n")
        tags.add(host_tag(tmp_path / name))
    assert len(tags) == 2
    assert host_tag(tmp_path / "missing")  # of the host name


def test_a_private_directory_is_made_and_tightened(tmp_path: Path) -> None:
    place = make_private(tmp_path / "a" / "b")
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o755)
    assert make_private(place).stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_write_is_refused_with_the_fix(tmp_path: Path) -> None:  # SECURITY case 32
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(NotTrusted) as caught:
        make_private(place)
    assert caught.value.hint == f"chmod 700 {place}"


def test_a_directory_that_others_may_replace_is_refused(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(NotTrusted, match="anybody may replace"):
        make_private(parent / "mine")
    parent.chmod(0o1777)  # sticky, like /tmp: fine
    make_private(parent / "mine")


def test_a_planted_link_or_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(NotTrusted):
            make_private(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:  # SECURITY case 32
    place = tmp_path / "theirs"
    place.mkdir(mode=0o700)
    os.chown(place, 12345, 12345)
    with pytest.raises(NotTrusted, match="belongs to user 12345"):
        make_private(place)


def test_tmpfs_is_told_from_disk_by_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 0:5 / /m\\040x rw shared:1 - tmpfs tmpfs rw\n"
        "3 2 8:2 / /m\\040x/disk rw - ext4 /dev/b rw\n"
    )
    found = [is_tmpfs(Path(path), mounts) for path in ("/m", "/m x", "/m x/y", "/m x/disk/y", "/m xy")]
    assert found == [False, True, True, False, False]


def test_images_are_never_put_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omcore.paths.is_tmpfs", lambda _path: False)
    with pytest.raises(ConfigError, match="must not touch a disk"):
        make_images(find_paths({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}))
