"""`omview lab up|exec|status|down`: a cluster of test hosts on this one machine."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

import click

from omcore.lab import DEFAULT_NAME, HostStatus, LabStatus, all_labs
from omcore.lab import down as end_lab
from omcore.lab import status as lab_status
from omcore.lab import up as make_lab
from omview.cli.out import Cell, Column, Json, print_json, print_table

MIB = 2**20

name_option = click.option(
    "--name", default=DEFAULT_NAME, show_default=True, metavar="LAB", help="Which lab; several may be up at once."
)


@click.group()
def lab() -> None:
    """A cluster of test hosts on this one machine.

    Each host has its own processes, network address, /tmp, /run and engine; the rest of the file system is
    this machine's. No root needed. When the lab goes down, or is killed, nothing is left of it.
    """


@lab.command()
@click.option("-n", "hosts", default=3, show_default=True, metavar="N", help="How many hosts.")
@click.option(
    "--cpu",
    type=float,
    metavar="CORES",
    help="What each may use, e.g. 0.5; 0 for no limit. A fair share of this machine if not given.",
)
@click.option("--memory", type=int, metavar="MIB", help="Memory that each may use; no limit if not given.")
@click.option("--jobs", is_flag=True, help="Start a few demo jobs, too.")
@click.option("--engine-command", default="", metavar="CMD", help="Run this in each host instead of the engine.")
@name_option
def up(hosts: int, cpu: float | None, memory: int | None, jobs: bool, engine_command: str, name: str) -> None:
    """Make the hosts and start their engines; returns when they answer."""
    if jobs and engine_command:
        raise click.UsageError("--jobs needs real engines; leave --engine-command out.")
    share = _fair_share(hosts) if cpu is None else cpu or None
    made = make_lab(
        name,
        hosts,
        cpu=share,
        engine_command=shlex.split(engine_command) or None,
        memory_bytes=None if memory is None else memory * MIB,
        say=_progress,
    )
    _progress("")
    started: Mapping[str, Sequence[str]] | None = None
    if jobs:
        from omcore.lab.demo import start_jobs

        _progress("starting the jobs")
        try:
            started = start_jobs(made)
        except BaseException:
            _progress("")
            end_lab(name)
            raise
        _progress("")
    _show(made, started)
    option = "" if name == DEFAULT_NAME else f"--name {name} "
    click.echo(f"\nTry: omview lab exec {option}{made.hosts[0].name} -- omview")


@lab.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, node: str, command: tuple[str, ...]) -> None:
    """Run a command in a host (NODE is its name or number), in this terminal.

    Signals, exit status and death by a signal are the command's own. The host's CPU share limits its engine and
    its jobs only: to load a host, start a job there (omview run).
    """
    from omcore.lab.enter import end_like, enter

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("There is no command after --.")
    end_like(enter(name, node, words))


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON value, for programs.")
@name_option
def status(as_json: bool, name: str) -> None:
    """Show the hosts of the lab."""
    found = lab_status(name)
    if as_json:
        print_json(status_json(found))
    else:
        _show(found)


@lab.command()
@click.option("--all", "every", is_flag=True, help="All labs of yours.")
@name_option
def down(every: bool, name: str) -> None:
    """End the lab: its jobs, engines, hosts and all that belonged to them."""
    for one in all_labs() if every else (name,):
        click.echo(f"lab {one} is down" if end_lab(one) else f"there is no lab {one}: nothing to do")


def status_json(found: LabStatus) -> Json:
    """The documented fields of `omview lab status --json`."""
    hosts: list[Json] = [
        {
            "name": host.name,
            "number": host.number,
            "address": host.address,
            "pid": host.pid,
            "cpu": host.cpu,
            "engine_pid": host.engine_pid,
            "engine_alive": host.engine_alive,
            "engine_exit": host.engine_exit,
            "cgroup": list(host.cgroup),
        }
        for host in found.hosts
    ]
    return {
        "name": found.name,
        "state": found.state,
        "holder": found.holder,
        "rootless": found.rootless,
        "note": found.note,
        "hosts": hosts,
    }


def _show(found: LabStatus, jobs: Mapping[str, Sequence[str]] | None = None) -> None:
    """The hosts, a line each; with `jobs`, what was started where in place of the process numbers."""
    columns = [Column("HOST"), Column("ADDRESS"), Column("CPU", "right")]
    columns += [Column("PID", "right"), Column("ENGINE")] if jobs is None else [Column("JOBS")]
    rows: list[list[Cell | str]] = []
    for host in found.hosts:
        cpu = "no limit" if host.cpu is None else f"{host.cpu:g}"
        row: list[Cell | str] = [host.name, host.address, cpu]
        if jobs is None:
            row += [str(host.pid or "?"), _engine(found, host)]
        else:
            row.append(", ".join(jobs[host.name]) or Cell("none yet", "faint"))
        rows.append(row)
    print_table(columns, rows)
    if found.note:
        click.echo(found.note)


def _engine(found: LabStatus, host: HostStatus) -> Cell:
    if host.engine_alive:
        return Cell("runs", "good")
    if host.engine_exit is not None:
        return Cell(f"ended with {host.engine_exit}", "bad")
    return Cell("gone" if found.state == "up" else "starting", "busy")


def _fair_share(hosts: int) -> float:
    """Cores for each host, so that several on one machine behave like several machines: at most one whole."""
    return max(0.1, min(1.0, round((os.cpu_count() or 1) / max(1, hosts), 2)))


def _progress(line: str) -> None:
    """One line on stderr that goes away again; nothing where nobody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{line}{' ...' if line else ''}", nl=False, err=True)
