"""`make bench`: the numbers the project promises, each against its reference in the same run.

Prints a table and ends with 1 if a promise is broken.  Runs in a lab of its own; about three minutes.
bench.py [start] [hop] [idle] [tui]    only these
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omcore import lab
from tools.tui_cost import cpu_seconds, measure, pss_mib, tree

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
OMVIEW = str(Path(PYTHON).parent / "omview")
LAB = "bench"
STARTS = 9
HOPS = 6
IDLE_SECONDS = 20.0
TUI_SECONDS = 20.0
PROCESSES = 400


@dataclass(frozen=True, slots=True)
class Number:
    """One promise: what was measured, the most it may be, and where that limit comes from."""

    what: str
    value: float
    limit: float
    unit: str
    why: str

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.value <= self.limit


def words(node: str, *command: str) -> list[str]:
    """The command that runs `command` on a host of the lab."""
    return [OMVIEW, "lab", "exec", "--name", LAB, node, "--", *command]


def on(node: str, *command: str) -> str:
    """Run something on a host; its output. Raises with its last words if it fails."""
    done = subprocess.run(words(node, *command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"on {node}: {' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


@contextmanager
def hosts(count: int) -> Iterator[lab.LabStatus]:
    """A lab for one measurement."""
    status = lab.up(LAB, count)
    try:
        wait_for(lambda: on("node1", OMVIEW, "nodes", "--json").count('"up"') == count)  # joining is not measured
        yield status
    finally:
        lab.down(LAB)


def start() -> list[Number]:
    """What starting a verb costs: from the shell to the answer, here that no engine runs."""
    with tempfile.TemporaryDirectory() as empty:
        env = {**os.environ, "XDG_RUNTIME_DIR": empty, "XDG_STATE_HOME": empty}
        took = []
        for _ in range(STARTS):
            begun = time.monotonic()
            subprocess.run([OMVIEW, "nodes"], env=env, capture_output=True, check=False)
            took.append(time.monotonic() - begun)
    return [Number("start of a listing verb, median", statistics.median(took), 0.3, "s", "promised")]


def hop() -> list[Number]:
    """Freeze of a hop, as the job itself sees it, against the same hop with bare CRIU between the same hosts."""
    with hosts(2) as status, tempfile.TemporaryDirectory(dir=Path.home()) as room:
        on("node1", OMVIEW, "run", "--detach", "--name", "ticker", "--", PYTHON, str(HERE / "ticker.py"))
        wait_for(lambda: "READY" in on("node1", OMVIEW, "logs", "ticker"))
        for count in range(HOPS):
            on("node1", OMVIEW, "migrate", "ticker", "home" if count % 2 else "node2")
            wait_for_gaps(lambda: on("node1", OMVIEW, "logs", "ticker"), count + 1)
        ours = gaps(on("node1", OMVIEW, "logs", "ticker"))
        on("node1", OMVIEW, "kill", "-s", "KILL", "ticker")
        bare = bare_gaps(status, Path(room))
    limit = 2 * statistics.median(bare)
    why = f"2 x bare CRIU ({statistics.median(bare):.3f} s)"
    return [Number("freeze of a hop, median", statistics.median(ours), limit, "s", why)]


def bare_gaps(status: lab.LabStatus, room: Path) -> list[float]:
    """The gaps that the same program sees when it is moved by hand."""
    log = room / "ticker.log"
    # A process number that is free on the other host too.
    start = f"echo 20000 > /proc/sys/kernel/ns_last_pid; setsid {PYTHON} {HERE}/ticker.py </dev/null >{log} 2>&1 &"
    on("node1", "sh", "-c", start)
    wait_for(lambda: log.exists() and "READY" in log.read_text())
    pid = log.read_text().split()[1]
    for count in range(HOPS):
        source, target = status.hosts[count % 2], status.hosts[1 - count % 2]
        receiver = subprocess.Popen(
            words(target.name, PYTHON, str(HERE / "bare_hop.py"), "receive", target.address, "/tmp/bare"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert receiver.stdout is not None
        receiver.stdout.readline()
        on(source.name, PYTHON, str(HERE / "bare_hop.py"), "send", pid, target.address, "/tmp/bare")
        if receiver.wait(30):
            raise SystemExit("bare CRIU could not restore")
        wait_for_gaps(log.read_text, count + 1)
    on(status.hosts[HOPS % 2].name, "kill", "-9", pid)
    return gaps(log.read_text())


def idle() -> list[Number]:
    """What three engines cost while nothing happens."""
    with hosts(3):
        pids = [host.engine_pid for host in lab.status(LAB).hosts]
        before, begun = [cpu_seconds([pid]) for pid in pids], time.monotonic()
        time.sleep(IDLE_SECONDS)
        took = time.monotonic() - begun
        cpu = max(100 * (cpu_seconds([pid]) - was) / took for pid, was in zip(pids, before, strict=True))
        memory = max(pss_mib(tree(pid)) for pid in pids)
    return [
        Number("idle engine of three, CPU", cpu, 1.5, "% of a core", "promised"),
        Number("idle engine of three, PSS", memory, 45.0, "MiB", "promised"),
    ]


def tui() -> list[Number]:
    """The app on four nodes with many processes, against glances at the same rate on the same machine."""
    glances = get_glances()
    with hosts(4) as status:
        each = PROCESSES // len(status.hosts)
        crowd = f"for i in $(seq {each}); do sleep 3600 & done; wait"
        sleepers = [
            subprocess.Popen(words(host.name, "bash", "-c", crowd), stdin=subprocess.DEVNULL) for host in status.hosts
        ]
        try:
            ours = measure(words("node1", OMVIEW), TUI_SECONDS, 6, until="node4", keys="3")
            theirs = measure([glances, "-t", "1", "--disable-check-update"], TUI_SECONDS, 6)
        finally:
            for sleeper in sleepers:
                sleeper.terminate()
                sleeper.wait()
    if ours is None or theirs is None:
        raise SystemExit(f"{'omview' if ours is None else 'glances'} ended early")
    why = f"glances at 1 Hz ({theirs.pss_mib:.0f} MiB; omview {ours.pss_mib:.0f} MiB, {ours.bytes_per_s:.0f} B/s)"
    return [
        Number(f"app, {PROCESSES} processes, CPU", ours.cpu_percent, theirs.cpu_percent, "% of a core", why),
        Number("app, first frame", ours.first_s if ours.first_s is not None else 99.0, 1.0, "s", "promised"),
    ]


def get_glances() -> str:
    """glances from PyPI, in an environment of its own."""
    place = Path(sys.prefix) / "bench"
    program = place / "bin" / "glances"
    if not program.exists():
        subprocess.run([PYTHON, "-m", "venv", str(place)], check=True)
        subprocess.run(
            [str(place / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "glances"],
            check=True,
        )
    return str(program)


def gaps(text: str) -> list[float]:
    """What a ticker has said of its freezes."""
    return [float(found) for found in re.findall(r"^GAP ([\d.]+)", text, re.MULTILINE)]


def wait_for_gaps(text: Callable[[], str], count: int) -> None:
    """Wait until a ticker has said that many."""
    wait_for(lambda: len(gaps(text())) >= count)


def wait_for(done: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise SystemExit("waited too long")
        time.sleep(0.1)


def main() -> int:
    """Measure what was asked for, print the table."""
    os.chdir(HERE.parent)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once, not at every start
    subprocess.run([PYTHON, "-m", "compileall", "-q", "omcore", "omview"], check=True)
    chosen = sys.argv[1:] or ["start", "hop", "idle", "tui"]
    numbers = [number for name in chosen for number in {"start": start, "hop": hop, "idle": idle, "tui": tui}[name]()]
    for number in numbers:
        verdict = "ok  " if number.kept else "OVER"
        measured, most = f"{number.value:8.3f}", f"{number.limit:.3f}"
        print(f"{verdict}  {number.what:32}{measured} {number.unit:12} at most {most:>8}  {number.why}")
    return 0 if all(number.kept for number in numbers) else 1


if __name__ == "__main__":
    sys.exit(main())
