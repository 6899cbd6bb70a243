"""`omview`, or `python -m omview`: the terminal app, and the command line."""

from __future__ import annotations

import sys

from omview.cli.root import run_cli


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run_cli(sys.argv[1:]))


if __name__ == "__main__":
    main()
