"""What a move would do, before it is done: pure figures for the dialog."""

from __future__ import annotations

from dataclasses import dataclass, replace

from omcore.messages import Examined
from omcore.types import Forecast, NodeView

FIXED_S = 0.10
"""Freeze of a job of no size: dump, restore and one exchange, measured by `make bench`."""
BYTES_PER_S = 600e6
"""Dump, encrypt, send and restore of memory on one machine; slower networks show in the measured freeze."""


@dataclass(frozen=True, slots=True)
class Target:
    """One node with its forecast; `gain` compares the speed the job would have there with now (1 = the same)."""

    forecast: Forecast
    gain: float


def freeze_s(rss_bytes: int) -> float:
    """Expected freeze of a plain move, from the job's resident size."""
    return FIXED_S + rss_bytes / BYTES_PER_S


def share(load: float, speed: float) -> float:
    """Speed that one CPU-bound task gets where `load` tasks wait per core, itself included."""
    return speed / max(1.0, load)


def forecast(
    node: NodeView, source: NodeView | None, examined: Examined, here: bool, home: bool, reason: str, hint: str
) -> Target:
    """What would happen if the job went to `node` (or stays: `here`)."""
    sample = node.sample
    cores = max(sample.cores, 0.01)
    tasks = examined.load * (source.sample.cores if source else 1.0)
    load_with = sample.load if here else sample.load + tasks / cores
    before = share(source.sample.load, source.sample.speed) if source else 1.0
    gain = 1.0 if here else share(load_with, sample.speed) / max(before, 1e-6)
    if here:
        verdict = "it is here and at home" if home else "it is here"
    elif reason:
        verdict = ""
    elif gain > 1.05:
        verdict = f"gains {min(999, round((gain - 1) * 100))}% speed"
    elif gain < 0.95:
        verdict = f"slower: {node.name} gets crowded" if load_with > 1 else f"slower: {round(cores, 2):g} cores only"
    else:
        verdict = "as fast as here"
    if home and not here and not reason:
        verdict += ", its home"
    made = Forecast(
        node=node.number,
        ok=not reason and not here,
        load_now=sample.load,
        load_with=load_with,
        freeze_s=freeze_s(examined.rss_bytes),
        mem_free_bytes=max(0, sample.mem_total_bytes - sample.mem_used_bytes),
        cores=cores,
        verdict=verdict,
        reason=reason,
        hint=hint,
    )
    return Target(made, gain)


def plan_targets(targets: list[Target]) -> tuple[Forecast, ...]:
    """Best first, then where it is, then those that refuse; the best is called so if it is better than staying."""
    able = sorted((t for t in targets if t.forecast.ok), key=lambda t: (-t.gain, t.forecast.load_with))
    rest = sorted((t for t in targets if not t.forecast.ok), key=lambda t: (bool(t.forecast.reason), t.forecast.node))
    found = [target.forecast for target in (*able, *rest)]
    if able and found[0].verdict.startswith("gains"):
        found[0] = replace(found[0], verdict=f"best: {found[0].verdict}")
    return tuple(found)
