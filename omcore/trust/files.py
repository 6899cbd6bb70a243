"""Private files: made whole or not at all, and refused when anybody else could have read or written them."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from pathlib import Path

from omcore.errors import NotTrusted


def _owner_problem(path: Path, info: os.stat_result, mode: str) -> NotTrusted | None:
    quoted = shlex.quote(str(path))
    if info.st_uid != os.geteuid():
        return NotTrusted(
            f"{path} belongs to another user (uid {info.st_uid})",
            f"if it is yours: chown {os.geteuid()} {quoted} && chmod {mode} {quoted}",
        )
    if info.st_mode & 0o077:
        return NotTrusted(f"{path} can be used by others (mode {info.st_mode & 0o777:04o})", f"chmod {mode} {quoted}")
    return None


def private_directory(path: Path) -> Path:
    """Make `path` (and missing parents) with mode 0700, or check that an existing one is ours alone.

    Raises NotTrusted for a symlink, a foreign owner or a mode others can use; the hint mends it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        path.chmod(0o700)  # a default ACL or a strange umask may have changed it
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise NotTrusted(f"{path} is not a directory of ours", f"mv {shlex.quote(str(path))} elsewhere")
    problem = _owner_problem(path, info, "700")
    if problem:
        raise problem
    return path


def read_private(path: Path, max_bytes: int) -> bytes:
    """The content of a file that is ours, 0600, regular and at most `max_bytes` long.

    Raises FileNotFoundError when absent, NotTrusted for everything else; never follows a symlink.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        quoted = shlex.quote(str(path))
        if path.is_symlink():
            text, hint = (
                f"{path} is a symbolic link",
                f"cp -L {quoted} {quoted}.new && mv {quoted}.new {quoted} && chmod 600 {quoted}",
            )
        else:
            text, hint = f"{path} cannot be read: {error.strerror}", f"chmod 600 {quoted}"
        raise NotTrusted(text, hint) from error
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise NotTrusted(f"{path} is not a regular file", f"rm {shlex.quote(str(path))}")
        problem = _owner_problem(path, info, "600")
        if problem:
            raise problem
        if info.st_size > max_bytes:
            raise NotTrusted(f"{path} is too long ({info.st_size} bytes)", "restore it from a backup")
        return file.read(max_bytes)


def _write_new(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o600)
        file.write(data)
        file.flush()
        os.fsync(fd)
    return temporary


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_private(path: Path, data: bytes) -> None:
    """Write `data` to `path` (0600) so that a crash leaves the old content or the new one, whole."""
    temporary = _write_new(path, data)
    temporary.replace(path)
    _sync_directory(path.parent)


def create_private(path: Path, data: bytes) -> None:
    """Like `replace_private`, for what must never be overwritten: raises FileExistsError if `path` is there."""
    temporary = _write_new(path, data)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    _sync_directory(path.parent)
