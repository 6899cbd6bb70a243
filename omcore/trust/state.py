"""One node's private directory, opened: its key, its roster, its open invitations."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path

from omcore.errors import NotTrusted
from omcore.trust.files import private_directory
from omcore.trust.invites import Invites
from omcore.trust.keys import (
    ClusterKey,
    NodeKey,
    create_node_key,
    forget_cluster_key,
    generate_cluster_key,
    load_cluster_key,
    load_node_key,
    store_cluster_key,
    take_next_cluster_key,
)
from omcore.trust.roster import Roster
from omcore.types import NodeId


@dataclass(slots=True)
class State:
    """What `open_state` found or made. `roster` is replaced when the node joins a cluster."""

    directory: Path
    key: NodeKey
    roster: Roster
    invites: Invites

    @property
    def me(self) -> NodeId:
        """This node."""
        return self.key.id

    def cluster_key(self) -> ClusterKey | None:
        """The cluster key, read anew at each use so that it does not stay in memory; None: not a keyholder."""
        key = load_cluster_key(self.directory)
        if key and key.public == self.roster.cluster_public:
            return key
        return take_next_cluster_key(self.directory, self.roster.cluster_public)

    def adopt(self, roster: Roster) -> None:
        """Become a member of another cluster: its roster replaces ours, and our own cluster's key goes."""
        roster.save(self.directory)
        self.roster = roster
        forget_cluster_key(self.directory)


def node_key(directory: Path) -> NodeKey:
    """The node key of this directory, made if it is missing. Raises NotTrusted."""
    private_directory(directory)
    try:
        return load_node_key(directory)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was quicker: take its key
            return create_node_key(directory)
        return load_node_key(directory)


def open_state(directory: Path, now: float) -> State:
    """Open this node's state, making it at the first run: both keys, and a roster of one with number 1.

    `now`: wall-clock seconds. Raises NotTrusted if a file must not be trusted, with the command that mends it.
    The caller holds whatever lock keeps two engines out of one directory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    key = node_key(directory)
    try:
        roster = Roster.load(directory)
    except FileNotFoundError:
        roster = _first_roster(directory, key, now)
    if roster.entry(key.id) is None:
        raise NotTrusted(
            f"the roster in {directory} does not know this node's key", "one of the two files came from elsewhere"
        )
    return State(directory, key, roster, Invites(directory))


def _first_roster(directory: Path, key: NodeKey, now: float) -> Roster:
    cluster_key = load_cluster_key(directory)  # there after a crash between the two writes
    if cluster_key is None:
        cluster_key = generate_cluster_key()
        store_cluster_key(directory, cluster_key)
    roster = Roster.new(cluster_key.public)
    roster.admit(cluster_key, key.id, key.id, now, keyholder=True)
    roster.save(directory)
    return roster
