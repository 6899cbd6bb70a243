"""Who may connect: libzmq asks this thread for every handshake, before a byte of the peer's is parsed.

An own thread, because an authenticator on the engine's loop would let every handshake time out while the loop is busy.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import zmq

from omcore.transport.base import TransportStats
from omcore.types import NodeId

DOMAIN = b"omview"
ZAP_ENFORCE_DOMAIN = 93  # without it libzmq admits everybody when there is no handler (libzmq #2711)
_ADDRESS = "inproc://zeromq.zap.01"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A key that was not admitted and where it came from, for the audit log."""

    key: NodeId
    address: str


class Zap:
    """Admits exactly the keys in `keys`, which the engine swaps as a whole; any doubt or exception answers 400."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], stats: TransportStats) -> None:
        self.keys: frozenset[bytes] = frozenset()
        self._stats = stats
        self.refusals: deque[Refusal] = deque(maxlen=64)
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(_ADDRESS)  # before any server socket binds
        self._thread = threading.Thread(target=self._run, name="omview-zap", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                request = self._socket.recv_multipart()
                status, user = self._judge(request)
                number = request[1] if len(request) > 1 else b""
                self._socket.send_multipart([b"1.0", number, status, b"", user, b""])
        except zmq.ZMQError:  # ETERM: the context ends. Anything else: nobody is admitted any more, as it should be
            pass
        finally:
            self._socket.close(0)

    def _judge(self, request: list[bytes]) -> tuple[bytes, bytes]:
        try:
            version, _, domain, address, _, mechanism, key = request
            if (version, domain, mechanism) == (b"1.0", DOMAIN, b"CURVE") and key in self.keys:
                return b"200", key.hex().encode()
            self.refusals.append(Refusal(NodeId(key.hex()[:64]), address.decode("ascii", "replace")))
        except (ValueError, TypeError):  # another number of frames: no CURVE client
            pass
        self._stats.refused += 1
        return b"400", b""
