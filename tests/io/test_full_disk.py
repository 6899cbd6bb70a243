"""A state directory that cannot be written stops nobody from gossiping."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from omcore.paths import SHARED_MEMORY

pytestmark = [pytest.mark.slow, pytest.mark.lab]
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private")


@pytest.fixture
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="omfull", dir=SHARED_MEMORY))
    (made / "second").mkdir(mode=0o700)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("how", ["full", "readonly"])
def test_gossip_goes_on_and_members_come_and_go(root: Path, how: str) -> None:
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    script = str(Path(__file__).with_name("fulldisk.py"))
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*UNSHARE, sys.executable, script, how, str(root)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[:3] == ["joined This machine is now node 3 of that cluster.", "all see all", "again"]
    assert lines[3].startswith("invited The invitation cannot be written down: ")
    assert lines[4].startswith("refused ")
    assert lines[5] == "gossip goes on"
