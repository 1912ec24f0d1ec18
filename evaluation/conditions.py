"""Each kind of condition a policy may hold: from numbers to an outcome with its interval and a sentence. Pure.

- `must`: the candidate's own number keeps its bound; with `proven`, even the pessimistic end of its interval does.
- `must_not_regress`: non-inferiority. PASS when even the pessimistic end of the paired interval is within the margin, FAIL when the
  measured difference itself is beyond it, INCONCLUSIVE between the two: more prompts are needed.
- `should_improve`: superiority. PASS when the paired test shows it at alpha, FAIL when the candidate measures worse, else INCONCLUSIVE.
- `flip_budget`: how many prompts that the champion passed are broken.
Next: `families.py`, for claims that stand beside others.
"""

import math
from dataclasses import dataclass

import numpy as np

from evaluation.aggregates import METRICS
from evaluation.comparison import Comparison, compare, how, p_of_change, power_words
from evaluation.config import SPEED, Bound, FlipBudget, GateSection, Margin, MetricName
from evaluation.pairing import Measured, Pair
from evaluation.records import Condition, Outcome
from evaluation.resampling import bootstrap
from evaluation.statistics import Interval, failure_rate_bound, wilson_interval
from evaluation.wording import amount, change, count, failures_claim, in_words, margin_in_words, names, show, worsening

# A bootstrap of fewer prompts has seen too little of them to be believed when it says PASS.
FEWEST_FOR_SCORES = 20


@dataclass(frozen=True)
class Place:
    """Where a condition is judged: on all prompts, or on a slice of them."""

    prefix: str = ""
    slice: str | None = None

    @property
    def on(self) -> str:
        """For the beginning of a sentence."""
        return f"On {self.slice}, " if self.slice else ""


EVERYWHERE = Place()


def error(label: str, threshold: str, sentence: str, *, name: MetricName | None = None, place: Place = EVERYWHERE) -> Condition:
    """A condition that could not be judged."""
    return Condition(
        name=place.prefix + label, metric=name, slice=place.slice, threshold=threshold, outcome=Outcome.ERROR, sentence=place.on + sentence
    )


def must(number: Measured | str, name: MetricName, bound: Bound, policy: GateSection, place: Place = EVERYWHERE) -> Condition:
    """The candidate's own number against an absolute bound."""
    label, threshold = f"must.{name}", in_words(bound)
    if isinstance(number, str):
        return error(label, threshold, f"The candidate's {name} {number}.", name=name, place=place)
    interval = _own_interval(number, name, policy)
    kept, sure = _keeps(bound, number.value, number.value), _keeps(bound, interval.low, interval.high) and _enough(number, name)
    outcome = Outcome.FAIL if not kept else Outcome.INCONCLUSIVE if bound.proven and not sure else Outcome.PASS
    ends = {
        Outcome.PASS: f"keeps {threshold}",
        Outcome.FAIL: f"breaks {threshold}",
        Outcome.INCONCLUSIVE: f"keeps {threshold}, but the true one might be anything from {show(interval.low)} to {show(interval.high)}: "
        "ask more prompts",
    }
    return Condition(
        name=place.prefix + label,
        metric=name,
        slice=place.slice,
        prompts=len(number.sample.prompts),
        measured=number.value,
        threshold=threshold,
        interval=_ends(interval),
        outcome=outcome,
        sentence=f"{place.on}{name} is {show(number.value)}{_of_how_many(number, name)}, which {ends[outcome]}"
        f"{_claim(number, name, policy)}.",
    )


def not_worse(pair: Pair | str, name: MetricName, margin: Margin, policy: GateSection, place: Place = EVERYWHERE) -> Condition:
    """Non-inferiority against the champion."""
    label, threshold = f"must_not_regress.{name}", margin_in_words(margin, METRICS[name].higher_is_better)
    if isinstance(pair, str):
        return error(label, threshold, pair, name=name, place=place)
    relative = margin.by_ratio is not None
    if relative and pair.champion.value == 0:
        reason = f"The champion's {name} is 0, so a share of it means nothing; use `by`."
        return error(label, threshold, reason, name=name, place=place)
    limit = margin.by_ratio if margin.by_ratio is not None else (margin.by or 0.0)
    against = compare(pair, policy, relative=relative)
    few = METRICS[name].kind == "score" and pair.prompts < FEWEST_FOR_SCORES
    outcome = Outcome.FAIL if against.loss > limit else Outcome.PASS if against.pessimistic <= limit and not few else Outcome.INCONCLUSIVE
    ends = {
        Outcome.PASS: f"even its pessimistic end ({worsening(against.pessimistic, relative)}) is within the margin",
        Outcome.FAIL: "the measured difference alone is beyond the margin",
        Outcome.INCONCLUSIVE: f"it might still be {worsening(against.pessimistic, relative)}: ask more prompts"
        if not few
        else f"fewer than {FEWEST_FOR_SCORES} prompts are too few to rely on: ask more",
    }
    keeps = against.keeps
    power = f"an equal model passes 4 times in 5 from a margin of {amount(keeps, relative)}" if keeps is not None else ""
    return _compared(
        pair,
        place,
        label,
        threshold,
        against,
        outcome,
        f"{show(pair.candidate.value)} against the champion's {show(pair.champion.value)} ({change(against.difference, relative)}); "
        f"{ends[outcome]}",
        power,
    ).model_copy(update={"margin": limit, "detectable": keeps})


