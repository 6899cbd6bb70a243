"""`make bench-net`: many real engines on this machine's loopback: what each costs, and how soon a dead one is known.

Starts N engines as ordinary processes (`omview serve`), each at an address of its own in 127.77.0.0/16 with keys,
state and places of its own below one temporary directory; waits until every one sees all others; measures sockets,
descriptors, memory, CPU and traffic of each while nothing happens; kills one (SIGKILL) and reads from the others' logs
when they gave it up.  Ends with 1 if a promise is broken.  Nothing is left afterwards, whatever happens.

bench_net.py [-n 64] [--seconds 20] [--kills 1] [--discover]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omcore.paths import find_paths, host_tag
from tools.tui_cost import cpu_seconds, pss_mib

PYTHON = sys.executable
SERVE = ("-c", "from omview.__main__ import main; main()")
PROVISION = """
import sys, time
from pathlib import Path
from omcore.trust.provision import provision
provision([Path(word) for word in sys.argv[1:]], time.time())
"""
PORT = 4632
AT_ONCE = 4  # engines that start at the same time; all at once would be a queue for two cores
UP_S = 240.0
LOST_S = 90.0
DIALS_MOST = 64


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine that runs."""

    number: int
    home: Path
    child: subprocess.Popen[bytes]

    @property
    def environ(self) -> dict[str, str]:
        """The environment of this engine and of verbs that ask it."""
        return environment(self.home)

    @property
    def log(self) -> str:
        """What it logged so far."""
        return "".join(path.read_text(errors="replace") for path in (self.home / "state").glob("omview/*/engine.log"))

    def ask(self, verb: str) -> list[dict[str, object]] | dict[str, object]:
        """What `omview VERB --json` says here."""
        done = subprocess.run(
            [PYTHON, *SERVE, verb, "--json"], env=self.environ, capture_output=True, text=True, check=False
        )
        found: list[dict[str, object]] | dict[str, object] = json.loads(done.stdout) if done.returncode == 0 else []
        return found


def environment(home: Path) -> dict[str, str]:
    """All places below `home`."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "OMVIEW_"))}
    names = {
        "XDG_STATE_HOME": "state",
        "XDG_RUNTIME_DIR": "run",
        "XDG_CONFIG_HOME": "config",
        "XDG_CACHE_HOME": "cache",
    }
    return env | {variable: str(home / folder) for variable, folder in names.items()}


def prepare(root: Path, count: int, discover: bool) -> list[Path]:
    """Homes with keys of one cluster and settings; each knows the address of the first one only."""
    homes = [root / f"n{number}" for number in range(1, count + 1)]
    for number, home in enumerate(homes, 1):
        for folder in ("state/omview", "run", "config/omview"):
            (home / folder).mkdir(mode=0o700, parents=True)
        lines = [f'name = "n{number}"', f'listen = ["{address(number)}"]', f"port = {PORT}"]
        lines += [f'peers = ["{address(1)}:{PORT}"]', f"discover = {str(discover).lower()}"]
        (home / "config/omview/config.toml").write_text("\n".join(lines) + "\n")
    states = [str(home / "state/omview" / host_tag()) for home in homes]
    subprocess.run([PYTHON, "-c", PROVISION, *states], check=True)
    return homes


def address(number: int) -> str:
    """The loopback address of an engine."""
    return f"127.77.{number // 250}.{number % 250 + 1}"


def start(homes: Sequence[Path]) -> list[Engine]:
    """Start them, a few at a time."""
    engines: list[Engine] = []
    try:
        for number, home in enumerate(homes, 1):
            child = subprocess.Popen(
                [PYTHON, *SERVE, "serve"],
                env=environment(home),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
            engines.append(Engine(number, home, child))
            if number % AT_ONCE == 0:
                wait_for(partial(answer, engines[-AT_ONCE:]), UP_S)
    except BaseException:
        stop(engines)
        raise
    return engines


def answer(engines: Sequence[Engine]) -> bool:
    """Whether they take questions."""
    return all(find_paths(engine.environ).socket.exists() for engine in engines)


def stop(engines: Sequence[Engine]) -> None:
    """End those that we started, and only those."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for engine in engines:
            if engine.child.poll() is None:
                engine.child.send_signal(number)
        end = time.monotonic() + 20.0
        for engine in engines:
            with suppress(subprocess.TimeoutExpired):
                engine.child.wait(max(0.1, end - time.monotonic()))
    for engine in engines:
        sweep(engine)


def sweep(engine: Engine) -> None:
    """Remove what a killed engine leaves outside of its home: the directory for images on their way."""
    shutil.rmtree(find_paths(engine.environ).images, ignore_errors=True)


def wait_for(done: Callable[[], bool], seconds: float, step_s: float = 0.1) -> float:
    """Wait until something is so; returns how long it took."""
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > seconds:
            raise SystemExit("waited too long")
        time.sleep(step_s)
    return time.monotonic() - begun


