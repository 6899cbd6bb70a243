"""Other keys without a pause: a new cluster key for all, a new key for this node (SECURITY section 6, rotation)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from omcore import messages
from omcore.errors import OmError, UsageError
from omcore.trust import renewal
from omcore.trust.keys import ClusterKey, fingerprint, generate_cluster_key, store_next_cluster_key
from omcore.trust.passes import Role
from omcore.types import NodeId

if TYPE_CHECKING:
    from omcore.node import Node

SHARE_S = 5.0
FROZEN = "two new cluster keys were announced: nobody is admitted or removed until you decide. See: omview key show"


class Turning:
    """The node's part in changes of keys."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def rotate(self, without: Iterable[NodeId] = ()) -> str:
        """Replace the cluster key and hand the new one to the keyholders, but not to those `without`.

        A crash at any point leaves a key that signs: the new one lies on the disk before anybody hears of it.
        """
        node = self._node
        old = node.signing.my_key()
        roster = node.state.roster
        holders = [key for key in roster.keyholders(time.time()) if key not in (node.me, *without)]
        new = await asyncio.to_thread(generate_cluster_key)
        await asyncio.to_thread(store_next_cluster_key, node.places.state, new)
        turn = await asyncio.to_thread(roster.rotate, old, new, node.me, time.time())
        node.trail.note("rotated", key=turn.fingerprint, epoch=roster.epoch)
        await node.signing.signed(roster.export())
        missing = [node.cluster.name(key) for key in holders if not await self._hand_over(key, new)]
        text = f"The cluster key is now {turn.fingerprint}."
        if missing:
            verb = "does" if len(missing) == 1 else "do"
            text += f" {', '.join(missing)} {verb} not hold it: omview key share NODE, when it is up."
        return text

    async def _hand_over(self, key: NodeId, new: ClusterKey) -> bool:
        node = self._node
        question = messages.TakeKey(new.public, new.secret, node.state.roster.rotation.export())
        try:
            await node.calls.ask(key, question, messages.Nothing, SHARE_S)
        except OmError:
            return False
        await node.signing.mark_keyholder(key)
        return True

    def heard(self) -> None:
        """A turn came: say so, and raise the alarm where there are two."""
        node = self._node
        rotation = node.state.roster.rotation
        if rotation.rival is None:
            node.trail.note("rotated", key=fingerprint(rotation.publics[-1]), epoch=rotation.epoch)
            return
        if FROZEN not in node.warnings:
            node.warnings += (FROZEN,)
            node.cluster.event("error", "cluster key", FROZEN)
        node.trail.note("frozen", keys=", ".join(turn.fingerprint for turn in rotation.choice))

    async def accept(self, word: str) -> str:
        """A person has decided which of two new cluster keys is right."""
        node = self._node
        turn = await asyncio.to_thread(node.state.roster.accept_turn, word, time.time())
        node.warnings = tuple(text for text in node.warnings if text != FROZEN)
        node.trail.note("accepted", key=turn.fingerprint)
        await node.signing.changed()
        return f"This node follows the cluster key {turn.fingerprint}. Do the same on every node."

    def warn(self) -> None:
        """At the start: a quarrel may be older than this engine."""
        if self._node.state.roster.rotation.rival is not None:
            self._node.warnings += (FROZEN,)

    # -- this node's own key

    async def rotate_node(self) -> str:
        """Ask for a pass for a new key under the same number, then begin anew with it."""
        node = self._node
        _, guests, away = node.jobs.counts()
        if guests or away:
            raise UsageError(
                f"{guests} guest(s) run here and {away} job(s) of this machine elsewhere: their papers name this key.",
                "Send them home first.",
            )
        new = await asyncio.to_thread(renewal.prepare, node.places.state)
        roster = node.state.roster
        try:
            if node.state.cluster_key() is not None:
                await node.signing.tell_all(self.rekey_for(node.me, new.id))
            else:
                page = await node.signing.ask_keyholder(messages.AskRekey(new.id))
                await asyncio.to_thread(roster.merge, page.entries)
            if node.role(new.id) is None:
                raise UsageError("The keyholder did not sign for the new key.")
        except OmError:
            renewal.drop(node.places.state)
            raise
        roster.save(node.places.state)
        renewal.commit(node.places.state)
        node.trail.note("node key rotated", old=node.trail.key(node.me), key=node.trail.key(new.id))
        node.restart()
        return f"This node's key is now {node.trail.key(new.id)}."

    def rekey_for(self, sender: NodeId, new: NodeId) -> bytes:
        """At a keyholder: a member has a new key."""
        node = self._node
        if node.role(sender) not in (Role.WORK, Role.LOOK):
            raise UsageError("That node is no member.")
        gone, entry = node.state.roster.rekey(node.signing.my_key(), sender, new, time.time())
        node.trail.note("node key rotated", old=node.trail.key(sender), key=node.trail.key(new))
        return gone.raw + entry.raw
