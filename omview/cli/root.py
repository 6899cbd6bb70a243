"""The root of the command line: which verb lives where, and the one edge where errors become sentences.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted; `omview run` passes on the job's own,
or 127 and 126 like a shell where the program is not found or cannot be executed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from omcore.errors import OmError

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb's command is found, and its line in the help (so that the help loads none of them)."""

    module: str
    attribute: str
    help: str


VERBS = {
    "run": Verb("omview.cli.run", "run", "Start a program as a job: it can move, and outlives this terminal"),
    "attach": Verb("omview.cli.run", "attach", "Connect this terminal to a job"),
    "logs": Verb("omview.cli.run", "logs", "Show the kept output of a job"),
    "jobs": Verb("omview.cli.listing", "jobs", "List the jobs of the cluster"),
    "ps": Verb("omview.cli.listing", "ps", "List processes of all nodes, the busiest first"),
    "nodes": Verb("omview.cli.listing", "nodes", "List the nodes with their loads"),
    "board": Verb("omview.cli.board", "board", "Show who knows what of whom, and how old it is"),
    "net": Verb("omview.cli.net", "net", "Show what goes to and comes from each node, and what is dropped"),
    "migrate": Verb("omview.cli.migrate", "migrate", "Move a running job to another node, or home"),
    "lock": Verb("omview.cli.jobs", "lock", "Forbid that a job moves"),
    "unlock": Verb("omview.cli.jobs", "unlock", "Allow a locked job to move again"),
    "kill": Verb("omview.cli.jobs", "kill", "Send a signal to a job, wherever it runs"),
    "invite": Verb("omview.cli.membership", "invite", "Make a token that admits one more machine"),
    "join": Verb("omview.cli.membership", "join", "Make this machine a member of a cluster, with its token"),
    "leave": Verb("omview.cli.membership", "leave", "Leave the cluster; this machine begins anew, alone"),
    "forget": Verb("omview.cli.membership", "forget", "Remove a node from the cluster for good"),
    "serve": Verb("omview.cli.engine", "serve", "Run the engine by itself, without the app"),
    "lab": Verb("omview.cli.lab", "lab", "A cluster of test hosts on this one machine"),
    "sim": Verb("omview.cli.sim", "sim", "Simulate thousands of nodes with the engine's own machines"),
    "key": Verb("omview.cli.key", "key", "Show keys and keyholders; export, import or share the cluster key"),
    "audit": Verb("omview.cli.audit", "audit", "Say who did what on this node"),
    "doctor": Verb("omview.cli.doctor", "doctor", "Say what this machine can do, and mend what can be mended"),
    "version": Verb("omview.cli.version", "version", "Print the versions of omview and what it stands on"),
}


class LazyGroup(click.Group):
    """A group that imports a verb's module only when that verb is used: a listing starts in a blink."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of one verb."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command: object = getattr(import_module(verb.module), verb.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or fail with the nearest one there is."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"There is no verb {ascii(args[0])}.{_did_you_mean(args[0])}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help's list of verbs from the table."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


@click.command(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.pass_context
def root(ctx: click.Context) -> int | None:
    """Watch a group of Linux machines as one, and move running programs between them.

    Without a verb the terminal app opens. Inside it, ? lists the keys.
    """
    if ctx.invoked_subcommand is None:
        from omview.cli.face import open_app

        return open_app()
    return None


def run_cli(args: Sequence[str]) -> int:
    """Run the command line; the exit code is returned. Nothing but this function prints errors."""
    try:
        result: Any = root.main(list(args), prog_name="omview", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        return _usage(error)
    except OmError as error:
        complain(error.text, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not worth a word, and Python must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # The edge: whatever nobody foresaw becomes one line here, and the whole of it in the crash log.
        return _crash(error)
    return result if isinstance(result, int) else 0


def complain(text: str, hint: str = "") -> None:
    """Say on stderr what went wrong, and below it what to do about it."""
    from omcore.text import clean

    text = clean(text.strip(), 1000)
    # Not capitalised: the first word may be the name of a job or a node, which has to be typed as it is shown.
    print(f"omview: {text}{'' if text.endswith(('.', '?', '!')) else '.'}", file=sys.stderr)
    if hint:
        print(f"  hint: {clean(hint.strip(), 1000)}", file=sys.stderr)


def _usage(error: click.ClickException) -> int:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"{error.ctx.command_path} --help"
    text, _, near = error.format_message().partition(" Did you mean ")
    complain(text, f"did you mean {near}" if near else hint)
    return error.exit_code


def _did_you_mean(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, VERBS, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _crash(error: Exception) -> int:
    from omcore.paths import find_paths, make_private

    story = "".join(traceback.format_exception(error))
    where = ""
    with contextlib.suppress(OSError, OmError):
        path = find_paths().crash_log
        make_private(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} omview\n{story}\n")
        where = f"please report it with the end of {path}"
    complain(f"this should not have happened: {type(error).__name__}: {error}", where)
    return 1
