"""States of home, and what a journal write is synced for."""

from __future__ import annotations

from enum import StrEnum


class HomeState(StrEnum):
    """Where home stands with its one open move."""

    OPENING = "opening"  # the journal is being synced before it is believed
    IDLE = "idle"
    PREPARING = "preparing"
    FREEZING = "freezing"
    UNSURE = "unsure"  # the commit's sync failed: neither GO nor ABORT
    COMMITTED = "committed"
    UNDOING = "undoing"
    DOUBT1 = "doubt1"  # committed, dest rebooted, source still sealed
    DOUBT2 = "doubt2"  # undoing, source rebooted, dest holds images
    CLOSED = "closed"


class Sync(StrEnum):
    """Why a write is waited for."""

    OPEN = "open"
    BEGIN = "begin"  # J1
    FREEZE = "freeze"  # J2
    COMMIT = "commit"  # J3
    END = "end"  # J4
    RERUN = "rerun"
    SALVAGE = "salvage"
