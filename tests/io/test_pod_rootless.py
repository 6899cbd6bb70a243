"""Pods of an ordinary user: the same moves without any privilege of the host."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from omcore.checkpoint.criu import find_criu
from omcore.paths import find_paths

ROOT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
UID = "61234"  # nobody's: a number is all that the kernel asks for


def system_python_is_new() -> bool:
    done = subprocess.run([SYSTEM_PYTHON, "-c", "import sys; exit(sys.version_info < (3, 11))"], check=False)
    return done.returncode == 0


pytestmark = [
    pytest.mark.criu,
    pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user all the other tests are this"),
    pytest.mark.skipif(find_criu() is None, reason="no CRIU"),
    pytest.mark.skipif(
        not Path(SYSTEM_PYTHON).exists() or not system_python_is_new(), reason="no Python that another user can run"
    ),
]


@pytest.mark.parametrize("scenario", ["counting", "terminal", "undone", "privileges", "threads"])
def test_an_ordinary_user_needs_no_privilege(scenario: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = Path("/dev/shm") / f"omview-rootless-{os.getpid()}-{scenario}"
    place.mkdir(mode=0o755)
    try:
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "omcore", place / "omcore", ignore=skip)
        (place / "tests/io").mkdir(parents=True)
        for name in ("podkit.py", "podrootless.py"):
            shutil.copy(ROOT / "tests/io" / name, place / "tests/io")
        criu = os.environ.get("OMVIEW_CRIU", "")
        if not criu and find_paths().criu.is_dir():  # root's own, which nobody else can read
            criu = str(shutil.copytree(find_paths().criu, place / "criu", symlinks=True))
        subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
        done = subprocess.run(
            ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
            + [SYSTEM_PYTHON, "-m", "tests.io.podrootless", scenario],
            cwd=place,
            env={"PATH": "/usr/bin:/bin", "HOME": "/", "OMVIEW_CRIU": criu},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(place)
