"""The report's numbers: every metric of both models with the interval of their difference, and the rules kept per topic.

Where the gate compared a metric, its own interval is shown, in the gate's own unit; the others get one at the same alpha.
Pure. Next: `report_charts.py`, which draws them.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.aggregates import METRICS
from evaluation.config import SPEED, GateSection, MetricName
from evaluation.gate import difference
from evaluation.records import AnswerRecord, Condition, Scorecard, Verdict
from evaluation.review_statistics import wilson_of_share

_QUICK_RESAMPLES = 400  # for what no condition depends on


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate minus champion, in the metric's unit or as a share of the champion's number (`ratio`).

    `interval` is two-sided, each end alone wrong with probability alpha; an end of None is open. `margin` is the loss that the
    policy allows, not negative; None where it asks for nothing.
    """

    value: float
    ratio: bool
    interval: tuple[float | None, float | None] | None
    margin: float | None


@dataclass(frozen=True, slots=True)
class NumberRow:
    """One metric of both models; `difference` is None where they cannot be compared."""

    name: MetricName
    unit: str
    higher_is_better: bool
    ours: float | None
    theirs: float | None
    difference: Difference | None

    @property
    def better(self) -> bool | None:
        """Whether the candidate's number is the better one; None when equal or not comparable."""
        if self.ours is None or self.theirs is None or self.difference is None or self.ours == self.theirs:
            return None
        return (self.ours > self.theirs) == self.higher_is_better


@dataclass(frozen=True, slots=True)
class Share:
    """How many of `of` prompts keep all their rules, with Wilson's interval (0-1)."""

    kept: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """0-1."""
        return self.kept / self.of


@dataclass(frozen=True, slots=True)
class Slice:
    """The prompts of one topic that some rule judges."""

    topic: str
    ours: Share
    theirs: Share | None


def number_rows(candidate: Scorecard, champion: Scorecard | None, verdict: Verdict, policy: GateSection) -> list[NumberRow]:
    """Every metric that at least one of the two has, in the order of `METRICS`."""
    return list(_numbers(candidate, champion, verdict, policy))


def slices(candidate: Scorecard, champion: Scorecard | None, alpha: float) -> list[Slice]:
    """Rules kept per topic, the topics that lost most first; topics without a rule are left out."""
    ours, theirs = _judged_by_topic(candidate.answers), _judged_by_topic(champion.answers if champion else ())
    found = [
        Slice(topic, _share(answers, alpha), _share(theirs[topic], alpha) if theirs.get(topic) else None) for topic, answers in ours.items()
    ]
    return sorted(found, key=lambda each: (each.ours.value - (each.theirs.value if each.theirs else 0.0), each.topic))


def _numbers(candidate: Scorecard, champion: Scorecard | None, verdict: Verdict, policy: GateSection) -> Iterator[NumberRow]:
    for name, metric in METRICS.items():
        ours, theirs = candidate.metrics.get(name), champion.metrics.get(name) if champion else None
        if ours is None and theirs is None:
            continue
        judged = _condition(name, verdict)
        if name in SPEED:
            yield _speed(name, ours, theirs, judged)
            continue
        change = _judged(judged) if judged else None
        if change is None and ours is not None and theirs is not None and champion is not None:
            change = _measured(name, candidate, champion, ours - theirs, policy)
        yield NumberRow(name, metric.unit, metric.higher_is_better, ours, theirs, change)


def _speed(name: MetricName, ours: float | None, theirs: float | None, judged: Condition | None) -> NumberRow:
    """Side by side where the gate judged it; else each as it was when its model was asked, and no difference."""
    metric = METRICS[name]
    if judged is None:
        return NumberRow(name, f"{metric.unit}, each in its own hour", metric.higher_is_better, ours, theirs, None)
    return NumberRow(name, f"{metric.unit}, side by side", metric.higher_is_better, judged.measured, judged.champion, _judged(judged))


def _condition(name: MetricName, verdict: Verdict) -> Condition | None:
    return next((each for each in verdict.conditions if each.name == f"must_not_regress.{name}" and each.interval), None)


def _judged(found: Condition) -> Difference | None:
    """The difference as the gate judged it."""
    return None if found.difference is None else Difference(found.difference, found.relative, found.interval, found.margin)


def _measured(name: MetricName, candidate: Scorecard, champion: Scorecard, value: float, policy: GateSection) -> Difference:
    """The difference with an interval of our own; without one when the two cannot be compared."""
    interval = difference(candidate, champion, name, policy.model_copy(update={"resamples": min(policy.resamples, _QUICK_RESAMPLES)}))
    return Difference(value, False, (interval.low, interval.high) if interval else None, None)


def _judged_by_topic(answers: Sequence[AnswerRecord]) -> dict[str, list[AnswerRecord]]:
    found: defaultdict[str, list[AnswerRecord]] = defaultdict(list)
    for answer in answers:
        if answer.rules:
            found[answer.topic].append(answer)
    return found


def _share(answers: Sequence[AnswerRecord], alpha: float) -> Share:
    kept = sum(not answer.broken for answer in answers)
    interval = wilson_of_share(kept / len(answers), len(answers), alpha)
    return Share(kept, len(answers), interval.low, interval.high)
