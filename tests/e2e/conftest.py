"""One lab for all end-to-end tests of a worker: three hosts, each with a real engine."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from omcore import lab
from omcore.checkpoint.criu import find_criu
from omcore.errors import LabError
from tests.e2e.kit import TICKER, Cluster


@pytest.fixture(scope="session")
def shared() -> Iterator[Path]:
    """A directory that all hosts see: not below /tmp, which each host has for itself."""
    directory = Path(tempfile.mkdtemp(prefix=".omview-test-", dir=Path.home()))
    (directory / "ticker.py").write_text(TICKER)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def cluster(shared: Path) -> Iterator[Cluster]:
    """A lab of three."""
    if find_criu() is None:
        pytest.skip("no CRIU: make criu")
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    try:
        lab.up(name, 3, cpu=2.0)
    except LabError as error:
        if "user namespaces" in error.text or "iproute2" in error.hint:
            pytest.skip(f"{error.text}: {error.hint}")
        raise
    try:
        yield Cluster(name, shared)
    finally:
        lab.down(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure tells what the hosts saw: their jobs and the ends of their engines' logs."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        for node in ("node1", "node2", "node3"):
            report.sections.append((f"{node} jobs", cluster.omview(node, "jobs", "--all").stdout))
            log = "tail -n 30 /run/omview-lab/engine.log /run/omview-lab/state/omview/*/engine.log 2>/dev/null"
            report.sections.append((f"{node} log", cluster.on(node, "sh", "-c", log).stdout))
    return report
