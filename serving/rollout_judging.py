"""Is the new release as good as the champion, over the same requests' time? Counts in, a judgement with its reasons out. Pure.

Each condition is an interval held against a limit: wholly above it is FAIL, wholly within it is PASS, across it is INCONCLUSIVE, and
so is too little data. The worst condition decides. No data is never a PASS.
The formulas are closed ones, without scipy, which would cost a serving process seconds and memory.
Next: `rollout_decision.py`, what follows from a judgement.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from evaluation.outcome import Outcome
from serving.rollout_counts import Counts, Times, time_at
from serving.rollout_section import RolloutSection

_QUANTILES = (0.5, 0.95)
_ENOUGH_STREAMS = 60
"""Fewer do not bound a p95: its upper rank at alpha 0.05 would lie beyond the last of 52."""

_FEWEST_TIMES = 20
"""Fewer good answers say nothing about how long answers take."""

_FEWEST_FAULTS = 3
"""One failed request of the first twenty would already lie above a limit of 1 %, and may happen to anybody."""

_LOOKED_AT_OFTEN = 10
"""A step passes once, but is looked at in many windows, each of which could FAIL it by chance: a FAIL's bound is this much surer."""

CAN_FAIL = (
    "slot", "failed requests", "refused requests", "latency p50", "latency p95", "first token p50", "first token p95", "broken rules",
)  # fmt: skip
"""The conditions that may find a release worse than the champion; the others only say that nothing can be said."""

