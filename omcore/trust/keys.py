"""The node's own key and the cluster key: made once, kept in private files, shown only as fingerprints."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from omcore.errors import NotTrusted
from omcore.trust.files import create_private, read_private
from omcore.types import NodeId

NODE_KEY = "node.key"
CLUSTER_KEY = "cluster.key"
NEXT_CLUSTER_KEY = "cluster.key.next"
KEY_BYTES = 32
_NODE_MAGIC = b"OMVNODE1"
_CLUSTER_MAGIC = b"OMVCLUS1"
_CHECK_BYTES = 8
_FILE_BYTES = 8 + 2 * KEY_BYTES + _CHECK_BYTES


@dataclass(frozen=True, slots=True)
class NodeKey:
    """A node's X25519 pair; `id` is the public half. The secret never appears in a repr."""

    id: NodeId
    secret: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return bytes.fromhex(self.id)


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """The Ed25519 pair that signs passes; only keyholders have it."""

    public: bytes
    secret: bytes = field(repr=False)


def node_id(public: bytes) -> NodeId:
    """The name of the node with this 32-byte public key. Raises ValueError for another length."""
    if len(public) != KEY_BYTES:
        raise ValueError(f"a public key has {KEY_BYTES} bytes, not {len(public)}")
    return NodeId(public.hex())


def to_z85(node: NodeId) -> bytes:
    """The 40 characters in which ZeroMQ's tools print this key."""
    encoded: bytes = z85.encode(bytes.fromhex(node))
    return encoded


def from_z85(text: bytes) -> NodeId:
    """The node whose key ZeroMQ prints as `text`. Raises ValueError."""
    return node_id(z85.decode(text))


def short_id(public: bytes) -> bytes:
    """BLAKE2b-128 of a public key: what a fingerprint shows and what a pass keeps of the inviter."""
    return hashlib.blake2b(public, digest_size=16).digest()


def fingerprint(public: bytes) -> str:
    """A public key for people to compare: base32 of its BLAKE2b-128 in groups of 4."""
    text = base64.b32encode(short_id(public)).decode().rstrip("=")
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def generate_node_key() -> NodeKey:
    """A fresh pair, not stored anywhere."""
    public, secret = zmq.curve_keypair()
    return NodeKey(from_z85(public), z85.decode(secret))


def node_key_of(secret: bytes) -> NodeKey:
    """The pair to a known 32-byte secret (the one-time key of an invitation)."""
    return NodeKey(from_z85(zmq.curve_public(z85.encode(secret))), secret)


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, person=b"omview-key-file").digest()


def _store(path: Path, magic: bytes, public: bytes, secret: bytes) -> None:
    body = magic + public + secret
    create_private(path, body + _check(body))


def _load(path: Path, magic: bytes) -> tuple[bytes, bytes]:
    data = read_private(path, _FILE_BYTES)
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if len(data) != _FILE_BYTES or body[:8] != magic or not hmac.compare_digest(check, _check(body)):
        quoted = shlex.quote(str(path))
        raise NotTrusted(f"{path} is damaged or cut short", f"restore it from a backup, or: mv {quoted} {quoted}.bad")
    return body[8 : 8 + KEY_BYTES], body[8 + KEY_BYTES :]


def create_node_key(directory: Path) -> NodeKey:
    """Make and store this node's key. Raises FileExistsError when there is one."""
    key = generate_node_key()
    _store(directory / NODE_KEY, _NODE_MAGIC, key.public, key.secret)
    return key


def load_node_key(directory: Path) -> NodeKey:
    """This node's key. Raises FileNotFoundError before the first run, NotTrusted if the file is not to be trusted."""
    public, secret = _load(directory / NODE_KEY, _NODE_MAGIC)
    return NodeKey(node_id(public), secret)


def generate_cluster_key() -> ClusterKey:
    """A fresh signing pair, not stored anywhere."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # 8.8 MiB, so only here

    private = Ed25519PrivateKey.generate()
    return ClusterKey(private.public_key().public_bytes_raw(), private.private_bytes_raw())


def store_cluster_key(directory: Path, key: ClusterKey) -> None:
    """Make this node a keyholder. Raises FileExistsError when it holds one already."""
    _store(directory / CLUSTER_KEY, _CLUSTER_MAGIC, key.public, key.secret)


def store_next_cluster_key(directory: Path, key: ClusterKey) -> None:
    """Keep a key that will be the cluster's: before the turn to it is known anywhere, so that a crash loses nothing."""
    (directory / NEXT_CLUSTER_KEY).unlink(missing_ok=True)
    _store(directory / NEXT_CLUSTER_KEY, _CLUSTER_MAGIC, key.public, key.secret)


def take_next_cluster_key(directory: Path, public: bytes) -> ClusterKey | None:
    """If the key kept for later is the cluster's by now, let it take the old one's place."""
    try:
        found, secret = _load(directory / NEXT_CLUSTER_KEY, _CLUSTER_MAGIC)
    except FileNotFoundError:
        return None
    if found != public:
        return None
    (directory / NEXT_CLUSTER_KEY).replace(directory / CLUSTER_KEY)
    return ClusterKey(found, secret)


def load_cluster_key(directory: Path) -> ClusterKey | None:
    """The cluster key if this node holds it. Raises NotTrusted if the file is not to be trusted."""
    try:
        public, secret = _load(directory / CLUSTER_KEY, _CLUSTER_MAGIC)
    except FileNotFoundError:
        return None
    return ClusterKey(public, secret)


def forget_cluster_key(directory: Path) -> None:
    """Give up being a keyholder (after joining another cluster)."""
    for name in (CLUSTER_KEY, NEXT_CLUSTER_KEY):
        (directory / name).unlink(missing_ok=True)
