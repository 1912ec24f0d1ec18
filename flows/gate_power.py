"""What a recipe's suite is able to show, before or after anything is measured: the smallest changes, and conditions that cannot be met.

How many prompts a metric applies to is asked of the metrics themselves, by judging the suite's own references. The noise of a
difference is taken from two scorecards where they are given; without them pass-or-fail metrics are reckoned with a share of prompts
on which two models fare differently, and scores in standard deviations. The arithmetic is `evaluation/power.py`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from evaluation.aggregates import METRICS
from evaluation.client import ChatAnswer
from evaluation.comparison import Comparison, compare
from evaluation.conditions import FEWEST_FOR_SCORES
from evaluation.config import SPEED, Bound, GateSection, Margin, MetricName, SliceSection
from evaluation.pairing import Pair, applies, number_of, pair_up, slices_of
from evaluation.power import detectable_score, detectable_share, prompts_to_show, sure_margin_share
from evaluation.records import AnswerRecord, Scorecard
from evaluation.resampling import Totals, mean
from evaluation.scoring import judge
from evaluation.statistics import failure_rate_bound, trials_to_claim, wilson_interval
from evaluation.suite import Suite
from evaluation.wording import amount, count, in_words, margin_in_words, show
from flows.display import plain

Cards = tuple[Scorecard, Scorecard]
# Share of prompts on which two models are taken to fare differently where nobody says better.
CHANGED = 0.2


@dataclass(frozen=True)
class Need:
    """One condition and what so many prompts mean for it. `impossible`: no candidate whatever could pass."""

    condition: str
    prompts: int | None
    sentence: str
    impossible: bool = False


def needs_of(suite: Suite, policy: GateSection, changed: float = CHANGED, cards: Cards | None = None) -> list[Need]:
    """Every condition of a policy on this suite, in the policy's order."""
    # Which prompts a metric applies to does not depend on how words are cut, and cutting Chinese loads a dictionary for seconds.
    answers = [judge(suite.model_copy(update={"language": "en"}), prompt, _SILENT) for prompt in suite.prompts]
    asked = len(suite.prompts)
    enough = f"the suite has {count(asked, 'prompt')}, the policy asks for {policy.min_prompts}"
    if short := asked < policy.min_prompts:
        enough = f"gate.min_prompts is {policy.min_prompts}, but {suite.name} has {count(asked, 'prompt')}: nothing could pass"
    needs = [Need("min_prompts", asked, enough, short)]
    needs += [_must(f"must.{name}", name, bound, _applying(answers, name), policy) for name, bound in policy.must.items()]
    needs += [
        _not_worse(name, margin, _applying(answers, name), policy, changed, cards) for name, margin in policy.must_not_regress.items()
    ]
    needs += [_better(name, _applying(answers, name), policy, changed, cards) for name in policy.should_improve]
    slices = [(part, slices_of(answers, suite.language, part.each)) for part in policy.slices]
    family = sum(applies(found[value], name) for part, found in slices for value in found for name in part.not_shown_worse)
    for part, found in slices:
        needs += _slice_needs(part, found, policy, family)
    return needs


def show_needs(console: Console, needs: Sequence[Need]) -> None:
    """One condition after the other, those that nothing could pass in red."""
    for need in needs:
        of = f"  ({count(need.prompts, 'prompt')})" if need.prompts is not None else ""
        style = "red" if need.impossible else "bold"
        console.print(f"[{style}]{plain(need.condition)}[/]{of}\n    {plain(need.sentence)}", highlight=False, soft_wrap=True)


_PASSES = "an equal model passes 4 times in 5 from a margin of"
_TOLD_BY_CARDS = "two scorecards tell what it can show; give --candidate and --champion"
_BY_TURNS = "timed on the prompts of evaluation.side_by_side when the gate decides, so no scorecard tells its noise"
# Says nothing; only how many prompts a metric applies to is read from it.
_SILENT = ChatAnswer(text="", finish_reason="stop", latency_s=0.0, ttft_s=None, completion_tokens=0)


def _applying(answers: Sequence[AnswerRecord], name: MetricName) -> int | None:
    """How many prompts a metric is made of; None where only a measurement can tell, as for tasks."""
    sample = METRICS[name].sample(answers, ())
    if sample is not None:
        return len(sample.prompts)
    return None if name == "forgetting_accuracy" else len(answers)


def _must(label: str, name: MetricName, bound: Bound, prompts: int | None, policy: GateSection) -> Need:
    if prompts == 0:
        return Need(label, 0, f"{name} applies to no prompt, which is an ERROR", True)
    if prompts is None or METRICS[name].kind == "score":
        few = bound.proven and prompts is not None and prompts < FEWEST_FOR_SCORES
        return Need(label, prompts, f"judged by the measured number: {in_words(bound)}", few)
    if METRICS[name].kind == "count":
        top = failure_rate_bound(0, prompts, policy.alpha)
        sentence = f"without a failure, {1 - policy.alpha:.0%} confidence is had that the true rate is below {top:.1%}"
        return Need(label, prompts, f"{sentence}; below 1% takes {count(trials_to_claim(0.01, policy.alpha), 'prompt')}")
    if not bound.proven or bound.min is None:
        low = wilson_interval(bound.min if bound.min is not None else 0.5, prompts, policy.alpha).low
        return Need(
            label, prompts, f"judged by the measured number: {in_words(bound)}; at that number the true one may be as low as {low:.1%}"
        )
    needed = next((hits for hits in range(prompts + 1) if wilson_interval(hits / prompts, prompts, policy.alpha).low >= bound.min), None)
    if needed is None:
        return Need(label, prompts, f"not even {prompts} of {prompts} would prove {in_words(bound)}: nothing could pass", True)
    return Need(label, prompts, f"{in_words(bound)} takes {needed} of {prompts}")


