"""A cluster key hands over to the next: the turn, signed by both (SECURITY section 6, rotation).

210 bytes, big endian: `OMVTURN1 | cluster 16 | old id 16 | new public 32 | epoch u16 | issued u64 | signature by the
old key 64 | signature by the new key 64`, both over the first 82.  Turn n leads from epoch n - 1 to epoch n; the
cluster's first key is epoch 0.  Two different turns to one epoch mean that two hold the old key, and one of them is a
thief: nobody but a person can tell which.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from omcore.errors import NotTrusted, RemoteProtocolError
from omcore.trust.keys import ClusterKey, fingerprint, short_id

TURN_BYTES = 210
MAX_TURNS = 1000
_MAGIC = b"OMVTURN1"
_BODY = struct.Struct(">8s16s16s32sHQ")
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Turn:
    """A parsed turn; `raw` is what travels, `issued` whole wall-clock seconds."""

    cluster: bytes
    old: bytes
    new: bytes
    epoch: int
    issued: int
    raw: bytes

    @property
    def fingerprint(self) -> str:
        """The new key as people compare it."""
        return fingerprint(self.new)


def sign_turn(old: ClusterKey, new: ClusterKey, cluster: bytes, epoch: int, now: float) -> Turn:
    """Hand over from `old` to `new`; `epoch` is the new one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    body = _BODY.pack(_MAGIC, cluster, short_id(old.public), new.public, epoch, int(now))
    signatures = (Ed25519PrivateKey.from_private_bytes(key.secret).sign(body) for key in (old, new))
    return parse_turn(body + b"".join(signatures))


def parse_turn(raw: bytes) -> Turn:
    """Read one turn; says nothing about its signatures. Raises RemoteProtocolError."""
    if len(raw) != TURN_BYTES:
        raise RemoteProtocolError(f"a turn has {TURN_BYTES} bytes, not {len(raw)}")
    magic, cluster, old, new, epoch, issued = _BODY.unpack_from(raw)
    if magic != _MAGIC or epoch == 0:
        raise RemoteProtocolError("that is no turn")
    return Turn(cluster, old, new, epoch, issued, bytes(raw))


def parse_turns(data: bytes) -> list[Turn]:
    """Turns one after the other. Raises RemoteProtocolError."""
    if len(data) % TURN_BYTES or len(data) > MAX_TURNS * TURN_BYTES:
        raise RemoteProtocolError(f"turns of {len(data)} bytes in all")
    return [parse_turn(data[start : start + TURN_BYTES]) for start in range(0, len(data), TURN_BYTES)]


def verify_turn(turn: Turn, cluster: bytes, old_public: bytes) -> None:
    """Check that the old key hands over and the new one takes. Raises NotTrusted if not."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if turn.cluster != cluster or turn.old != short_id(old_public):
        raise NotTrusted("a turn of another cluster key")
    body, signatures = turn.raw[: _BODY.size], turn.raw[_BODY.size :]
    try:
        for public, start in ((old_public, 0), (turn.new, _SIGNATURE_BYTES)):
            Ed25519PublicKey.from_public_bytes(public).verify(signatures[start : start + _SIGNATURE_BYTES], body)
    except (InvalidSignature, ValueError) as error:
        raise NotTrusted("a turn that its two keys did not sign") from error
