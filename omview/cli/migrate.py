"""`omview migrate`: move one job, show the steps, say how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

import click

from omcore.client import Client
from omcore.errors import OmError
from omcore.types import JobId, JobView, MoveResult, Step
from omview.cli.ask import close_stream, first_view, with_client
from omview.cli.listing import as_json
from omview.cli.naming import SHORT_ID, find_job, find_node, node_name
from omview.cli.out import Json, paint, print_json, size_words, wants_colour

ENDS = (Step.DONE, Step.BACK, Step.REFUSED)
Say = Callable[[str], None]


@click.command()
@click.argument("job")
@click.argument("node")
@as_json
def migrate(job: str, node: str, as_json: bool) -> int:
    """Move JOB to NODE (a name, a number, or `home`) while it runs.

    JOB is a name, an id, or the beginning of an id. Whatever goes wrong before the last step leaves it running
    where it was; the exit code is then 1.
    """
    watched = sys.stdout.isatty() and not as_json
    name = job

    async def session(client: Client) -> tuple[str, MoveResult]:
        nonlocal name
        view = await first_view(client)
        found = find_job(view, job)
        name = found.name or found.id[:SHORT_ID]
        to = "home" if node == "home" else find_node(view, node).name
        source = node_name(view, found.node)
        try:
            say = None if as_json else _step_line if watched else _quiet
            result = await _move(client, found, to, say)
        except OmError as error:
            goal = node_name(view, found.home) if to == "home" else to
            result = MoveResult(found.id, source, goal, ok=False, error=error.text, hint=error.hint)
        return name, result

    try:
        name, result = with_client(session)
    except OmError as error:
        if not as_json:
            raise
        result = MoveResult(JobId(""), "", node, ok=False, error=error.text, hint=error.hint)
    finally:
        if watched:
            click.echo(err=True)
    if as_json:
        print_json(move_fields(name, result))
    elif result.ok:
        click.echo(_summary(name, result))
    else:
        raise OmError(result.error or f"{name} was not moved, and no reason was given.", result.hint)
    return 0 if result.ok else 1


def move_fields(name: str, result: MoveResult) -> Json:
    """A move for --json; `error` and `hint` are there only where it failed."""
    fields: dict[str, Json] = {
        "job": result.job or name,
        "from": result.source,
        "to": result.dest,
        "ok": result.ok,
        "freeze_s": round(result.freeze_s, 6) if result.freeze_s is not None else None,
        "total_s": round(result.total_s, 6),
        "bytes": result.bytes,
    }
    if not result.ok:
        fields["error"] = result.error
        fields["hint"] = result.hint
    return fields


async def _move(client: Client, job: JobView, to: str, say: Say | None) -> MoveResult:
    if say is None:
        return await client.migrate(job.id, to)
    watcher = asyncio.create_task(_watch(client, job.id, say))
    try:
        return await client.migrate(job.id, to)
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError, OmError):
            await watcher


async def _watch(client: Client, job: JobId, say: Say) -> None:
    """Say each step of the job's running move once, as it begins, and whom it waits for, if it does."""
    said: list[Step] = []
    noted = ""
    stream = client.snapshots()
    try:
        async for view in stream:
            for move in view.moves:
                if move.job == job and move.step not in ENDS and move.step not in said:
                    said.append(move.step)
                    say(move.step.value)
            note = next((one.note for one in view.jobs if one.id == job), "")
            if note and not noted and said:
                noted = note
                click.echo(f"\nomview: {note}", err=True)
    finally:
        await close_stream(stream)


def _quiet(step: str) -> None:
    """Into a pipe no steps are told."""


def _step_line(step: str) -> None:
    click.echo(f"  {paint(step, 'faint', wants_colour())}", nl=False, err=True)


def _summary(name: str, result: MoveResult) -> str:
    frozen = f"frozen {result.freeze_s:.2f} s  " if result.freeze_s is not None else ""
    return (
        f"moved {name}  {result.source} -> {result.dest}  {frozen}{size_words(result.bytes)} in {result.total_s:.1f} s"
    )
