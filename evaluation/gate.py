"""The gate: from two scorecards and a policy to a verdict with every reason. Pure; the same inputs give the same verdict.

Each condition ends as PASS, INCONCLUSIVE, FAIL or ERROR, and the worst one is the verdict. Only PASS promotes.
- `must`: the candidate's own number keeps its bound. Zero failures are reported with the rate that so few prompts cannot rule out.
- `must_not_regress`: non-inferiority. PASS when even the pessimistic end of the paired interval is within the margin, FAIL when the
  measured difference itself is beyond it, INCONCLUSIVE between the two: more prompts are needed.
- `should_improve`: superiority. PASS when the paired test shows it at alpha, FAIL when the candidate measures worse, else INCONCLUSIVE.
- Whatever is missing, not finite, or measured on other terms (suite, settings, tokens) is an ERROR, never a PASS.
All conditions have to hold at once, so the chance to promote a candidate that is in truth beyond any one of the margins stays at
alpha without a correction (intersection-union test: Berger, Technometrics 24, 1982). Next: `report.py`.
"""

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import numpy as np

from evaluation.aggregates import METRICS, rows_of
from evaluation.config import Bound, GateSection, Margin, MetricName
from evaluation.records import Condition, Outcome, Scorecard, Verdict
from evaluation.statistics import (
    Interval,
    Rows,
    mcnemar_exact,
    paired_bootstrap,
    paired_proportion_interval,
    wilson_interval,
    zero_failures_bound,
)
from training.records import digest_of

_SEVERITY = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL, Outcome.ERROR)


def decide(candidate: Scorecard, champion: Scorecard | None, policy: GateSection) -> Verdict:
    """Judge a candidate; without a champion only the absolute conditions apply, unless the policy requires one."""
    conditions = [_enough(candidate, policy), *(_absolute(candidate, name, bound, policy) for name, bound in policy.must.items())]
    notes: tuple[str, ...] = ()
    if champion is not None:
        conditions += _against(candidate, champion, policy)
    elif policy.require_champion:
        conditions.append(
            _error(
                "require_champion",
                None,
                "a champion's scorecard",
                "The policy requires a comparison, and there is no champion's scorecard.",
            )
        )
    elif policy.must_not_regress or policy.should_improve:
        notes = ("There is no champion yet: must_not_regress and should_improve were not judged.",)
    if len(conditions) == 1:
        conditions.append(_error("policy", None, "at least one condition", "No condition applied, so nothing was judged."))
    return Verdict(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        candidate_digest=candidate.digest,
        champion_digest=champion.digest if champion else None,
        suite_digest=candidate.suite_digest,
        policy_digest=digest_of(policy.model_dump(mode="json")),
        outcome=worst(condition.outcome for condition in conditions),
        conditions=tuple(conditions),
        notes=notes,
    )


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """PASS < INCONCLUSIVE < FAIL < ERROR; ERROR when there are none."""
    return max(outcomes, key=_SEVERITY.index, default=Outcome.ERROR)


def _enough(candidate: Scorecard, policy: GateSection) -> Condition:
    count = len(candidate.answers)
    enough = count >= policy.min_prompts
    return Condition(
        name="min_prompts",
        measured=count,
        threshold=f"≥ {policy.min_prompts}",
        outcome=Outcome.PASS if enough else Outcome.INCONCLUSIVE,
        sentence=f"{count} prompts were answered; the policy asks for {policy.min_prompts}{'' if enough else ' before it decides'}.",
    )


def _absolute(candidate: Scorecard, name: MetricName, bound: Bound, policy: GateSection) -> Condition:
    label, threshold = f"must.{name}", _in_words(bound)
    value, rows, fault = _value(candidate, name)
    if rows is None:
        return _error(label, name, threshold, f"The candidate's {name} {fault}.")
    kept = (bound.min is None or value >= bound.min) and (bound.max is None or value <= bound.max)
    interval, extra = _own_interval(name, rows, policy.alpha)
    return Condition(
        name=label,
        metric=name,
        measured=value,
        threshold=threshold,
        interval=_ends(interval),
        outcome=Outcome.PASS if kept else Outcome.FAIL,
        sentence=f"{name} is {_show(value)}, which {'keeps' if kept else 'breaks'} the bound {threshold}{extra}.",
    )


