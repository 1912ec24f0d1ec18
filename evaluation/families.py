"""Claims that stand beside others of which one is enough, so that their number has to be paid for.

- `should_improve` with `improvement: any`: one improvement, picked after the fact, makes the verdict.
- `not_shown_worse` in slices: one slice that is worse by chance would refuse a sound candidate; among twenty there often is one.
Conditions that all have to hold need no correction: a candidate that is beyond any one of them passes that one with probability
alpha at most (intersection-union test: Berger, Technometrics 24, 1982). Next: `gate.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.aggregates import METRICS
from evaluation.comparison import Comparison, compare, how, p_of_change, power_words
from evaluation.conditions import FEWEST_FOR_SCORES, Place, error
from evaluation.config import GateSection, MetricName
from evaluation.pairing import Pair
from evaluation.power import prompts_to_show
from evaluation.records import Condition, Outcome
from evaluation.statistics import corrected
from evaluation.wording import count, show

_METHODS = {"holm": "Holm", "benjamini_hochberg": "Benjamini and Hochberg"}


@dataclass(frozen=True)
class SliceClaim:
    """One slice that must not be shown to be worse."""

    place: Place
    name: MetricName
    pair: Pair | str
    min_prompts: int


def any_better(pairs: Sequence[tuple[MetricName, Pair | str]], policy: GateSection) -> Condition:
    """Whether at least one of the metrics is shown to be better; the condition carries the one with the strongest evidence."""
    threshold = f"one of {count(len(pairs), 'metric')} better at alpha {policy.alpha:g}, corrected by {_METHODS[policy.correction]}"
    if faults := [pair for _, pair in pairs if isinstance(pair, str)]:
        return error("should_improve", threshold, " ".join(faults))
    sound = [pair for _, pair in pairs if isinstance(pair, Pair)]
    against = [compare(pair, policy) for pair in sound]
    p_values = corrected([p_of_change(pair, policy) for pair in sound], policy.correction)
    shown = [p <= policy.alpha and each.loss < 0 for p, each in zip(p_values, against, strict=True)]
    best = min(range(len(sound)), key=lambda at: (not shown[at], p_values[at]))
    all_worse = all(each.loss > 0 for each in against)
    outcome = Outcome.PASS if any(shown) else Outcome.FAIL if all_worse else Outcome.INCONCLUSIVE
    told = "; ".join(_told(*each) for each in zip(sound, against, p_values, shown, strict=True))
    begins = {
        Outcome.PASS: "At least one number is better",
        Outcome.FAIL: "Every number is worse",
        Outcome.INCONCLUSIVE: "None is shown better",
    }
    return Condition(
        name="should_improve",
        metric=sound[best].name,
        prompts=sound[best].prompts,
        measured=sound[best].candidate.value,
        champion=sound[best].champion.value,
        difference=against[best].difference,
        threshold=threshold,
        interval=(against[best].interval.low, against[best].interval.high),
        detectable=against[best].detectable,
        p_value=p_values[best],
        outcome=outcome,
        sentence=f"{begins[outcome]}: {told}; {power_words(sound[best], against[best].detectable)}.",
    )


def _told(pair: Pair, against: Comparison, p: float, shown: bool) -> str:
    verdict = "better" if shown else "worse" if against.loss > 0 else "not shown"
    return f"{pair.name} {show(pair.candidate.value)} against {show(pair.champion.value)} ({verdict}, corrected p = {p:.2g})"


def none_shown_worse(claims: Sequence[SliceClaim], policy: GateSection) -> list[Condition]:
    """One condition for each slice; FAIL where it is shown to be worse although so many slices were looked at."""
    sound = [claim.pair for claim in claims if isinstance(claim.pair, Pair)]
    p_values = iter(corrected([p_of_change(pair, policy, worse=True) for pair in sound], policy.correction))
    return [_slice_condition(claim, next(p_values) if isinstance(claim.pair, Pair) else 1.0, len(sound), policy) for claim in claims]


def _slice_condition(claim: SliceClaim, p: float, family: int, policy: GateSection) -> Condition:
    label, threshold = f"not_shown_worse.{claim.name}", f"not shown worse at alpha {policy.alpha:g}, corrected for {count(family, 'slice')}"
    pair = claim.pair
    if isinstance(pair, str):
        return error(label, threshold, pair, name=claim.name, place=claim.place)
    against = compare(pair, policy)
    needed = max(claim.min_prompts, _fewest(pair, family, policy))
    worse = p <= policy.alpha and against.loss > 0
    outcome = Outcome.FAIL if worse else Outcome.INCONCLUSIVE if pair.prompts < needed else Outcome.PASS
    ends = {
        Outcome.PASS: "not shown to be worse",
        Outcome.FAIL: "shown to be worse",
        Outcome.INCONCLUSIVE: f"{count(pair.prompts, 'prompt')} cannot show a loss here, it takes {needed}",
    }
    return Condition(
        name=claim.place.prefix + label,
        metric=pair.name,
        slice=claim.place.slice,
        prompts=pair.prompts,
        measured=pair.candidate.value,
        champion=pair.champion.value,
        difference=against.difference,
        threshold=threshold,
        interval=(against.interval.low, against.interval.high),
        detectable=against.detectable,
        p_value=p,
        outcome=outcome,
        sentence=f"{claim.place.on}{pair.name} is {show(pair.candidate.value)} against the champion's {show(pair.champion.value)}: "
        f"{ends[outcome]} ({how(pair)}p = {p:.2g} after correction for {count(family, 'slice')}); {power_words(pair, against.detectable)}.",
    )


def _fewest(pair: Pair, family: int, policy: GateSection) -> int:
    """Below this a slice could be all lost and nothing would be shown: a test that cannot fail is none."""
    fewest = prompts_to_show(family, policy.alpha)
    return max(fewest, FEWEST_FOR_SCORES) if METRICS[pair.name].kind == "score" else fewest
