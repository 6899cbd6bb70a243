"""What members tell each other about who is alive: the messages and their bytes.

    b"M"  type  incarnation:u32 (of the sender)  body  records...

A record (13 bytes) is one claim: status, number, incarnation, and who made it.  All messages but PAGE may carry
records as passengers; a PAGE's records are the page: all that the sender knows of the numbers `low`..`high`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct, iter_unpack

from omcore.errors import RemoteProtocolError

KIND = 0x4D
RECORD_LIMIT = 256  # per message: 3.3 kB
INCARNATION_LIMIT = 0xFFFF0000  # what is beyond could not be refuted any more

_HEAD = Struct("<BBI")
_RECORD = Struct("<BIII")


class Kind(IntEnum):
    """Types of message; `a` and `b` of a Message mean what stands beside each."""

    PING = 1  # a: sequence number, to be given back
    ACK = 2  # a: the ping's sequence number
    ASK = 3  # a: sequence number for the answer, b: whom to ping for me
    NACK = 4  # a: the ask's sequence number: no answer so far, but I am here
    NEWS = 5  # passengers only
    DIGEST = 6  # a..b: a page; answer with what you know better
    PAGE = 7  # a..b: an answer to DIGEST or PULL; no answer to this
    PULL = 8  # a: from which number on I want a page


class Status(IntEnum):
    """What can be claimed of a node; at equal incarnations the greater one wins."""

    ALIVE = 1
    SUSPECT = 2
    DEAD = 3
    LEFT = 4


_BODIES = {
    Kind.PING: Struct("<I"),
    Kind.ACK: Struct("<I"),
    Kind.ASK: Struct("<II"),
    Kind.NACK: Struct("<I"),
    Kind.NEWS: Struct("<"),
    Kind.DIGEST: Struct("<II"),
    Kind.PAGE: Struct("<II"),
    Kind.PULL: Struct("<I"),
}


@dataclass(frozen=True, slots=True)
class Record:
    """One claim; `by` made it (of weight for suspicions only)."""

    status: Status
    number: int
    incarnation: int
    by: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    kind: Kind
    incarnation: int
    a: int = 0
    b: int = 0
    records: tuple[Record, ...] = ()


def pack(message: Message) -> bytes:
    """The bytes of a message."""
    body = _BODIES[message.kind]
    fields = (message.a, message.b)[: body.size // 4]
    records = [_RECORD.pack(r.status, r.number, r.incarnation, r.by) for r in message.records]
    return b"".join((_HEAD.pack(KIND, message.kind, message.incarnation), body.pack(*fields), *records))


def unpack(data: bytes) -> Message:
    """The message in these bytes.  Raises RemoteProtocolError where they are not exactly one right message."""
    if len(data) < _HEAD.size:
        raise RemoteProtocolError(f"members: {len(data)} bytes")
    magic, type_, incarnation = _HEAD.unpack_from(data)
    if magic != KIND or type_ not in Kind._value2member_map_ or incarnation >= INCARNATION_LIMIT:
        raise RemoteProtocolError(f"members: kind={magic} type={type_} {incarnation=}")
    kind = Kind(type_)
    body = _BODIES[kind]
    end = _HEAD.size + body.size
    count, odd = divmod(len(data) - end, _RECORD.size)
    if count < 0 or odd or count > RECORD_LIMIT:
        raise RemoteProtocolError(f"members: {kind.name} of {len(data)} bytes")
    fields = (*body.unpack_from(data, _HEAD.size), 0, 0)
    records = tuple(_record(*values) for values in iter_unpack(_RECORD.format, data[end:]))
    if kind in (Kind.DIGEST, Kind.PAGE) and not all(fields[0] <= r.number <= fields[1] for r in records):
        raise RemoteProtocolError("members: a record outside its page")
    return Message(kind, incarnation, fields[0], fields[1], records)


def _record(status: int, number: int, incarnation: int, by: int) -> Record:
    if status not in Status._value2member_map_ or incarnation >= INCARNATION_LIMIT:
        raise RemoteProtocolError(f"members: claim {status=} {incarnation=}")
    return Record(Status(status), number, incarnation, by)
