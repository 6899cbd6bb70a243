"""`omview audit`: who did what on this node."""

from __future__ import annotations

import time
from itertools import islice

import click

from omcore.audit import read_audit
from omcore.paths import find_paths
from omview.cli.listing import as_json
from omview.cli.out import Column, print_json, print_table

COLUMNS = (Column("WHEN"), Column("EVENT"), Column("WHAT", cut=True))


@click.command()
@click.option("-n", "count", type=click.IntRange(1), default=100, show_default=True, help="How many of the newest.")
@as_json
def audit(count: int, as_json: bool) -> None:
    """Say who did what on this node: who joined, was refused or forgotten, who gave orders, what moved.

    The newest comes last. The log is this node's own, needs no running engine, and holds no secrets.
    """
    newest = list(read_audit(find_paths().state))[-count:]
    if as_json:
        print_json([dict(line) for line in newest])
    elif not newest:
        click.echo("Nothing is written down yet.")
    else:
        print_table(COLUMNS, [_row(line) for line in newest])


def _row(line: dict[str, str | int | float | bool | None]) -> list[str]:
    at = line.get("time")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if isinstance(at, int | float) else "?"
    rest = islice(((name, value) for name, value in line.items() if name not in ("time", "event")), 20)
    return [when, str(line["event"]), " ".join(f"{name}={value}" for name, value in rest)]
