"""What a gateway has only so much of: places for requests, room in the queue, connections, shadow copies, samples, what keys may use.

One process that serves alone counts for itself; workers count in one ledger, so that a bound holds for all of them together.
A place goes to whoever has waited longest, in whichever worker. Next: `gateway_admission.py` and `key_limits.py`, which ask.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from serving.gateway_ledger import Ledger, Levels
from serving.key_limits import Use, Uses, UsesHere, limits_of
from serving.keys import KeyInfo
from serving.settings import Settings

NEWEST = math.inf
# A worker that does not turn its callers away in time has stopped; what waits there holds nobody up.
_STOPPED_S = 1.0


class Room(Protocol):
    """Places for requests under way, and the queue before them."""

    def take(self, since_s: float) -> bool:
        """A place, if there is one and nobody has waited longer; `NEWEST` has not waited."""
        ...

    def give_back(self) -> None:
        """A place is free."""
        ...

    def queue(self) -> bool:
        """Room in the queue for one more, if there is."""
        ...

    def leave_queue(self) -> None:
        """One fewer waits."""
        ...

    def waits_since(self, first_s: float) -> None:
        """Since when the first that could begin here has waited; `NEWEST` when none could."""
        ...


class Crowd(Protocol):
    """So many at a time, counted by whoever holds them."""

    def admits(self, here: int) -> bool:
        """Whether there is room for one more beside the `here` that the asker holds."""
        ...

    def are_here(self, here: int) -> None:
        """The asker holds so many now."""
        ...


@dataclass(frozen=True)
class Commons:
    """All of it. `share` is this process's part of what is simply divided."""

    room: Room
    connections: Crowd
    copies: Crowd
    uses: Uses
    share: float = 1.0


def alone(settings: Settings) -> Commons:
    """For the one process that serves."""
    room = RoomHere(settings.max_in_flight, settings.max_queue)
    return Commons(room, CrowdHere(settings.max_connections), CrowdHere(settings.max_shadows), UsesHere())


def together(settings: Settings, ledger: Ledger) -> Commons:
    """For one of several workers."""
    return Commons(
        SharedRoom(ledger, settings.max_in_flight, settings.max_queue, settings.queue_timeout_s + _STOPPED_S, time.monotonic),
        SharedCrowd(ledger, ledger.connections, settings.max_connections),
        SharedCrowd(ledger, ledger.copies, settings.max_shadows),
        SharedUses(ledger),
        1 / settings.gateway_workers,
    )


class RoomHere:
    """Counted by this process alone."""

    def __init__(self, places: int, queue: int) -> None:
        self._places, self._queue, self._running, self._waiting = places, queue, 0, 0

    def take(self, since_s: float) -> bool:
        """See `Room`; who has waited longest is known to the one queue there is."""
        if self._running >= self._places:
            return False
        self._running += 1
        return True

    def give_back(self) -> None:
        """See `Room`."""
        self._running -= 1

    def queue(self) -> bool:
        """See `Room`."""
        if self._waiting >= self._queue:
            return False
        self._waiting += 1
        return True

    def leave_queue(self) -> None:
        """See `Room`."""
        self._waiting -= 1

    def waits_since(self, first_s: float) -> None:
        """Nobody else needs to know."""


class CrowdHere:
    """Counted by this process alone."""

    def __init__(self, most: int) -> None:
        self._most = most

    def admits(self, here: int) -> bool:
        """See `Crowd`."""
        return here < self._most

    def are_here(self, here: int) -> None:
        """Nobody else needs to know."""