def sees_all(engine: Engine, count: int) -> bool:
    """Whether this engine believes that all run, and knows their names."""
    nodes = engine.ask("nodes")
    return len(nodes) == count and all(
        isinstance(node, dict) and node["state"] == "up" and not str(node["name"]).startswith("node ") for node in nodes
    )


def sockets(pid: int) -> tuple[int, int]:
    """TCP connections and all descriptors of a process."""
    inodes, descriptors = set(), 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        descriptors += 1
        with suppress(OSError):
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry.path))
            if found:
                inodes.add(found[1])
    tcp = 0
    for name in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{name}") as table:
            tcp += sum(line.split()[9] in inodes for line in table.readlines()[1:])
    return tcp, descriptors


def spread(values: Sequence[float]) -> str:
    """Median and greatest."""
    return f"median {statistics.median(values):8.2f}   most {max(values):8.2f}"


def lost_at(engine: Engine, number: int) -> float | None:
    """When this engine gave a node up, by its log (wall-clock seconds)."""
    found = re.search(rf"^(\S+ \S+),(\d+) INFO omcore\.node lost node={number}$", engine.log, re.MULTILINE)
    if found is None:
        return None
    return time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S")) + int(found[2]) / 1000


def idle(engines: Sequence[Engine], seconds: float) -> bool:
    """Print what each costs while nothing happens; False when a promise is broken."""
    pids = [engine.child.pid for engine in engines]
    traffic = [traffic_of(engine) for engine in engines[:4]]
    before, begun = [cpu_seconds([pid]) for pid in pids], time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begun
    cpu = [100 * (cpu_seconds([pid]) - was) / took for pid, was in zip(pids, before, strict=True)]
    took_traffic = time.monotonic() - begun
    rates = [(traffic_of(e) - was) / took_traffic for e, was in zip(engines[:4], traffic, strict=True)]
    counts = [sockets(pid) for pid in pids]
    print(f"TCP sockets (listening one included)  {spread([tcp for tcp, _ in counts])}")
    print(f"descriptors                           {spread([fds for _, fds in counts])}")
    print(f"memory, PSS, MiB                      {spread([pss_mib([pid]) for pid in pids])}")
    print(f"CPU, % of a core                      {spread(cpu)}")
    print(f"messages' bytes sent a second         {spread(rates)}   (of four engines)")
    return max(tcp for tcp, _ in counts) <= 1 + 2 * DIALS_MOST


def traffic_of(engine: Engine) -> float:
    """Bytes that it has sent."""
    net = engine.ask("net")
    peers = net["peers"] if isinstance(net, dict) else []
    assert isinstance(peers, list)
    return float(sum(peer["sent_bytes"] for peer in peers))


def kill(engines: list[Engine], victim: Engine) -> float:
    """Kill one; seconds until each of the others knew, printed; returns the last."""
    engines.remove(victim)
    at = time.time()
    victim.child.kill()
    victim.child.wait()
    sweep(victim)
    wait_for(lambda: all(lost_at(engine, victim.number) is not None for engine in engines), LOST_S, 0.5)
    times = [(lost_at(engine, victim.number) or 0.0) - at for engine in engines]
    print(
        f"n{victim.number} killed: known lost first after {min(times):.2f} s, by half after "
        f"{statistics.median(times):.2f} s, everywhere after {max(times):.2f} s"
    )
    return max(times)


def false_losses(engines: Sequence[Engine], killed: Sequence[int]) -> list[str]:
    """The log lines in which somebody was given up who ran."""
    found = [line for engine in engines for line in re.findall(r"^.* lost node=\d+$", engine.log, re.MULTILINE)]
    return [line for line in found if int(line.rpartition("=")[2]) not in killed]


def measure(root: Path, count: int, seconds: float, kills: int, discover: bool) -> int:
    """The whole bench in this directory."""
    begun = time.monotonic()
    engines = start(prepare(root, count, discover))
    try:
        print(f"{count} engines started in {time.monotonic() - begun:.1f} s")
        took = [wait_for(partial(sees_all, engine, count), UP_S) for engine in engines]
        print(f"every one sees all others by name; asking one after the other took {sum(took):.1f} s")
        before = len(false_losses(engines, ()))  # 64 interpreters that start on two cores starve each other
        good = idle(engines, seconds)
        killed, times = [], []
        for victim in engines[-kills:] if kills else []:
            killed.append(victim.number)
            times.append(kill(engines, victim))
        lines = false_losses(engines, killed)
        wrong = len(lines) - before
        print(f"given up although they ran: {wrong}, and {before} while all were starting")
        for line in lines[:5]:
            print(f"  {line}")
        verdict = "kept" if good and not wrong else "BROKEN"
        print(f"promises: sockets at most {1 + 2 * DIALS_MOST}, no false loss: {verdict}")
        return 0 if good and not wrong else 1
    finally:
        stop(engines)


def main() -> int:
    """Parse, measure, clean up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--discover", action="store_true", help="with announcements on the loopback's multicast")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a told end cleans up, too
    root = Path(tempfile.mkdtemp(prefix="omnet"))
    try:
        return measure(root, options.n, options.seconds, options.kills, options.discover)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())
