"""What an announcement says: a number that changes, which only those who know the sender's key can recognise.  Pure.

A mark is BLAKE2b-80 under the key's bytes over the hour and the label that the sender drew at its start.  So no two
starts announce the same, and a stranger cannot follow a machine from one network to the next (RFC 8882 names the
trouble with that).  Members try the keys they know: it is a hint for an address, and proves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from omcore.types import NodeId

PERSON = b"omview-lan-1"
HOUR_S = 3600
MARK_LENGTH = 20  # hexadecimal digits
MAX_LABEL = 32
HASHES_S = 20_000.0  # a flood of announcements costs no more than about 3 % of a core
_CLOCK_SKEW = (0, -1, 1)  # hours


def mark(key: NodeId, hour: int, label: str) -> str:
    """The mark of a key in this hour (since 1970) under this label, in hexadecimal."""
    data = hour.to_bytes(8, "big") + label.encode()
    return hashlib.blake2b(data, digest_size=MARK_LENGTH // 2, key=bytes.fromhex(key), person=PERSON).hexdigest()


class Recogniser:
    """Finds whose mark it is, among the keys it was given; `now` is wall-clock seconds."""

    def __init__(self) -> None:
        self._keys: tuple[NodeId, ...] = ()
        self._budget = HASHES_S
        self._filled = 0.0

    def set_keys(self, keys: Iterable[NodeId]) -> None:
        """Whom to recognise."""
        self._keys = tuple(keys)

    def find(self, found: str, label: str, now: float) -> NodeId | None:
        """The key that made this mark an hour ago at most; None: a stranger's, or too much to look at just now."""
        if len(found) != MARK_LENGTH or not 0 < len(label) <= MAX_LABEL:
            return None
        cost = len(self._keys) * len(_CLOCK_SKEW)
        if not self._afford(cost, now):
            return None
        hour = int(now) // HOUR_S
        for skew in _CLOCK_SKEW:
            for key in self._keys:
                if mark(key, hour + skew, label) == found:
                    return key
        return None

    def _afford(self, cost: int, now: float) -> bool:
        most = max(HASHES_S, cost)  # even ten thousand keys may be looked through once in a while
        self._budget = min(most, self._budget + max(0.0, now - self._filled) * HASHES_S)
        self._filled = now
        if self._budget < cost:
            return False
        self._budget -= cost
        return True
