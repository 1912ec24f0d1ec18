"""Whose slots are wanted: each wish lasts for its seconds from when it is first seen here, by this process's own monotonic clock.

Whoever asks and whoever looks may have different clocks, and a clock may jump: neither ends a wish early nor prolongs it. Only a wish
that was there before this process looked for the first time is held against the clock, and never for more than was asked.
Knows nothing of processes. Next: `supervisor.py` and `cluster.py`, which look.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from serving.records import SlotLease


class SlotLeases:
    """What one process knows of all wishes."""

    def __init__(self, now: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now, self._monotonic = now, monotonic
        self._ends: dict[SlotLease, float] = {}
        self._has_looked = False

    def held(self, leases: Mapping[str, Iterable[SlotLease]]) -> frozenset[str]:
        """Releases of which at least one wish lasts."""
        at = self._monotonic()
        seen = [each for asked in leases.values() for each in asked]
        self._ends = {each: self._ends[each] if each in self._ends else at + self._left_s(each) for each in seen}
        self._has_looked = True
        return frozenset(release_id for release_id, asked in leases.items() if any(self._ends[each] > at for each in asked))

    def over(self) -> tuple[SlotLease, ...]:
        """Those seen last that have ended."""
        at = self._monotonic()
        return tuple(each for each, ends in self._ends.items() if ends <= at)

    def _left_s(self, lease: SlotLease) -> float:
        if self._has_looked:
            return lease.seconds
        return min(lease.seconds, (lease.until - self._now()).total_seconds())
