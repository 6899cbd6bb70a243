"""What the gossip of a member that may only *look* is reduced to: itself, and questions.

It is probed, answers, asks for the board and tells its own load; of others it says nothing that anybody takes in, so
it can accuse, invent and spread nothing.
"""

from __future__ import annotations

from omcore.errors import RemoteProtocolError
from omcore.gossip import codec, messages
from omcore.gossip.messages import Kind, Message, Record, Status

_TALKS = (Kind.PING, Kind.ACK, Kind.NACK, Kind.NEWS)
_ASKS = (Kind.DIGEST, Kind.PULL)


def modest(data: bytes, sender: int) -> bytes | None:
    """The part of a gossip message that counts when it comes from a *look* member; None: nothing of it.

    Raises RemoteProtocolError where it is no right message at all.
    """
    if data[:1] == bytes((codec.KIND,)):
        return _own_entry(data, sender)
    if data[:1] != bytes((messages.KIND,)):
        raise RemoteProtocolError(f"gossip: unknown kind {data[:1]!r}")
    message = messages.unpack(data)
    if message.kind in _TALKS:
        own = tuple(record for record in message.records if _of_itself(record, sender))
        return messages.pack(Message(message.kind, message.incarnation, message.a, message.b, own))
    if message.kind in _ASKS:
        return messages.pack(Message(message.kind, message.incarnation, message.a, message.b))
    return None


def _of_itself(record: Record, sender: int) -> bool:
    return record.number == sender and record.status in (Status.ALIVE, Status.LEFT)


def _own_entry(data: bytes, sender: int) -> bytes:
    window = codec.unpack_message(data, sender)
    if window is None:
        return data
    own = (window.ages_ms[:1], window.numbers[:1], window.serials[:1], [window.figures[: codec.FIGURES_SIZE]])
    return codec.pack_window(*own, 0, window.own_urgent)
