"""Membership news waiting to ride along with other messages: each piece a limited number of times."""

from __future__ import annotations

from heapq import nsmallest

from omcore.gossip.messages import Record

PASSENGERS = 64  # per message: 832 bytes


class News:
    """One piece per node at most; what was sent least goes first."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: dict[int, tuple[int, int, Record]] = {}  # number -> (times sent, times allowed, record)

    def __len__(self) -> int:
        return len(self._pieces)

    def put(self, record: Record, times: int) -> None:
        """Spread this, `times` times; it replaces older news of the same node."""
        self._pieces[record.number] = (0, times, record)

    def drop(self, number: int) -> None:
        """Spread nothing of this node any more."""
        self._pieces.pop(number, None)

    def take(self, but: int | None = None, room: int = PASSENGERS) -> list[Record]:
        """Up to `room` records for one message, none about `but`; each counts as sent."""
        chosen = nsmallest(room, self._pieces.values(), key=lambda piece: piece[0])
        records = []
        for sent, allowed, record in chosen:
            if record.number == but:
                continue
            records.append(record)
            if sent + 1 >= allowed:
                del self._pieces[record.number]
            else:
                self._pieces[record.number] = (sent + 1, allowed, record)
        return records
