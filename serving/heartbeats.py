"""Does something on another machine still beat? Told by whether its beat changes while we look, never by two machines' clocks.

A clock that jumps, on either side, makes no beat old and none young. Whoever looks for the first time knows nothing yet, so that what
looks silent has to be watched for a while. Next: `run_leases.py` and `server.py`, which ask.
"""

import time
from collections.abc import Callable
from datetime import datetime


class Heartbeats:
    """What this process has seen of others' beats, by its own monotonic clock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, tuple[datetime, float]] = {}
        self._moved: set[str] = set()

    def silent_s(self, name: str, beat_at: datetime) -> float:
        """Seconds for which this beat has been the newest, as far as this process has seen."""
        known = self._seen.get(name)
        if known is not None and known[0] == beat_at:
            return self._monotonic() - known[1]
        if known is not None:
            self._moved.add(name)
        self._seen[name] = (beat_at, self._monotonic())
        return 0.0

    def was_heard(self, name: str) -> bool:
        """Whether it has beaten while this process looked."""
        return name in self._moved
