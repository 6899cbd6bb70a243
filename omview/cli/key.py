"""`omview key`: who this node is, who may change the membership, and copies of that power."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from omcore.client import connect
from omcore.errors import UsageError
from omcore.types import KeysView
from omview.cli.listing import as_json
from omview.cli.out import Json, age, paint, print_json, wants_colour

MAX_FILE_BYTES = 4096


@click.group()
def key() -> None:
    """Show this node's and the cluster's keys, and keep copies of the cluster key.

    The cluster key signs who belongs. The nodes that hold it, the keyholders, admit and remove; losing all copies costs
    that power and nothing else.
    """


@key.command()
@as_json
def show(as_json: bool) -> None:
    """Print fingerprints, the keyholders, and how old the roster is; never a secret."""
    view = asyncio.run(_show())
    if as_json:
        print_json(key_fields(view))
        return
    colour = wants_colour()
    click.echo(f"{'this node':14}{view.node}")
    click.echo(f"{'cluster key':14}{view.cluster}  (epoch {view.epoch})")
    for holder in view.keyholders:
        where = "this node" if holder.me else "up" if holder.up else paint("down", "busy", colour)
        click.echo(f"{'keyholder':14}{holder.fingerprint}  {holder.name}, {where}")
    click.echo(f"{'roster':14}{view.members} members, {view.removals} removed, {roster_age(view)}")
    if view.invitations:
        click.echo(f"{'invitations':14}{view.invitations} open")
    for turn in view.turns:
        click.echo(paint(f"{'new key?':14}{turn}", "bad", colour))


def roster_age(view: KeysView) -> str:
    """How sure the roster is, in words."""
    if view.members < 2:
        return "nobody else"
    if any(holder.me for holder in view.keyholders):
        return "kept here"
    if view.roster_age_s is None:
        return "not confirmed by a keyholder since the start"
    return f"confirmed by a keyholder {age(view.roster_age_s)} ago"


def key_fields(view: KeysView) -> dict[str, Json]:
    """What --json prints."""
    return {
        "node": view.node,
        "cluster": view.cluster,
        "epoch": view.epoch,
        "keyholders": [
            {"name": holder.name, "fingerprint": holder.fingerprint, "up": holder.up, "me": holder.me}
            for holder in view.keyholders
        ],
        "members": view.members,
        "removals": view.removals,
        "invitations": view.invitations,
        "backup": view.backup,
        "roster_age_s": view.roster_age_s,
        "turns": list(view.turns),
    }


async def _show() -> KeysView:
    async with await connect() as client:
        return await client.keys()


@key.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def export(file: Path) -> None:
    """Write the cluster key to FILE, sealed with a passphrase that is asked for. Keep it on another machine."""
    if file.exists():
        raise UsageError(f"{file} is there already.", "Name another file.")
    passphrase = _passphrase(confirm=True)
    data = asyncio.run(_export(passphrase))
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error
    with open(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(descriptor)
    click.echo(f"The cluster key is in {file}; without the passphrase nobody can use it, you neither.")


async def _export(passphrase: str) -> bytes:
    async with await connect() as client:
        return await client.export_key(passphrase)


@key.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_(file: Path) -> None:
    """Make this node a keyholder by the backup in FILE."""
    with open(file, "rb") as backup:
        data = backup.read(MAX_FILE_BYTES)
    click.echo(asyncio.run(_import(data, _passphrase(confirm=False))))


async def _import(data: bytes, passphrase: str) -> str:
    async with await connect() as client:
        return await client.import_key(data, passphrase)


@key.command()
@click.argument("node")
def share(node: str) -> None:
    """Make NODE a keyholder as well, so that the loss of one machine costs nothing."""
    click.echo(asyncio.run(_share(node)))


async def _share(node: str) -> str:
    async with await connect() as client:
        return await client.share_key(node)


@key.command()
@click.option("--node", is_flag=True, help="This node's own key instead; its engine starts anew with it.")
def rotate(node: bool) -> None:
    """Replace the cluster key: the old one signs nothing any more once all living nodes have heard, or in 24 hours."""
    click.echo(asyncio.run(_rotate(node)))


async def _rotate(node: bool) -> str:
    async with await connect() as client:
        return await client.rotate_key(node)


@key.command()
@click.argument("fingerprint")
def accept(fingerprint: str) -> None:
    """Of two new cluster keys that were announced, follow the one with FINGERPRINT. To be said on every node."""
    click.echo(asyncio.run(_accept(fingerprint)))


async def _accept(fingerprint: str) -> str:
    async with await connect() as client:
        return await client.accept_key(fingerprint)


def _passphrase(confirm: bool) -> str:
    """Asked at the terminal; from a pipe the first line counts. Never an argument: ps would show it."""
    if not sys.stdin.isatty():
        return sys.stdin.readline(1024).rstrip("\n")
    answer: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
    return answer
