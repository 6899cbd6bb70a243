"""The listings: `omview nodes`, `omview jobs`, `omview ps`. Fields of their --json: docs/json.md."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence

import click

from omcore.client import Client
from omcore.types import ClusterView, JobState, JobView, Movable, NodeState, NodeView, ProcKey, ProcView
from omview.cli.ask import close_stream, first_view, with_client
from omview.cli.naming import SHORT_ID, find_node, node_name
from omview.cli.out import Cell, Column, Json, age, cpu_time, memory, percent, print_json, print_table

PROCESSES_WITHIN_S = 4.0  # a node that has not answered by then is named as missing
SORTS = {
    "cpu": lambda row: -row.cpu_percent,
    "mem": lambda row: -row.rss_bytes,
    "time": lambda row: -row.cpu_time_s,
    "pid": lambda row: row.key.pid,
    "node": lambda row: (row.key.node, -row.cpu_percent),
    "name": lambda row: row.name.lower(),
}

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON (fields: docs/json.md).")


@click.command()
@as_json
def nodes(as_json: bool) -> None:
    """List the nodes with their loads.

    LOAD is runnable tasks per core: above 1.00 somebody waits. AGE says how old the figures are.
    """
    view = with_client(first_view)
    if as_json:
        print_json([node_fields(node) for node in view.nodes])
    else:
        _print_nodes(view)


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also the jobs that have ended.")
@as_json
def jobs(everything: bool, as_json: bool) -> None:
    """List the jobs of the cluster: where each started (HOME) and where it runs now (ON)."""
    view = with_client(first_view)
    chosen = [job for job in view.jobs if everything or job.state is not JobState.ENDED]
    if as_json:
        print_json([job_fields(view, job) for job in chosen])
    elif chosen:
        _print_jobs(view, chosen)
    else:
        click.echo("No jobs. Start one: omview run -- COMMAND")


@click.command()
@click.option("--node", "-N", "only", multiple=True, metavar="NODE", help="Only this node (name or number).")
@click.option("--jobs", "only_jobs", is_flag=True, help="Only processes that belong to jobs.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="cpu", show_default=True)
@click.option("-n", "rows", type=click.IntRange(min=1), help="At most this many rows.")
@as_json
def ps(only: tuple[str, ...], only_jobs: bool, sort: str, rows: int | None, as_json: bool) -> None:
    """List processes of all nodes, once, the busiest first.

    On a terminal as many rows as it has; into a pipe all of them.
    """

    async def look(client: Client) -> tuple[ClusterView, list[ProcView], set[int]]:
        view = await first_view(client)
        wanted = {find_node(view, word).number for word in only}
        if not wanted:
            wanted = {node.number for node in view.nodes if node.state is not NodeState.LOST}
        return view, *await gather_processes(client, wanted)

    view, found, missing = with_client(look)
    chosen = [row for row in found if row.job or not only_jobs]
    chosen.sort(key=lambda row: (row.key.node, row.key.pid))
    chosen.sort(key=SORTS[sort])
    if rows is None and sys.stdout.isatty() and not as_json:
        rows = max(1, shutil.get_terminal_size().lines - 3)
    if as_json:
        print_json([proc_fields(view, row) for row in chosen[:rows]])
    else:
        _print_processes(view, chosen[:rows])
    for number in sorted(missing):
        click.echo(f"omview: {node_name(view, number)} did not answer in time.", err=True)


async def gather_processes(client: Client, wanted: set[int]) -> tuple[list[ProcView], set[int]]:
    """The process lists of these nodes, and the nodes that did not answer in time.

    CPU shares need two looks of the node at its processes: one more round is awaited where a list that is the
    first one has none yet.
    """
    rows: dict[ProcKey, ProcView] = {}
    rounds = dict.fromkeys(wanted, 0)
    missing: set[int] = set()
    stream = client.processes(tuple(sorted(wanted)))

    def complete() -> bool:
        busy = {row.key.node for row in rows.values() if row.cpu_percent > 0}
        return all(node in missing or n > 1 or (n == 1 and node in busy) for node, n in rounds.items())

    try:
        async with asyncio.timeout(PROCESSES_WITHIN_S):
            async for delta in stream:
                if delta.full:
                    rows = {key: row for key, row in rows.items() if key.node not in delta.nodes}
                rows.update((row.key, row) for row in delta.changed)
                for key in delta.gone:
                    rows.pop(key, None)
                missing |= set(delta.missing) & wanted
                for node in delta.nodes:
                    rounds[node] = rounds.get(node, 0) + 1
                if complete():
                    break
    except TimeoutError:
        missing |= {node for node, heard in rounds.items() if not heard}
    finally:
        await close_stream(stream)
    return [row for row in rows.values() if row.key.node in wanted], missing


def node_fields(node: NodeView) -> Json:
    """A node for --json; figures of a node never heard of are null."""
    sample = node.sample
    heard = node.age_s is not None
    return {
        "name": node.name,
        "number": node.number,
        "state": node.state.value,
        "load": round(sample.load, 3) if heard else None,
        "cpu_percent": round(sample.cpu_percent, 1) if heard else None,
        "mem_used_bytes": sample.mem_used_bytes if heard else None,
        "mem_total_bytes": sample.mem_total_bytes if heard else None,
        "cores": round(sample.cores, 3) if heard else None,
        "age_s": round(node.age_s, 3) if node.age_s is not None else None,
    }


def job_fields(view: ClusterView, job: JobView) -> Json:
    """A job for --json; `command` is one line that a shell reads back into the same words."""
    return {
        "id": job.id,
        "name": job.name,
        "command": shlex.join(job.command),
        "user": job.user,
        "home": node_name(view, job.home),
        "node": node_name(view, job.node),
        "pid": job.pid,
        "state": job.state.value,
        "locked": job.locked,
        "moves": job.moves,
    }


def proc_fields(view: ClusterView, row: ProcView) -> Json:
    """A process for --json."""
    return {
        "node": node_name(view, row.key.node),
        "pid": row.key.pid,
        "ppid": row.ppid,
        "user": row.user,
        "state": row.state,
        "cpu_percent": round(row.cpu_percent, 1),
        "rss_bytes": row.rss_bytes,
        "cpu_time_s": round(row.cpu_time_s, 2),
        "threads": row.threads,
        "nice": row.nice,
        "tty": row.tty,
        "name": row.name,
        "command": row.command,
        "job": row.job,
    }


def ending(status: int) -> str:
    """How a job ended, for people: its exit code, or the signal that ended it."""
    if status >= 0:
        return str(status)
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"


def _print_nodes(view: ClusterView) -> None:
    columns = (
        Column("NODE"),
        Column("NR", "right", keep=3),
        Column("STATE"),
        Column("LOAD", "right"),
        Column("CPU%", "right"),
        Column("MEMORY", "right"),
        Column("CORES", "right", keep=4),
        Column("HERE", "right", keep=5),
        Column("GUESTS", "right", keep=5),
        Column("AWAY", "right", keep=5),
        Column("AGE", "right"),
        Column("", keep=9),
    )
    print_table(columns, [_node_row(node) for node in view.nodes])
    for warning in view.warnings:
        click.echo(f"! {warning}", err=True)


def _node_row(node: NodeView) -> list[Cell | str]:
    state = {NodeState.UP: "", NodeState.STALE: "busy", NodeState.LOST: "bad"}[node.state]
    start: list[Cell | str] = [
        Cell(node.name, "bold"),
        str(node.number),
        Cell(node.state.value, state),
    ]
    note = "this node" if node.me else "" if node.can_guest else node.why_not or "takes no guests"
    if node.age_s is None:
        return [*start, "?", "?", "?", "?", "?", "?", "?", "?", note]
    sample = node.sample
    level = "bad" if sample.load > 2 else "busy" if sample.load > 1 else ""
    return [
        *start,
        Cell(f"{sample.load:.2f}", level),
        percent(sample.cpu_percent),
        f"{memory(sample.mem_used_bytes)}/{memory(sample.mem_total_bytes)}",
        f"{sample.cores:.3g}",
        str(sample.jobs_here),
        str(sample.jobs_guest),
        str(sample.jobs_away),
        age(node.age_s),
        Cell(note, "faint"),
    ]


def _print_jobs(view: ClusterView, chosen: Sequence[JobView]) -> None:
    columns = (
        Column("ID", keep=2),
        Column("NAME", cut=True),
        Column("USER", keep=5),
        Column("HOME"),
        Column("ON"),
        Column("STATE"),
        Column("CPU%", "right", keep=6),
        Column("MEM", "right", keep=6),
        Column("MOVES", "right", keep=7),
        Column("MOVABLE", keep=4),
        Column("COMMAND", cut=True),
    )
    print_table(columns, [_job_row(view, job) for job in chosen])


def _job_row(view: ClusterView, job: JobView) -> list[Cell | str]:
    bad = job.state in (JobState.LOST, JobState.DOUBT)
    busy = job.state in (JobState.MOVING, JobState.STOPPED)
    state = job.state.value if job.status is None else f"{job.state.value} {ending(job.status)}"
    movable = "locked" if job.locked else job.movable.value
    return [
        job.id[:SHORT_ID],
        Cell(job.name, "bold"),
        job.user,
        node_name(view, job.home),
        Cell(node_name(view, job.node), "bold" if job.node != job.home else ""),
        Cell(state, "bad" if bad else "busy" if busy else ""),
        percent(job.cpu_percent),
        memory(job.rss_bytes),
        str(job.moves) if job.moves else "·",
        Cell(movable, "" if movable == Movable.YES.value else "busy"),
        shlex.join(job.command),
    ]


def _print_processes(view: ClusterView, chosen: Sequence[ProcView]) -> None:
    columns = (
        Column("NODE"),
        Column("PID", "right"),
        Column("USER", keep=3),
        Column("S", keep=5),
        Column("CPU%", "right"),
        Column("MEM", "right"),
        Column("TIME", "right", keep=4),
        Column("JOB", keep=2),
        Column("COMMAND", cut=True),
    )
    names = {job.id: job.name or job.id[:SHORT_ID] for job in view.jobs}
    rows: list[list[Cell | str]] = [
        [
            node_name(view, row.key.node),
            str(row.key.pid),
            row.user,
            row.state,
            percent(row.cpu_percent),
            memory(row.rss_bytes),
            cpu_time(row.cpu_time_s),
            names.get(row.job, row.job[:SHORT_ID]) if row.job else "",
            row.command or row.name,
        ]
        for row in chosen
    ]
    print_table(columns, rows)
