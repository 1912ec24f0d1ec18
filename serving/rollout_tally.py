"""Tells the registry what this gateway worker has counted, as long as a rollout goes on; at other times it writes nothing.

Knows nothing of what the counts mean. Next: `rollout_controller.py`, which reads what all workers have told.
"""

import asyncio
import logging
import uuid
from contextlib import suppress

from serving.errors import RegistryError
from serving.records import Snapshot
from serving.registry import Registry
from serving.rollout_counts import Tallies

_log = logging.getLogger(__name__)

TELL_EVERY_S = 0.5


class TallyTeller:
    """One worker's voice. Give it every snapshot, and run it beside the gateway."""

    def __init__(self, registry: Registry, tallies: Tallies, worker: str | None = None) -> None:
        self._registry, self._tallies = registry, tallies
        self._worker = worker or uuid.uuid4().hex
        self._asked: frozenset[str] = frozenset()
        self._silent = False
        self._news = asyncio.Event()

    def observe(self, snapshot: Snapshot) -> None:
        """Learn which releases are being compared."""
        before = self._asked
        self._asked = frozenset(release_id for each in snapshot.rollouts for release_id in (each.release_id, each.champion_id))
        if self._asked != before:
            self._news.set()

    async def run(self, every_s: float = TELL_EVERY_S) -> None:
        """Tell until cancelled, and at once when a rollout begins: what was counted before the first word is no evidence."""
        while True:
            self._news.clear()
            await self.tell()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), every_s)

    async def tell(self) -> None:
        """Write the counts of the releases that are being compared, if any are."""
        if not self._asked:
            return
        counts = {release_id: counts.spelled() for release_id, counts in self._tallies.counts(self._asked).items()}
        try:
            await asyncio.to_thread(self._registry.rollouts.tally, self._worker, counts)
            self._silent = False
        except RegistryError as error:
            if not self._silent:
                _log.error("the rollout controller does not hear of this worker's counts: %s", error)
            self._silent = True
