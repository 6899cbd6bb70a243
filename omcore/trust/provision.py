"""Make members without a token: a whole set of state directories at once (the lab), or one node over ssh."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omcore.errors import RemoteProtocolError, UsageError
from omcore.trust.keys import NodeKey
from omcore.trust.passes import Role
from omcore.trust.roster import Roster
from omcore.trust.state import State, node_key, open_state
from omcore.trust.turns import TURN_BYTES
from omcore.types import NodeId

_BUNDLE_MAGIC = b"OMVBUND1"
_HEADER_BYTES = 8 + 16 + 32 + 2


def provision(directories: Sequence[Path], now: float) -> tuple[NodeId, ...]:
    """Make the state of `len(directories)` members of one cluster, numbered from 1 in this order.

    Only the first gets the cluster key. `now`: wall-clock seconds.
    Raises UsageError if a directory has a roster already.
    """
    if not directories:
        return ()
    for directory in directories:
        if (directory / "roster").exists():
            raise UsageError(f"{directory} belongs to a cluster already")
    first = open_state(directories[0], now)
    keys: list[NodeKey] = [node_key(directory) for directory in directories[1:]]
    cluster_key = first.cluster_key()
    assert cluster_key is not None  # made a moment ago
    for key in keys:
        first.roster.admit(cluster_key, key.id, first.me, now)
    for directory in directories:
        first.roster.save(directory)
    return (first.me, *(key.id for key in keys))


def admit_remote(state: State, node: NodeId, now: float, role: Role = Role.WORK) -> bytes:
    """At a keyholder: admit the node whose public key came over ssh; returns what its stdin gets (no secret).

    Raises UsageError when this node does not hold the cluster key.
    """
    key = state.cluster_key()
    if key is None:
        raise UsageError("this node does not hold the cluster key", "run it on a keyholder: omview key show")
    if not state.roster.is_member(node, now):
        state.roster.admit(key, node, state.me, now, role)
        state.roster.save(state.directory)
    roster = state.roster
    turns = roster.rotation.export()
    count = (len(turns) // TURN_BYTES).to_bytes(2, "big")
    return _BUNDLE_MAGIC + roster.cluster + roster.first_public + count + turns + roster.export()


def install_bundle(directory: Path, bundle: bytes, now: float) -> NodeId:
    """At the new node: check the bundle that came over ssh and become a member. Raises UsageError, OmError."""
    if len(bundle) < _HEADER_BYTES or bundle[:8] != _BUNDLE_MAGIC:
        raise RemoteProtocolError("that is no bundle of omview add")
    key = node_key(directory)
    roster = Roster(bundle[8:24], bundle[24:56])
    end = _HEADER_BYTES + int.from_bytes(bundle[56:_HEADER_BYTES], "big") * TURN_BYTES
    roster.merge_turns(bundle[_HEADER_BYTES:end], now)
    roster.merge(bundle[end:])
    if not roster.is_member(key.id, now):
        raise UsageError("the bundle does not admit this node")
    if (directory / "roster").exists():
        state = open_state(directory, now)
        others = len(state.roster.members(now)) - 1
        if others > 0 and state.roster.cluster != roster.cluster:
            raise UsageError(f"this node is in a cluster with {others} other node(s)", "omview leave first")
        if state.roster.cluster != roster.cluster:
            state.adopt(roster)
        else:
            state.roster.merge_turns(roster.rotation.export(), now)
            state.roster.merge(roster.export())
            state.roster.save(directory)
    else:
        roster.save(directory)
    return key.id