def _own_interval(name: MetricName, rows: Rows, alpha: float) -> tuple[Interval | None, str]:
    """The interval of a candidate's own number, where it has an exact one, and what it does not rule out."""
    metric = METRICS[name]
    if metric.kind == "score":
        return None, ""
    hits, trials = int(rows.sum()), len(rows)
    if metric.kind == "share":
        return wilson_interval(hits, trials, alpha), f" ({hits} of {trials} prompts)"
    ci = wilson_interval(hits, trials, alpha)
    extra = f" ({hits} of {trials} answers"
    if hits == 0:
        extra += f"; a true rate up to {zero_failures_bound(trials, alpha):.1%} could still show none"
    return Interval(ci.low * trials, ci.high * trials), extra + ")"


def _against(candidate: Scorecard, champion: Scorecard, policy: GateSection) -> list[Condition]:
    faults = list(_unequal(candidate, champion))
    if faults:
        return [_error("comparable", None, "same suite and settings", f"The two scorecards cannot be compared: {'; '.join(faults)}.")]
    kept = [_not_worse(candidate, champion, name, margin, policy) for name, margin in policy.must_not_regress.items()]
    return kept + [_better(candidate, champion, name, policy) for name in policy.should_improve]


def _unequal(candidate: Scorecard, champion: Scorecard) -> Iterator[str]:
    for key in ("suite_digest", "generation", "concurrency", "bleu_signature"):
        ours, theirs = getattr(candidate, key), getattr(champion, key)
        if ours != theirs:
            yield f"{key} is {str(ours)[:60]} for the candidate and {str(theirs)[:60]} for the champion"
    if [answer.prompt_id for answer in candidate.answers] != [answer.prompt_id for answer in champion.answers]:
        yield "they do not answer the same prompts in the same order"


def _not_worse(candidate: Scorecard, champion: Scorecard, name: MetricName, margin: Margin, policy: GateSection) -> Condition:
    label = f"must_not_regress.{name}"
    allowed = f"{margin.by_ratio:.1%} of the champion's" if margin.by_ratio is not None else f"{_show(margin.by or 0.0)}"
    threshold = f"at most {allowed} {'lower' if METRICS[name].higher_is_better else 'higher'}"
    pair = _pair(candidate, champion, name)
    if isinstance(pair, str):
        return _error(label, name, threshold, pair)
    ours, theirs, our_rows, their_rows = pair
    ratio = margin.by_ratio is not None
    if ratio and theirs == 0:
        return _error(label, name, threshold, f"The champion's {name} is 0, so a share of it means nothing; use `by`.")
    difference = (ours - theirs) / theirs if ratio else ours - theirs
    interval = difference_interval(name, our_rows, their_rows, ratio, policy)
    limit = margin.by_ratio if margin.by_ratio is not None else (margin.by or 0.0)
    loss, pessimistic = _loss(name, difference, interval)
    outcome = Outcome.PASS if pessimistic <= limit else Outcome.FAIL if loss > limit else Outcome.INCONCLUSIVE
    ends = {
        Outcome.PASS: f"even its pessimistic end ({_worsening(pessimistic, ratio)}) is within the margin",
        Outcome.FAIL: "the measured difference alone is beyond the margin",
        Outcome.INCONCLUSIVE: f"it might still be {_worsening(pessimistic, ratio)}: ask more prompts",
    }
    sentence = f"{name} is {_show(ours)} against the champion's {_show(theirs)} ({_change(difference, ratio)}); {ends[outcome]}."
    return _compared(label, name, ours, theirs, threshold, interval, outcome, sentence)


def _better(candidate: Scorecard, champion: Scorecard, name: MetricName, policy: GateSection) -> Condition:
    label, threshold = f"should_improve.{name}", f"better at alpha {policy.alpha:g}"
    pair = _pair(candidate, champion, name)
    if isinstance(pair, str):
        return _error(label, name, threshold, pair)
    ours, theirs, our_rows, their_rows = pair
    interval = difference_interval(name, our_rows, their_rows, False, policy)
    loss, pessimistic = _loss(name, ours - theirs, interval)
    if METRICS[name].kind == "score":
        shown, how = pessimistic < 0, f"its pessimistic end is {_worsening(pessimistic, False)}"
    else:
        gained, lost = _changes(name, our_rows, their_rows)
        p = mcnemar_exact(gained, lost)
        shown, how = p <= policy.alpha, f"{gained} prompts got better and {lost} worse, one-sided exact p = {p:.2g}"
    outcome = Outcome.PASS if shown else Outcome.FAIL if loss > 0 else Outcome.INCONCLUSIVE
    ends = {Outcome.PASS: "better", Outcome.FAIL: "worse, not better", Outcome.INCONCLUSIVE: "not shown to be better"}
    sentence = f"{name} is {_show(ours)} against the champion's {_show(theirs)}: {ends[outcome]} ({how})."
    return _compared(label, name, ours, theirs, threshold, interval, outcome, sentence)


