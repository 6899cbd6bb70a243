"""The doorman of one engine: judges every message by the table of rights, counts what it drops, cuts off who insists.

Pure: time is an argument.  Each key is judged alone, so one loud member takes nothing from the others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import StrEnum

from omcore.trust.passes import Role
from omcore.trust.rights import Rate, right_of
from omcore.types import NodeId

BAD_LIMIT = 20
BAD_WINDOW_S = 60.0
CUT_S = 60.0


class Verdict(StrEnum):
    """What happens with a message; all but OK are reasons for dropping it."""

    OK = "ok"
    UNKNOWN = "unknown kind"
    MALFORMED = "malformed"
    ROLE = "role"
    SHARE = "share = look"
    UNSURE = "roster not confirmed"
    RATE = "rate"


_BAD = (Verdict.UNKNOWN, Verdict.MALFORMED, Verdict.ROLE)
"""What an honest engine never does.  Being too fast, or not knowing of `share`, is none of it."""


class _Key:
    """What is remembered of one key."""

    __slots__ = ("bad", "cut_until", "left")

    def __init__(self) -> None:
        self.left: dict[Rate, tuple[float, float]] = {}  # tokens, and when they were counted
        self.bad: deque[float] = deque(maxlen=BAD_LIMIT)
        self.cut_until = float("-inf")


class Guard:
    """Judge of what members send.  `role` is the roster's; `share` what this node lets members do at most.

    `sure`: the roster was confirmed since the start; until then nothing new is obeyed.  `on_drop` is called for each
    message that is not taken, `on_cut` with a key that was just cut off.
    """

    def __init__(self, role: Callable[[NodeId], Role | None], share: Role = Role.WORK) -> None:
        self.sure = True
        self.dropped: Counter[tuple[NodeId, Verdict]] = Counter()
        self.on_drop: Callable[[NodeId, Verdict], None] = lambda node, why: None
        self.on_cut: Callable[[NodeId], None] = lambda node: None
        self._role = role
        self._share = share
        self._keys: dict[NodeId, _Key] = {}

    def judge(self, sender: NodeId, kind: type | None, now: float) -> Verdict:
        """Whether to take a message of `kind` (None: unknown) from `sender`; what is not OK is counted."""
        verdict = self._judge(sender, kind, now)
        if verdict is not Verdict.OK:
            self.drop(sender, verdict, now)
        return verdict

    def _judge(self, sender: NodeId, kind: type | None, now: float) -> Verdict:
        right = right_of(kind)
        if right is None:
            return Verdict.UNKNOWN
        if self._role(sender) not in right.roles:
            return Verdict.ROLE
        if self._share not in right.roles:
            return Verdict.SHARE
        if right.order and not self.sure:
            return Verdict.UNSURE
        return Verdict.OK if self._take(sender, right.rate, now) else Verdict.RATE

    def _take(self, sender: NodeId, rate: Rate, now: float) -> bool:
        burst, per_s = rate.value
        key = self._keys.setdefault(sender, _Key())
        tokens, at = key.left.get(rate, (burst, now))
        tokens = min(burst, tokens + max(0.0, now - at) * per_s)
        taken = tokens >= 1.0
        key.left[rate] = (tokens - taken, max(at, now))
        return taken

    def drop(self, sender: NodeId, why: Verdict, now: float) -> None:
        """Count a message that is not taken; twenty bad ones in a minute cut the key off."""
        self.dropped[sender, why] += 1
        self.on_drop(sender, why)
        if why not in _BAD:
            return
        key = self._keys.setdefault(sender, _Key())
        key.bad.append(now)
        if len(key.bad) == BAD_LIMIT and now - key.bad[0] <= BAD_WINDOW_S and not self.is_cut(sender, now):
            key.bad.clear()
            key.cut_until = now + CUT_S
            self.on_cut(sender)

    def is_cut(self, node: NodeId, now: float) -> bool:
        """Whether the node is cut off now."""
        key = self._keys.get(node)
        return key is not None and now < key.cut_until

    def next_end(self, now: float) -> float | None:
        """When the next cut ends; None: nobody is cut off."""
        return min((key.cut_until for key in self._keys.values() if now < key.cut_until), default=None)

    def keep(self, members: Iterable[NodeId]) -> None:
        """Forget all but these: the roster changed."""
        wanted = set(members)
        for node in self._keys.keys() - wanted:
            del self._keys[node]
        for pair in [pair for pair in self.dropped if pair[0] not in wanted]:
            del self.dropped[pair]
