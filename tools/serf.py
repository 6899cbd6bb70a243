"""serf (Debian's package) on the loopback: how soon do all agents say that a killed one failed?"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

PORT = 27946
RPC_PORT = 27373
JOINED_S = 60.0
KNOWN_S = 60.0
LOOK_S = 0.05


def known_everywhere(count: int) -> float | None:
    """Seconds from kill -9 of one of `count` agents until all others said so; None: there is no serf here.

    Raises SystemExit where the agents do not come together, or do not notice.
    """
    serf = shutil.which("serf")
    if serf is None:
        return None
    with tempfile.TemporaryDirectory() as room:
        logs = [Path(room) / f"{number}.log" for number in range(count)]
        agents = [_start(serf, number, log) for number, log in enumerate(logs)]
        try:
            joined = _wait(lambda: all(log.read_text().count("EventMemberJoin") >= count for log in logs), JOINED_S)
            if joined is None:
                raise SystemExit("the serf agents did not come together")
            time.sleep(3.0)  # let them come to rest
            victim = agents[count // 2]
            victim.send_signal(signal.SIGKILL)
            others = [log for number, log in enumerate(logs) if number != count // 2]
            failed = f"EventMemberFailed: n{count // 2} "
            took = _wait(lambda: all(failed in log.read_text() for log in others), KNOWN_S)
            if took is None:
                raise SystemExit("not all serf agents noticed the death")
            return took
        finally:
            for agent in agents:
                agent.kill()
                agent.wait()


def _start(serf: str, number: int, log: Path) -> subprocess.Popen[bytes]:
    address = f"127.0.0.{number + 1}"
    words = [serf, "agent", "-profile=lan", f"-node=n{number}", f"-bind={address}:{PORT}"]
    words += [f"-rpc-addr={address}:{RPC_PORT}", "-log-level=info"]
    if number:
        words.append(f"-join=127.0.0.1:{PORT}")
        words.append("-retry-max=20")
    with log.open("wb") as out:
        agent = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    if number == 0:
        _wait(lambda: "EventMemberJoin" in log.read_text(), JOINED_S)
    return agent


def _wait(done: object, seconds: float) -> float | None:
    assert callable(done)
    begun = time.monotonic()
    while not done():
        if time.monotonic() > begun + seconds:
            return None
        time.sleep(LOOK_S)
    return time.monotonic() - begun
