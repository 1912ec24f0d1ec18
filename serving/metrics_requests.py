"""How requests ended, how long they took, how many tokens: the metrics that every gateway worker counts for itself.

Label values come from the registry or from the closed sets below, never from a request: ten thousand wrong model names
or keys make no series. A release's counters exist at 0 from the moment it is known, because `rate()` cannot see the
first error of a series that is born at 1. Next: `metrics.py`, all the others; `gateway_exchange.py`, which counts.
"""

from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from serving.records import Snapshot
from serving.rollout_counts import Tallies

Outcome = Literal["ok", "client_error", "server_error", "aborted", "timeout", "rejected"]
Route = Literal["chat_completions", "completions", "embeddings", "feedback", "models", "other"]
UpstreamErrorKind = Literal["connect", "reset_before_first_byte", "reset_mid_stream", "timeout", "http_5xx"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
ROUTES: tuple[Route, ...] = get_args(Route)
INFERENCE_ROUTES: tuple[Route, ...] = ("chat_completions", "completions", "embeddings")
UPSTREAM_ERROR_KINDS: tuple[UpstreamErrorKind, ...] = get_args(UpstreamErrorKind)
NO_RELEASE = "none"
"""The release label of a request that was never routed: bad key, limits, unknown route or model, no champion."""

# Fine below 2 s, because 2 s is the p95 objective and a quantile is interpolated inside one bucket.
_DURATION_BUCKETS_S = (
    0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 1.75, 2.0,
    2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
_INTER_TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_FIRST_TOKEN_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class RequestMetrics:
    """The counters of one process."""

    def __init__(self, registry: CollectorRegistry, tallies: Tallies) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the package leaves this one out of its types
        self.tallies = tallies
        self._declare(registry)
        self._series: dict[tuple[str, Route], RequestSeries] = {}
        for route in ROUTES:
            self.requests(NO_RELEASE, route)

    def _declare(self, registry: CollectorRegistry) -> None:
        self._requests = Counter("tunegate_requests", "Requests by how they ended", ["release", "route", "outcome"], registry=registry)
        self._duration = Histogram(
            "tunegate_request_duration_seconds",
            "From the request's first byte to the answer's last, for requests that reached a release and were not aborted",
            ["release", "route"],
            buckets=_DURATION_BUCKETS_S,
            registry=registry,
        )
        self._first_token = Histogram(
            "tunegate_time_to_first_token_seconds",
            "From the request's first byte to the first streamed byte; streams only",
            ["release", "route"],
            buckets=_FIRST_TOKEN_BUCKETS_S,
            registry=registry,
        )
        self._inter_token = Histogram(
            "tunegate_inter_token_seconds",
            "Mean time between two tokens of one complete stream; one observation a stream",
            ["release", "route"],
            buckets=_INTER_TOKEN_BUCKETS_S,
            registry=registry,
        )
        self._upstream_errors = Counter(
            "tunegate_upstream_errors", "Failures between gateway and slot; a request may meet two", ["release", "kind"], registry=registry
        )
        self._in_flight = Gauge(
            "tunegate_requests_in_flight",
            "Requests a release is answering now",
            ["release"],
            registry=registry,
            multiprocess_mode="livesum",  # of the workers that live
        )
        self._tokens = Counter("tunegate_tokens", "Tokens in `usage` objects of answers", ["release", "direction"], registry=registry)
        self._registry_seen = Gauge(
            "tunegate_gateway_registry_seen_timestamp_seconds",
            "When the registry last answered the gateway; of several workers, the one that it has not answered for longest",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.registry_seen()  # one that never gets an answer ages from now on

    def registry_seen(self) -> None:
        """The registry has answered this gateway."""
        self._registry_seen.set_to_current_time()

    def requests(self, release: str, route: Route) -> "RequestSeries":
        """The series of one release and route; `release` must come from the routing table (or be NO_RELEASE)."""
        series = self._series.get((release, route))
        if series is None:
            series = self._series[release, route] = RequestSeries(self, release, route)
        return series

    def follow(self, snapshot: Snapshot) -> None:
        """Learn which releases may be asked."""
        for release_id in {release.id for release in snapshot.champions.values()} | {slot.release_id for slot in snapshot.slots}:
            for route in INFERENCE_ROUTES:
                self.requests(release_id, route)


class RequestSeries:
    """The counters of one release and route, looked up once instead of on every request."""

    def __init__(self, metrics: RequestMetrics, release: str, route: Route) -> None:
        self._outcomes = {outcome: metrics._requests.labels(release, route, outcome) for outcome in OUTCOMES}
        self._routed = release != NO_RELEASE
        if not self._routed:
            return
        self._tally = metrics.tallies.of(release)
        self._duration = metrics._duration.labels(release, route)
        self._first_token = metrics._first_token.labels(release, route)
        self._inter_token = metrics._inter_token.labels(release, route)
        self._in_flight = metrics._in_flight.labels(release)
        self._prompt_tokens = metrics._tokens.labels(release, "prompt")
        self._completion_tokens = metrics._tokens.labels(release, "completion")
        self._errors = {kind: metrics._upstream_errors.labels(release, kind) for kind in UPSTREAM_ERROR_KINDS}

    def started(self) -> None:
        """A request was handed to this release."""
        self._in_flight.inc()

    def handed_over(self) -> None:
        """The request left this release unanswered and goes on with another one."""
        self._in_flight.dec()
        self._tally.handed_over()

    def finished(self, outcome: Outcome, duration_s: float) -> None:
        """A request ended. An aborted one says nothing about how long an answer takes, so it is left out of the latency."""
        self._outcomes[outcome].inc()
        if self._routed:
            self._in_flight.dec()
            self._tally.finished(outcome, duration_s)
            if outcome != "aborted":
                self._duration.observe(duration_s)

    def first_token(self, duration_s: float) -> None:
        """The first streamed byte came `duration_s` after the request's first byte."""
        self._first_token.observe(duration_s)
        self._tally.first_token(duration_s)

    def inter_token(self, mean_s: float) -> None:
        """A stream is complete, and its tokens came so far apart."""
        self._inter_token.observe(mean_s)

    def upstream_error(self, kind: UpstreamErrorKind) -> None:
        """The slot failed in this way."""
        self._errors[kind].inc()

    def tokens(self, prompt: int, completion: int) -> None:
        """Token counts of one answer's `usage` object."""
        self._prompt_tokens.inc(prompt)
        self._completion_tokens.inc(completion)
