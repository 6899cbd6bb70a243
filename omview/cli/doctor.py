"""`omview doctor`: what this machine can do, and what to do about the rest."""

from __future__ import annotations

import click

from omview.cli.listing import as_json
from omview.cli.out import paint, print_json, wants_colour

STYLES = {"ok": "good", "warn": "busy", "bad": "bad"}


@click.command()
@click.option("--fix", is_flag=True, help="Mend what needs no decision: get CRIU, close private directories.")
@click.option("--security", is_flag=True, help="Ask instead whether keys, ports and files are as safe as meant.")
@as_json
def doctor(fix: bool, security: bool, as_json: bool) -> int:
    """Say what this machine can do, a line each, with the way to mend it.

    The exit code is 1 while something is bad; a warning is worth knowing and no failure.
    """
    from omcore.doctor import examine, mend

    if fix:
        mend(lambda line: click.echo(line, err=True))
    if security:
        from omcore.doctor_security import security_lines

        lines = security_lines()
    else:
        lines = examine()
    if as_json:
        print_json(
            [{"level": line.level, "subject": line.subject, "text": line.text, "fix": line.fix} for line in lines]
        )
    else:
        colour = wants_colour()
        for line in lines:
            click.echo(f"{paint(f'{line.level:4}', STYLES[line.level], colour)}  {line.subject:16}  {line.text}")
            if line.fix and line.level != "ok":
                click.echo(f"      fix: {line.fix}")
    return 1 if any(line.level == "bad" for line in lines) else 0
