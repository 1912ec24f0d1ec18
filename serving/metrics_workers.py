"""The metrics of several gateway workers as one page says them: counters summed, those of workers that have ended too.

Each worker keeps its request metrics in files of its number (prometheus_client's multiprocess mode), which outlive it and which the next
worker of that number goes on with. Next: `gateway_workers.py`, which knows the processes.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector


class WorkersMetrics(Collector):
    """Registers itself. `folder` is where the workers count."""

    def __init__(self, registry: CollectorRegistry, folder: Path) -> None:
        self._folder, self._joined = str(folder), MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
        self._server = psutil.Process()
        self._workers: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, float] = {}
        registry.register(self)

    def begins(self, number: int, pid: int) -> None:
        """A worker of this number has been started."""
        with suppress(psutil.NoSuchProcess):  # gone already; whoever started it will see
            self._workers[number] = psutil.Process(pid)

    def ended(self, number: int) -> None:
        """It is no more: what it had in flight is not."""
        self._workers.pop(number, None)
        mark_process_dead(number, self._folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """The joined request metrics, and those of the processes."""
        yield from self._joined.collect()  # type: ignore[no-untyped-call]
        living = list(_looked_at([self._server, *self._workers.values()]))
        for pid, cpu_s, _, _ in living:
            self._cpu_s[pid] = max(self._cpu_s.get(pid, 0.0), cpu_s)
        yield CounterMetricFamily("process_cpu_seconds", "CPU of server and gateway workers", sum(self._cpu_s.values()))
        yield GaugeMetricFamily("process_resident_memory_bytes", "Memory of server and gateway workers", sum(each[2] for each in living))
        yield GaugeMetricFamily("process_open_fds", "Open files of server and gateway workers", sum(each[3] for each in living))
        yield GaugeMetricFamily("process_start_time_seconds", "When the server was started", self._server.create_time())


def _looked_at(processes: Iterable[psutil.Process]) -> Iterator[tuple[int, float, int, int]]:
    for process in processes:
        try:
            with process.oneshot():
                times = process.cpu_times()
                yield process.pid, times.user + times.system, process.memory_info().rss, process.num_fds()
        except psutil.NoSuchProcess:
            continue
