"""Which job or node a word on the command line means, and what was probably meant when it means none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from omcore.errors import UsageError
from omcore.types import ClusterView, JobState, JobView, NodeView

SHORTEST_PREFIX = 2  # characters of an id; one would be luck
SHORT_ID = 8


def find_job(view: ClusterView, word: str) -> JobView:
    """The job that `word` means: its name, its id, or the beginning of its id if only one job begins so.

    A job that has ended is found only where no live one fits. Raises UsageError, with what was probably meant.
    """
    jobs = sorted(view.jobs, key=lambda job: job.state is JobState.ENDED)
    for fits in (
        [job for job in jobs if job.id == word],
        [job for job in jobs if job.name == word],
        [job for job in jobs if len(word) >= SHORTEST_PREFIX and job.id.startswith(word.lower())],
    ):
        live = [job for job in fits if job.state is not JobState.ENDED] or fits
        if len(live) == 1:
            return live[0]
        if live:
            ids = ", ".join(job.id[:SHORT_ID] for job in live[:6])
            raise UsageError(f"{ascii(word)} may be any of {len(live)} jobs.", f"name one by its id: {ids}")
    names = [job.name for job in jobs if job.name]
    raise UsageError(f"There is no job {ascii(word)}.", _near(word, names) or "omview jobs lists them")


def find_node(view: ClusterView, word: str) -> NodeView:
    """The node of this name or number. Raises UsageError, with what was probably meant."""
    for node in view.nodes:
        if node.name == word or str(node.number) == word:
            return node
    twins = [node for node in view.nodes if node.name == f"{word}({node.number})"]
    if twins:
        numbers = ", ".join(str(node.number) for node in twins)
        raise UsageError(f"{len(twins)} nodes are called {ascii(word)}.", f"name one by its number: {numbers}")
    names = [node.name for node in view.nodes]
    raise UsageError(f"There is no node {ascii(word)}.", _near(word, names) or "nodes: " + ", ".join(names))


def node_name(view: ClusterView, number: int) -> str:
    """The name of a node; its number in words where nobody knows the name."""
    return next((node.name for node in view.nodes if node.number == number), f"node {number}")


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else ""
