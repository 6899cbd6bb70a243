"""The doctor: findings from real and from arranged machines, and what --fix mends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omcore import doctor
from omcore.paths import Paths, find_paths
from omcore.types import DoctorLine
from tests.cli.fake import Omview


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    return find_paths({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "r")})


def test_on_the_real_machine_every_finding_is_one_line_with_a_fix_where_needed(
    omview: Omview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    said = omview("doctor", "--json")
    lines = json.loads(said.out)
    assert {line["level"] for line in lines} <= {"ok", "warn", "bad"}
    assert all(line["fix"] for line in lines if line["level"] != "ok")
    assert all("\n" not in line["text"] for line in lines)
    assert {"CRIU", "rootless pods", "kernel", "cgroup", "images", "ptrace", "engine"} <= {
        line["subject"] for line in lines
    }
    assert said.code == (1 if any(line["level"] == "bad" for line in lines) else 0)


def test_directories_open_to_others_are_found_and_mended(places: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "criu_lines", lambda: iter(()))
    places.state.mkdir(parents=True)
    places.state.chmod(0o777)
    found = [line for line in doctor.place_lines(places) if line.subject == "files"]
    assert [(line.level, line.fix) for line in found] == [("bad", f"chmod 700 {places.state}")]
    doctor.mend(lambda _line: None, places)
    assert not [line for line in doctor.place_lines(places) if line.subject == "files"]


def test_a_key_that_others_can_read_is_bad(places: Paths) -> None:
    places.state.mkdir(parents=True, mode=0o700)
    key = places.state / "node.key"
    key.write_text("")
    key.chmod(0o644)
    assert DoctorLine("bad", "files", f"{key} can be read by others", f"chmod 600 {key}") in set(
        doctor.place_lines(places)
    )


@pytest.mark.parametrize(
    ("switch", "value", "fix"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces="),
    ],
)
def test_the_switch_that_forbids_rootless_pods_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str, value: str, fix: str
) -> None:
    monkeypatch.setattr(doctor, "_try", lambda _command: None)
    path = tmp_path / "sys" / switch
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    (line,) = doctor.pod_lines(tmp_path)
    assert line.level == "bad"
    assert fix in line.fix


def test_a_forbidden_ptrace_is_bad(tmp_path: Path) -> None:
    scope = tmp_path / "sys/kernel/yama/ptrace_scope"
    scope.parent.mkdir(parents=True)
    levels = []
    for value in ("0", "1", "3"):
        scope.write_text(value)
        levels += [line.level for line in doctor.ptrace_lines(tmp_path)]
    assert levels == ["ok", "ok", "bad"]


@pytest.mark.parametrize(("folder", "kind"), [("", "v2"), ("unified", "v1 and v2")])
def test_the_kind_of_cgroups_is_told(tmp_path: Path, folder: str, kind: str) -> None:
    mount, proc = tmp_path / "cg", tmp_path / "proc"
    (mount / folder / "mine").mkdir(parents=True)
    (mount / folder / "cgroup.controllers").touch()
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("0::/mine\n")
    (line,) = doctor.cgroup_lines(proc, mount)
    assert (line.level, line.text) == ("ok", f"{kind}, ours to divide")
    (proc / "self/cgroup").write_text("0::/others\n")
    (line,) = doctor.cgroup_lines(proc, mount, tmp_path)
    assert (line.level, line.fix) == ("warn", "make the lab as root")
    (tmp_path / "systemd/system").mkdir(parents=True)
    (line,) = doctor.cgroup_lines(proc, mount, tmp_path)
    assert line.fix.startswith("systemd-run") == (kind == "v2")


def test_logging_out_is_warned_of_where_systemd_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "linger").mkdir()
    runtime = tmp_path / "run/user/65534/omview"
    paths = Paths(tmp_path, runtime, tmp_path, tmp_path, tmp_path)
    (line,) = doctor.logout_lines(paths, tmp_path / "run", tmp_path / "linger")
    assert (line.level, line.fix) == ("warn", "loginctl enable-linger nobody")
    (tmp_path / "linger/nobody").touch()
    (line,) = doctor.logout_lines(paths, tmp_path / "run", tmp_path / "linger")
    assert line.level == "ok"
    (tmp_path / "run/systemd/system").rmdir()
    assert list(doctor.logout_lines(paths, tmp_path / "run", tmp_path / "linger")) == []
