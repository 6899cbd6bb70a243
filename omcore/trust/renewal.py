"""A node gets another key: because it leaves its cluster, or because somebody rotates the key.

What a crash may interrupt happens in this order: the new key is stored beside the old one, everything else that names
the node is rewritten (by the caller), then the new key takes the old one's place.  The next start goes on with whatever
is half done.
"""

from __future__ import annotations

from pathlib import Path

from omcore.trust.files import private_directory, replace_private
from omcore.trust.invites import INVITES
from omcore.trust.keys import CLUSTER_KEY, NEXT_CLUSTER_KEY, NODE_KEY, NodeKey, create_node_key, load_node_key
from omcore.trust.roster import ROSTER, VERIFIED, Roster
from omcore.trust.rotation import TURNS
from omcore.types import NodeId

NEXT = "next"
"""Directory below the state directory that holds the new key until it counts."""
_GO = "go"
"""File beside the new key: the others know, so there is no way back."""


def prepare(directory: Path) -> NodeKey:
    """Make the key this node will have next, or take the one that is there already."""
    place = private_directory(directory / NEXT)
    try:
        return load_node_key(place)
    except FileNotFoundError:
        return create_node_key(place)


def commit(directory: Path) -> None:
    """From now on the new key counts; the next start of the engine finishes it."""
    replace_private(directory / NEXT / _GO, b"")


def drop(directory: Path) -> None:
    """It does not come to it: forget the next key."""
    for name in (NODE_KEY, _GO):
        (directory / NEXT / name).unlink(missing_ok=True)


def pending(directory: Path) -> tuple[NodeId, NodeId] | None:
    """(old, new) where a renewal is to be finished; None: there is none."""
    if not (directory / NEXT / _GO).exists():
        return None
    try:
        return load_node_key(directory).id, load_node_key(directory / NEXT).id
    except FileNotFoundError:  # finished but for the marker
        return None


def finish(directory: Path, now: float) -> None:
    """Let the new key take the old one's place; without a pass for it, also forget the cluster.

    `now`: wall-clock seconds.
    """
    new = load_node_key(directory / NEXT)
    try:
        stays = Roster.load(directory).is_member(new.id, now)
    except FileNotFoundError:
        stays = False
    if not stays:
        for name in (CLUSTER_KEY, NEXT_CLUSTER_KEY, INVITES, TURNS, VERIFIED, ROSTER):
            (directory / name).unlink(missing_ok=True)
    (directory / NEXT / NODE_KEY).replace(directory / NODE_KEY)
    drop(directory)
