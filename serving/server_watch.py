"""Whether the server of a registry lives: its beat is seen to change, or it is not believed for long.

The clock decides only about a beat that is seen for the first time, and only where it makes that beat one of now. A beat from the past
or the future may be a dead server's or a wrong clock's, so it is watched until it changes. Next: `fleet.py`, `server.py`, who ask.
"""

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from serving.fleet import FRESH_S
from serving.records import ServerInfo
from serving.run_leases import started

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class _Seen:
    """A beat: since when it is the newest, when it was last looked for, and whether it came while somebody looked."""

    boot_id: str
    beat_at: datetime
    since_s: float
    looked_s: float
    came: bool


class ServerWatch:
    """What this process has seen of the server's beats, by its own monotonic clock. `read` gives whoever was the server last."""

    def __init__(
        self,
        read: Callable[[], ServerInfo | None],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        self._read, self._now, self._monotonic, self._pause = read, now, monotonic, pause
        self._seen: _Seen | None = None

    def live(self) -> ServerInfo | None:
        """The live server. Takes up to `FRESH_S` seconds where one is seen for the first time and its beat is not of now."""
        found = self._read()
        if found is not None and self._beats(found) is None and not self._is_of_now(found):
            found = None if is_gone(found) else self._watched(found)
        return found if found is not None and self._beats(found) is not False else None

    def _watched(self, found: ServerInfo) -> ServerInfo | None:
        """It, once it is known whether it beats."""
        _log.warning("a server on %s has not said that it stopped: looking for %.0f s whether it beats", found.hostname, FRESH_S)
        watched: ServerInfo | None = found
        while watched is not None and self._beats(watched) is None:
            self._pause(_LOOK_EVERY_S)
            watched = self._read()
        return watched

    def _beats(self, found: ServerInfo) -> bool | None:
        """None: it was not looked at for long enough. What came while nobody looked may have come at any time, and counts for nothing."""
        at, seen = self._monotonic(), self._seen
        if seen is None or seen.boot_id != found.boot_id or at - seen.looked_s >= FRESH_S:
            seen = _Seen(found.boot_id, found.beat_at, at, at, came=False)
        elif seen.beat_at != found.beat_at:
            seen = _Seen(found.boot_id, found.beat_at, at, at, came=True)
        self._seen = replace(seen, looked_s=at)
        if at - seen.since_s >= FRESH_S:
            return False
        return True if seen.came else None

    def _is_of_now(self, found: ServerInfo) -> bool:
        return abs((self._now() - found.beat_at).total_seconds()) < FRESH_S


def is_gone(server: ServerInfo) -> bool:
    """Whether it ran on this machine, and its process is no more."""
    return server.hostname == socket.gethostname() and started(server.pid) is None
