"""The invitation token: one line of text that proves the inviter to the newcomer and the newcomer to the inviter.

`omv1.` + base64url of `version u8 | flags u8 | expires u32 | cluster 16 | inviter key 32 | one-time secret 32 |
addresses | BLAKE2b-32 check`, big endian; with one IPv4 address 136 characters. `addresses`: a count, then for each
`kind u8` (4, 6, or 1: a host name with its length), the address, `port u16`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from omcore.errors import NotTrusted, UsageError
from omcore.trust.keys import NodeKey, node_id, node_key_of
from omcore.trust.passes import Role
from omcore.types import NodeId

PREFIX = "omv1."
_VERSION = 1
_LOOK = 1  # flag: the newcomer may only look
_HEAD = struct.Struct(">BBI16s32s32s")
_CHECK_BYTES = 4
_MAX_ADDRESSES = 8
_MISTYPED = "This token is mistyped: a character is missing or wrong"


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed token. `expires`: wall-clock seconds; `addresses`: "host:port" where the inviter listens."""

    cluster: bytes
    inviter: NodeId
    secret: bytes = field(repr=False)
    expires: int
    role: Role
    addresses: tuple[str, ...]

    @property
    def key(self) -> NodeKey:
        """The one-time key pair: the newcomer dials with it."""
        return node_key_of(self.secret)


def make_token(
    cluster: bytes, inviter: NodeId, addresses: Sequence[str], expires: int, role: Role = Role.WORK
) -> tuple[str, Token]:
    """A new token with a fresh one-time key; the text is shown once and stored nowhere.

    Raises UsageError without an address, for the newcomer must know where to dial.
    """
    if not addresses:
        raise UsageError("this node listens nowhere, so nobody could use the token", "omview serve --listen ADDR")
    kept = tuple(addresses[:_MAX_ADDRESSES])
    secret = secrets.token_bytes(32)
    flags = _LOOK if role is Role.LOOK else 0
    body = _HEAD.pack(_VERSION, flags, expires, cluster, bytes.fromhex(inviter), secret)
    body += bytes([len(kept)]) + b"".join(_pack_address(address) for address in kept)
    text = PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")
    return text, Token(cluster, inviter, secret, expires, role, kept)


def parse_token(text: str, now: float) -> Token:
    """Read what somebody typed. Raises UsageError (mistyped) or NotTrusted (expired at wall-clock `now`)."""
    text = "".join(text.split())
    if not text.startswith(PREFIX) or len(text) > 1024:
        raise UsageError(_MISTYPED, f"a token begins with {PREFIX}")
    encoded = text[len(PREFIX) :]
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError(_MISTYPED, "copy it whole") from error
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if len(body) <= _HEAD.size or not hmac.compare_digest(check, _check(body)):
        raise UsageError(_MISTYPED, "copy it whole")
    version, flags, expires, cluster, inviter, secret = _HEAD.unpack_from(body)
    if version != _VERSION:
        raise UsageError(f"This token is of version {version}; this omview knows version {_VERSION}", "update omview")
    if now >= expires:
        minutes = max(1, int(now - expires) // 60)
        raise NotTrusted(f"This token expired {minutes} min ago", "ask for a new one: omview invite")
    addresses = _unpack_addresses(body[_HEAD.size :])
    role = Role.LOOK if flags & _LOOK else Role.WORK
    return Token(cluster, node_id(inviter), secret, expires, role, addresses)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port". Raises UsageError."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"{address!r}: an IPv6 address goes in brackets: [addr]:port")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{address!r} is not host:port")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """ "host:port", with brackets for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES).digest()


def _pack_address(address: str) -> bytes:
    host, port = split_address(address)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode()[:255]
        return bytes([1, len(name)]) + name + port.to_bytes(2, "big")
    return bytes([ip.version]) + ip.packed + port.to_bytes(2, "big")


def _unpack_addresses(data: bytes) -> tuple[str, ...]:
    found = []
    position = 1
    try:
        for _ in range(min(data[0], _MAX_ADDRESSES)):
            kind = data[position]
            position += 1
            length = {4: 4, 6: 16}.get(kind, 0)
            if kind == 1:
                length = data[position]
                position += 1
            packed, port = data[position : position + length], data[position + length : position + length + 2]
            position += length + 2
            host = packed.decode() if kind == 1 else str(ipaddress.ip_address(packed))
            found.append(join_address(host, int.from_bytes(port, "big")))
    except (IndexError, ValueError) as error:
        raise UsageError(_MISTYPED, "copy it whole") from error
    return tuple(found)
