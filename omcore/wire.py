"""How typed messages become bytes and back: one kind byte, then the message as MessagePack.

A `Codec` is a closed table of kinds; whatever is not in it, too long, or of another shape raises
`RemoteProtocolError` and changes nothing.  Nodes (over ZeroMQ) and faces (over the control socket) each have a
table of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
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


_MAYBE_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]|\xca[\x7f\xff][\x80-\xff]")
"""How NaN and infinity begin in MessagePack.  Raw bytes and text may look like it, so a hit means: look closely."""
_NOT_OF_THAT_SHAPE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _finite(value: object) -> None:
    """Refuse NaN and infinity, however deep: they poison every comparison that follows."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RemoteProtocolError("a number that is not finite")
    elif isinstance(value, (tuple, list, set, frozenset)):
        for item in value:
            _finite(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _finite(key)
            _finite(item)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _finite(getattr(value, name))
    elif is_dataclass(value):
        for field in fields(value):
            _finite(getattr(value, field.name))


def _checked(value: T, data: bytes | memoryview) -> T:
    """The value decoded from `data`, walked through only where the bytes give reason to."""
    if _MAYBE_NOT_FINITE.search(data):
        _finite(value)
    return value


class Codec:
    """A closed table from kind byte to message type."""

    def __init__(self, kinds: Mapping[int, type], limit: int) -> None:
        self.kinds = dict(kinds)
        self._decoders: dict[int, msgspec.msgpack.Decoder[Any]] = {
            number: msgspec.msgpack.Decoder(kind) for number, kind in kinds.items()
        }
        self._numbers = {kind: number for number, kind in kinds.items()}
        self._encoder = msgspec.msgpack.Encoder()
        self._limit = limit

    def encode(self, message: object) -> bytes:
        """Bytes of a message; raises `LocalProtocolError` for a foreign type or one over the limit."""
        try:
            number = self._numbers[type(message)]
        except KeyError:
            raise LocalProtocolError(f"{type(message).__name__} is not in this table") from None
        try:
            data = bytes((number,)) + self._encoder.encode(message)
        except (UnicodeEncodeError, OverflowError) as error:
            raise LocalProtocolError(f"{type(message).__name__} cannot be sent: {error}") from error
        if len(data) > self._limit:
            raise LocalProtocolError(f"{type(message).__name__} of {len(data)} bytes is over the limit")
        return data

    def decode(self, data: bytes | memoryview) -> Any:
        """The message in `data`; raises `RemoteProtocolError` for anything else."""
        if not 1 <= len(data) <= self._limit:
            raise RemoteProtocolError(f"a message of {len(data)} bytes")
        decoder = self._decoders.get(data[0])
        if decoder is None:
            raise RemoteProtocolError(f"unknown kind {data[0]}")
        try:
            message = decoder.decode(memoryview(data)[1:])
        except _NOT_OF_THAT_SHAPE as error:
            raise RemoteProtocolError(f"kind {data[0]}: {error}") from error
        return _checked(message, data)


def pack(value: object) -> bytes:
    """Any plain value (records, journal payloads) as MessagePack."""
    return msgspec.msgpack.encode(value)


def unpack(data: bytes, kind: type[T]) -> T:
    """A value packed by `pack`; raises `RemoteProtocolError` when it is not of that shape."""
    try:
        return _checked(msgspec.msgpack.decode(data, type=kind), data)
    except _NOT_OF_THAT_SHAPE as error:
        raise RemoteProtocolError(str(error)) from error


def to_json(value: object) -> bytes:
    """JSON of frozen values, for records people may read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1)


def from_json(data: bytes, kind: type[T]) -> T:
    """A value written by `to_json`; raises `RemoteProtocolError` when it is not of that shape."""
    try:
        return msgspec.json.decode(data, type=kind)
    except _NOT_OF_THAT_SHAPE as error:
        raise RemoteProtocolError(str(error)) from error
