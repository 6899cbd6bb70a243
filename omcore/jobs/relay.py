"""The owner's side of a job's output: kept until home has it, sent again when home is silent.

Pure: bytes and times in, what to send out.  Small writes are joined, so that a program that prints a line at a time
costs no message a line; the shim's window bounds what is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator

from omcore.wire import CHUNK

AGAIN_S = 0.5
AGAIN_MOST_S = 4.0
"""Silence of home after which the unacknowledged bytes are sent again; doubles up to the second figure."""


class _Stream:
    """Bytes from `start` (acknowledged) on; those before `sent` are on their way."""

    def __init__(self, acked: int) -> None:
        self.start = self.sent = acked
        self.kept = bytearray()

    @property
    def end(self) -> int:
        return self.start + len(self.kept)


class OutRelay:
    """Output of one job between its shim and its home."""

    def __init__(self, acked: dict[str, int]) -> None:
        self._streams = {name: _Stream(offset) for name, offset in acked.items()}
        self._quiet_since = 0.0
        self._again_s = AGAIN_S

    @property
    def acked(self) -> dict[str, int]:
        """What home has of each stream."""
        return {name: stream.start for name, stream in self._streams.items()}

    def add(self, name: str, offset: int, data: bytes, now: float) -> bool:
        """Keep output the job made; False when it was here before (the shim repeats after a reconnect)."""
        stream = self._streams[name]
        if offset > stream.end or offset + len(data) <= stream.end:
            return False
        if not any(other.kept for other in self._streams.values()):
            self._quiet_since = now
        stream.kept += data[stream.end - offset :]
        return True

    def outgoing(self) -> Iterator[tuple[str, int, bytes]]:
        """What was not sent yet, in pieces of at most `CHUNK` bytes; it counts as sent."""
        for name, stream in self._streams.items():
            while stream.sent < stream.end:
                at = stream.sent - stream.start
                data = bytes(stream.kept[at : at + CHUNK])
                offset, stream.sent = stream.sent, stream.sent + len(data)
                yield name, offset, data

    def acknowledged(self, name: str, offset: int, now: float) -> bool:
        """Home has everything before `offset`; True when that is news."""
        stream = self._streams.get(name)
        if stream is None or not stream.start < offset <= stream.end:
            return False
        del stream.kept[: offset - stream.start]
        stream.start = offset
        stream.sent = max(stream.sent, offset)
        self._quiet_since = now
        self._again_s = AGAIN_S
        return True

    def rewind(self) -> None:
        """Home is new or was restarted: send all of it again."""
        for stream in self._streams.values():
            stream.sent = stream.start

    def due(self, now: float) -> bool:
        """Whether home was silent for so long that everything is to be sent again (then less soon)."""
        waiting = any(stream.sent > stream.start for stream in self._streams.values())
        if not waiting or now - self._quiet_since < self._again_s:
            return False
        self._quiet_since = now
        self._again_s = min(self._again_s * 2, AGAIN_MOST_S)
        self.rewind()
        return True
