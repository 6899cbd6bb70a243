"""`omview invite`, `join`, `leave`, `forget`: who belongs to the cluster."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from omcore.client import connect
from omcore.errors import UsageError
from omcore.service import connect_or_start
from omview.cli.naming import find_node

SHOWN = "The token admits one machine within 15 minutes. On that machine type: omview join"


@click.command()
@click.option("--look", is_flag=True, help="It may see figures, and neither jobs move there nor orders come from it.")
def invite(look: bool) -> None:
    """Make a token that admits one more machine to this cluster."""
    token = asyncio.run(_invite(look))
    click.echo(token)
    if sys.stdout.isatty():
        click.echo(SHOWN, err=True)


async def _invite(look: bool) -> str:
    async with await connect_or_start() as client:
        return await client.invite(look)


@click.command()
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read it from a file.")
@click.argument("token", required=False, default="")
def join(token_file: Path | None, token: str) -> None:
    """Make this machine a member of the cluster whose token you type at the prompt (or `-`: standard input)."""
    if token and token != "-":
        raise UsageError(
            "A token on the command line could be read by every user of this machine.",
            "Type `omview join` and paste it at the prompt, or use `-` or --token-file.",
        )
    if token_file is not None:
        text = token_file.read_text()
    elif token == "-" or not sys.stdin.isatty():
        text = sys.stdin.read(2048)
    else:
        text = click.prompt("Token", hide_input=True)
    click.echo(asyncio.run(_join(text.strip())))


async def _join(token: str) -> str:
    async with await connect_or_start() as client:
        return await client.join(token)


@click.command()
@click.argument("node")
@click.option("--with-invited", is_flag=True, help="And every node that it brought, and that those brought.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(node: str, with_invited: bool, yes: bool) -> None:
    """Remove NODE from the cluster for good."""
    name = asyncio.run(_known(node))
    if not yes and not _confirmed(f"{name} can never come back with its present key. Remove it?"):
        raise UsageError(f"{name} was not removed: nobody said yes.", f"without a question: omview forget --yes {name}")
    click.echo(asyncio.run(_forget(name, with_invited)))


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise  # ^C; elsewhere it is the end of the input
        click.echo(err=True)
        return False


async def _known(node: str) -> str:
    async with await connect() as client:
        return find_node(await client.snapshot(), node).name


async def _forget(node: str, with_invited: bool) -> str:
    async with await connect() as client:
        return await client.forget_node(node, with_invited)


@click.command()
@click.option("--anyway", is_flag=True, help="Whatever speaks against it: guests here, jobs away, nobody to sign.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def leave(anyway: bool, yes: bool) -> None:
    """Leave the cluster: the others remove this machine, and it begins anew, alone, with new keys."""
    if not yes and not _confirmed("This machine's keys are wiped, and it is alone again. Leave the cluster?"):
        raise UsageError("This machine did not leave: nobody said yes.", "without a question: omview leave --yes")
    click.echo(asyncio.run(_leave(anyway)))


async def _leave(anyway: bool) -> str:
    async with await connect() as client:
        return await client.leave(anyway)
