"""`make bench-loss`: a lab whose links lose packets; nobody may be given up, and the news stays fresh.

Brings up N hosts, lets each drop a share of what arrives (nftables), and waits; every engine's log tells whom it gave
up.  Ends with 1 if anybody was.  Nothing is left afterwards.

bench_loss.py [-n 8] [--loss 0.05] [--minutes 10]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from omcore import lab
from tools.tui_cost import cpu_seconds

LAB = "bench-loss"
OMVIEW = (sys.executable, "-P", "-m", "omview")
RULES = """
table inet omview_loss {{
  chain input {{ type filter hook input priority 0; iifname != "lo" numgen random mod 1000 < {permille} counter drop; }}
}}
"""
LOOK_S = 5.0


def on(node: str, *command: str, text: str = "") -> str:
    """Run something on a host; its output."""
    words = [*OMVIEW, "lab", "exec", "--name", LAB, node, "--", *command]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"on {node}: {' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def given_up(node: str) -> int:
    """How often the engine of a host gave another one up."""
    said = on(node, "sh", "-c", "cat /run/omview-lab/state/omview/*/engine.log /run/omview-lab/engine.log")
    return sum("omcore.node lost node=" in line for line in said.splitlines())


def dropped(node: str) -> int:
    """Packets that a host has dropped."""
    words = on(node, "nft", "list", "table", "inet", "omview_loss").split()
    return int(words[words.index("packets") + 1])


def main() -> int:
    """Measure, print, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("--loss", type=float, default=0.05)
    parser.add_argument("--minutes", type=float, default=10.0)
    asked = parser.parse_args()
    hosts = [host.name for host in lab.up(LAB, asked.n).hosts]
    try:
        until = time.monotonic() + 60
        while on(hosts[0], "omview", "nodes", "--json").count('"up"') < asked.n:
            if time.monotonic() > until:
                raise SystemExit("the hosts never met")
        for host in hosts:
            on(host, "nft", "-f", "-", text=RULES.format(permille=round(1000 * asked.loss)))
        pids = [host.engine_pid for host in lab.status(LAB).hosts]
        begun, before = time.monotonic(), cpu_seconds(pids)
        ages: list[float] = []
        stale = looks = 0
        while time.monotonic() - begun < 60 * asked.minutes:
            time.sleep(LOOK_S)
            nodes = json.loads(on(hosts[looks % asked.n], "omview", "nodes", "--json"))
            ages += [node["age_s"] for node in nodes if node["age_s"] is not None]
            stale += sum(node["state"] != "up" for node in nodes)
            looks += 1
        took = time.monotonic() - begun
        lost = sum(given_up(host) for host in hosts)
        print(f"{asked.n} nodes, {100 * asked.loss:g} % of the packets lost, {took / 60:.1f} min")
        print(f"{'ok  ' if not lost else 'OVER'}  given up although they ran    {lost:8}  at most 0")
        print(f"      packets dropped               {sum(dropped(host) for host in hosts):8}")
        print(f"      shown as not up               {100 * stale / (looks * asked.n):8.2f} % of the time")
        print(f"      age of a figure, mean and most{statistics.fmean(ages):8.2f} s {max(ages):8.2f} s")
        cpu = 100 * (cpu_seconds(pids) - before) / took / asked.n
        print(f"      engine, CPU                   {cpu:8.2f} % of a core")
        return 1 if lost else 0
    finally:
        lab.down(LAB)


if __name__ == "__main__":
    sys.exit(main())
