"""What the metrics say of promotions by steps: where each stands, how the last look judged it, whether it can go back, how others ended.

Made anew at each scrape, from what the registry and the controller said last: what has ended says nothing any more, and a lease runs out
by itself. Label values come from closed sets and from the registry.
Next: `rollout_controller.py`, which looks; `monitoring/alerts_rollouts.py`, who is told.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from evaluation.outcome import Outcome
from serving.records import ENDS, Rollout, RolloutStatus, Snapshot
from serving.registry import utc_now
from serving.rollout_decision import Decision
from serving.rollout_judging import CAN_FAIL, Judgement

_OF_ONE = ["public_name", "release"]
_Ended = tuple[str, RolloutStatus, str]


class RolloutMetrics(Collector):
    """Registers itself."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._open: tuple[Rollout, ...] = ()
        self._ended: dict[_Ended, int] = {}
        self._failing: dict[int, frozenset[str]] = {}
        self._stuck: dict[int, bool] = {}
        registry.register(self)

    def follow(self, snapshot: Snapshot) -> None:
        """Learn which rollouts go on and how others ended; each ending exists at 0 as soon as its public name is known."""
        self._open = snapshot.rollouts
        names = {release.public_name for release in snapshot.releases}
        none: dict[_Ended, int] = {(name, status, each.value): 0 for name in names for status in ENDS for each in Outcome}
        self._ended = none | dict(snapshot.ended)
        going_on = {rollout.id for rollout in snapshot.rollouts}
        for gone in self._failing.keys() - going_on:
            del self._failing[gone], self._stuck[gone]

    def looked(self, rollout: Rollout, judgement: Judgement, decision: Decision) -> None:
        """The controller has looked at a rollout. From any thread."""
        self._stuck[rollout.id] = decision.stuck
        self._failing[rollout.id] = frozenset(judgement.failing)

    def collect(self) -> Iterator[Metric]:
        """The series of this moment."""
        going_on = self._open
        yield _gauge("step", "Which step of its recipe a rollout is at, from 1", {_names(each): each.step + 1 for each in going_on})
        yield _gauge("share_ratio", "The part of the traffic that it is to get, 0-1", {_names(each): each.share for each in going_on})
        yield self._leases(going_on)
        judged = {(*_names(each), outcome.value): float(each.outcome == outcome.value) for each in going_on for outcome in Outcome}
        yield _gauge("outcome", "1 for what the last look came to, 0 for the others", judged, "outcome")
        failing = {(*_names(each), name): float(name in self._failing.get(each.id, ())) for each in going_on for name in CAN_FAIL}
        yield _gauge("failing", "1 for each condition in which the last look found it worse than the champion", failing, "condition")
        stuck = {_names(each): float(self._stuck.get(each.id, False)) for each in going_on}
        yield _gauge("stuck", "1 while it should give the traffic back and the release to go back to is not ready", stuck)
        ended = CounterMetricFamily("tunegate_rollouts_ended", "Rollouts by how they ended", labels=["public_name", "status", "outcome"])
        for (public_name, status, outcome), count in self._ended.items():
            ended.add_metric([public_name, status.value, outcome], count)
        yield ended

    def _leases(self, going_on: tuple[Rollout, ...]) -> Metric:
        leased = [each for each in going_on if each.status is not RolloutStatus.WATCHING]
        left = {_names(each): max(0.0, (each.lease_until - self._now()).total_seconds()) for each in leased}
        return _gauge("lease_seconds", "What is left of a canary's lease; without one its champion has all the traffic", left)


def _names(rollout: Rollout) -> tuple[str, ...]:
    return rollout.public_name, rollout.release_id


def _gauge(name: str, says: str, values: dict[tuple[str, ...], float], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"tunegate_rollout_{name}", says, labels=[*_OF_ONE, *labels])
    for which, value in values.items():
        family.add_metric(which, value)
    return family
