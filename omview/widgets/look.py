"""What drawing needs to know: one value handed to every drawing function, so that they stay pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from omcore.types import ClusterView, NodeView
from omview.model import Book, Moments
from omview.widgets.sheet import Ink


@dataclass(frozen=True, slots=True)
class Toast:
    """A note at the bottom right: what happened, what is true now, what to do."""

    key: str  # equal keys replace each other
    lines: tuple[Ink, ...]
    ends: float  # Unix time; 0: until it is replaced or closed
    spec: str = "accent"  # the bar at its left
    times: int = 1


@dataclass(frozen=True, slots=True)
class Look:
    """The data of one picture."""

    view: ClusterView
    book: Book
    moments: Moments
    now: float
    behind_s: float = 0.0  # since the view arrived
    node: int = 0  # the chosen node
    live: bool = True
    state: Ink = field(default_factory=list)  # at the right of the header
    note: str = ""  # about the engine, where there is room

    def node_view(self, number: int) -> NodeView | None:
        """The node with this number."""
        return next((node for node in self.view.nodes if node.number == number), None)

    def age(self, node: NodeView) -> float | None:
        """How old a node's figures are by now."""
        return None if node.age_s is None else node.age_s + self.behind_s
