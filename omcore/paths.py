"""Where this user's engine keeps what: state, runtime files, configuration, data, images of moving jobs.

The rules are those of XDG.  State lies in a directory of its own for each machine, because homes are often
shared by NFS and two nodes must never load one key.  Every private directory is 0700, or refused.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omcore.errors import ConfigError, NotTrusted

SOCKET_NAME_MAX = 107  # bytes of sun_path without the closing zero
MACHINE_ID = Path("/etc/machine-id")
MOUNTS = Path("/proc/self/mountinfo")
SHARED_MEMORY = Path("/dev/shm")  # the system's tmpfs; what we make in it is 0700 and checked


@dataclass(frozen=True, slots=True)
class Paths:
    """The places of one user's engine on one machine; nothing is made or checked until `make_private`."""

    state: Path  # keys, roster, journal, logs of ended jobs
    runtime: Path  # sockets; gone after a reboot
    config: Path  # config.toml; need not exist
    data: Path  # what can be fetched again, e.g. criu/
    images: Path  # on a tmpfs: images of jobs on their way

    @property
    def socket(self) -> Path:
        """The engine's control socket."""
        return self.runtime / "engine.sock"

    @property
    def crash_log(self) -> Path:
        """Where a face writes what it did not foresee."""
        return self.state / "crash.log"

    @property
    def engine_log(self) -> Path:
        """Where an engine in the background writes its log."""
        return self.state / "engine.log"

    @property
    def criu(self) -> Path:
        """The private CRIU: `root/` below it is laid out like a file system."""
        return self.data / "criu"


def find_paths(environ: Mapping[str, str] | None = None, uid: int | None = None) -> Paths:
    """The places for this environment and user (both as now, if not given); touches nothing.

    Raises ConfigError where no home directory is known, or the socket's name is too long for the kernel.
    """
    env = os.environ if environ is None else environ
    who = os.geteuid() if uid is None else uid
    state = _xdg(env, "XDG_STATE_HOME", ".local/state") / "omview" / host_tag()
    runtime = _runtime(env, who, state)
    config = _xdg(env, "XDG_CONFIG_HOME", ".config") / "omview" / "config.toml"
    data = _xdg(env, "XDG_DATA_HOME", ".local/share") / "omview"
    paths = Paths(state, runtime, config, data, _images(runtime, who))
    if len(os.fsencode(paths.socket)) > SOCKET_NAME_MAX:
        raise ConfigError(
            f"the path of the control socket is longer than {SOCKET_NAME_MAX} bytes: {paths.socket}",
            "set XDG_RUNTIME_DIR to a shorter directory",
        )
    return paths


def control_socket() -> Path:
    """The control socket of this user's engine on this machine."""
    return find_paths().socket


def host_tag(machine_id: Path = MACHINE_ID) -> str:
    """A short name for this machine that another machine with the same home directory will not have."""
    try:
        identity = machine_id.read_text().strip()
    except OSError:
        identity = ""
    identity = identity or socket.gethostname()
    return hashlib.blake2b(identity.encode(), digest_size=5, person=b"omview-host").hexdigest()


def make_private(path: Path) -> Path:
    """Make the directory (and its parents) if it is missing, and make sure that it is ours alone.

    Raises NotTrusted with the command that mends it where it is a symbolic link, another user's, writable for
    others, or lies in a directory where others may replace it.
    """
    if not path.parent.is_dir():
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{path.parent} cannot be made: {error.strerror}", "is its parent yours?") from error
    _refuse_open_parent(path.parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}", f"is {path.parent} yours?") from error
    what = os.lstat(path)
    fault, fix = private_fault(path, what)
    if fault:
        raise NotTrusted(f"{path} {fault}", fix)
    if stat.S_IMODE(what.st_mode) & 0o077:
        os.chmod(path, 0o700)  # readable for others, as umask 022 makes them: mended without a word
    return path


def private_fault(path: Path, what: os.stat_result) -> tuple[str, str]:
    """Why this directory cannot be trusted, and the command that mends it; ("", "") when it can."""
    if stat.S_ISLNK(what.st_mode):
        return "is a symbolic link", f"rm {path}"
    if not stat.S_ISDIR(what.st_mode):
        return "is not a directory", f"rm {path}"
    if what.st_uid != os.geteuid():
        return f"belongs to user {what.st_uid}", f"remove it, or as root: chown {os.geteuid()} {path}"
    if stat.S_IMODE(what.st_mode) & 0o022:
        return "may be written by other users", f"chmod 700 {path}"
    return "", ""


def is_tmpfs(path: Path, mounts: Path = MOUNTS) -> bool:
    """Whether what is written below `path` stays in memory: the mount that holds it is a tmpfs or ramfs."""
    return filesystem(path, mounts) in ("tmpfs", "ramfs")


def filesystem(path: Path, mounts: Path = MOUNTS) -> str:
    """The kind of file system that holds `path`, as the kernel calls it; "" where that is not known."""
    target = os.path.realpath(path)
    best, kind = "", ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, tail = line.partition(" - ")
        point = _unescape(fields.split()[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount on the same point hides the earlier one
            best, kind = point, tail.split()[0]
    return kind


def make_images(paths: Paths) -> Path:
    """The private directory for images, on a tmpfs and nowhere else: they hold programs' memory.

    Raises ConfigError where the machine has no tmpfs that we may use.
    """
    made = make_private(paths.images)
    if not is_tmpfs(made):
        raise ConfigError(
            f"{made} is not on a tmpfs, and images of jobs must not touch a disk",
            "mount a tmpfs on /dev/shm",
        )
    return made


def _xdg(env: Mapping[str, str], variable: str, below_home: str) -> Path:
    value = env.get(variable, "")
    if os.path.isabs(value):  # XDG: a relative path is to be ignored
        return Path(value)
    home = env.get("HOME", "")
    try:
        base = Path(home) if os.path.isabs(home) else Path.home()
    except RuntimeError as error:
        raise ConfigError("there is no home directory for this user", f"set HOME or {variable}") from error
    return base / below_home


def _runtime(env: Mapping[str, str], uid: int, state: Path) -> Path:
    given = env.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(given):
        return Path(given) / "omview"
    if uid == 0:
        return Path("/run/omview")
    usual = Path(f"/run/user/{uid}")
    return usual / "omview" if usual.is_dir() else state / "run"


def _images(runtime: Path, uid: int) -> Path:
    """One directory for each engine: it empties its own when it starts, and must not meet another's."""
    tag = hashlib.blake2b(os.fsencode(runtime), digest_size=4, person=b"omview-images").hexdigest()
    if is_tmpfs(SHARED_MEMORY) and os.access(SHARED_MEMORY, os.W_OK):
        return SHARED_MEMORY / f"omview-{uid}-{tag}"
    return runtime / "images"


def _refuse_open_parent(parent: Path) -> None:
    mode = os.stat(parent).st_mode
    if mode & 0o002 and not mode & stat.S_ISVTX:
        raise NotTrusted(f"anybody may replace what is in {parent}", f"chmod o-w {parent}")


def _unescape(field: str) -> str:
    """Undo the octal escapes of mountinfo (space, tab, newline, backslash)."""
    for escape, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, char)
    return field
