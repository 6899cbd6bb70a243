"""`make fuzz`: bytes from nowhere against everything that reads bytes of peers, led by coverage (atheris).

A codec or a machine may take them or refuse them with RemoteProtocolError, and must be as it was where it refuses.
Installs atheris from PyPI into an environment of its own.

fuzz.py [SECONDS]    60 by default
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

TARGETS = ("omcore.wire", "omcore.gossip", "omcore.trust.passes", "omcore.trust.tokens", "omcore.handoff.journal")


def environment() -> str:
    """A Python with atheris and what the readers import."""
    place = Path(sys.prefix) / "fuzz"
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        wanted = ("atheris", "msgspec", "cryptography", "pyzmq")
        install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *wanted]
        subprocess.run(install, check=True)
    return str(python)


def fuzz(seconds: int) -> None:
    """Inside that environment: does not return."""
    import atheris

    with atheris.instrument_imports(include=list(TARGETS)):
        from omcore.errors import OmError, RemoteProtocolError
        from omcore.gossip import Gossip, GossipConfig
        from omcore.handoff.journal import decode_file
        from omcore.messages import PEER
        from omcore.requests import CONTROL
        from omcore.trust import passes, tokens
        from omcore.types import LoadSample

    machine = Gossip(1, GossipConfig(), Random(1))
    machine.set_members(range(1, 9))
    machine.refresh(LoadSample(), 0.0)
    clock = 0.0

    def state() -> Any:
        return machine.view(clock), machine.members.running, machine.members.incarnation

    def one(data: bytes) -> None:
        nonlocal clock
        with contextlib.suppress(RemoteProtocolError):
            PEER.decode(data)
        with contextlib.suppress(RemoteProtocolError):
            CONTROL.decode(data)
        with contextlib.suppress(OmError):
            passes.parse(data)
        with contextlib.suppress(OmError):
            tokens.parse_token(data.decode("latin-1"), 0.0)
        decode_file(data)
        clock += 0.001
        machine.tick(clock)
        before = state()
        try:
            machine.receive(data, 2 + len(data) % 7, clock)
        except RemoteProtocolError:
            assert state() == before, "a refused message changed something"

    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-print_final_stats=1"], one)
    atheris.Fuzz()


def main() -> int:
    """Outside: prepare the environment and start there."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    code = f"from tools.fuzz import fuzz; fuzz({seconds})"
    done = subprocess.run([environment(), "-c", code], capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()
    wanted = ("ERROR", "Uncaught", "stat::number_of_executed_units", "Error:")
    print("\n".join(line for line in said if any(word in line for word in wanted)) or done.stderr[-2000:])
    print("nothing raised what it must not" if not done.returncode else "FOUND SOMETHING: see above")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
