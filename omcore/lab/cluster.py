"""What makes n empty hosts a cluster: names, addresses, environment, settings, and the engines' keys."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import omcore
from omcore.config import DEFAULT_PORT
from omcore.paths import find_paths

HOST_ROOT = "/run/omview-lab"  # in each host, on its own tmpfs: everything that belongs to that host alone
ENGINE_LOG = f"{HOST_ROOT}/engine.log"
MAX_HOSTS = 100
COVERED = ("/tmp", "/run", "/dev/shm")  # each host has its own


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the keeper, the holder and the hosts have to know; travels as JSON."""

    name: str
    directory: str
    hosts: int
    engine_command: tuple[str, ...]  # (): `omview serve` with keys and settings
    environ: dict[str, str]
    cwd: str
    uid: int  # inside the hosts
    gid: int
    rootless: bool
    ip: str  # the `ip` program
    cpu: float | None = None
    memory_bytes: int | None = None

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Plan:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**raw, "engine_command": tuple(raw["engine_command"])})

    @property
    def numbers(self) -> range:
        """Numbers of the hosts, from 1."""
        return range(1, self.hosts + 1)

    @property
    def command(self) -> tuple[str, ...]:
        """What runs as the engine of each host."""
        return self.engine_command or default_engine()


def host_name(number: int) -> str:
    """The name of a host."""
    return f"node{number}"


def host_address(number: int) -> str:
    """The address of a host on the lab's own switch; other labs have the same ones."""
    return f"10.77.0.{number}"


def default_engine() -> tuple[str, ...]:
    """The command line of a real engine, from the installation that we are."""
    if os.access(os.path.join(os.path.dirname(sys.executable), "omview"), os.X_OK):
        return ("omview", "serve")  # the hosts' PATH begins there
    return (sys.executable, "-m", "omview", "serve")


def host_environment(base: Mapping[str, str], name: str) -> dict[str, str]:
    """The environment for everything that runs in a host: `base`, with places of its own.

    HOME, and with it XDG_DATA_HOME (where CRIU lies), stay: hosts share the machine's file system.
    """
    env = dict(base)
    for variable in ("TMPDIR", "OMVIEW_NAME", "PYTHONDONTWRITEBYTECODE"):
        env.pop(variable, None)
    for variable, folder in (
        ("XDG_STATE_HOME", "state"),
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_CACHE_HOME", "cache"),
    ):
        env[variable] = f"{HOST_ROOT}/{folder}"
    env["HOSTNAME"] = name
    ours = os.path.dirname(sys.executable)
    path = env.get("PATH") or os.defpath
    env["PATH"] = path if path.split(":")[0] == ours else f"{ours}:{path}"
    return env


def write_settings(plan: Plan, number: int, env: Mapping[str, str]) -> None:
    """The config.toml of one host: its name, its address, its peers. Called in the host."""
    peers = ", ".join(f'"{host_address(other)}:{DEFAULT_PORT}"' for other in plan.numbers if other != number)
    path = find_paths(env).config
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(
        f'name = "{host_name(number)}"\nlisten = ["{host_address(number)}"]\nport = {DEFAULT_PORT}\npeers = [{peers}]\n'
    )


def engine_socket(env: Mapping[str, str]) -> str:
    """Where the engine of a host answers, as seen in the host."""
    return str(find_paths(env).socket)


def kept_directories(plan: Plan) -> tuple[str, ...]:
    """Directories under the covered places that a host must still see: our code, Python, CRIU, HOME, the cwd."""
    criu = plan.environ.get("OMVIEW_CRIU", "")
    wanted = [
        sys.prefix,
        sys.base_prefix,
        str(Path(omcore.__file__).parents[1]),
        plan.environ.get("HOME", ""),
        plan.cwd,
        _tree_of(criu) if os.path.isabs(criu) else "",
    ]
    paths = {path for one in wanted if one for path in (os.path.abspath(one), os.path.realpath(one))}
    below = (path for path in paths if any(path.startswith(cover + "/") for cover in COVERED))
    return tuple(sorted(path for path in below if os.path.isdir(path)))


def _tree_of(program: str) -> str:
    """The prefix around PREFIX/root/usr/sbin/criu (it needs its libraries too), else the program's directory."""
    folder, marker, _ = program.partition("/root/usr/")
    return folder if marker else os.path.dirname(program)


def provision_states(directory: Path, names: Sequence[str]) -> None:
    """Make DIRECTORY/NAME for each name: the state of an engine that knows and trusts all the others.

    Costs the import of cryptography (about 30 MB): call it in a process that ends soon.
    """
    from omcore.trust.provision import provision

    provision([directory / name for name in names], time.time())
