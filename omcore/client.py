"""The one typed API that faces import: everything a terminal app or a verb may ask of the engine.

    async with await connect() as client:
        async for view in client.snapshots():
            print([node.name for node in view.nodes])

`connect()` talks to the engine's control socket; an embedded engine offers the same `Client` protocol in process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from omcore.types import (
    ClusterView,
    JobId,
    MovePlan,
    MoveResult,
    ProcDelta,
    ProcKey,
    Series,
)


class Client(Protocol):
    """What a face may ask. Every call may raise `OmError` with a sentence and a hint."""

    def snapshots(self) -> AsyncIterator[ClusterView]:
        """Follow the cluster: one view at once, then one whenever something changed, at most once a second
        (at once for the steps of a move)."""
        ...

    def processes(self, nodes: tuple[int, ...] = ()) -> AsyncIterator[ProcDelta]:
        """Follow the process lists of these node numbers (none named: all), once a second, as differences."""
        ...

    async def history(self) -> tuple[Series, ...]:
        """Load of every node over the last ten minutes, as this engine heard it."""
        ...

    async def plan(self, job: JobId) -> MovePlan:
        """Where the job could go and what would happen; touches nothing."""
        ...

    async def migrate(self, job: JobId, to: str) -> MoveResult:
        """Move a job to a node (name, number or "home") and wait for the end, good or bad."""
        ...

    async def lock(self, job: JobId, locked: bool) -> None:
        """Forbid or allow that the job moves."""
        ...

    async def signal(self, job: JobId, signum: int) -> None:
        """Send a signal to a job's whole foreground tree, wherever it runs; applied exactly once."""
        ...

    async def signal_process(self, key: ProcKey, signum: int) -> None:
        """Send a signal to any process on any node, as the calling user."""
        ...

    async def close(self) -> None:
        """Hang up; the engine and the jobs go on."""
        ...
