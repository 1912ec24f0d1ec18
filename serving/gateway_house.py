"""What is there once, however many processes take callers: the metrics page, kept answers, the sample of live answers.

Here it is in the same process. Whoever asks is called back, because a worker has to ask another process (`gateway_worker.py`).
Next: `keeping.py`, `live_sample.py`, `metrics.py`, what it is made of.
"""

from collections.abc import Callable
from typing import Protocol

from serving.gateway_order import Side
from serving.keeping import Keeper, Kept
from serving.live_sample import LiveSample
from serving.metrics import CallerMetrics
from serving.settings import Settings


class Keeps(Protocol):
    """Takes answers to keep."""

    def offer(self, record: Kept) -> None:
        """Take one if there is room; never wait."""
        ...


class Samples(Keeps, Protocol):
    """Takes answers to look at, so many a minute, canaries' first."""

    def wants(self, side: Side) -> bool:
        """Whether it is time for another one."""
        ...


class House(Protocol):
    """What a gateway asks for beyond slots."""

    @property
    def keeper(self) -> Keeps: ...

    @property
    def sample(self) -> Samples: ...

    def page(self, path: str, show: Callable[[bytes], None]) -> None:
        """The page at `/metrics` or `/metrics/slots`."""
        ...

    def feedback(self, record: Kept, tell: Callable[[bool], None]) -> None:
        """Keep what was said of an answer, if that key's answer was kept; whether it was."""
        ...

    def close(self) -> None:
        """Write what is still to be kept."""
        ...


class OwnHouse:
    """All of it in this process."""

    def __init__(self, settings: Settings, metrics: CallerMetrics) -> None:
        self.keeper = Keeper(settings.kept_folder, max_bytes=settings.capture_max_mb << 20, max_age_s=settings.capture_days * 86_400)
        self.sample = LiveSample(settings.live_folder, metrics.live, per_minute=settings.live_checks_per_minute)
        self._metrics = metrics
        if settings.capture_ratio:
            self.keeper.start()
        else:
            self.keeper.start_if_any()

    def page(self, path: str, show: Callable[[bytes], None]) -> None:
        """See `House`."""
        show(self._metrics.render() if path == "/metrics" else self._metrics.slots())

    def feedback(self, record: Kept, tell: Callable[[bool], None]) -> None:
        """See `House`."""
        known = self.keeper.key_of(record.request_id) == record.key_id
        if known:
            self.keeper.offer(record)
        tell(known)

    def close(self) -> None:
        """See `House`."""
        self.keeper.close()
