"""What the gateway and the supervisor say about themselves: every metric of tunegate's serving side, in base units.

Label values come from the registry or from closed sets, never from a request.
Knows nothing of HTTP, SQL or Prometheus servers. Next: `metrics_requests.py`, what callers felt; `monitoring/queries.py`, which asks.
"""

import json
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics, generate_latest

from serving.lifecycle import State
from serving.metrics_beside import HouseMetrics, LineMetrics, LiveMetrics
from serving.metrics_requests import RequestMetrics
from serving.metrics_rollouts import RolloutMetrics
from serving.metrics_training import TrainingMetrics
from serving.records import SlotState, Snapshot
from serving.rollout_counts import Tallies

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class CallerMetrics:
    """What every process that takes callers says, besides their requests: what was found in the answers that it looked at."""

    def __init__(self) -> None:
        # The *_created twins double the series and no query uses them.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the package leaves this one out of its types
        # One of its own, so that tests do not share counters.
        self.registry, self.tallies = CollectorRegistry(), Tallies()
        self.live = LiveMetrics(self.registry, self.tallies)

    def follow(self, snapshot: Snapshot) -> None:
        """Say what the registry says. Cheap; call it on each change."""
        self.live.follow(snapshot)

    def registry_seen(self) -> None:
        """The registry has answered whoever follows it for these metrics; several gateway workers say so themselves."""

    def slots(self) -> bytes:
        """Where the engines' own metrics are, for Prometheus' `http_sd_configs`: the server says it, and nobody else."""
        return b"[]"

    def render(self) -> bytes:
        """The page Prometheus scrapes, in `CONTENT_TYPE`."""
        return generate_latest(self.registry)


class LoneMetrics(CallerMetrics):
    """Those of a gateway without a server around it, in one process: its requests, and itself."""

    def __init__(self) -> None:
        super().__init__()
        ProcessCollector(registry=self.registry)
        self.traffic = RequestMetrics(self.registry, self.tallies)

    def follow(self, snapshot: Snapshot) -> None:
        """Say what the registry says of requests."""
        super().follow(snapshot)
        self.traffic.follow(snapshot)

    def registry_seen(self) -> None:
        """The registry has answered."""
        self.traffic.registry_seen()


class ServerMetrics(CallerMetrics):
    """What a server says of releases, slots, the line, live answers and its house; not of requests."""

    def __init__(self) -> None:
        super().__init__()
        self._declare_releases()
        self.line, self.house = LineMetrics(self.registry), HouseMetrics(self.registry)
        self.training, self.rollouts = TrainingMetrics(self.registry), RolloutMetrics(self.registry)
        self._slots: list[dict[str, object]] = []
        self._steps: dict[tuple[str, State], int] = {}

    def _declare_releases(self) -> None:
        registry = self.registry
        self._release_info = Gauge(
            "tunegate_release_info",
            "1 for each release's current state",
            ["release", "public_name", "state", "model_digest"],
            registry=registry,
        )
        self._generation = Gauge("tunegate_champion_generation", "Number of the registry's last change of champion", registry=registry)
        self._slot_state = Gauge(
            "tunegate_slot_state", "1 for the state a slot is in, 0 for the others", ["release", "state"], registry=registry
        )
        self._transitions = Counter("tunegate_release_transitions", "Registry transitions seen", ["public_name", "to"], registry=registry)

    def follow(self, snapshot: Snapshot) -> None:
        """Say what the registry says: releases, generation, slot states, transitions."""
        self._release_info.clear()
        for release in snapshot.releases:
            self._release_info.labels(release.id, release.public_name, release.state.value, release.model_digest).set(1)
        self._generation.set(snapshot.generation)
        self._slot_state.clear()
        for slot in snapshot.slots:
            for state in SlotState:
                self._slot_state.labels(slot.release_id, state.value).set(slot.state is state)
        for public_name in {release.public_name for release in snapshot.releases}:
            for reached in State:
                self._transitions.labels(public_name, reached.value)
        for (public_name, to), steps in snapshot.steps.items():
            self._transitions.labels(public_name, to.value).inc(max(0, steps - self._steps.get((public_name, to), 0)))
        self._steps = dict(snapshot.steps)

        super().follow(snapshot)
        self.line.follow(snapshot)
        self.training.follow(snapshot)
        self.rollouts.follow(snapshot)
        self._slots = _scrape_targets(snapshot)

    def registry_seen(self) -> None:
        """The registry has answered whoever follows it for these metrics."""
        self.house.registry_seen("server")

    def slots(self) -> bytes:
        """Where the engines' own metrics are, for Prometheus' `http_sd_configs`."""
        return json.dumps(self._slots).encode()


class GatewayMetrics(ServerMetrics):
    """All metrics, of a process that does everything itself."""

    def __init__(self) -> None:
        super().__init__()
        ProcessCollector(registry=self.registry)
        self.traffic = RequestMetrics(self.registry, self.tallies)
        self.requests = self.traffic.requests

    def follow(self, snapshot: Snapshot) -> None:
        """Say what the registry says, of requests too."""
        super().follow(snapshot)
        self.traffic.follow(snapshot)

    def registry_seen(self) -> None:
        """The gateway is who follows it."""
        super().registry_seen()
        self.traffic.registry_seen()


def _scrape_targets(snapshot: Snapshot) -> list[dict[str, object]]:
    names = {release.id: release.public_name for release in snapshot.releases}
    return [
        {"targets": [slot.base_url.removeprefix("http://")], "labels": {"release": slot.release_id, "public_name": names[slot.release_id]}}
        for slot in snapshot.slots
        # Prometheus reads plain HTTP at these addresses; engines behind HTTPS are scraped by whoever runs them.
        if slot.state is SlotState.READY and slot.base_url is not None and slot.base_url.startswith("http://") and slot.release_id in names
    ]


@cache
def series_names() -> frozenset[str]:
    """Every series name a query may use, e.g. `tunegate_requests_total`, `tunegate_request_duration_seconds_bucket`."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    families = GatewayMetrics().registry.collect()
    return frozenset(family.name + suffix for family in families for suffix in suffixes[family.type])
