"""Verbs that tell a job something: `omview lock`, `unlock`, `kill`."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import click

from omcore.client import Client
from omcore.types import JobView
from omview.cli.ask import first_view, with_client
from omview.cli.naming import SHORT_ID, find_job


def signal_number(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """The number of a signal as people write it: TERM, SIGTERM, term, 15."""
    word = value.upper()
    if word.isdecimal() and 0 < int(word) < signal.NSIG:
        return int(word)
    known = {found.name: found.value for found in signal.Signals}
    number = known.get(word if word.startswith("SIG") else f"SIG{word}")
    if number is None:
        raise click.BadParameter(f"there is no signal {ascii(value)}; kill -l lists them", ctx, param)
    return number


job_words = click.argument("job", nargs=-1, required=True)


@click.command()
@job_words
def lock(job: tuple[str, ...]) -> None:
    """Forbid that JOB moves: it stays where it is now until it is unlocked.

    JOB is a name, an id, or the beginning of an id.
    """
    _each(job, lambda client, found: client.lock(found.id, True), "locked")


@click.command()
@job_words
def unlock(job: tuple[str, ...]) -> None:
    """Allow that JOB moves again."""
    _each(job, lambda client, found: client.lock(found.id, False), "unlocked")


@click.command()
@click.option(
    "--signal", "-s", "number", callback=signal_number, default="TERM", show_default=True, help="Which signal."
)
@job_words
def kill(number: int, job: tuple[str, ...]) -> None:
    """Send a signal to JOB, to all of its processes, wherever it runs; it arrives exactly once."""
    try:
        said = signal.Signals(number).name
    except ValueError:
        said = f"signal {number}"
    _each(job, lambda client, found: client.signal(found.id, number), f"sent {said} to")


def _each(words: tuple[str, ...], act: Callable[[Client, JobView], Awaitable[None]], done: str) -> None:
    """Find all the jobs first, so that a mistyped name leaves every job alone; then act on each."""

    async def session(client: Client) -> None:
        view = await first_view(client)
        for found in [find_job(view, word) for word in words]:
            await act(client, found)
            click.echo(f"{done} {found.name or found.id[:SHORT_ID]}")

    with_client(session)
