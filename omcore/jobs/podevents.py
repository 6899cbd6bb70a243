"""What a pod tells the engine, in order; streams are counted from the start of the job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Output:
    """The job wrote `data`, from `offset` of that stream on.  Acknowledge it, or after 256 KiB the job waits."""

    stream: str  # "out" | "err" | "tty"
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class OutputEof:
    """The stream ended at `offset`."""

    stream: str
    offset: int


@dataclass(frozen=True, slots=True)
class Taken:
    """All input before `offset` is the pod's; have at most 256 KiB beyond it under way."""

    offset: int


@dataclass(frozen=True, slots=True)
class SignalTaken:
    """Signals up to this number were applied."""

    seq: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The job's root was stopped by this signal (^Z)."""

    signum: int


@dataclass(frozen=True, slots=True)
class Continued:
    """The job's root goes on."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The root ended; all output was handed over.  `status`: exit code, or minus the signal."""

    status: int
    totals: dict[str, int]


@dataclass(frozen=True, slots=True)
class Gone:
    """The shim died or another engine took the connection; not sent after `retire`, `end` or `close`."""


PodEvent = Output | OutputEof | Taken | SignalTaken | Stopped | Continued | Ended | Gone
