"""One entry of the roster: a signed pass that admits a node, or its signed removal (SECURITY section 6).

168 bytes, big endian: `magic 8 | cluster 16 | node key 32 | number u32 | role u8 | flags u8 | epoch u16 | serial u64 |
issued u64 | expires u64 (0: never) | inviter 16 | signature 64`; the Ed25519 signature covers the first 104.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

from omcore.errors import NotTrusted, RemoteProtocolError
from omcore.trust.keys import ClusterKey, node_id
from omcore.types import NodeId

ENTRY_BYTES = 168
KEYHOLDER = 1  # flag: this node holds the cluster key
_SIGNED_BYTES = 104
_ADMITS = b"OMVPASS1"
_REMOVES = b"OMVGONE1"
_LAYOUT = struct.Struct(">8s16s32sIBBHQQQ16s64s")
_BODY = struct.Struct(">8s16s32sIBBHQQQ16s")


class Role(IntEnum):
    """What a member may do."""

    LOOK = 1  # figures only
    WORK = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A parsed entry; `raw` is what travels. Times are whole wall-clock seconds; `expires` 0: never."""

    gone: bool
    cluster: bytes
    node: NodeId
    number: int
    role: Role
    flags: int
    epoch: int
    serial: int
    issued: int
    expires: int
    inviter: bytes
    raw: bytes

    def beats(self, other: Entry | None) -> bool:
        """Whether this entry replaces `other` of the same node: newest wins, at equality the removal."""
        if other is None:
            return True
        return (self.epoch, self.serial, self.gone, self.raw) > (other.epoch, other.serial, other.gone, other.raw)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a keyholder signs about one node; see `Entry` for the fields."""

    node: NodeId
    number: int
    role: Role
    serial: int
    issued: int
    inviter: bytes
    gone: bool = False
    flags: int = 0
    epoch: int = 0
    expires: int = 0


def cluster_id(first_public: bytes) -> bytes:
    """16 bytes that name a cluster for ever: a hash of its first cluster public key."""
    return hashlib.blake2b(first_public, digest_size=16, person=b"omview-cluster1").digest()


def sign(key: ClusterKey, cluster: bytes, grant: Grant) -> Entry:
    """Make an entry. Costs 37 us after the first, which imports `cryptography` (8.8 MiB)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    magic = _REMOVES if grant.gone else _ADMITS
    body = _BODY.pack(
        magic,
        cluster,
        bytes.fromhex(grant.node),
        grant.number,
        grant.role,
        grant.flags,
        grant.epoch,
        grant.serial,
        grant.issued,
        grant.expires,
        grant.inviter,
    )
    return parse(body + Ed25519PrivateKey.from_private_bytes(key.secret).sign(body))


def parse(raw: bytes) -> Entry:
    """Read one entry; says nothing about its signature. Raises RemoteProtocolError."""
    if len(raw) != ENTRY_BYTES:
        raise RemoteProtocolError(f"a roster entry has {ENTRY_BYTES} bytes, not {len(raw)}")
    magic, cluster, key, number, role, flags, epoch, serial, issued, expires, inviter, _ = _LAYOUT.unpack(raw)
    if magic not in (_ADMITS, _REMOVES):
        raise RemoteProtocolError("a roster entry of an unknown kind")
    if role not in (Role.LOOK, Role.WORK) or number == 0:
        raise RemoteProtocolError("a roster entry without role or number")
    gone = magic == _REMOVES
    return Entry(
        gone, cluster, node_id(key), number, Role(role), flags, epoch, serial, issued, expires, inviter, bytes(raw)
    )


def verify(entries: list[Entry], cluster: bytes, cluster_public: bytes) -> None:
    """Check that the cluster key signed every one of `entries`; 111 us each. Raises NotTrusted if not."""
    if not entries:
        return
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public = Ed25519PublicKey.from_public_bytes(cluster_public)
    for entry in entries:
        if entry.cluster != cluster:
            raise NotTrusted("a roster entry of another cluster")
        try:
            public.verify(entry.raw[_SIGNED_BYTES:], entry.raw[:_SIGNED_BYTES])
        except InvalidSignature as error:
            raise NotTrusted("a roster entry that the cluster key did not sign") from error
