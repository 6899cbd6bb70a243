"""One key at two places (a cloned disk): found out from what others repeat of "us", and the later one gives way.

Pure.  Each start and each change of a node has a serial of its own, by its clock.  A member passes on the newest it
heard from us directly; so a serial that we never said, from one that has already passed on one of ours, is another
engine's under our key.
"""

from __future__ import annotations

from enum import Enum

from omcore.types import NodeId, NodeInfo


class Twin(Enum):
    """What a hearsay about ourselves means."""

    NONE = "none"
    LATER = "later"  # the other one started after us: it must stop, we raise the alarm
    EARLIER = "earlier"  # the other one was here before: we stop


class Twins:
    """Judge of hearsay about ourselves."""

    def __init__(self) -> None:
        self._mine: set[int] = set()
        self._told_mine: set[NodeId] = set()
        self._first = 0

    def said(self, serial: int) -> None:
        """We speak of ourselves under this serial from now on."""
        self._first = self._first or serial
        self._mine.add(serial)

    def judge(self, teller: NodeId, info: NodeInfo) -> Twin:
        """What `teller` passes on about us."""
        if info.serial in self._mine:
            self._told_mine.add(teller)
            return Twin.NONE
        if teller not in self._told_mine or not info.serial:
            return Twin.NONE  # it may not have heard of our start yet
        return Twin.LATER if info.serial > self._first else Twin.EARLIER
