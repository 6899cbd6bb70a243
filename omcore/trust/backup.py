"""The cluster key in a file that only a passphrase opens: `omview key export` and `import` (SECURITY section 5).

`OMVKEYB1 | log2 N u8 | r u8 | p u8 | salt 16 | nonce 12`, then AES-256-GCM over `cluster 16 | public 32 | secret 32`
with that head as additional data; the key is scrypt's, N = 2^17, r = 8: 128 MiB and half a second for each guess.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass

from omcore.errors import NotTrusted, UsageError
from omcore.trust.keys import KEY_BYTES, ClusterKey

SHORTEST = 8  # characters of a passphrase
FILE_BYTES = 200  # more is none of ours
_MAGIC = b"OMVKEYB1"
_HEAD = struct.Struct(">8sBBB16s12s")
_BODY = struct.Struct(">16s32s32s")
_COST = (17, 8, 1)
_MEMORY_BYTES = 256 * 1024 * 1024
_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds: the key, and the cluster it is for."""

    cluster: bytes
    key: ClusterKey


def seal(backup: Backup, passphrase: str) -> bytes:
    """The content of a backup file. Takes half a second and 128 MiB. Raises UsageError for a short passphrase."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(passphrase) < SHORTEST:
        raise UsageError(f"A passphrase has at least {SHORTEST} characters.")
    head = _HEAD.pack(_MAGIC, *_COST, os.urandom(16), os.urandom(12))
    body = _BODY.pack(backup.cluster, backup.key.public, backup.key.secret)
    return head + AESGCM(_stretch(head, passphrase)).encrypt(head[-12:], body, head)


def unseal(data: bytes, passphrase: str) -> Backup:
    """What is in a backup file. Raises UsageError (no backup of ours) or NotTrusted (passphrase, or altered)."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(data) != _HEAD.size + _BODY.size + _TAG_BYTES or data[: len(_MAGIC)] != _MAGIC:
        raise UsageError("That is no backup of a cluster key.", "omview key export FILE makes one")
    head, sealed = data[: _HEAD.size], data[_HEAD.size :]
    if tuple(head[8:11]) != _COST:  # before scrypt takes whatever memory the file asks for
        raise UsageError("That backup was made by another version of omview.", "use the version that made it")
    try:
        body = AESGCM(_stretch(head, passphrase)).decrypt(head[-12:], sealed, head)
    except InvalidTag as error:
        raise NotTrusted("The passphrase is wrong, or the file was altered.") from error
    cluster, public, secret = _BODY.unpack(body)
    key = ClusterKey(public, secret)
    check_pair(key)
    return Backup(cluster, key)


def check_pair(key: ClusterKey) -> None:
    """Raise NotTrusted where the two halves of a cluster key do not belong together."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if len(key.secret) != KEY_BYTES:
        raise NotTrusted("That is no cluster key.")
    if Ed25519PrivateKey.from_private_bytes(key.secret).public_key().public_bytes_raw() != key.public:
        raise NotTrusted("The two halves of that cluster key do not belong together.")


def _stretch(head: bytes, passphrase: str) -> bytes:
    log_n, r, p = head[8:11]
    return hashlib.scrypt(passphrase.encode(), salt=head[11:27], n=1 << log_n, r=r, p=p, maxmem=_MEMORY_BYTES, dklen=32)