def better(pair: Pair | str, name: MetricName, policy: GateSection) -> Condition:
    """Superiority to the champion, for a policy in which every improvement has to be shown."""
    label, threshold = f"should_improve.{name}", f"better at alpha {policy.alpha:g}"
    if isinstance(pair, str):
        return error(label, threshold, pair, name=name)
    against, p = compare(pair, policy), p_of_change(pair, policy)
    shown = p <= policy.alpha and against.loss < 0
    outcome = Outcome.PASS if shown else Outcome.FAIL if against.loss > 0 else Outcome.INCONCLUSIVE
    ends = {Outcome.PASS: "better", Outcome.FAIL: "worse, not better", Outcome.INCONCLUSIVE: "not shown to be better"}
    return _compared(
        pair,
        EVERYWHERE,
        label,
        threshold,
        against,
        outcome,
        f"{show(pair.candidate.value)} against the champion's {show(pair.champion.value)}: {ends[outcome]} ({how(pair)}p = {p:.2g})",
        power_words(pair, against.detectable),
    ).model_copy(update={"p_value": p})


def flips(pair: Pair | str, budget: FlipBudget) -> Condition:
    """How many prompts the candidate breaks that the champion passed. With several answers, most of them have to keep the rules."""
    limits = [f"{budget.max}"] if budget.max is not None else []
    limits += [f"{budget.max_share:.1%} of the prompts"] if budget.max_share is not None else []
    threshold = f"at most {' and '.join(limits)} broken"
    if isinstance(pair, str):
        return error("flip_budget", threshold, pair, name="rule_pass_rate")
    ours, theirs = pair.candidate.sample.shares > 0.5, pair.champion.sample.shares > 0.5
    broken = tuple(prompt for prompt, flip in zip(pair.candidate.sample.prompts, theirs & ~ours, strict=True) if flip)
    mended = int((ours & ~theirs).sum())
    over = (budget.max is not None and len(broken) > budget.max) or (
        budget.max_share is not None and len(broken) > budget.max_share * pair.prompts
    )
    sentence = f"{count(len(broken), 'prompt')} of {pair.prompts} that the champion passed {'is' if len(broken) == 1 else 'are'} broken"
    sentence += f" ({names(broken)})" if broken else ""
    return Condition(
        name="flip_budget",
        metric="rule_pass_rate",
        prompts=pair.prompts,
        measured=float(len(broken)),
        threshold=threshold,
        broken=broken,
        outcome=Outcome.FAIL if over else Outcome.PASS,
        sentence=f"{sentence}, {mended} mended; the budget is {threshold.removesuffix(' broken')}.",
    )


def _own_interval(number: Measured, name: MetricName, policy: GateSection) -> Interval:
    """Of the candidate's own number. Several answers to a prompt count as one trial, failed when any of them failed."""
    kind, prompts = METRICS[name].kind, len(number.sample.prompts)
    if kind == "score":
        value = METRICS[name].value
        return bootstrap(number.sample, value, alpha=policy.alpha, resamples=policy.resamples, seed=policy.seed)
    if kind == "share":
        return wilson_interval(number.value, prompts, policy.alpha)
    hits = int((number.sample.shares > 0).sum())
    low = 1 - failure_rate_bound(prompts - hits, prompts, policy.alpha)
    return Interval(low, failure_rate_bound(hits, prompts, policy.alpha)).scaled(len(number.sample.rows))


def _keeps(bound: Bound, low: float, high: float) -> bool:
    return (bound.min is None or low >= bound.min) and (bound.max is None or high <= bound.max)


def _enough(number: Measured, name: MetricName) -> bool:
    return METRICS[name].kind != "score" or len(number.sample.prompts) >= FEWEST_FOR_SCORES


def _of_how_many(number: Measured, name: MetricName) -> str:
    kind, rows = METRICS[name].kind, number.sample.rows
    if kind == "score":
        return ""
    hits = "" if kind == "count" else f"{int(np.sum(rows))} "
    return f" ({hits}of {count(len(rows), 'answer')})" if hits else f" of {count(len(rows), 'answer')}"


def _claim(number: Measured, name: MetricName, policy: GateSection) -> str:
    if METRICS[name].kind != "count":
        return ""
    hits, prompts = int((number.sample.shares > 0).sum()), len(number.sample.prompts)
    return f"; {failures_claim(hits, prompts, policy.alpha)}"


def _compared(
    pair: Pair, place: Place, label: str, threshold: str, against: Comparison, outcome: Outcome, words: str, power: str
) -> Condition:
    return Condition(
        name=place.prefix + label,
        metric=pair.name,
        slice=place.slice,
        prompts=pair.prompts,
        measured=pair.candidate.value,
        champion=pair.champion.value,
        difference=against.difference,
        relative=against.relative,
        threshold=threshold,
        interval=_ends(against.interval),
        detectable=against.detectable,
        outcome=outcome,
        sentence=f"{place.on}{pair.name}{', side by side,' if pair.name in SPEED else ''} is {words}{'; ' if power else ''}{power}.",
    )


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    low, high = (end if math.isfinite(end) else None for end in (interval.low, interval.high))
    return low, high
