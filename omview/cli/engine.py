"""`omview serve`: the engine without the app."""

from __future__ import annotations

import asyncio

import click

from omcore import client as engine
from omcore.config import parse_config


@click.command()
@click.option("--name", default="", help="The name of this node; its host name if not given.")
@click.option("--listen", multiple=True, metavar="ADDR", help="Listen for peers on this address; may be repeated.")
@click.option("--daemon", is_flag=True, help="Go to the background once the engine answers.")
@click.option("--stop", is_flag=True, help="End the engine that runs; its jobs go on and wait for the next one.")
def serve(name: str, listen: tuple[str, ...], daemon: bool, stop: bool) -> None:
    """Run this machine's engine until ^C; jobs outlive it and are found again at the next start.

    No root needed: it serves you alone. Alone it opens no port to the network.
    """
    if stop:
        asyncio.run(_stop())
        click.echo("The engine has ended.")
        return
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


async def _stop() -> None:
    async with await engine.connect() as client:
        await client.stop_engine()
    from omcore.service import wait_until_ended

    await wait_until_ended()
