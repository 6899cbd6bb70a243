"""`omview version`: what to name in a report."""

from __future__ import annotations

import platform
import sys

import click

from omcore.wire import PROTO
from omview.cli.listing import as_json
from omview.cli.out import print_json

STANDS_ON = ("textual", "plotext", "pyzmq", "psutil", "msgspec", "cryptography", "zeroconf")


@click.command()
@as_json
def version(as_json: bool) -> None:
    """Print the versions of omview and of what it stands on."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    found: dict[str, str | int] = {}
    for package in ("omview", *STANDS_ON):
        try:
            found[package] = installed(package)
        except PackageNotFoundError:
            found[package] = "missing"
    found["protocol"] = PROTO
    found["python"] = platform.python_version()
    found["kernel"] = platform.release()
    if as_json:
        print_json(dict(found))
        return
    click.echo(f"omview {found.pop('omview')}")
    for subject, number in found.items():
        click.echo(f"  {subject:13}{number}")
    click.echo(f"  {'path':13}{sys.executable}")
