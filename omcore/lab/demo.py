"""A few real programs for a lab to play with: started as jobs, with `omview run`, on its hosts."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from omcore.errors import LabError
from omcore.lab.record import LabStatus, demo_directory

_PRIMES = '''\
"""Search primes by trial division: burns one CPU, politely."""
import os
os.nice(5)
found, n = [], 2
while True:
    if all(n % p for p in found if p * p <= n):
        found.append(n)
        if len(found) % 1000 == 0:
            print(f"prime number {len(found):>7}: {n}", flush=True)
    n += 1
'''

_PI = '''\
"""The digits of pi, one after the other (Gibbons' spigot, begun anew every 5000): burns one CPU, politely."""
import os
os.nice(5)
while True:
    q, r, t, k, n, l, digits = 1, 0, 1, 1, 3, 3, 0
    while digits < 5000:
        if 4 * q + r - t < n * t:
            print(n, end="" if (digits := digits + 1) % 60 else "\\n", flush=True)
            q, r, n = 10 * q, 10 * (r - n * t), 10 * (3 * q + r) // t - 10 * n
        else:
            q, r, t, k, n, l = q * k, (2 * q + r) * l, t * l, k + 1, (q * (7 * k + 2) + r * l) // (t * l), l + 2
    print()
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

_SQUARES = """\
# Several processes joined by pipes, for ever.
seq 1 1000000000 | while read -r n; do echo "$n squared is $((n * n))"; sleep 0.05; done |
  grep --line-buffered '00$' | sed -u 's/^/squares: /'
"""

_LIFE = '''\
"""Conway's game of life in a terminal, twice a second: look at it with `omview attach life`, leave it with ~."""
import os, random, shutil, time
from collections import Counter
generation, cells = 0, set()
while True:
    width, height = shutil.get_terminal_size()
    height -= 1
    if generation % 300 == 0:
        cells = {(x, y) for x in range(width) for y in range(height) if random.random() < 0.25}
    around = Counter(
        ((x + dx) % width, (y + dy) % height)
        for x, y in cells for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy
    )
    cells = {cell for cell, n in around.items() if n == 3 or n == 2 and cell in cells}
    rows = ["".join("o" if (x, y) in cells else " " for x in range(width)) for y in range(height)]
    title = f" life on {os.uname().nodename}, generation {generation}"[:width].ljust(width)
    print("\\x1b[H\\x1b[7m" + title + "\\x1b[0m" + "\\r\\n".join(["", *rows]), end="", flush=True)
    generation += 1
    time.sleep(0.5)
'''

_SCRIPTS = {"primes.py": _PRIMES, "pi.py": _PI, "squares.sh": _SQUARES, "diary.py": _DIARY, "life.py": _LIFE}
_JOBS = (  # name, number of the host, command; those that burn come last, for they slow the start of the others
    ("diary", 2, ("python3", "diary.py")),
    ("life", 1, ("python3", "life.py")),
    ("squares", 2, ("bash", "squares.sh")),
    ("primes", 1, ("python3", "primes.py")),
    ("pi", 1, ("python3", "pi.py")),
)
_ON_A_TERMINAL = ("life",)
_START_SECONDS = 60.0


def start_jobs(lab: LabStatus) -> dict[str, tuple[str, ...]]:
    """Start the demo jobs: their names, by the host they run on. Raises LabError with what `omview run` said.

    The first host gets more than its share of work, and the last one of three nothing: there is a reason to move.
    """
    folder = demo_directory(lab.name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in _SCRIPTS.items():
        (folder / name).write_text(text)
    where: dict[str, tuple[str, ...]] = {host.name: () for host in lab.hosts}
    with ExitStack() as stack:
        starting = []
        for name, number, command in _JOBS:
            host = lab.hosts[min(number, len(lab.hosts)) - 1].name
            where[host] += (name,)
            words = ("omview", "run", "--detach", "--name", name, "--", *command)
            process = _start(stack, lab.name, host, folder, words, terminal=name in _ON_A_TERMINAL)
            starting.append((name, host, process))
        for name, host, process in starting:
            _await(lab.name, name, host, process)
    return where


def _start(
    stack: ExitStack, lab: str, host: str, folder: Path, command: tuple[str, ...], *, terminal: bool
) -> subprocess.Popen[str]:
    inside = [sys.executable, "-P", "-m", "omview", "lab", "exec", "--name", lab, host, "--", *command]
    stdio = subprocess.DEVNULL, subprocess.DEVNULL
    if terminal:
        master, slave = pty.openpty()
        stack.callback(os.close, master)
        stack.callback(os.close, slave)
        stdio = slave, slave
    process = subprocess.Popen(inside, cwd=folder, stdin=stdio[0], stdout=stdio[1], stderr=subprocess.PIPE, text=True)
    stack.enter_context(process)
    stack.callback(process.kill)  # for the others when one failed
    return process


def _await(lab: str, name: str, host: str, process: subprocess.Popen[str]) -> None:
    hint = f"omview lab exec --name {lab} {host} -- omview doctor"
    try:
        _, said = process.communicate(timeout=_START_SECONDS)
    except subprocess.TimeoutExpired:
        raise LabError(f"the demo job {name} on {host} did not start within {_START_SECONDS:g} s", hint) from None
    if process.returncode != 0:
        reason = (said.strip() or "no reason given").splitlines()[0]
        raise LabError(f"the demo job {name} on {host} did not start: {reason}", hint)
