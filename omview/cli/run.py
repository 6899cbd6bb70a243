"""`omview run`, `attach`, `logs`: start a program as a job, and stand at its terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator

import click

from omcore import requests
from omcore.client import SocketClient, connect
from omcore.errors import UsageError
from omcore.service import connect_or_start
from omcore.types import JobId, RunSpec
from omview.cli.naming import find_job
from omview.deputy import Caller, Deputy, end_like, fill_standard_fds, foreground, pack_termios, window_size

LIMITS = tuple(
    getattr(resource, name)
    for name in ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE",
                 "RLIMIT_NPROC", "RLIMIT_STACK")
)  # fmt: skip


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--name", default="", help="A name for the job; the program's name if not given.")
@click.option("--on", default="", metavar="NODE", help="Start it on this node; here if not given.")
@click.option("--detach", "-d", is_flag=True, help="Leave it in the background and print its id.")
@click.option("--no-tty", is_flag=True, help="Give it pipes even where you have a terminal.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, on: str, detach: bool, no_tty: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND as a job: it may move to another node and back while its terminal stays here.

    Streams, signals, window size, ^C, ^Z and the exit status are the program's own: pipes and redirections work as
    they would without `omview run --`.
    """
    fill_standard_fds()
    spec = make_spec(command, name=name, on=on, detach=detach, tty=not no_tty)
    status = asyncio.run(_run(spec))
    sys.exit(end_like(status))


def make_spec(command: tuple[str, ...], *, name: str, on: str, detach: bool, tty: bool) -> RunSpec:
    """What the engine needs to start COMMAND just as the caller would have: place, environment, limits, terminal."""
    caller = Caller()
    screen = caller.screen
    rows, cols = window_size(screen) if screen is not None else (24, 80)
    try:
        cwd = os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("The current directory no longer exists.", "cd to another one first.") from error
    fds = caller.tty if tty else ()
    if detach and fds:
        fds = (0, 1, 2)
    for word in (cwd, *command):
        if not is_text(word):
            raise UsageError(f"{os.fsencode(word)!r} is not UTF-8 text.", "Rename it, or run it from a script.")
    mask = os.umask(0)
    os.umask(mask)
    return RunSpec(
        command=command,
        cwd=cwd,
        env=tuple(environment()),
        name=name,
        on=on,
        detach=detach,
        tty=fds,
        rows=rows,
        cols=cols,
        # In the background the terminal is set as the shell's line editor wants it, not the user.
        term=pack_termios(screen) if fds and screen is not None and foreground(screen) else b"",
        umask=mask,
        limits=tuple((what, *resource.getrlimit(what)) for what in LIMITS),
    )


def is_text(word: str) -> bool:
    """Whether it can be sent: text, not bytes of another encoding."""
    return not any("\ud800" <= char <= "\udfff" for char in word)


def environment() -> Iterator[str]:
    """Our environment for the job; what is not text cannot travel, and is said to stay."""
    for key, value in os.environ.items():
        if is_text(key + value):
            yield f"{key}={value}"
        else:
            click.echo(f"omview: the variable {ascii(key)} is not UTF-8 text and stays here", err=True)


async def _run(spec: RunSpec) -> int:
    client = await connect_or_start()
    if not spec.detach:
        return await Deputy(connect, own=True, escape=False).run(client, spec)
    async with client:
        async for item in client.run(spec):
            if isinstance(item, requests.Attached):
                click.echo(item.job)
    return 0


@click.command()
@click.argument("job")
def attach(job: str) -> None:
    """Connect this terminal to JOB again; `~.` at the start of a line leaves it running."""
    fill_standard_fds()
    sys.exit(end_like(asyncio.run(_attach(job))))


async def _attach(word: str) -> int:
    client = await connect()
    found = find_job(await client.snapshot(), word)
    caller = Caller()
    rows, cols = window_size(caller.screen) if caller.screen is not None else (0, 0)
    deputy = Deputy(connect, own=False, escape=True)
    return await deputy.attach(client, requests.Attach(found.id, rows=rows, cols=cols))


@click.command()
@click.argument("job")
@click.option("--follow", "-f", is_flag=True, help="Go on printing until the job ends.")
def logs(job: str, follow: bool) -> None:
    """Print the kept output of JOB: its standard output and terminal on ours, its errors on our errors."""
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(_logs(job, follow))


async def _logs(word: str, follow: bool) -> None:
    async with await connect() as client:
        found = find_job(await client.snapshot(), word)
        await _print(client, found.id, follow)


async def _print(client: SocketClient, job: JobId, follow: bool) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    stream = client.logs(job, follow)
    async for item in stream:
        if isinstance(item, requests.Output):
            target = sys.stderr.buffer if item.stream == "err" else sys.stdout.buffer
            target.write(item.data)
            target.flush()
            stream.send(requests.Consumed(item.stream, item.offset + len(item.data)))
