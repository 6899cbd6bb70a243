"""The owner's side of a job's output: kept until home has it, sent again when home is silent.

Pure: bytes and times in, what to send out.  The shim already bounds what may be unacknowledged (its window), so
nothing here can grow beyond that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

AGAIN_S = 0.5
"""Silence of home after which everything unacknowledged is sent again."""


class OutRelay:
    """Output of one job between its shim and its home."""

    def __init__(self, acked: dict[str, int]) -> None:
        self._kept: dict[str, deque[tuple[int, bytes]]] = {stream: deque() for stream in acked}
        self.acked = dict(acked)
        self._moved_at = 0.0

    def add(self, stream: str, offset: int, data: bytes, now: float) -> bool:
        """Keep output the job made; False when it was here before (the shim repeats after a reconnect)."""
        kept = self._kept[stream]
        end = kept[-1][0] + len(kept[-1][1]) if kept else self.acked[stream]
        if offset + len(data) <= end:
            return False
        if not any(self._kept.values()):
            self._moved_at = now
        kept.append((offset, data) if offset >= end else (end, data[end - offset :]))
        return True

    def acknowledged(self, stream: str, offset: int, now: float) -> bool:
        """Home has everything before `offset`; True when that is news."""
        if stream not in self._kept or offset <= self.acked[stream]:
            return False
        kept = self._kept[stream]
        while kept and kept[0][0] + len(kept[0][1]) <= offset:
            kept.popleft()
        self.acked[stream] = offset
        self._moved_at = now
        return True

    def unacknowledged(self) -> Iterator[tuple[str, int, bytes]]:
        """All that home may not have yet, in order within each stream."""
        for stream, kept in self._kept.items():
            for offset, data in kept:
                yield stream, offset, data

    def due(self, now: float) -> bool:
        """Whether home was silent for so long that all of it should be sent again (then not for as long again)."""
        if not any(self._kept.values()) or now - self._moved_at < AGAIN_S:
            return False
        self._moved_at = now
        return True
