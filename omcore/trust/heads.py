"""A keyholder's word about the roster, each minute: whoever withholds a removal from a node cannot forge this.

127 bytes, big endian: `OMVHEAD1 | cluster 16 | epoch u16 | flags u8 | max serial u64 | count u32 | digest 16 |
time u64 | signature 64`; the Ed25519 signature covers the first 63.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from omcore.errors import NotTrusted, RemoteProtocolError
from omcore.trust.keys import ClusterKey

HEAD_BYTES = 127
CLOSED = 1  # flag: the key before this epoch is over
_MAGIC = b"OMVHEAD1"
_BODY = struct.Struct(">8s16sHBQI16sQ")


@dataclass(frozen=True, slots=True)
class Head:
    """What a keyholder says that the roster is; `time`: its wall clock, whole seconds."""

    cluster: bytes
    epoch: int
    closed: bool
    serial: int
    count: int
    digest: bytes
    time: int
    raw: bytes = b""


def sign_head(key: ClusterKey, head: Head) -> Head:
    """The same head, signed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    flags = CLOSED if head.closed else 0
    body = _BODY.pack(_MAGIC, head.cluster, head.epoch, flags, head.serial, head.count, head.digest, head.time)
    return parse_head(body + Ed25519PrivateKey.from_private_bytes(key.secret).sign(body))


def parse_head(raw: bytes) -> Head:
    """Read a head; says nothing about its signature. Raises RemoteProtocolError."""
    if len(raw) != HEAD_BYTES:
        raise RemoteProtocolError(f"a roster head has {HEAD_BYTES} bytes, not {len(raw)}")
    magic, cluster, epoch, flags, serial, count, digest, time = _BODY.unpack_from(raw)
    if magic != _MAGIC or flags & ~CLOSED:
        raise RemoteProtocolError("that is no roster head")
    return Head(cluster, epoch, bool(flags & CLOSED), serial, count, digest, time, bytes(raw))


def verify_head(head: Head, public: bytes) -> None:
    """Check that the cluster key signed it. Raises NotTrusted if not."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(head.raw[_BODY.size :], head.raw[: _BODY.size])
    except InvalidSignature as error:
        raise NotTrusted("a roster head that the cluster key did not sign") from error
