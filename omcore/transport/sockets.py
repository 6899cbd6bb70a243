"""ZeroMQ sockets with the settings of SECURITY section 4, and the version check that goes before any of them."""

from __future__ import annotations

import functools
import ipaddress
import itertools
import struct
from dataclasses import dataclass
from typing import TypeAlias

import zmq

from omcore.errors import TransportError
from omcore.transport.base import MAX_FRAME_BYTES
from omcore.transport.zap import DOMAIN, ZAP_ENFORCE_DOMAIN
from omcore.trust.keys import NodeKey
from omcore.trust.tokens import join_address, split_address
from omcore.types import NodeId

Socket: TypeAlias = "zmq.Socket[bytes]"
Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

CONNECT_MS = 3000
_OPTIONS = {
    zmq.LINGER: 0,
    zmq.IPV6: 1,
    zmq.MAXMSGSIZE: MAX_FRAME_BYTES,  # 400 MiB were taken from 20 strangers without it
    zmq.RCVHWM: 16,  # a flood costs 4 MiB a member
    zmq.SNDHWM: 64,
    zmq.HANDSHAKE_IVL: 3000,
    zmq.HEARTBEAT_IVL: 10_000,
    zmq.HEARTBEAT_TIMEOUT: 30_000,
    zmq.HEARTBEAT_TTL: 30_000,
    zmq.BACKLOG: 256,
    zmq.RECONNECT_IVL: -1,  # the transport redials, with jitter
    zmq.CONNECT_TIMEOUT: CONNECT_MS,
}
_ENDED = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


OLDEST = (4, 3, 5)
"""Of libzmq; older ones overflow before the login (CVE-2019-13132)."""


def library() -> tuple[tuple[int, ...], bool]:
    """Version of libzmq, and whether it was built with CURVE."""
    return zmq.zmq_version_info(), bool(zmq.has("curve"))


def new_context() -> Context:
    """A context of our own: one I/O thread, one authenticator. Raises TransportError under an old libzmq."""
    if zmq.zmq_version_info() < OLDEST:
        raise TransportError(f"libzmq {zmq.zmq_version()} is too old to be safe", "pip install -U pyzmq")
    return zmq.Context()


def server_socket(context: Context, key: NodeKey) -> Socket:
    """A ROUTER that admits whom the context's authenticator admits; not bound yet."""
    socket = _socket(context, zmq.ROUTER)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret)
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(ZAP_ENFORCE_DOMAIN, 1)
    return socket


def client_socket(context: Context, key: NodeKey, server: NodeId) -> Socket:
    """A DEALER that talks to nobody but `server`; not connected yet."""
    socket = _socket(context, zmq.DEALER)
    socket.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(server))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret)
    return socket


def _socket(context: Context, kind: int) -> Socket:
    socket = context.socket(kind)
    for option, value in _OPTIONS.items():
        socket.setsockopt(option, value)
    return socket


def endpoint(address: str) -> str:
    """ZeroMQ's name of "host:port"; port 0 means any. Raises UsageError."""
    host, port = split_address(address)
    return f"tcp://{join_address(host, port)}" if port else f"tcp://{join_address(host, 0)[:-1]}*"


@functools.lru_cache(1024)
def plain_host(host: str) -> str:
    """An address as people write it: an IPv4 address that came mapped into IPv6 is IPv4 again."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """What happened to a connection we dialled: `up`, else it ended; `refused`: they do not know our key."""

    up: bool
    refused: bool = False
    text: str = ""


_watches = itertools.count()


def watch(context: Context, socket: Socket) -> Socket:
    """A socket on which the connection events of `socket` arrive; close it after `socket.disable_monitor()`."""
    name = f"inproc://watch-{next(_watches)}"  # ids are used again while the old monitor still closes
    socket.monitor(name, zmq.EVENT_HANDSHAKE_SUCCEEDED | _ENDED | _FAILED)
    monitor = context.socket(zmq.PAIR)
    monitor.linger = 0
    monitor.connect(name)
    return monitor


def next_event(monitor: Socket, was_up: bool) -> LinkEvent | None:
    """The next event, or None if there is none now."""
    try:
        frames = monitor.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None
    event, value = struct.unpack("=HI", frames[0])
    if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        return LinkEvent(True)
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return LinkEvent(False, value == 400, "it refused this node's key")
    if event & _FAILED:
        return LinkEvent(False, False, "wrong identity or not omview")
    if event == zmq.EVENT_DISCONNECTED:
        return LinkEvent(False, False, "the connection ended" if was_up else "wrong identity or not omview")
    return LinkEvent(False, False, "nothing answers at that address")
