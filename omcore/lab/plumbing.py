"""What keeper, holder and hosts share: reports with the sender's pid, ended children, the `ip` program."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from omcore.errors import LabError

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
PROCESS_NAME = "omview-lab"  # of keeper and holder, as ps shows them
_MESSAGE_BYTES = 65536


def report(channel: socket.socket, **message: object) -> None:
    """Tell the keeper; it learns our process number from the kernel."""
    with suppress(OSError):  # the keeper is gone, and soon we shall be
        channel.send(json.dumps(message).encode())


def receive(channel: socket.socket) -> tuple[bytes, int]:
    """A message and its sender's pid in our own numbering (needs SO_PASSCRED); b"" at the end of the channel."""
    data, ancillary, _, _ = channel.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return data, int(_CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0])
    return data, 0


def ended_children() -> dict[int, int]:
    """All children that ended, with their exit codes (negative: the signal)."""
    ended: dict[int, int] = {}
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def run_ip(program: str, lines: Sequence[str]) -> None:
    """Give `ip` these commands, one a line. Raises LabError with its first complaint."""
    done = subprocess.run(
        [program, "-batch", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        complaint = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise LabError(f"the lab's network cannot be made: {complaint}", "does this kernel have bridge and veth?")


def leave(code: int) -> NoReturn:
    """End a forked process without running what its parent had planned; a bug on its way is shown first."""
    kind, error, trace = sys.exc_info()
    if kind is not None and error is not None:
        sys.excepthook(kind, error, trace)
        sys.stderr.flush()
    os._exit(code)


def start_time(pid: int) -> int:
    """When this process started, in clock ticks since boot; 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return 0


def name_of(pid: int) -> str:
    """What ps calls this process; "" when there is none."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
