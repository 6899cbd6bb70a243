"""A few real programs for a lab to play with: started as jobs, with `omview run`, on its hosts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from omcore.errors import LabError
from omcore.lab.record import LabStatus, demo_directory

_PRIMES = '''\
"""Search primes by trial division: burns one CPU."""
found, n = [], 2
while True:
    if all(n % p for p in found if p * p <= n):
        found.append(n)
        if len(found) % 1000 == 0:
            print(f"prime number {len(found):>7}: {n}", flush=True)
    n += 1
'''

_DIARY = '''\
"""Write a line a second into an SQLite database, and count what is there."""
import sqlite3, time
diary = sqlite3.connect("diary.db", timeout=30)
diary.execute("create table if not exists line (id integer primary key, at text)")
while True:
    with diary:
        diary.execute("insert into line (at) values (datetime())")
    print(*diary.execute("select count(*), max(at) from line").fetchone(), flush=True)
    time.sleep(1)
'''

_PIPELINE = """\
# Several processes joined by pipes, for ever.
seq 1 1000000000 | while read -r n; do echo "$n squared is $((n * n))"; sleep 0.05; done |
  grep --line-buffered '00$' | sed -u 's/^/squares: /'
"""

_SCRIPTS = {"primes.py": _PRIMES, "diary.py": _DIARY, "squares.sh": _PIPELINE}
_JOBS = (  # name, number of the host, command
    ("primes", 1, ("python3", "primes.py")),
    ("squares", 1, ("bash", "squares.sh")),
    ("diary", 2, ("python3", "diary.py")),
)
_START_SECONDS = 60.0


def start_jobs(lab: LabStatus) -> Iterator[str]:
    """Start the demo jobs one by one, and say which runs where. Raises LabError with what `omview run` said."""
    folder = demo_directory(lab.name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _SCRIPTS.items():
        (folder / name).write_text(text)
    for name, number, command in _JOBS:
        host = lab.hosts[min(number, len(lab.hosts)) - 1].name
        _start(lab.name, host, folder, ("omview", "run", "--detach", "--name", name, "--", *command))
        yield f"{name} on {host}: {' '.join(command)}"


def _start(lab: str, host: str, folder: Path, command: tuple[str, ...]) -> None:
    inside = [sys.executable, "-P", "-m", "omview", "lab", "exec", "--name", lab, host, "--", *command]
    try:
        done = subprocess.run(
            inside,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"a demo job on {host} did not start within {_START_SECONDS:g} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or "no reason given").splitlines()[0]
        raise LabError(f"a demo job on {host} did not start: {said}", f"omview lab exec {host} -- omview doctor")
