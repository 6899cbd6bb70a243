"""Starting the shim of a pod, and finding out whether one lives in a directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omcore.checkpoint.criu import Criu
from omcore.errors import PodError
from omcore.jobs import frames
from omcore.types import JobId

SOCKET, LOCK, LOG = "shim.sock", "pod.lock", "shim.log"
CREATE_S = 10.0  # a pod takes 40 ms; a machine in trouble may take longer
_SHIM = Path(__file__).with_name("shim.py")


@dataclass(frozen=True, slots=True)
class PodSpec:
    """What a pod needs to be made."""

    job: JobId
    directory: Path  # the job's runtime directory, 0700; holds the socket, the lock, the shim's log
    criu: Criu | None
    kdat: Path | None  # this user's and node's cache of criu's kernel probes; shared by all pods
    masks: tuple[str, ...] = ()  # directories that the job must see empty; `directory` is always masked
    cgroups: tuple[Path, ...] = ()  # joined by the shim and hence by all of the job


@contextlib.contextmanager
def short_name(directory: Path) -> Iterator[str]:
    """A name for the directory that fits into a socket address, however long its path is."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def is_alive(directory: Path) -> bool:
    """Whether a shim holds the lock of this directory."""
    try:
        fd = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def spawn(spec: PodSpec) -> socket.socket:
    """Start the shim and wait for its word (40 ms: run in a thread); returns the listening socket, ours to close."""
    if is_alive(spec.directory):
        raise PodError("there is a pod already", "Retire it first.")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        (spec.directory / SOCKET).unlink(missing_ok=True)
        with short_name(spec.directory) as place:
            listener.bind(f"{place}/{SOCKET}")
        os.chmod(spec.directory / SOCKET, 0o600)
        listener.setblocking(False)
        config = {
            "directory": str(spec.directory),
            "listener": listener.fileno(),
            "masks": [str(spec.directory), *spec.masks],
            "cgroups": [str(path) for path in spec.cgroups],
            "kdat": str(spec.kdat) if spec.kdat else "",
        }
        with open(spec.directory / LOG, "ab") as log:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_SHIM)],
                input=frames.pack(config),
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(listener.fileno(),),
                timeout=CREATE_S,
                check=False,
            )
    except (OSError, subprocess.SubprocessError) as error:
        listener.close()
        raise PodError(f"a pod cannot be started: {error}") from error
    if done.stdout != b"ok":
        listener.close()
        raise _pod_error(done.stdout.decode("utf-8", "replace"), spec.directory)
    return listener


def _pod_error(text: str, directory: Path) -> PodError:
    if "unshare" in text or "uid_map" in text:
        return PodError(
            f"this system does not let you make a pod ({text})",
            "User namespaces may be switched off: see `omview doctor`.",
        )
    return PodError(f"a pod cannot be made ({text or 'the shim died'})", f"See {directory / LOG}.")


def outer_pid(shim: int, inner: int) -> int:
    """The PID, here, of the child of the shim that is `inner` in the pod; 0 when it is gone."""
    with contextlib.suppress(OSError, ValueError):
        for child in Path(f"/proc/{shim}/task/{shim}/children").read_text().split():
            if _inner_pid(child) == inner:
                return int(child)
    return 0


def _inner_pid(pid: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0