def _pair(candidate: Scorecard, champion: Scorecard, name: MetricName) -> tuple[float, float, Rows, Rows] | str:
    """Both values and rows, or the sentence that says why they cannot be compared."""
    ours, our_rows, fault = _value(candidate, name)
    theirs, their_rows, their_fault = _value(champion, name)
    if our_rows is None:
        return f"The candidate's {name} {fault}."
    if their_rows is None:
        return f"The champion's {name} {their_fault}."
    if our_rows.shape != their_rows.shape:
        return f"{name} was measured on {len(our_rows)} prompts for the candidate and {len(their_rows)} for the champion."
    if name == "perplexity" and not np.array_equal(our_rows[:, 1], their_rows[:, 1]):
        return "The two servers cut the references into different tokens, so their perplexities cannot be compared."
    return ours, theirs, our_rows, their_rows


def _value(card: Scorecard, name: MetricName) -> tuple[float, Rows | None, str]:
    """The number as recorded and the rows it is made of, or (0, None, what is wrong)."""
    value, rows = card.metrics.get(name), rows_of(name, card)
    if value is None or rows is None:
        return 0.0, None, "was not measured, or applies to no prompt"
    if not math.isfinite(value) or not bool(np.isfinite(rows).all()):
        return 0.0, None, "is not a finite number"
    if not math.isclose(value, METRICS[name].value(rows), rel_tol=1e-9, abs_tol=1e-12):
        return 0.0, None, f"is recorded as {_show(value)}, but its answers give {_show(METRICS[name].value(rows))}"
    return value, rows, ""


def difference_interval(name: MetricName, ours: Rows, theirs: Rows, ratio: bool, policy: GateSection) -> Interval:
    """Of candidate minus champion, in the metric's unit or as a share of the champion's number; rows are paired by prompt."""
    metric = METRICS[name]
    if metric.kind == "score" or ratio:
        return paired_bootstrap(ours, theirs, metric.value, ratio=ratio, alpha=policy.alpha, resamples=policy.resamples, seed=policy.seed)
    more, fewer = int(((ours == 1) & (theirs == 0)).sum()), int(((ours == 0) & (theirs == 1)).sum())
    interval = paired_proportion_interval(more, fewer, len(ours), policy.alpha)
    scale = len(ours) if metric.kind == "count" else 1
    return Interval(interval.low * scale, interval.high * scale)


def _changes(name: MetricName, ours: Rows, theirs: Rows) -> tuple[int, int]:
    """(prompts that got better, prompts that got worse) of a yes-or-no metric."""
    more, fewer = int(((ours == 1) & (theirs == 0)).sum()), int(((ours == 0) & (theirs == 1)).sum())
    return (more, fewer) if METRICS[name].higher_is_better else (fewer, more)


def _loss(name: MetricName, difference: float, interval: Interval) -> tuple[float, float]:
    """(measured, pessimistic) worsening: positive when the candidate is worse, whichever way is better."""
    if METRICS[name].higher_is_better:
        return -difference, -interval.low
    return difference, interval.high


def _compared(
    label: str, name: MetricName, ours: float, theirs: float, threshold: str, interval: Interval, outcome: Outcome, sentence: str
) -> Condition:
    return Condition(
        name=label,
        metric=name,
        measured=ours,
        champion=theirs,
        threshold=threshold,
        interval=_ends(interval),
        outcome=outcome,
        sentence=sentence,
    )


def _error(label: str, name: MetricName | None, threshold: str, sentence: str) -> Condition:
    return Condition(name=label, metric=name, threshold=threshold, outcome=Outcome.ERROR, sentence=sentence)


def _ends(interval: Interval | None) -> tuple[float | None, float | None] | None:
    if interval is None:
        return None
    return tuple(end if math.isfinite(end) else None for end in (interval.low, interval.high))  # type: ignore[return-value]  # two ends


def _in_words(bound: Bound) -> str:
    low = f"≥ {bound.min:g}" if bound.min is not None else ""
    high = f"≤ {bound.max:g}" if bound.max is not None else ""
    return " and ".join(part for part in (low, high) if part)


def _show(value: float) -> str:
    return f"{value:.4g}"


def _change(difference: float, ratio: bool) -> str:
    return f"{difference:+.1%}" if ratio else f"{difference:+.3g}"


def _worsening(loss: float, ratio: bool) -> str:
    size = f"{abs(loss):.1%}" if ratio else f"{abs(loss):.3g}"
    return "no different" if loss == 0 else f"{size} {'worse' if loss > 0 else 'better'}"
