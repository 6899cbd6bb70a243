"""Open invitations and what happens when somebody uses one (SECURITY section 6, steps 1 to 3).

The token itself is never stored: only the public half of its one-time key, when it expires, and which node used it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from typing import Annotated

import msgspec

from omcore.errors import NotTrusted, RemoteProtocolError, UsageError
from omcore.trust.files import read_private, replace_private
from omcore.trust.keys import ClusterKey, NodeKey, node_id
from omcore.trust.passes import Role, cluster_id, parse
from omcore.trust.roster import Roster
from omcore.trust.tokens import Token, make_token
from omcore.types import NodeId

INVITES = "invites"
PROTO = 1
LIFE_S = 15 * 60.0
MAX_OPEN = 64
_MAGIC = b"OMVINVI1"
_RECORD = Struct(">32sQB32s")
_NOBODY = bytes(32)

_Address = Annotated[str, msgspec.Meta(max_length=300)]
_Key = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Join(msgspec.Struct, frozen=True, tag="join", array_like=True):
    """The only message an invitation key may send."""

    proto: int
    node_key: _Key
    name: Annotated[str, msgspec.Meta(max_length=64)]
    version: Annotated[str, msgspec.Meta(max_length=64)]
    addresses: Annotated[tuple[_Address, ...], msgspec.Meta(max_length=16)] = ()


class Joined(msgspec.Struct, frozen=True, tag="joined", array_like=True):
    """Admitted: the newcomer's own entry, the cluster's key, and as much of the roster as one message holds."""

    entry: bytes
    cluster_public: bytes  # the first one: it names the cluster
    roster: bytes
    turns: bytes = b""


class JoinRefused(msgspec.Struct, frozen=True, tag="refused", array_like=True):
    """Not admitted, and why, in a sentence. `alarm`: the inviter's owner must see this (never sent as True)."""

    text: Annotated[str, msgspec.Meta(max_length=300)]
    hint: Annotated[str, msgspec.Meta(max_length=300)] = ""
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class NeedsKeyholder:
    """The token is good, but only a keyholder can sign: have one `Roster.admit` the node, merge, handle again."""

    node: NodeId
    role: Role


_encoder = msgspec.msgpack.Encoder()
_join_decoder = msgspec.msgpack.Decoder(Join)
_answer_decoder = msgspec.msgpack.Decoder(Joined | JoinRefused)


def encode(message: Join | Joined | JoinRefused) -> bytes:
    """The bytes of a join message."""
    return _encoder.encode(message)


def decode_join(data: bytes) -> Join:
    """What came from an invitation key. Raises RemoteProtocolError for anything but a Join (then cut the sender)."""
    try:
        return _join_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"not a Join: {error}") from error


def decode_answer(data: bytes) -> Joined | JoinRefused:
    """What the inviter answered. Raises RemoteProtocolError."""
    try:
        answer: Joined | JoinRefused = _answer_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"not an answer to a Join: {error}") from error
    return answer


@dataclass(frozen=True, slots=True)
class Invite:
    """One open invitation; `bound` is the node that used it, "" while nobody did."""

    key: NodeId
    expires: int
    role: Role
    bound: NodeId | None = None


class Invites:
    """The invitations of this node; changes are written to the file at once."""

    def __init__(self, directory: Path) -> None:
        """Read the file if there is one. Raises NotTrusted if it is damaged or not ours alone."""
        self._path = directory / INVITES
        self._open: dict[NodeId, Invite] = {}
        try:
            data = read_private(self._path, len(_MAGIC) + MAX_OPEN * _RECORD.size)
        except FileNotFoundError:
            return
        if data[:8] != _MAGIC or (len(data) - 8) % _RECORD.size:
            raise NotTrusted(f"{self._path} is damaged or cut short", f"rm {self._path}")
        for key, expires, role, bound in _RECORD.iter_unpack(data[8:]):
            user = None if bound == _NOBODY else node_id(bound)
            self._open[node_id(key)] = Invite(node_id(key), expires, Role(role), user)

    def live(self, now: float) -> frozenset[NodeId]:
        """The invitation keys to admit at wall-clock `now`: for `Transport.set_invitations`."""
        return frozenset(key for key, invite in self._open.items() if now < invite.expires)

    def next_expiry(self, now: float) -> float | None:
        """Wall-clock time when `live` next shrinks; None: no invitation is open."""
        return min((float(i.expires) for i in self._open.values() if now < i.expires), default=None)

    def get(self, key: NodeId, now: float) -> Invite | None:
        """The open invitation with this key."""
        invite = self._open.get(key)
        return invite if invite and now < invite.expires else None

    def make(
        self,
        roster: Roster,
        me: NodeId,
        addresses: tuple[str, ...],
        now: float,
        life_s: float = LIFE_S,
        role: Role = Role.WORK,
    ) -> str:
        """Open an invitation and return its token, to be shown once. Raises UsageError."""
        self._open = {key: invite for key, invite in self._open.items() if now < invite.expires}
        if len(self._open) >= MAX_OPEN:
            raise UsageError(f"{MAX_OPEN} invitations are open already", "wait until one expires")
        text, token = make_token(roster.cluster, me, addresses, int(now + life_s), role)
        self._open[token.key.id] = Invite(token.key.id, token.expires, role)
        self._save()
        return text

    def bind(self, key: NodeId, node: NodeId) -> None:
        """Note on disk that `node` uses this invitation, before it is admitted: no other node ever can."""
        self._open[key] = replace(self._open[key], bound=node)
        self._save()

    def _save(self) -> None:
        records = (
            _RECORD.pack(bytes.fromhex(i.key), i.expires, i.role, bytes.fromhex(i.bound) if i.bound else _NOBODY)
            for i in self._open.values()
        )
        replace_private(self._path, _MAGIC + b"".join(records))


