"""One metric of two models on the same prompts: the difference, its interval, whether it is chance, and what so many prompts can show.

Yes-or-no metrics with one answer to each prompt are compared exactly; scores, and prompts that were asked several times, by drawing
prompts again. Knows nothing of margins or outcomes. Next: `conditions.py`.
"""

import math
from dataclasses import dataclass

from evaluation.aggregates import METRICS
from evaluation.config import GateSection
from evaluation.pairing import Pair
from evaluation.power import detectable_score, detectable_share, sure_margin_share
from evaluation.resampling import Resampled, paired_bootstrap, swap_test
from evaluation.statistics import Interval, Rows, mcnemar_exact, paired_share_interval
from evaluation.wording import count, show


@dataclass(frozen=True)
class Comparison:
    """Candidate minus champion. `loss` and `pessimistic` are worsenings: positive where the candidate is worse, whichever way is better."""

    difference: float
    interval: Interval
    loss: float
    pessimistic: float
    detectable: float | None
    keeps: float | None
    relative: bool


def compare(pair: Pair, policy: GateSection, *, relative: bool = False) -> Comparison:
    """The paired difference with its interval and what so many prompts can show, in the metric's unit or as a share of the champion's."""
    ours, theirs = pair.candidate.value, pair.champion.value
    difference = (ours - theirs) / theirs if relative else ours - theirs
    drawn = _interval(pair, relative, policy)
    interval = drawn.interval
    loss, pessimistic = (-difference, -interval.low) if pair.sign > 0 else (difference, interval.high)
    exact, unit = one_answer_each(pair), _unit(pair, relative)
    moved = _moved(pair) / pair.prompts
    by_score = detectable_score(pair.prompts, drawn.error, policy.alpha)
    show_gain = detectable_share(pair.prompts, moved, policy.alpha) if exact else by_score
    keeps = sure_margin_share(pair.prompts, moved, policy.alpha) if exact else by_score
    scale = unit if exact else 1.0
    return Comparison(
        difference,
        interval,
        loss,
        pessimistic,
        None if show_gain is None else show_gain * scale,
        None if keeps is None else keeps * scale,
        relative,
    )


def p_of_change(pair: Pair, policy: GateSection, *, worse: bool = False) -> float:
    """One-sided p that the candidate is better (or `worse`) only by chance: exact where answers are yes or no, else by swapping models."""
    if one_answer_each(pair):
        gained, lost = changes(pair)
        return mcnemar_exact(lost, gained) if worse else mcnemar_exact(gained, lost)
    first, second = pair.candidate.sample, pair.champion.sample
    statistic, sign = METRICS[pair.name].value, -pair.sign if worse else pair.sign
    return swap_test(first, second, statistic, sign=sign, resamples=policy.resamples, seed=policy.seed)


def one_answer_each(pair: Pair) -> bool:
    """Whether each prompt has one answer that is right or wrong, so that the exact test of changes applies."""
    return METRICS[pair.name].kind != "score" and len(pair.candidate.sample.rows) == pair.prompts


def changes(pair: Pair) -> tuple[int, int]:
    """(prompts that got better, prompts that got worse) of a yes-or-no metric."""
    differences = pair.sign * _differences(pair)
    return int((differences > 0).sum()), int((differences < 0).sum())


def how(pair: Pair) -> str:
    """What a yes-or-no test saw, for the sentence; nothing for scores."""
    if not one_answer_each(pair):
        return ""
    gained, lost = changes(pair)
    return f"{count(gained, 'prompt')} got better and {lost} worse, one-sided exact "


def power_words(pair: Pair, detectable: float | None) -> str:
    """What so many prompts can show."""
    if detectable is None:
        return f"so few of {count(pair.prompts, 'prompt')} change that a gain would not be shown 4 times in 5"
    return f"{count(pair.prompts, 'prompt')} show a change of {show(detectable)} 4 times in 5"


def _interval(pair: Pair, relative: bool, policy: GateSection) -> Resampled:
    if METRICS[pair.name].kind == "score":
        return paired_bootstrap(
            pair.candidate.sample,
            pair.champion.sample,
            METRICS[pair.name].value,
            ratio=relative,
            alpha=policy.alpha,
            resamples=policy.resamples,
            seed=policy.seed,
        )
    unit = _unit(pair, relative)
    return Resampled(
        paired_share_interval(_differences(pair), policy.alpha).scaled(unit), unit * math.sqrt(_moved(pair) + 1) / (pair.prompts + 2)
    )


def _unit(pair: Pair, relative: bool) -> float:
    """How much one share of the prompts is in the unit of the comparison: counts are in answers, ratios in the champion's number."""
    scale = float(len(pair.candidate.sample.rows)) if METRICS[pair.name].kind == "count" else 1.0
    return scale / abs(pair.champion.value) if relative else scale


def _differences(pair: Pair) -> Rows:
    return pair.candidate.sample.shares - pair.champion.sample.shares


def _moved(pair: Pair) -> float:
    """How many prompts fare differently; differences of several answers count by their squares."""
    return float((_differences(pair) ** 2).sum()) if METRICS[pair.name].kind != "score" else 0.0
