"""What the metrics say of things beside the requests: the line that makes releases, the sample of live answers, disk, registry.

Label values come from closed sets and from the registry: a public name or a release that the registry does not know makes no series.
Each counter exists at 0 as soon as its public name or release is known. Next: `surroundings.py` and `live_sample.py`, which tell.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.line_log import STEPS, VERDICTS, Ended, Entry
from serving.live_figures import MEASURES, SEVERITIES, UNCHECKED, Checked, Unchecked
from serving.records import Snapshot
from serving.rollout_counts import Tallies

_MOST_PENDING = 1000
Part = Literal["server", "supervisor", "rollouts"]
PARTS: tuple[Part, ...] = get_args(Part)
ENDINGS: tuple[Ended, ...] = get_args(Ended)


class Disk(NamedTuple):
    """Bytes of the disk that holds `TUNEGATE_HOME`."""

    size: int
    free: int


class LineMetrics:
    """What the runs of recipes have come to."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_step = ["public_name", "step"]
        self._runs = Counter("tunegate_step_runs", "Stages and flows by how they ended", [*by_step, "outcome"], registry=registry)
        self._seconds = Gauge("tunegate_step_duration_seconds", "How long the last one took", by_step, registry=registry)
        self._ended = Gauge("tunegate_step_end_timestamp_seconds", "When the last one ended well", by_step, registry=registry)
        self._verdicts = Counter("tunegate_gate_verdicts", "Verdicts of the gate", ["public_name", "outcome"], registry=registry)
        self._newest = Gauge(
            "tunegate_newest_release_timestamp_seconds", "When the newest release was registered", ["public_name"], registry=registry
        )
        self._retrain_due = Gauge(
            "tunegate_retrain_due_seconds", "TUNEGATE_RETRAIN_DAYS in seconds; 0 means that nothing is ever overdue", registry=registry
        )
        self._known: set[str] = set()
        self._pending: list[Entry] = []

    def retrain_within(self, days: float) -> None:
        """After how many days without a new release a public name is overdue."""
        self._retrain_due.set(days * 86_400)

    def follow(self, snapshot: Snapshot) -> None:
        """Learn which public names there are."""
        for release in snapshot.releases:
            self._newest.labels(release.public_name).set(
                max(other.created_at.timestamp() for other in snapshot.releases if other.public_name == release.public_name)
            )
            if release.public_name not in self._known:
                self._learn(release.public_name)
        waiting, self._pending = self._pending, []
        self.take(waiting)

    def take(self, entries: Iterable[Entry]) -> None:
        """Count what the line has written; what belongs to a name that is not known yet waits until it is."""
        for entry in entries:
            if entry.public_name in self._known:
                self._count(entry)
            else:
                self._pending = [*self._pending[-_MOST_PENDING:], entry]

    def _learn(self, public_name: str) -> None:
        self._known.add(public_name)
        for step in STEPS:
            for outcome in ENDINGS:
                self._runs.labels(public_name, step, outcome)
        for verdict in VERDICTS:
            self._verdicts.labels(public_name, verdict)

    def _count(self, entry: Entry) -> None:
        self._runs.labels(entry.public_name, entry.step, entry.outcome).inc()
        self._seconds.labels(entry.public_name, entry.step).set(entry.seconds)
        if entry.outcome == "ok":
            self._ended.labels(entry.public_name, entry.step).set(entry.at)
        if entry.verdict is not None:
            self._verdicts.labels(entry.public_name, entry.verdict).inc()


class LiveMetrics:
    """What a sample of live answers looks like, held against the suite that their release was judged by. Rollouts hear of it too."""

    def __init__(self, registry: CollectorRegistry, tallies: Tallies) -> None:
        self._tallies = tallies
        self._checked = Counter("tunegate_live_checked", "Live answers held against the rules", ["release"], registry=registry)
        self._broken = Counter(
            "tunegate_live_rule_violations", "Rules broken by checked answers", ["release", "severity"], registry=registry
        )
        self._unchecked = Counter("tunegate_live_unchecked", "Sampled answers that were not", ["release", "reason"], registry=registry)
        self._window = Gauge("tunegate_live_window_answers", "Answers that drift is measured on", ["release"], registry=registry)
        by_measure = ["release", "measure"]
        self._drift = Gauge("tunegate_drift_index", "Population stability index, live against the suite", by_measure, registry=registry)
        self._chance = Gauge(
            "tunegate_drift_chance_index", "What the index stays below in 99 of 100 cases without any drift", by_measure, registry=registry
        )
        self._known: set[str] = set()

    def follow(self, snapshot: Snapshot) -> None:
        """Learn which releases answer, and forget those that no longer do."""
        answering = {slot.release_id for slot in snapshot.slots} | {release.id for release in snapshot.champions.values()}
        for release_id in answering - self._known:
            self._learn(release_id)
        for release_id in self._known - answering:
            self._forget(release_id)
        self._known = answering

    def checked(self, result: Checked) -> None:
        """One answer was looked at."""
        if result.release not in self._known:
            return
        self._checked.labels(result.release).inc()
        self._tallies.of(result.release).judged(broken=any(result.broken.values()))
        for severity, rules in result.broken.items():
            self._broken.labels(result.release, severity).inc(rules)
        self._window.labels(result.release).set(result.window)
        for measure, drift in result.drift.items():
            self._drift.labels(result.release, measure).set(drift.index)
            self._chance.labels(result.release, measure).set(drift.chance)

    def unchecked(self, release_id: str, reason: Unchecked) -> None:
        """One answer was sampled and could not be looked at."""
        if release_id in self._known:
            self._unchecked.labels(release_id, reason).inc()

    def _learn(self, release_id: str) -> None:
        self._checked.labels(release_id)
        self._window.labels(release_id)
        for severity in SEVERITIES:
            self._broken.labels(release_id, severity)
        for reason in UNCHECKED:
            self._unchecked.labels(release_id, reason)

    def _forget(self, release_id: str) -> None:
        """An index of answers that nobody gives any more would look like today's; counters stay, as counters do."""
        for measure in MEASURES:
            for gauge in (self._drift, self._chance):
                if (release_id, measure) in gauge._metrics:
                    gauge.remove(release_id, measure)
        self._window.remove(release_id)


class HouseMetrics:
    """What the server needs to live."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._size = Gauge("tunegate_disk_size_bytes", "Of the disk that holds TUNEGATE_HOME", registry=registry)
        self._free = Gauge("tunegate_disk_free_bytes", "What is left of it for this user", registry=registry)
        self._registry_seen = Gauge(
            "tunegate_registry_seen_timestamp_seconds",
            "When the registry last answered this part of the server",
            ["part"],
            registry=registry,
        )
        for part in PARTS:  # one that never gets an answer ages from now on
            self.registry_seen(part)

    def registry_seen(self, part: Part) -> None:
        """The registry has answered it."""
        self._registry_seen.labels(part).set_to_current_time()

    def disk(self, disk: Disk) -> None:
        """How full the disk is."""
        self._size.set(disk.size)
        self._free.set(disk.free)
