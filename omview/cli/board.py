"""`omview board`: who knows what, and how old it is. Fields of its --json: docs/json.md."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import click

from omcore.client import Client
from omcore.types import BoardRow, BoardView, ClusterView, NodeState
from omview.cli.ask import first_view, with_client
from omview.cli.listing import as_json
from omview.cli.naming import node_name
from omview.cli.out import Cell, Column, Json, age, print_json, print_table

BOUNDS_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
BAR = 40  # cells of the longest bar


@click.command()
@click.option("--all", "everybody", is_flag=True, help="Also the boards of all other nodes: they are asked.")
@as_json
def board(everybody: bool, as_json: bool) -> None:
    """Show what this node knows of all nodes, how old it is, and how the ages are spread."""

    async def look(client: Client) -> tuple[ClusterView, list[BoardView]]:
        view = await first_view(client)
        return view, [one async for one in client.boards(everybody)]

    view, boards = with_client(look)
    boards[1:] = sorted(boards[1:], key=lambda one: one.node)
    if as_json:
        fields = [board_fields(view, one) for one in boards]
        print_json(fields if everybody else fields[0])
    elif everybody:
        _print_all(view, boards)
    else:
        _print_one(view, boards[0])


def histogram(ages_s: Iterable[float]) -> list[tuple[float, float | None, int]]:
    """How many ages lie from ... up to (not including) ...; the last one has no end."""
    counted: Counter[int] = Counter(sum(age_s >= bound for bound in BOUNDS_S) - 1 for age_s in ages_s)
    ends: list[float | None] = [end for _, end in pairwise(BOUNDS_S)]
    return [(start, end, counted[at]) for at, (start, end) in enumerate(zip(BOUNDS_S, [*ends, None], strict=True))]


def ages(one: BoardView) -> list[float]:
    """Ages of what a board holds of the others that are not lost; its own entry is no news."""
    rows = (row for row in one.rows if row.node != one.node and row.state is not NodeState.LOST)
    return [row.age_s for row in rows if row.age_s is not None]


def board_fields(view: ClusterView, one: BoardView) -> Json:
    """A board for --json."""
    known = ages(one)
    return {
        "node": one.name,
        "number": one.node,
        "error": one.error or None,
        "window": one.window,
        "stale_after_s": round(one.stale_after_s, 3),
        "expected_age_s": None if one.expected_age_s is None else round(one.expected_age_s, 3),
        "average_age_s": round(sum(known) / len(known), 3) if known else None,
        "oldest_s": round(max(known), 3) if known else None,
        "histogram": [{"from_s": start, "to_s": end, "count": count} for start, end, count in histogram(known)],
        "entries": [_entry(view, row) for row in one.rows],
    }


def _entry(view: ClusterView, row: BoardRow) -> Json:
    return {
        "name": node_name(view, row.node),
        "number": row.node,
        "state": row.state.value,
        "age_s": row.age_s,
        "load": row.load,
    }


def _print_one(view: ClusterView, one: BoardView) -> None:
    columns = (Column("NODE"), Column("NR", "right"), Column("STATE"), Column("AGE", "right"), Column("LOAD", "right"))
    rows: list[list[Cell | str]] = [
        [
            Cell(node_name(view, row.node), "bold"),
            str(row.node),
            _state(row.state),
            Cell(age(row.age_s), "busy" if row.age_s is not None and row.age_s > one.stale_after_s else ""),
            "?" if row.load is None else f"{row.load:.2f}",
        ]
        for row in one.rows
    ]
    print_table(columns, rows)
    known = ages(one)
    if known:
        click.echo(f"\n{_summary(one, known)}")
        _print_histogram(known)


def _summary(one: BoardView, known: Sequence[float]) -> str:
    expected = "" if one.expected_age_s is None else f" (expected {one.expected_age_s:.1f} s)"
    return (
        f"Of {len(known)} other(s): {sum(known) / len(known):.1f} s old on average{expected}, the oldest "
        f"{max(known):.1f} s; stale from {one.stale_after_s:.1f} s on."
    )


def _print_all(view: ClusterView, boards: Sequence[BoardView]) -> None:
    columns = (
        Column("BOARD OF"),
        Column("UP", "right"),
        Column("STALE", "right"),
        Column("LOST", "right"),
        Column("AVERAGE", "right"),
        Column("OLDEST", "right"),
        Column("OF"),
        Column("", keep=1, cut=True),
    )
    print_table(columns, [_board_row(view, one) for one in boards])
    known = [age_s for one in boards for age_s in ages(one)]
    if known:
        click.echo("\nAges on all boards:")
        _print_histogram(known)


def _board_row(view: ClusterView, one: BoardView) -> list[Cell | str]:
    if one.error:
        return [Cell(one.name, "bold"), *["?"] * 6, Cell(one.error, "bad")]
    states = Counter(row.state for row in one.rows)
    known = ages(one)
    others = [row for row in one.rows if row.node != one.node and row.age_s is not None]
    oldest = max(
        (row for row in others if row.state is not NodeState.LOST), key=lambda row: row.age_s or 0, default=None
    )
    lost = ", ".join(node_name(view, row.node) for row in one.rows if row.state is NodeState.LOST)
    return [
        Cell(one.name, "bold"),
        str(states[NodeState.UP]),
        Cell(str(states[NodeState.STALE]), "busy" if states[NodeState.STALE] else ""),
        Cell(str(states[NodeState.LOST]), "bad" if states[NodeState.LOST] else ""),
        age(sum(known) / len(known)) if known else "?",
        age(max(known)) if known else "?",
        node_name(view, oldest.node) if oldest else "",
        f"lost: {lost}" if lost else "",
    ]


def _print_histogram(known: Sequence[float]) -> None:
    counts = histogram(known)
    most = max(count for _, _, count in counts)
    last = max(at for at, (_, _, count) in enumerate(counts) if count)
    encoding = (sys.stdout.encoding or "").lower()
    mark = "█" if encoding.startswith("utf") else "#"
    for start, end, count in counts[: last + 1]:
        reach = f"{start:g}-{end:g} s" if end is not None else f"{start:g} s up"
        bar = mark * (max(1, round(BAR * count / most)) if count else 0)
        click.echo(f"{reach:>9}  {count:>6}  {bar}".rstrip())


def _state(state: NodeState) -> Cell:
    return Cell(state.value, {NodeState.UP: "", NodeState.STALE: "busy", NodeState.LOST: "bad"}[state])
