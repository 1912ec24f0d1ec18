"""Looks now and then at what the metrics say besides requests: the line's log, trainings, the disk. In a thread, as a disk may be slow.

Next: `metrics_beside.py`.
"""

import asyncio
import logging
import shutil
import time
from pathlib import Path

from serving.line_log import Entry, LineLog
from serving.metrics import ServerMetrics
from serving.metrics_beside import Disk
from serving.training_now import TrainingNow, trainings

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0


class Surroundings:
    """Keeps the metrics true. Look once before the first scrape: counters that begin again at 0 and jump would look like news."""

    def __init__(self, home: Path, metrics: ServerMetrics) -> None:
        self._home, self._metrics, self._log = home, metrics, LineLog(home)
        self._blind = False

    async def look(self) -> None:
        """Once, now. What cannot be read leaves the metrics as they are."""
        try:
            entries, running, disk = await asyncio.to_thread(self._read)
            self._blind = False
        except OSError as error:
            if not self._blind:
                _log.error("the metrics of the line and the disk stay as they are: %s", error)
            self._blind = True
        else:
            self._metrics.line.take(entries)
            self._metrics.training.show(running)
            self._metrics.house.disk(disk)

    async def run(self, *, every_s: float = _LOOK_EVERY_S) -> None:
        """Again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(every_s)

    def _read(self) -> tuple[list[Entry], list[TrainingNow], Disk]:
        usage = shutil.disk_usage(self._home)
        return list(self._log.news()), trainings(self._home, time.time()), Disk(usage.total, usage.free)
