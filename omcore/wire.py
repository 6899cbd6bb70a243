"""How typed messages become bytes and back: one kind byte, then the message as MessagePack.

A `Codec` is a closed table of kinds; whatever is not in it, too long, or of another shape raises
`RemoteProtocolError` and changes nothing.  Nodes (over ZeroMQ) and faces (over the control socket) each have a
table of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from omcore.errors import LocalProtocolError, RemoteProtocolError

PROTO = 1
"""Version of everything between nodes; another version is refused with one sentence."""

MAX_PEER_BYTES = 256 * 1024
MAX_CONTROL_BYTES = 4 * 1024 * 1024
CHUNK = 64 * 1024
"""Most bytes of a stream (terminal, pipe) in one message."""

T = TypeVar("T")


def _finite(value: object) -> None:
    """Refuse NaN and infinity anywhere: they poison every comparison that follows."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RemoteProtocolError("a number that is not finite")


class Codec:
    """A closed table from kind byte to message type."""

    def __init__(self, kinds: Mapping[int, type], limit: int) -> None:
        self._kinds = {number: msgspec.msgpack.Decoder(kind) for number, kind in kinds.items()}
        self._numbers = {kind: number for number, kind in kinds.items()}
        self._encoder = msgspec.msgpack.Encoder()
        self._limit = limit

    def encode(self, message: object) -> bytes:
        """Bytes of a message; raises `LocalProtocolError` for a foreign type or one over the limit."""
        try:
            number = self._numbers[type(message)]
        except KeyError:
            raise LocalProtocolError(f"{type(message).__name__} is not in this table") from None
        data = bytes((number,)) + self._encoder.encode(message)
        if len(data) > self._limit:
            raise LocalProtocolError(f"{type(message).__name__} of {len(data)} bytes is over the limit")
        return data

    def decode(self, data: bytes | memoryview) -> Any:
        """The message in `data`; raises `RemoteProtocolError` for anything else."""
        if not 1 <= len(data) <= self._limit:
            raise RemoteProtocolError(f"a message of {len(data)} bytes")
        decoder = self._kinds.get(data[0])
        if decoder is None:
            raise RemoteProtocolError(f"unknown kind {data[0]}")
        try:
            message = decoder.decode(data[1:])
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"kind {data[0]}: {error}") from error
        for name in getattr(message, "__slots__", ()):
            _finite(getattr(message, name))
        return message


def pack(value: object) -> bytes:
    """Any plain value (records, journal payloads) as MessagePack."""
    return msgspec.msgpack.encode(value)


def unpack(data: bytes, kind: type[T]) -> T:
    """A value packed by `pack`; raises `RemoteProtocolError` when it is not of that shape."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise RemoteProtocolError(str(error)) from error


def to_json(value: object) -> bytes:
    """JSON of frozen values, for records people may read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1)


def from_json(data: bytes, kind: type[T]) -> T:
    """A value written by `to_json`; raises `RemoteProtocolError` when it is not of that shape."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise RemoteProtocolError(str(error)) from error
