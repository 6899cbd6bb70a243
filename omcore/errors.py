"""The whole error tree. Each error carries a sentence for people and a hint; faces print these, never a traceback."""

from __future__ import annotations


class OmError(Exception):
    """Anything that can go wrong in a way we foresaw; caught at the edges: driver loop, CLI, UI worker."""

    title = "Something failed"
    exit_code = 1

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


class UsageError(OmError):
    """The request names something that does not exist or makes no sense; nothing was done."""

    title = "Not understood"


class ConfigError(OmError):
    """The user's file or flag: names key, value, and what is allowed."""

    title = "Bad configuration"


class ProtocolError(OmError):
    """Somebody broke the protocol."""

    title = "Protocol error"


class LocalProtocolError(ProtocolError):
    """Our own bug: let tests see it."""


class RemoteProtocolError(ProtocolError):
    """A peer sent what it must not: dropped and counted, nothing changed."""


class TransportError(OmError):
    """The network, or a key."""

    title = "No connection"


class PeerUnreachable(TransportError):
    """A node did not answer in time."""


class NotTrusted(TransportError):
    """A key that is not in the roster, or a file that must not be trusted."""

    title = "Not trusted"


class EngineUnreachable(TransportError):
    """No engine answers on the control socket."""

    title = "No engine"


class MigrationError(OmError):
    """A move that did not happen; the job goes on where it was."""

    title = "Not moved"


class Refused(MigrationError):
    """Somebody said no before anything was touched."""


class NotMovable(MigrationError):
    """The job itself cannot be dumped; the reason says what stands in the way."""


class CheckpointFailed(MigrationError):
    """CRIU could not dump or restore; `log_tail` holds its last errors."""

    def __init__(self, text: str, hint: str = "", log_tail: str = "") -> None:
        super().__init__(text, hint)
        self.log_tail = log_tail


class PodError(OmError):
    """A pod could not be made, or its shim is gone."""

    title = "No pod"


class CommandNotFound(PodError):
    """There is no such program; a shell says 127 then, and so do we."""

    exit_code = 127


class CommandNotExecutable(PodError):
    """It is there and cannot be executed."""

    exit_code = 126


class LabError(OmError):
    """The lab of test hosts could not be made or found."""

    title = "Lab"
