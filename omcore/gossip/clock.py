"""Time that neither runs backwards nor jumps over a stall, and a list of what is due when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

EPSILON_S = 1e-6  # a caller that wakes exactly at a deadline must find it due, whatever float rounding did
STALL_S = 0.25  # later than this, the process was frozen or starved: that time taught it nothing about others


class Clock:
    """The caller's `now` made safe: steps back are swallowed, and with `due` also the time of a stall.

    `t` is the inner time; it starts at the first `now` and never decreases.  A stall is a reading that comes more
    than STALL_S after `due`, the time at which the caller had meant to come: inner time then goes on to `due` only,
    and stands there for STALL_S (`holding`), so that what came in meanwhile is read before anybody is judged.
    """

    __slots__ = ("_hold", "_seen", "t")

    def __init__(self) -> None:
        self.t = float("-inf")
        self._seen = 0.0
        self._hold = 0.0

    @property
    def started(self) -> bool:
        """Whether the clock was ever read."""
        return self.t != float("-inf")

    @property
    def holding(self) -> bool:
        """Whether time stands still after a stall: nothing that is due may be done now."""
        return self._hold > 0

    def read(self, now: float, due: float = float("inf")) -> bool:
        """Go on to the caller's `now`; True where a stall was found."""
        if not self.started:
            self.t = self._seen = now
            return False
        step = max(0.0, now - self._seen)
        self._seen = now
        if self._hold > 0:  # a process that is late every time must get on: no second stall at once
            used = min(self._hold, step)
            self._hold = 0.0 if used >= self._hold - EPSILON_S else self._hold - used
            self.t += min(step - used, max(0.0, due - self.t))
            return False
        ahead = max(0.0, due - self.t)
        stalled = step > ahead + STALL_S
        if stalled:
            self._hold = STALL_S
        self.t += ahead if stalled else step
        return stalled

    def peek(self, now: float) -> float:
        """Inner time at `now`, without taking note of it (a question must not change anything)."""
        return self.t + max(0.0, now - self._seen) if self.started else now

    def outer(self, t: float) -> float:
        """The caller's time at which inner time `t` comes; minus infinity before the first reading."""
        return self._seen + self._hold + max(0.0, t - self.t) if self.started else self.t


class Timers:
    """Calls due at inner times, in order; a call checks for itself whether it is still wanted."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[int], None], int]] = []
        self._count = count()

    def at(self, when: float, call: Callable[[int], None], key: int = 0) -> None:
        """Have `call(key)` made when inner time reaches `when`."""
        heapq.heappush(self._heap, (when, next(self._count), call, key))

    @property
    def next(self) -> float:
        """Inner time of the earliest call; infinity when there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def run(self, t: float) -> None:
        """Make all calls due at `t`, those included that such calls add."""
        while self._heap and self._heap[0][0] <= t + EPSILON_S:
            _, _, call, key = heapq.heappop(self._heap)
            call(key)
