"""Is our roster current?  A keyholder says so each minute; until somebody said so after a start, nothing new is obeyed.

A node that slept while another one was removed would obey the removed one, were that the first it meets.  So after a
start it first hears from a keyholder, or from three members (from all others, where they are fewer), that its roster is
theirs as well.  An engine that was away for two minutes at most goes on as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING

from omcore.errors import NotTrusted, RemoteProtocolError
from omcore.trust.files import replace_private
from omcore.trust.heads import Head, parse_head, sign_head, verify_head
from omcore.trust.rotation import OPEN_S
from omcore.types import NodeId

if TYPE_CHECKING:
    from omcore.node import Node

HEAD_S = 60.0
RECENT_S = 120.0
ENOUGH = 3
AHEAD_S = 24 * 3600
MARK = "confirmed"
"""File whose time says until when the roster was known to be current."""


class Confirming:
    """What keyholders and members say of the roster that we have."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._head: Head | None = None
        self._told: dict[NodeId, bytes] = {}  # digest of each member's roster
        self._confirmed: float | None = None  # monotonic
        self._next_head = 0.0
        self._next_mark = 0.0

    @property
    def head(self) -> bytes:
        """The newest head there is, for others."""
        return self._head.raw if self._head else b""

    @property
    def age_s(self) -> float | None:
        """Seconds since a keyholder last confirmed the roster; None: not since the start."""
        return None if self._confirmed is None else self._node.now() - self._confirmed

    def start(self) -> None:
        """Whether we may obey at once: nobody is there to obey, we sign ourselves, or we were away for a moment."""
        node = self._node
        alone = len(node.state.roster.members(time.time())) < 2
        node.guard.sure = alone or node.state.cluster_key() is not None or self._recent()

    def _recent(self) -> bool:
        try:
            away_s = time.time() - (self._node.places.state / MARK).stat().st_mtime
        except OSError:
            return False
        return 0 <= away_s <= RECENT_S

    def heard(self, sender: NodeId, digest: bytes, head: bytes) -> None:
        """A member greeted us: what its roster is, and a keyholder's word about it.

        Raises RemoteProtocolError for a head that is none, or that the cluster key did not sign.
        """
        self._told[sender] = digest
        if head and (self._head is None or head != self._head.raw):
            self._head_came(sender, parse_head(head))
        if digest == self._node.state.roster.digest():
            self._agrees(sender)

    def _agrees(self, sender: NodeId) -> None:
        node = self._node
        roster = node.state.roster
        if sender in roster.keyholders(time.time()):
            self._sure()
            self._confirmed = node.now()
            return
        others = {member.id for member in roster.members(time.time())} - {node.me}
        digest = roster.digest()
        agreed = sum(self._told.get(other) == digest for other in others)
        if agreed >= min(ENOUGH, len(others)):
            self._sure()

    def _sure(self) -> None:
        if not self._node.guard.sure:
            self._node.guard.sure = True
            self._next_mark = 0.0

    def _head_came(self, sender: NodeId, head: Head) -> None:
        roster = self._node.state.roster
        newer = self._head is None or _order(head) > _order(self._head)
        if head.cluster != roster.cluster or head.epoch != roster.epoch or not newer:
            return
        if head.time > time.time() + AHEAD_S:
            return
        if sender not in roster.keyholders(time.time()):  # from itself its channel proves it, and that costs nothing
            try:
                verify_head(head, roster.cluster_public)
            except NotTrusted as error:
                raise RemoteProtocolError(error.text) from error
        self._head = head
        self._count_head()

    def _count_head(self) -> None:
        """The head counts once our roster is what it says."""
        node = self._node
        roster = node.state.roster
        if self._head is None or self._head.epoch != roster.epoch or self._head.digest != roster.digest():
            return
        self._confirmed = node.now()
        self._sure()
        if self._head.closed and roster.open:
            self._close()

    # -- once a second

    def tick(self, now: float) -> None:
        """Sign a head each minute, end a turn that everybody has heard of, and note that all is well."""
        node = self._node
        roster = node.state.roster
        others = len(roster.members(time.time())) > 1
        if others and now >= self._next_head:
            self._next_head = now + HEAD_S
            self._sign()
        if roster.open and self._turn_is_over():
            self._close()
            self._sign()
            node.membership.greet(list(node.cluster.infos.keys() - {node.me}))
        if node.guard.sure and others and now >= self._next_mark:
            self._next_mark = now + HEAD_S
            node.spawn(asyncio.to_thread(self.mark))

    def mark(self) -> None:
        """Note that until now the roster was known to be current."""
        with contextlib.suppress(OSError):  # a full disk: then the next start asks
            path = self._node.places.state / MARK
            if not path.exists():
                replace_private(path, b"")
            os.utime(path)

    def _sign(self) -> None:
        node = self._node
        key = node.state.cluster_key()
        roster = node.state.roster
        if key is None or roster.rotation.rival is not None:
            return
        head = Head(
            roster.cluster,
            roster.epoch,
            not roster.open,
            roster.max_serial,
            len(roster),
            roster.digest(),
            int(time.time()),
        )
        self._head = sign_head(key, head)

    def _turn_is_over(self) -> bool:
        """Every living node has the new roster (a keyholder sees that), or a day has passed."""
        node = self._node
        roster = node.state.roster
        if roster.rotation.rival is not None:
            return False
        if time.time() - roster.rotation.opened > OPEN_S:
            return True
        if node.state.cluster_key() is None:
            return False
        digest = roster.digest()
        return all(
            self._told.get(other) == digest
            for other in node.cluster.infos
            if other != node.me and node.signing.is_up(other)
        )

    def _close(self) -> None:
        if self._node.state.roster.close_turn():
            self._node.trail.note("turn over", epoch=self._node.state.roster.epoch)
            self._node.spawn(self._node.signing.changed())


def _order(head: Head) -> tuple[int, int, int, bool]:
    return head.epoch, head.time, head.serial, head.closed