_WORST_FIRST = (Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


@dataclass(frozen=True)
class Bounds:
    """Two bounds, each of which alone is wrong with probability alpha."""

    low: float
    high: float


@dataclass(frozen=True)
class Condition:
    """One comparison and what it says."""

    name: str
    outcome: Outcome
    sentence: str


@dataclass(frozen=True)
class Judgement:
    """The worst of its conditions."""

    outcome: Outcome
    conditions: tuple[Condition, ...]

    @property
    def reason(self) -> str:
        """The sentences of the conditions that decided."""
        return "; ".join(each.sentence for each in self.conditions if each.outcome is self.outcome)

    @property
    def failing(self) -> tuple[str, ...]:
        """Names of the conditions for which it FAILs, of CAN_FAIL."""
        return tuple(each.name for each in self.conditions if each.outcome is self.outcome is Outcome.FAIL)


def judge(canary: Counts, champion: Counts, section: RolloutSection, min_requests: int) -> Judgement:
    """Hold what a release has shown against what the champion has shown in the same time."""
    return judgement_of(*_conditions(canary, champion, section, min_requests))


def judge_windows(windows: Sequence[tuple[Counts, Counts]], section: RolloutSection, min_requests: int) -> Judgement:
    """The judgement of the first window, unless a later one FAILs: a fault that is new must not hide in a long time that was good."""
    judgements = [judge(canary, champion, section, min_requests) for canary, champion in windows]
    return next((each for each in judgements if each.outcome is Outcome.FAIL), judgements[0])


def judgement_of(*conditions: Condition) -> Judgement:
    """The judgement that these conditions make."""
    outcome = next((each for each in _WORST_FIRST if any(condition.outcome is each for condition in conditions)), Outcome.ERROR)
    return Judgement(outcome, conditions)


def proportion_difference(ours: int, our_trials: int, theirs: int, their_trials: int, alpha: float) -> Bounds:
    """Interval of the difference of two independent proportions.

    Source: Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17 (1998),
    method 10: Wilson's interval of each, combined.
    """
    p, q = ours / our_trials, theirs / their_trials
    first, second = wilson(ours, our_trials, alpha), wilson(theirs, their_trials, alpha)
    low = p - q - math.hypot(p - first.low, second.high - q)
    high = p - q + math.hypot(first.high - p, q - second.low)
    return Bounds(low, high)


def wilson(successes: int, trials: int, alpha: float) -> Bounds:
    """Interval of a proportion. Source: Wilson, JASA 22 (1927)."""
    z = NormalDist().inv_cdf(1 - alpha)
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return Bounds(max(0.0, centre - half), min(1.0, centre + half))


def quantile(times: Times, share: float, alpha: float) -> Bounds:
    """Interval of a quantile by the ranks that hold it, free of any assumption about the times.

    Source: Hahn & Meeker, "Statistical Intervals" (1991), ch. 5, with the normal approximation of the binomial ranks.
    """
    count = sum(times.values())
    half = NormalDist().inv_cdf(1 - alpha) * math.sqrt(count * share * (1 - share))
    return Bounds(time_at(times, count * share - half), time_at(times, count * share + half))


def _conditions(canary: Counts, champion: Counts, section: RolloutSection, min_requests: int) -> Iterator[Condition]:
    fewest = min(canary.requests, champion.requests)
    if fewest < min_requests:
        yield Condition(
            "requests", Outcome.INCONCLUSIVE, f"{canary.requests} and {champion.requests} requests, {min_requests} of each are needed"
        )
    if not fewest:
        return
    trials, limit = (canary.requests, champion.requests), section.max_error_increase
    yield _share("failed requests", (canary.failed, champion.failed), trials, limit, section.alpha)
    yield _share("refused requests", (canary.refused, champion.refused), trials, limit, section.alpha)
    yield from _slower("latency", canary.durations, champion.durations, section.max_latency_ratio, section.alpha)
    yield from _first_tokens(canary, champion, section)
    yield from _rules(canary, champion, section)


def _share(name: str, found: tuple[int, int], trials: tuple[int, int], limit: float, alpha: float) -> Condition:
    bounds = Bounds(
        proportion_difference(found[0], trials[0], found[1], trials[1], alpha / _LOOKED_AT_OFTEN).low,
        proportion_difference(found[0], trials[0], found[1], trials[1], alpha).high,
    )
    said = (
        f"{name}: {found[0]} of {trials[0]} against {found[1]} of {trials[1]}, "
        f"a difference of {bounds.low:+.2%} to {bounds.high:+.2%}, allowed {limit:+.2%}"
    )
    outcome = _against(bounds, limit)
    return Condition(name, Outcome.INCONCLUSIVE if outcome is Outcome.FAIL and found[0] < _FEWEST_FAULTS else outcome, said)


def _slower(name: str, ours: Times, theirs: Times, limit: float, alpha: float) -> Iterator[Condition]:
    counts = sum(ours.values()), sum(theirs.values())
    if min(counts) < _FEWEST_TIMES:
        said = f"{name}: {counts[0]} and {counts[1]} good answers were timed, {_FEWEST_TIMES} of each say something"
        yield Condition(name, Outcome.INCONCLUSIVE, said)
        return
    for share in _QUANTILES:
        low = _ratio(ours, theirs, share, alpha / _LOOKED_AT_OFTEN).low
        high = _ratio(ours, theirs, share, alpha).high
        said = f"{name} p{share * 100:g}: {low:.2f} to {high:.2f} times the champion's, allowed {limit:g}"
        yield Condition(f"{name} p{share * 100:g}", _against(Bounds(low, high), limit), said)


def _ratio(ours: Times, theirs: Times, share: float, alpha: float) -> Bounds:
    mine, other = quantile(ours, share, alpha), quantile(theirs, share, alpha)
    return Bounds(mine.low / other.high if other.high else math.inf, mine.high / other.low if other.low else math.inf)


def _first_tokens(canary: Counts, champion: Counts, section: RolloutSection) -> Iterator[Condition]:
    """Judged where there are streams; a canary that streams less than the champion's share of streams lets expect is not let through."""
    ours, theirs = sum(canary.first_tokens.values()), sum(champion.first_tokens.values())
    expected = theirs / champion.requests * canary.requests
    if min(ours, theirs) >= _ENOUGH_STREAMS:
        yield from _slower("first token", canary.first_tokens, champion.first_tokens, section.max_first_token_ratio, section.alpha)
    elif expected >= 2 * _ENOUGH_STREAMS:
        said = f"first token: {ours} streams began, about {expected:.0f} were to be expected"
        yield Condition("first token", Outcome.INCONCLUSIVE, said)


def _rules(canary: Counts, champion: Counts, section: RolloutSection) -> Iterator[Condition]:
    if canary.checked and champion.checked:
        broken, checked = (canary.broken, champion.broken), (canary.checked, champion.checked)
        yield _share("broken rules", broken, checked, section.max_violation_increase, section.alpha)
    elif section.require_rule_checks:
        said = f"broken rules: {canary.checked} and {champion.checked} answers were checked, and both need some"
        yield Condition("broken rules", Outcome.INCONCLUSIVE, said)


def _against(bounds: Bounds, limit: float) -> Outcome:
    if bounds.low > limit:
        return Outcome.FAIL
    return Outcome.PASS if bounds.high <= limit else Outcome.INCONCLUSIVE
