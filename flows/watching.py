"""Whether a new champion holds what a policy asks of it, by the gateway's own counters: pure, but for the page it fetches.

A count is a sample: the champion is sent back only when even the lower end of the interval breaks the policy, so that one slow answer
among twenty does not undo a promotion. Knows nothing of the registry. Next: `operations.py`, whose `watch` acts on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict, Field

from evaluation.statistics import wilson_interval
from flows.errors import ServingFailed

Outcome = Literal["holds", "breaks", "too few requests"]
_FAILED = ("server_error", "timeout")
_JUDGED = ("ok", *_FAILED)  # what a caller got wrong, or gave up, says nothing about the model
_SLOW_SHARE = 0.05  # of requests may be slower than the 95th percentile


class WatchPolicy(BaseModel):
    """What a champion must hold after its promotion, and for how long it is watched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_error_ratio: float = Field(
        default=0.02, gt=0, lt=1, description="most requests that end in a server error or a timeout, as a share"
    )
    max_p95_s: float | None = Field(default=None, gt=0, le=300, description="95th percentile of the duration, seconds; empty: not watched")
    min_requests: int = Field(default=50, ge=5, le=1_000_000, description="requests before anything is decided")
    confidence: float = Field(default=0.95, ge=0.5, lt=1, description="how sure a breach must be before the champion is sent back")
    for_s: float = Field(default=1800.0, gt=0, le=604_800, description="seconds it is watched")
    every_s: float = Field(default=10.0, ge=0.1, le=3600, description="seconds between two looks")


@dataclass(frozen=True)
class Counts:
    """What the gateway has counted for one release since its own start. `within` maps a bucket's upper edge, s, to its count."""

    judged: int
    failed: int
    timed: int
    within: tuple[tuple[float, int], ...]

    def since(self, before: "Counts") -> "Counts":
        """What came after `before`; all of it where the gateway has been started anew in between."""
        if self.judged < before.judged or self.timed < before.timed:
            return self
        earlier = dict(before.within)
        within = tuple((edge, count - earlier.get(edge, 0)) for edge, count in self.within)
        return Counts(self.judged - before.judged, self.failed - before.failed, self.timed - before.timed, within)

    def slower_than(self, limit_s: float) -> int:
        """Requests that took longer than the first bucket edge at or above `limit_s`."""
        return self.timed - next((count for edge, count in self.within if edge >= limit_s), self.timed)


@dataclass(frozen=True)
class Finding:
    """What the counts say about the policy, and the sentence that says why."""

    outcome: Outcome
    reason: str


def judge(policy: WatchPolicy, counts: Counts) -> Finding:
    """Hold the counts against the policy."""
    alpha = 1 - policy.confidence
    if counts.judged < policy.min_requests:
        return Finding("too few requests", f"{counts.judged} requests, {policy.min_requests} are needed to decide")
    errors = wilson_interval(counts.failed / counts.judged, counts.judged, alpha).low
    if errors > policy.max_error_ratio:
        return Finding(
            "breaks", f"{counts.failed} of {counts.judged} requests failed: at least {errors:.1%}, allowed {policy.max_error_ratio:.1%}"
        )
    if policy.max_p95_s is not None and counts.timed:
        slow = counts.slower_than(policy.max_p95_s)
        share = wilson_interval(slow / counts.timed, counts.timed, alpha).low
        if share > _SLOW_SHARE:
            told = f"{slow} of {counts.timed} requests took longer than {policy.max_p95_s:g} s"
            return Finding("breaks", f"{told}: at least {share:.1%}, allowed {_SLOW_SHARE:.0%}")
    return Finding("holds", f"{counts.failed} of {counts.judged} requests failed")


def read_counts(page: str, release_id: str) -> Counts:
    """One release's counters on the gateway's metrics page."""
    judged = failed = timed = 0.0
    within: dict[float, float] = {}
    for name, labels, value in _samples(page):
        if labels.get("release") != release_id:
            continue
        if name == "tunegate_requests_total" and labels["outcome"] in _JUDGED:
            judged += value
            failed += value if labels["outcome"] in _FAILED else 0
        elif name == "tunegate_request_duration_seconds_count":
            timed += value
        elif name == "tunegate_request_duration_seconds_bucket":
            within[float(labels["le"])] = within.get(float(labels["le"]), 0) + value
    return Counts(int(judged), int(failed), int(timed), tuple((edge, int(within[edge])) for edge in sorted(within)))


def fetch_counts(base_url: str, release_id: str) -> Counts:
    """Ask the gateway, which answers this machine alone.

    Raises:
        ServingFailed: it does not answer.
    """
    try:
        answer = httpx.get(f"{base_url}/metrics", timeout=10)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ServingFailed(
            f"{base_url}/metrics does not answer: {type(error).__name__}",
            why="a champion that cannot be watched is not known to be well",
            do="tunegate status; the watch must run on the gateway's machine",
        ) from error
    return read_counts(answer.text, release_id)


def _samples(page: str) -> Iterable[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
