"""`omview serve`: the engine without the app."""

from __future__ import annotations

import click

from omcore.config import parse_config


@click.command()
@click.option("--name", default="", help="The name of this node; its host name if not given.")
@click.option("--listen", multiple=True, metavar="ADDR", help="Listen for peers on this address; may be repeated.")
@click.option("--daemon", is_flag=True, help="Go to the background once the engine answers.")
def serve(name: str, listen: tuple[str, ...], daemon: bool) -> None:
    """Run this machine's engine until ^C; jobs outlive it and are found again at the next start.

    No root needed: it serves you alone. Alone it opens no port to the network.
    """
    given: dict[str, object] = {}
    if name:
        given["name"] = name
    if listen:
        given["listen"] = list(listen)
    parse_config(given, "omview serve")

    from omcore.service import serve as run_engine

    run_engine(name=name, listen=listen, daemon=daemon)
    if daemon:
        click.echo("The engine answers.")
