"""The chain of a cluster's keys, from the one it began with to the one that signs now, and quarrels about it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from omcore.errors import NotTrusted, RemoteProtocolError, UsageError
from omcore.trust.files import read_private, replace_private
from omcore.trust.turns import TURN_BYTES, Turn, parse_turn, parse_turns, verify_turn

TURNS = "turns"
OPEN_S = 24 * 3600.0
"""The longest time for which the key before counts as well."""
_MAX_BYTES = 64 * 1024 * 1024
_MAX_REJECTED = 64


class _Stored(msgspec.Struct, frozen=True):
    """The file `turns`."""

    chain: tuple[bytes, ...]
    before: tuple[bytes, ...]
    rival: bytes
    rejected: tuple[bytes, ...]
    open: bool
    opened: float


class Rotation:
    """`publics[e]` is the key of epoch e.  `open`: entries of the epoch before count as well, since `opened`.

    `rival`: another valid turn to an epoch that has one; until a person decides, nothing changes.
    """

    def __init__(self, cluster: bytes, first_public: bytes) -> None:
        self.publics = [first_public]
        self.open = False
        self.opened = 0.0
        self.rival: Turn | None = None
        self._cluster = cluster
        self._chain: list[Turn] = []
        self._before: list[bytes] = []  # the roster as it was when each turn came
        self._rejected: list[bytes] = []

    @property
    def epoch(self) -> int:
        """How often the key was replaced."""
        return len(self._chain)

    @property
    def oldest(self) -> int:
        """The oldest epoch whose entries count."""
        return self.epoch - 1 if self.open else self.epoch

    @property
    def choice(self) -> tuple[Turn, ...]:
        """The two between which a person has to decide; none: there is no quarrel."""
        return () if self.rival is None else (self._chain[self.rival.epoch - 1], self.rival)

    def export(self) -> bytes:
        """All turns, and the rival."""
        turns = (*self._chain, *((self.rival,) if self.rival else ()))
        return b"".join(turn.raw for turn in turns)

    def merge(self, data: bytes, roster: bytes, now: float) -> bool:
        """Take in turns; `roster` is what it is before them. True where one was news."""
        news = False
        for turn in sorted(parse_turns(data), key=lambda turn: turn.epoch):
            known = turn.raw in self._rejected or any(turn.raw == other.raw for other in (*self._chain, *self.choice))
            if known or turn.epoch > self.epoch + 1 or self.rival is not None:
                continue  # one quarrel at a time
            verify_turn(turn, self._cluster, self.publics[turn.epoch - 1])
            news = True
            if turn.epoch <= self.epoch:
                self.rival = turn
            else:
                self._follow(turn, roster, now)
        return news

    def _follow(self, turn: Turn, roster: bytes, now: float) -> None:
        self._chain.append(turn)
        self._before.append(roster)
        self.publics.append(turn.new)
        self.open, self.opened = True, now

    def accept(self, word: str, now: float) -> tuple[Turn, bytes | None]:
        """Decide a quarrel by the new key's fingerprint; also the roster to go back to, None: as it is."""
        wanted = "".join(char for char in word.upper() if char.isalnum())
        for turn in self.choice:
            if wanted == turn.fingerprint.replace("-", ""):
                break
        else:
            if not self.choice:
                raise UsageError("There are no two new cluster keys to decide between.", "omview key show")
            names = " or ".join(turn.fingerprint for turn in self.choice)
            raise UsageError("That is none of the two new cluster keys.", f"It is {names}")
        mine, rival = self.choice
        self.rival = None
        self._rejected = [*self._rejected, (rival if turn is mine else mine).raw][-_MAX_REJECTED:]
        if turn is mine:
            return turn, None
        before = self._before[turn.epoch - 1]
        del self._chain[turn.epoch - 1 :], self._before[turn.epoch - 1 :], self.publics[turn.epoch :]
        self._follow(turn, before, now)
        return turn, before

    def save(self, directory: Path) -> None:
        """Write the file, unless there was never a turn."""
        if not self._chain and not (directory / TURNS).exists():
            return
        stored = _Stored(
            tuple(turn.raw for turn in self._chain),
            tuple(self._before),
            self.rival.raw if self.rival else b"",
            tuple(self._rejected),
            self.open,
            self.opened,
        )
        replace_private(directory / TURNS, msgspec.msgpack.encode(stored))

    def load(self, directory: Path) -> None:
        """Read the file; every turn is verified again. Raises NotTrusted."""
        path = directory / TURNS
        try:
            stored = msgspec.msgpack.decode(read_private(path, _MAX_BYTES), type=_Stored)
            turns = [parse_turn(raw) for raw in stored.chain]
            rival = parse_turn(stored.rival) if stored.rival else None
        except FileNotFoundError:
            return
        except (msgspec.DecodeError, RemoteProtocolError) as error:
            raise NotTrusted(f"{path} is damaged", "restore it from a backup, or join again") from error
        for turn, before in zip(turns, stored.before, strict=False):
            verify_turn(turn, self._cluster, self.publics[-1])
            self._follow(turn, before, stored.opened)
        self.open, self.opened, self.rival = stored.open, stored.opened, rival
        self._rejected = [raw for raw in stored.rejected if len(raw) == TURN_BYTES]
