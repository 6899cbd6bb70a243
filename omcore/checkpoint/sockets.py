"""What sockets a job has and where their other ends are.

A socket is asked itself, through a descriptor borrowed with pidfd_getfd for some microseconds: /proc/net/tcp would
take 5 ms and shows another network namespace. Where that call is forbidden /proc/PID/net is read instead.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_PIDFD_GETFD = 438  # the same number on every architecture
_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4
_UNIX_DIAG_PEER = 2
_TCP_ESTABLISHED, _TCP_CLOSE, _TCP_LISTEN = 1, 7, 10
_UNIX_CONNECTED = "03"
_IPPROTO_MPTCP = 262

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Sock:
    """One socket of a job."""

    owner: str  # "curl 4711"
    kind: str  # "tcp" "udp" "unix" "netlink" "packet" "raw" or the number of another family
    state: str = ""  # tcp: "established" (anything but closed or listening), "listen", "closed"; unix: "connected"
    local: str = ""  # "host:port" or a path
    peer: str = ""  # "host:port", or the name of the process at the other end
    external: bool = False  # unix: the other end is outside the job
    port: int = 0  # of a listener
    own_net: bool = False  # in a network namespace that is not the engine's


class SocketReader:
    """Reads the sockets of one tree. `inodes` says for each inode one (pid, fd, owner) that has it."""

    def __init__(self, inodes: Mapping[int, tuple[int, int, str]], pids: set[int]) -> None:
        self._inodes = inodes
        self._pids = pids
        self._here = os.readlink("/proc/self/ns/net")
        self._tables: dict[str, dict[int, list[str]]] = {}

    def read(self) -> list[Sock]:
        """All of them; what vanishes meanwhile is left out."""
        found = []
        for inode, (pid, fd, owner) in self._inodes.items():
            try:
                own_net = os.readlink(f"/proc/{pid}/ns/net") != self._here
                borrowed = _borrow(pid, fd)
            except (ProcessLookupError, FileNotFoundError):
                continue
            if borrowed is None:
                sock = self._from_tables(pid, inode, owner, own_net)
            else:
                with borrowed:
                    sock = self._ask(borrowed, inode, owner, own_net)
            found.append(sock)
        return found

    def _ask(self, sock: socket.socket, inode: int, owner: str, own_net: bool) -> Sock:
        family, kind = sock.family, sock.type
        if family == socket.AF_UNIX:
            return self._unix(sock, inode, owner, own_net)
        if family in (socket.AF_INET, socket.AF_INET6):
            if kind == socket.SOCK_STREAM:
                return _tcp(sock, owner, own_net)
            name = "udp" if kind == socket.SOCK_DGRAM else "raw"
            return Sock(owner, name, local=_address(sock.getsockname()), own_net=own_net)
        names = {int(socket.AF_NETLINK): "netlink", int(socket.AF_PACKET): "packet"}
        return Sock(owner, names.get(int(family), f"family {int(family)}"), own_net=own_net)

    def _unix(self, sock: socket.socket, inode: int, owner: str, own_net: bool) -> Sock:
        local = _path(sock.getsockname())
        try:
            other = _path(sock.getpeername())
        except OSError:
            return Sock(owner, "unix", local=local, own_net=own_net)  # not connected
        peer = None if own_net else _peer_inode(inode)
        pid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        # Another network namespace, or not accepted yet: who made the other end? Nobody, if that one has ended.
        made_inside = pid in self._pids or (pid > 0 and not os.path.exists(f"/proc/{pid}"))
        inside = peer in self._inodes if peer else made_inside
        name = "" if inside else other or (f"process {pid}" if pid > 0 else "another program")
        return Sock(owner, "unix", "connected", local, name, not inside, own_net=own_net)

    # -- without pidfd_getfd ------------------------------------------------------------------------------

    def _from_tables(self, pid: int, inode: int, owner: str, own_net: bool) -> Sock:
        for table in ("tcp", "tcp6", "udp", "udp6"):
            row = self._table(pid, table, 9).get(inode)
            if row is not None and table.startswith("udp"):
                return Sock(owner, "udp", own_net=own_net)
            if row is not None:
                state = _tcp_state(int(row[3], 16))
                port = int(row[1].rpartition(":")[2], 16)
                return Sock(owner, "tcp", state, port=port if state == "listen" else 0, own_net=own_net)
        row = self._table(pid, "unix", 6).get(inode)
        if row is None:
            return Sock(owner, "netlink", own_net=own_net)
        local = row[7] if len(row) > 7 else ""
        if row[5] != _UNIX_CONNECTED or row[3] != "00000000":
            return Sock(owner, "unix", local=local, own_net=own_net)
        peer = None if own_net else _peer_inode(inode)
        outside = peer is not None and peer not in self._inodes
        return Sock(owner, "unix", "connected", local, "another program" if outside else "", outside)

    def _table(self, pid: int, name: str, column: int) -> dict[int, list[str]]:
        if name not in self._tables:
            try:
                with open(f"/proc/{pid}/net/{name}", encoding="utf-8", errors="surrogateescape") as file:
                    rows = [line.split() for line in file.readlines()[1:]]
            except OSError:
                rows = []
            self._tables[name] = {int(row[column]): row for row in rows if len(row) > column}
        return self._tables[name]


def _borrow(pid: int, fd: int) -> socket.socket | None:
    """A duplicate of another process's socket; None where the kernel or a filter forbids that."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    return socket.socket(fileno=copy) if copy >= 0 else None


def _tcp(sock: socket.socket, owner: str, own_net: bool) -> Sock:
    local = sock.getsockname()
    if sock.proto == _IPPROTO_MPTCP:
        return Sock(owner, "family mptcp", own_net=own_net)
    try:
        state = _tcp_state(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])
    except OSError:
        return Sock(owner, f"protocol {sock.proto}", own_net=own_net)
    peer = ""
    if state == "established":
        try:
            peer = _address(sock.getpeername())
        except OSError:
            peer = "somebody"  # closing
    port = int(local[1]) if state == "listen" else 0
    return Sock(owner, "tcp", state, _address(local), peer, port=port, own_net=own_net)


def _tcp_state(number: int) -> str:
    return {_TCP_LISTEN: "listen", _TCP_CLOSE: "closed"}.get(number, "established")


def _address(name: tuple[object, ...] | str | bytes) -> str:
    if not isinstance(name, tuple) or len(name) < 2:
        return ""
    host = f"[{name[0]}]" if ":" in str(name[0]) else str(name[0])
    return f"{host}:{name[1]}"


def _path(name: str | bytes | None) -> str:
    if isinstance(name, bytes):  # abstract names begin with a zero byte
        return "@" + os.fsdecode(name[1:]) if name else ""
    return name or ""


def _peer_inode(inode: int) -> int | None:
    """Inode at the other end of a unix socket of our own network namespace; None when there is none."""
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, 4, 0xFFFFFFFF, 0xFFFFFFFF)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, 1, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as diag:
            diag.settimeout(1.0)
            diag.send(header + request)
            reply = diag.recv(8192)
    except OSError:
        return None
    if len(reply) < 32 or struct.unpack_from("=H", reply, 4)[0] != _SOCK_DIAG_BY_FAMILY:
        return None
    at = 32
    while at + 4 <= len(reply):
        size, kind = struct.unpack_from("=HH", reply, at)
        if kind == _UNIX_DIAG_PEER and size >= 8:
            return int(struct.unpack_from("=I", reply, at + 4)[0])
        at += max(4, size + 3 & ~3)
    return None