def _not_worse(name: MetricName, margin: Margin, prompts: int | None, policy: GateSection, changed: float, cards: Cards | None) -> Need:
    label, relative = f"must_not_regress.{name}", margin.by_ratio is not None
    if name in SPEED:
        return Need(label, None, f"{_BY_TURNS}; asked: {margin_in_words(margin, METRICS[name].higher_is_better)}")
    measured = _measured(name, policy, cards, relative)
    asked = f"asked: {margin_in_words(margin, METRICS[name].higher_is_better)}"
    if isinstance(measured, tuple):
        pair, against = measured
        keeps = amount(against.keeps, relative) if against.keeps is not None else "any"
        return Need(label, pair.prompts, f"with the noise of these scorecards, {_PASSES} {keeps}; {asked}")
    if not prompts:
        return _unknown(label, prompts, name)
    if METRICS[name].kind == "score":
        noise = None if relative else _noise(name, prompts, policy.alpha)
        return Need(label, prompts, f"{_PASSES} {noise}; {asked}" if noise else f"{_TOLD_BY_CARDS}; {asked}")
    keeps = _share(name, sure_margin_share(prompts, changed, policy.alpha), prompts)
    return Need(label, prompts, f"where {changed:.0%} of the prompts change, {_PASSES} {keeps}; {asked}")


def _better(name: MetricName, prompts: int | None, policy: GateSection, changed: float, cards: Cards | None) -> Need:
    """Where one of several is enough, each has to pass at the first step of the correction."""
    label = f"should_improve.{name}"
    if name in SPEED:
        return Need(label, None, _BY_TURNS)
    alpha = policy.alpha / len(policy.should_improve) if policy.improvement == "any" else policy.alpha
    measured = _measured(name, policy.model_copy(update={"alpha": alpha}), cards, relative=False)
    if isinstance(measured, tuple):
        pair, against = measured
        if against.detectable is None:
            return Need(label, pair.prompts, "so few prompts change between these scorecards that no gain would be shown 4 times in 5")
        return Need(label, pair.prompts, f"with the noise of these scorecards a gain of {show(against.detectable)} is shown 4 times in 5")
    if not prompts:
        return _unknown(label, prompts, name)
    if METRICS[name].kind == "score":
        noise = _noise(name, prompts, alpha)
        return Need(label, prompts, f"a gain of {noise} is shown 4 times in 5" if noise else _TOLD_BY_CARDS)
    gain = detectable_share(prompts, changed, alpha)
    if gain is None:
        return Need(label, prompts, f"where {changed:.0%} of the prompts change, no gain is shown 4 times in 5", 0.5**prompts > alpha)
    return Need(label, prompts, f"where {changed:.0%} of the prompts change, a gain of {_share(name, gain, prompts)} is shown 4 times in 5")


def _measured(name: MetricName, policy: GateSection, cards: Cards | None, relative: bool) -> tuple[Pair, Comparison] | None:
    if cards is None:
        return None
    pair = pair_up(name, *(number_of(card, name) for card in cards))
    if isinstance(pair, str) or (relative and pair.champion.value == 0):
        return None
    return pair, compare(pair, policy, relative=relative)


def _slice_needs(part: SliceSection, found: dict[str, tuple[AnswerRecord, ...]], policy: GateSection, family: int) -> Iterator[Need]:
    named = {*part.must, *part.must_not_regress, *part.not_shown_worse}
    if not part.only and not found:
        yield Need(f"slices.{part.each}", 0, f"the suite has no {part.each}: nothing could pass", True)
    for name in sorted(name for name in named if found and not any(applies(answers, name) for answers in found.values())):
        yield Need(f"slices.{part.each}.{name}", 0, f"{name} applies to no {part.each} of the suite: nothing could pass", True)
    for value in part.only or found:
        answers = found.get(value, ())
        for name in sorted(name for name in named if applies(answers, name) or part.only):
            prompts = _applying(answers, name) or 0
            needed, why = part.min_prompts, f"slices.min_prompts is {part.min_prompts}"
            if name in part.not_shown_worse and (least := prompts_to_show(max(1, family), policy.alpha)) > needed:
                needed, why = least, f"to show a loss in one of {count(family, 'slice')} takes {least}"
            short = prompts < needed
            yield Need(f"slices.{part.each}={value}.{name}", prompts, f"{why}{': nothing could pass' if short else ''}", short)


def _noise(name: MetricName, prompts: int, alpha: float) -> str | None:
    """A change of a mean in standard deviations; None for other numbers, of whose noise nothing is known beforehand."""
    size = detectable_score(prompts, 1 / math.sqrt(prompts), alpha)
    if METRICS[name].value != Totals(mean) or size is None:
        return None
    return f"{size:.2f} standard deviations of the change per prompt"


def _share(name: MetricName, share: float, prompts: int) -> str:
    return f"{share * prompts:.1f} answers" if METRICS[name].kind == "count" else f"{share:.3f}"


def _unknown(label: str, prompts: int | None, name: MetricName) -> Need:
    if prompts == 0:
        return Need(label, 0, f"{name} applies to no prompt, which is an ERROR", True)
    return Need(label, None, f"how many items it is made of is not in the suite; {_TOLD_BY_CARDS}")