class SharedRoom:
    """Counted in the ledger. `patience_s`: longer than anybody waits for a place.

    While nobody waits, places come and go without the lock. Whoever wants one first says that it has one, and then looks whether these
    are too many: of two that want the last place, at least one sees the other, and asks again with the lock.
    """

    def __init__(self, ledger: Ledger, places: int, queue: int, patience_s: float, clock: Callable[[], float]) -> None:
        self._ledger, self._own, self._places, self._queue = ledger, ledger.own, places, queue
        self._running, self._waiting, self._first_s = ledger.running, ledger.waiting, ledger.first_s
        self._patience_s, self._clock = patience_s, clock

    def take(self, since_s: float) -> bool:
        """See `Room`."""
        if min(self._first_s) == NEWEST and self._claim():
            return True
        with self._ledger:
            if self._first_of_others()[0] >= since_s and self._claim():
                return True
            self._tell_first(NEWEST)  # it may have been refused because of what was claimed here for a moment
            return False

    def give_back(self) -> None:
        """See `Room`; whoever has waited longest is told."""
        self._running[self._own] -= 1
        self._ledger.fence()
        if min(self._first_s) < NEWEST:
            with self._ledger:
                self._tell_first(self._first_s[self._own])

    def queue(self) -> bool:
        """See `Room`."""
        with self._ledger:
            if sum(self._waiting) >= self._queue:
                return False
            self._waiting[self._own] += 1
            return True

    def leave_queue(self) -> None:
        """See `Room`."""
        self._waiting[self._own] -= 1

    def waits_since(self, first_s: float) -> None:
        """See `Room`; a place that is not taken here is another worker's."""
        if first_s == self._first_s[self._own] == NEWEST:
            return
        # Whoever waited for an engine, too, has waited for longer than those who look for a worker that has stopped believe.
        first_s = max(first_s, self._clock() - self._patience_s + _STOPPED_S)
        with self._ledger:
            self._first_s[self._own] = first_s
            self._ledger.fence()
            self._tell_first(first_s)

    def _claim(self) -> bool:
        self._running[self._own] += 1
        self._ledger.fence()
        if sum(self._running) <= self._places:
            return True
        self._running[self._own] -= 1
        return False

    def _tell_first(self, before_s: float) -> None:
        first_s, worker = self._first_of_others()
        if first_s < before_s and sum(self._running) < self._places:
            self._ledger.ring(worker)

    def _first_of_others(self) -> tuple[float, int]:
        """Since when the longest waiting request of another worker has waited, and which worker's it is."""
        stopped_s = self._clock() - self._patience_s
        others = [(first_s, worker) for worker, first_s in enumerate(self._first_s) if worker != self._own and first_s > stopped_s]
        return min(others, default=(NEWEST, -1))


class SharedCrowd:
    """Counted in the ledger, in one of its columns."""

    def __init__(self, ledger: Ledger, column: "memoryview[int]", most: int) -> None:
        self._ledger, self._column, self._most = ledger, column, most

    def admits(self, here: int) -> bool:
        """See `Crowd`."""
        with self._ledger:
            self._column[self._ledger.own] = here
            if sum(self._column) >= self._most:
                return False
            self._column[self._ledger.own] = here + 1
            return True

    def are_here(self, here: int) -> None:
        """See `Crowd`."""
        self._column[self._ledger.own] = here


class SharedUses:
    """What keys use of all workers. A key whose limits are changed begins anew, in every worker at the moment it hears of it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, _SharedUse] = {}

    def of(self, key: KeyInfo, now_s: float) -> Use:
        """See `Uses`."""
        use = self._known.get(key.id)
        if use is None or use.limits != limits_of(key):
            use = self._known[key.id] = _SharedUse(key, now_s, self._ledger)
        return use

    def forget_all_but(self, key_ids: frozenset[str]) -> None:
        """See `Uses`; the ledger itself forgets nothing."""
        self._known = {key_id: use for key_id, use in self._known.items() if key_id in key_ids}


class _SharedUse(Use):
    """Is what the ledger says between `__enter__` and `__exit__`, and means nothing at other times."""

    def __init__(self, key: KeyInfo, now_s: float, ledger: Ledger) -> None:
        super().__init__(key, now_s)
        self._ledger = ledger
        with ledger:
            self._place = ledger.place_of(f"{key.id} {self.limits}", self._levels)

    def __enter__(self) -> None:
        self._ledger.__enter__()
        levels = self._ledger.levels(self._place)
        for bucket, level, at_s in ((self.requests, *levels[:2]), (self.tokens, *levels[2:])):
            if bucket is not None:
                bucket.level, bucket.at_s = level, at_s
        self.at_a_time = self._before = self._ledger.at_a_time(self._place)

    def __exit__(self, *_: object) -> None:
        self._ledger.set_levels(self._place, self._levels())
        self._ledger.add(self._place, self.at_a_time - self._before)
        self._ledger.__exit__()

    def _levels(self) -> Levels:
        requests, tokens = ((0.0, 0.0) if bucket is None else (bucket.level, bucket.at_s) for bucket in (self.requests, self.tokens))
        return Levels(*requests, *tokens)