def handle_join(
    roster: Roster,
    invites: Invites,
    cluster_key: ClusterKey | None,
    me: NodeId,
    invitation: NodeId,
    join: Join,
    now: float,
) -> Joined | JoinRefused | NeedsKeyholder:
    """Answer a Join that came over a connection with the one-time key `invitation`.

    On Joined the roster has the new entry: save it, give the transport its new peers, and spread the entry.
    """
    if join.proto != PROTO:
        return JoinRefused(f"this cluster speaks protocol {PROTO}, you speak {join.proto}", "update the older omview")
    invite = invites.get(invitation, now)
    if invite is None:
        return JoinRefused("this invitation has expired", "ask for a new one: omview invite")
    node = NodeId(join.node_key)
    if invite.bound not in (None, node):
        return JoinRefused("this invitation was used by another node", "ask for a new one: omview invite", alarm=True)
    if node in (me, invitation):
        return JoinRefused("a node cannot invite itself")
    entry = roster.entry(node)
    if invite.bound is None:
        invites.bind(invitation, node)
        if not roster.is_member(node, now):
            entry = None  # a removed node comes back by invitation only with a new pass
    if entry is None:
        if cluster_key is None:
            return NeedsKeyholder(node, invite.role)
        entry = roster.admit(cluster_key, node, me, now, invite.role)
    if entry.gone:
        return JoinRefused("this node was removed from the cluster", "ask for a new invitation")
    page = next(iter(roster.pages()))
    return Joined(entry.raw, roster.first_public, page, roster.rotation.export())


def make_join(key: NodeKey, name: str, version: str, addresses: tuple[str, ...]) -> bytes:
    """What the newcomer sends with the token's key."""
    return encode(Join(PROTO, key.id, name[:64], version[:64], addresses[:16]))


def check_token(token: Token, roster: Roster, now: float) -> None:
    """Refuse to use a token on a node that is in a cluster with others. Raises UsageError."""
    others = len(roster.members(now)) - 1
    if others > 0 and token.cluster == roster.cluster:
        raise UsageError("This node is already a member of that cluster")
    if others > 0:
        raise UsageError(
            f"This token is for another cluster; this node is in one with {others} other node(s)", "omview leave first"
        )


def accept_joined(token: Token, answer: bytes, me: NodeId, now: float) -> Roster:
    """The roster the inviter sent, proven to be the token's cluster and to admit `me`; not yet saved.

    Raises NotTrusted (refused, or not what the token promised) or RemoteProtocolError.
    """
    joined = decode_answer(answer)
    if isinstance(joined, JoinRefused):
        raise NotTrusted(f"Not admitted: {joined.text}", joined.hint)
    if len(joined.cluster_public) != 32 or cluster_id(joined.cluster_public) != token.cluster:
        raise NotTrusted("Another cluster answered than the one the token names", "ask for a new token")
    entry = parse(joined.entry)
    if entry.node != me or entry.gone:
        raise NotTrusted("The answer admits another node, not this one")
    roster = Roster(token.cluster, joined.cluster_public)
    roster.merge_turns(joined.turns, now)
    roster.merge(joined.roster)
    roster.merge(joined.entry)
    if roster.entry(me) is None or roster.entry(me) != entry:
        raise NotTrusted("The roster that came does not admit this node")
    return roster
