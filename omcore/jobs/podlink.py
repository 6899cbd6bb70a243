"""The shim's side of the engine's connection: what to send is derived from the state, so nothing piles up."""

from __future__ import annotations

import os

from . import frames
from .podrelay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Link:
    """One connected engine.  At most one data frame and a few control frames wait for the socket."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.splitter = frames.Splitter()
        self.ready = False  # the state was sent
        self._waiting = bytearray()
        self._told_taken = -1
        self._told_signals = -1
        self._told_stop = 0
        self._told_end = False

    def read(self) -> bytes:
        """What the engine sent; b"" at its end, raises BlockingIOError when there is nothing."""
        try:
            return os.read(self.fd, 1 << 18)
        except ConnectionError:
            return b""

    def reply(self, answer: dict[str, Any]) -> None:
        """Queue the answer to a call."""
        self._waiting += frames.frame(frames.K_REPLY, frames.pack(answer))

    def greet(self, state: dict[str, Any]) -> None:
        """Queue the whole state, the first frame of all."""
        self._waiting += frames.frame(frames.K_STATE, frames.pack(state))
        self._told_taken = state["taken"]
        self._told_signals = state["signals"]
        self._told_stop = state["stopped"]
        self.ready = True

    def send(self, relay: Relay | None, stopped: int, status: int | None, quiet: bool) -> bool:
        """Write as much as the socket takes; True when more is waiting for it.  Raises OSError: the engine is gone.

        `quiet`: say nothing of output (a restored copy that nobody has told to go on).
        """
        if not self.ready:
            return False
        while True:
            if not self._waiting:
                self._tell(relay, stopped)
            if self._waiting:
                if not self._flush():
                    return True
                continue
            if relay is None or quiet:
                return False
            if not self._send_output(relay):
                if status is not None and not self._told_end and self._all_told(relay):
                    totals = {s.name: s.made for s in relay.streams.values()}
                    self._waiting += frames.frame(frames.K_ENDED, frames.pack({"status": status, "totals": totals}))
                    self._told_end = True
                    continue
                if not self._waiting:
                    return False

    def _flush(self) -> bool:
        try:
            count = os.write(self.fd, self._waiting)
        except BlockingIOError:
            return False
        del self._waiting[:count]
        return not self._waiting

    def _tell(self, relay: Relay | None, stopped: int) -> None:
        if relay and relay.input.taken != self._told_taken:
            self._told_taken = relay.input.taken
            self._waiting += frames.frame(frames.K_TAKEN, frames.IN.pack(self._told_taken))
        if relay and relay.signals_taken != self._told_signals:
            self._told_signals = relay.signals_taken
            self._waiting += frames.frame(frames.K_SIGNAL_TAKEN, frames.SIGNAL.pack(self._told_signals, 0))
        if stopped != self._told_stop:
            self._told_stop = stopped
            self._waiting += frames.frame(frames.K_STOPPED, bytes((stopped,)))

    def _send_output(self, relay: Relay) -> bool:
        """Send the next piece of each stream; False when there was none (or the socket is full)."""
        moved = False
        for stream in relay.streams.values():
            start = stream.sent - stream.base
            size = min(len(stream.kept) - start, frames.MAX_DATA)
            if size > 0 and not self._waiting:
                self._send_piece(stream.number, stream.sent, stream.kept, start, size)
                stream.sent += size
                moved = True
            elif stream.fd < 0 and not stream.eof_sent and stream.sent == stream.made:
                self._waiting += frames.frame(frames.K_OUT_EOF, frames.OUT.pack(stream.number, stream.made))
                stream.eof_sent = True
        return moved

    def _send_piece(self, number: int, offset: int, kept: bytearray, start: int, size: int) -> None:
        head = frames.HEAD.pack(frames.OUT.size + size, frames.K_OUT) + frames.OUT.pack(number, offset)
        with memoryview(kept) as view, view[start : start + size] as piece:
            try:
                count = os.writev(self.fd, (head, piece))
            except BlockingIOError:
                count = 0
            if count < len(head) + size:
                rest = head[count:] + bytes(piece[max(0, count - len(head)) :])
                self._waiting += rest

    def _all_told(self, relay: Relay) -> bool:
        return all(s.eof_sent for s in relay.streams.values())

    def close(self) -> None:
        """Hang up."""
        os.close(self.fd)
