"""`omview sim gossip`: thousands of nodes in virtual time, measured beside what the formulas say."""

from __future__ import annotations

import sys
from math import inf

import click

from omcore.errors import UsageError
from omcore.sim import Ages, Detection, Expected, Plan, Report, Split, simulate
from omview.cli.out import Column, Json, print_json, print_table

Row = tuple[str, float | None, float | None, float | None]


@click.group()
def sim() -> None:
    """Simulate a cluster: the engine's own machines, in virtual time, without engines or a network."""


@sim.command()
@click.option("-n", "nodes", type=int, default=128, show_default=True, metavar="N", help="How many nodes.")
@click.option("-w", "window", type=int, metavar="W", help="Entries in a message; as the engine chooses if not given.")
@click.option("--rounds", type=int, default=30, show_default=True, metavar="R", help="Intervals that are measured.")
@click.option("--seed", type=int, default=1, show_default=True, metavar="S", help="The same seed, the same result.")
@click.option("--loss", type=float, default=0.0, metavar="P", help="Share of the messages that is lost, e.g. 0.05.")
@click.option("--dead", type=float, default=0.0, metavar="F", help="Share of the nodes that crash, e.g. 0.1.")
@click.option("--split", type=float, default=0.0, metavar="S", help="Cut the network in halves for so many seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (fields: docs/json.md).")
def gossip(
    nodes: int, window: int | None, rounds: int, seed: int, loss: float, dead: float, split: float, as_json: bool
) -> None:
    """Show how old the news is that nodes have of each other, what it costs, and how soon the dead are known.

    Ages are in seconds, which are intervals of the gossip. PREDICTED is this project's formula, PUBLISHED that of
    the MOSIX papers (2009). 10,000 nodes take some minutes and 3 GB of memory.
    """
    try:
        plan = Plan(nodes, window, rounds, seed, loss, dead, split)
    except UsageError as error:
        raise click.UsageError(error.text) from error
    try:
        report = simulate(plan, _progress)
    finally:
        _progress("", 0.0)
    if as_json:
        print_json(report_fields(report))
    else:
        _show(report)


def report_fields(report: Report) -> Json:
    """The documented fields of `omview sim gossip --json`."""
    plan, traffic = report.plan, report.traffic
    return {
        "nodes": plan.nodes,
        "window": report.window,
        "rounds": plan.rounds,
        "seed": plan.seed,
        "loss": plan.loss,
        "dead": plan.dead,
        "split_s": plan.split_s,
        **_ages(report.ages),
        "predicted": _expected(report.predicted),
        "published": _expected(report.published),
        "messages_per_node_s": round(traffic.messages, 4),
        "bytes_per_node_s": round(traffic.bytes, 1),
        "board_messages_per_node_s": round(traffic.board_messages, 4),
        "board_bytes_per_node_s": round(traffic.board_bytes, 1),
        "detection": None if report.detection is None else _detection(report.detection),
        "split": None if report.split is None else _split(report.split),
        "false_suspicions": report.false_suspicions,
        "false_deaths": report.false_deaths,
    }


def _ages(ages: Ages) -> dict[str, Json]:
    return {
        "avg_age": round(ages.average, 4),
        "max_age": round(ages.greatest, 3),
        "p50": round(ages.p50, 3),
        "p90": round(ages.p90, 3),
        "p99": round(ages.p99, 3),
    }


def _expected(expected: Expected) -> dict[str, Json]:
    return {
        "avg_age": None if expected.average is None else round(expected.average, 4),
        "max_age": None if expected.greatest is None else round(expected.greatest, 3),
    }


def _detection(found: Detection) -> dict[str, Json]:
    return {
        "crashed": found.crashed,
        "suspected_s": _rounded(found.suspected_s),
        "first_s": _rounded(found.first_s),
        "first_p95_s": _rounded(found.first_p95_s),
        "everybody_s": _rounded(found.everybody_s),
        "everybody_most_s": _rounded(found.everybody_most_s),
        "predicted_first_s": round(found.predicted_first_s, 3),
        "missed": found.missed,
    }


def _split(found: Split) -> dict[str, Json]:
    return {
        "for_s": found.for_s,
        **_ages(found.ages),
        "predicted": _expected(found.predicted),
        "heal_s": _rounded(found.heal_s),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or value == inf else round(value, 3)


def _show(report: Report) -> None:
    plan, ages, traffic = report.plan, report.ages, report.traffic
    said = f"{plan.nodes} nodes, window {report.window}, {plan.rounds} intervals measured, seed {plan.seed}"
    if plan.loss:
        said += f", {plan.loss:.3g} of the messages lost"
    click.echo(f"{said}\n")
    rows: list[Row] = [
        ("average age, s", ages.average, report.predicted.average, report.published.average),
        ("oldest entry of a node, s", ages.greatest, report.predicted.greatest, report.published.greatest),
        ("half are younger than, s", ages.p50, None, None),
        ("90 % are younger than, s", ages.p90, None, None),
        ("99 % are younger than, s", ages.p99, None, None),
        ("load messages a node sends per s", traffic.board_messages, 1.0, 1.0),
        ("load bytes a node sends per s", traffic.board_bytes, None, None),
        ("all messages a node sends per s", traffic.messages, None, None),
        ("all bytes a node sends per s", traffic.bytes, None, None),
    ]
    if (found := report.detection) is not None:
        rows += [
            (f"{found.crashed} crashed: suspected after, s", found.suspected_s, None, None),
            ("first verdict after, s", found.first_s, found.predicted_first_s, None),
            ("known to all after, s", found.everybody_s, None, None),
            ("the last one after, s", found.everybody_most_s, None, None),
        ]
    if (split := report.split) is not None:
        rows += [
            ("cut in halves: average age, s", split.ages.average, split.predicted.average, None),
            ("oldest entry, s", split.ages.greatest, split.predicted.greatest, None),
            ("healed after, s", split.heal_s, None, None),
        ]
    rows += [
        ("wrongly suspected", float(report.false_suspicions), None, None),
        ("wrongly dead", float(report.false_deaths), 0.0, None),
    ]
    columns = [Column(""), Column("MEASURED", "right"), Column("PREDICTED", "right"), Column("PUBLISHED", "right")]
    print_table(columns, [[name, *map(_figure, values)] for name, *values in rows])
    if report.detection is not None and report.detection.missed:
        click.echo(f"\n{report.detection.missed} verdicts were still missing when the waiting ended.")
    if split is not None and split.heal_s is None:
        click.echo("\nNot all knew each other again when the waiting ended.")


def _figure(value: float | None) -> str:
    if value is None or value == inf:
        return ""
    return f"{value:.2f}" if value % 1 and value < 1000 else f"{value:.0f}"


def _progress(what: str, part: float) -> None:
    """One line on stderr that goes away again; nothing where nobody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{what}{f' {100 * part:.0f} %' if what else ''}", nl=False, err=True)
