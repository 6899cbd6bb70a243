"""`omview net`: what goes to and comes from each node. Fields of its --json: docs/json.md."""

from __future__ import annotations

from collections.abc import Iterable

import click

from omcore.client import Client
from omcore.types import Drop, LinkState, NetView, PeerNet
from omview.cli.ask import with_client
from omview.cli.listing import as_json
from omview.cli.out import Cell, Column, Json, age, memory, print_json, print_table

STYLES = {
    LinkState.UP: "",
    LinkState.DIALLING: "busy",
    LinkState.WAITING: "bad",
    LinkState.IDLE: "faint",
    LinkState.NOWHERE: "bad",
}
WORDS = {
    Drop.STRANGER: "from strangers",
    Drop.MALFORMED: "malformed",
    Drop.NOT_ALLOWED: "not allowed",
    Drop.TOO_MANY: "too many",
    Drop.NO_ADDRESS: "no address",
    Drop.WAITING: "waiting to redial",
    Drop.QUEUE_FULL: "queue full",
    Drop.CUT: "never connected",
}


@click.command()
@as_json
def net(as_json: bool) -> None:
    """Show what this node sent to and heard from each other node, and what was dropped and why.

    LINK is the connection that this node made: up, dialling, waiting (it failed and is dialled again), idle (none is
    needed), nowhere (no address known). Each node makes its own to send by.
    """

    async def look(client: Client) -> NetView:
        return await client.net()

    view = with_client(look)
    if as_json:
        print_json(net_fields(view))
    else:
        _print(view)


def net_fields(view: NetView) -> Json:
    """What `omview net --json` prints."""
    return {
        "node": view.name,
        "number": view.node,
        "listening": list(view.listening),
        "discovery": view.discovery,
        "up_s": round(view.up_s, 1),
        "dials": view.dials,
        "dials_most": view.dials_most,
        "inbound": view.inbound,
        "inbound_most": view.inbound_most,
        "refused": view.refused,
        "dropped": _counts(view.dropped),
        "peers": [_peer_fields(peer) for peer in view.peers],
    }


def _peer_fields(peer: PeerNet) -> Json:
    link = peer.link
    return {
        "name": peer.name,
        "number": peer.node,
        "link": link.state.value,
        "address": link.address or None,
        "retry_s": None if link.retry_s is None else round(link.retry_s, 3),
        "heard_s": None if link.heard_s is None else round(link.heard_s, 3),
        "sent": link.sent,
        "sent_bytes": link.sent_bytes,
        "received": link.received,
        "received_bytes": link.received_bytes,
        "dials": link.dials,
        "failures": link.failures,
        "error": link.error or None,
        "dropped": _counts(link.dropped),
    }


def _counts(dropped: Iterable[tuple[Drop, int]]) -> Json:
    return {reason.value: count for reason, count in dropped}


def _words(dropped: Iterable[tuple[Drop, int]]) -> str:
    return ", ".join(f"{count} {WORDS[reason]}" for reason, count in dropped)


def _print(view: NetView) -> None:
    columns = (
        Column("NODE"),
        Column("NR", "right", keep=2),
        Column("LINK"),
        Column("SENT", "right"),
        Column("BYTES", "right", keep=3),
        Column("HEARD", "right"),
        Column("BYTES", "right", keep=4),
        Column("AGO", "right"),
        Column("DIALS", "right", keep=5),
        Column("FAILED", "right", keep=6),
        Column("DROPPED", cut=True),
        Column("ADDRESS", keep=7),
        Column("LAST ERROR", keep=8, cut=True),
    )
    if view.peers:
        print_table(columns, [_row(peer) for peer in view.peers])
    else:
        click.echo("There is no other node.")
    at = ", ".join(view.listening) or "nowhere"
    click.echo(f"\nListens at {at}; discovery {view.discovery}. Counted for {age(view.up_s)}.")
    click.echo(
        f"Connections: {view.dials} made (at most {view.dials_most}), {view.inbound} taken (at most "
        f"{view.inbound_most}); {view.refused} refused."
    )
    if view.dropped:
        click.echo(f"Dropped of no member: {_words(view.dropped)}.")


def _row(peer: PeerNet) -> list[Cell | str]:
    link = peer.link
    state = link.state.value if link.retry_s is None else f"{link.state.value} {age(link.retry_s)}"
    return [
        Cell(peer.name, "bold"),
        str(peer.node),
        Cell(state, STYLES[link.state]),
        str(link.sent),
        memory(link.sent_bytes),
        str(link.received),
        memory(link.received_bytes),
        "never" if link.heard_s is None else age(link.heard_s),
        str(link.dials),
        str(link.failures) if link.failures else "·",
        _words(link.dropped) or "·",
        link.address or "?",
        link.error,
    ]
