"""The gate: from two scorecards and a policy to a verdict with every reason. Pure; the same inputs give the same verdict.

Each condition ends as PASS, INCONCLUSIVE, FAIL or ERROR, and the worst one is the verdict. Only PASS promotes. Whatever is missing,
not finite, or measured on other terms (suite, settings, prompts, tokens) is an ERROR, never a PASS.
What each kind of condition asks is in `conditions.py`, and why most need no correction for their number in `families.py`.
Next: `report.py`.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from evaluation.comparison import compare
from evaluation.conditions import Place, better, error, flips, must, not_worse
from evaluation.config import GateSection, MetricName, SliceSection
from evaluation.families import SliceClaim, any_better, none_shown_worse
from evaluation.judge_pairs import judge_win_rate
from evaluation.pairing import Pair, applies, number_in, number_of, pair_of, pair_up, slices_of, unequal, unsound
from evaluation.records import AnswerRecord, Condition, Outcome, Preferences, Scorecard, SideBySide, Verdict
from evaluation.review_condition import human_review
from evaluation.review_records import ReviewResult
from evaluation.statistics import Interval
from evaluation.wording import count
from training.records import digest_of

_SEVERITY = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL, Outcome.ERROR)
_NO_CHAMPION = "There is no champion yet: the conditions against one were not judged."
_Part = tuple[AnswerRecord, ...]


def decide(
    candidate: Scorecard,
    champion: Scorecard | None,
    policy: GateSection,
    review: ReviewResult | None = None,
    *,
    speed: SideBySide | None = None,
    preferences: Preferences | None = None,
    at: str | None = None,
) -> Verdict:
    """Judge a candidate; without a champion only the absolute conditions apply, unless the policy requires one.

    Args:
        candidate: its scorecard.
        champion: the scorecard of the model it would replace, on the same suite and settings.
        policy: the recipe's `gate` section.
        review: the closed blind review of these two, where there is one.
        speed: how fast both answered when they took turns; without it, a condition that compares their speed is an ERROR.
        preferences: what a judge model prefers of the two, where the policy asks for that; without it, that condition is an ERROR.
        at: when, for the record; None is now. Nothing else depends on the clock.
    """
    conditions = [_enough(candidate, policy), *_own(candidate, policy)]
    if champion is not None:
        conditions += _against(candidate, champion, policy, speed)
    elif policy.require_champion:
        reason = "The policy requires a comparison, and there is no champion's scorecard."
        conditions.append(error("require_champion", "a champion's scorecard", reason))
    if policy.judge_win_rate and champion is not None:
        conditions.append(judge_win_rate(policy.judge_win_rate, preferences, candidate, champion, policy.alpha))
    if policy.human_review:
        conditions.append(human_review(policy.human_review, review, candidate.digest, champion.digest if champion else None, policy.alpha))
    if len(conditions) == 1:
        conditions.append(error("policy", "at least one condition", "No condition applied, so nothing was judged."))
    return Verdict(
        created_at=at or datetime.now(UTC).isoformat(timespec="seconds"),
        candidate_digest=candidate.digest,
        champion_digest=champion.digest if champion else None,
        suite_digest=candidate.suite_digest,
        speed_digest=speed.digest if speed is not None and policy.compares_speed else None,
        preferences_digest=preferences.digest if preferences is not None and policy.judge_win_rate else None,
        policy_digest=digest_of(policy.model_dump(mode="json")),
        outcome=worst(condition.outcome for condition in conditions),
        conditions=tuple(conditions),
        notes=(_NO_CHAMPION,) if champion is None and _compares(policy) else (),
    )


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """PASS < INCONCLUSIVE < FAIL < ERROR; ERROR when there are none."""
    return max(outcomes, key=_SEVERITY.index, default=Outcome.ERROR)


def difference(candidate: Scorecard, champion: Scorecard, name: MetricName, policy: GateSection) -> Interval | None:
    """Interval of candidate minus champion for any metric but speed, judged or not; None where the two cannot be compared."""
    pair = pair_of(name, candidate, champion, None)
    if isinstance(pair, str) or any(unequal(candidate, champion)):
        return None
    return compare(pair, policy).interval


def _compares(policy: GateSection) -> bool:
    in_slices = any(part.must_not_regress or part.not_shown_worse for part in policy.slices)
    return bool(policy.must_not_regress or policy.should_improve or policy.flip_budget or policy.judge_win_rate or in_slices)


def _enough(candidate: Scorecard, policy: GateSection) -> Condition:
    prompts = len({answer.prompt_id for answer in candidate.answers})
    enough = prompts >= policy.min_prompts
    return Condition(
        name="min_prompts",
        prompts=prompts,
        measured=prompts,
        threshold=f"≥ {policy.min_prompts}",
        outcome=Outcome.PASS if enough else Outcome.INCONCLUSIVE,
        sentence=f"{count(prompts, 'prompt')} were answered; "
        f"the policy asks for {policy.min_prompts}{'' if enough else ' before it decides'}.",
    )


def _own(candidate: Scorecard, policy: GateSection) -> Iterator[Condition]:
    """What is asked of the candidate by itself."""
    if faults := list(unsound(candidate)):
        yield error("complete", "one answer to each prompt, each time", f"The candidate's scorecard is not whole: {'; '.join(faults)}.")
    for name, bound in policy.must.items():
        yield must(number_of(candidate, name), name, bound, policy)
    for part in policy.slices:
        for place, answers in _places(candidate, part):
            for name, bound in part.must.items():
                if applies(answers, name):
                    yield _if_enough(must(number_in(answers, name), name, bound, policy, place), part)
        for name in part.must:
            yield from _nowhere(candidate, part, "must", name)


def _against(candidate: Scorecard, champion: Scorecard, policy: GateSection, speed: SideBySide | None) -> list[Condition]:
    faults = [*unsound(candidate), *unsound(champion), *unequal(candidate, champion)]
    if faults:
        reason = f"The two scorecards cannot be compared: {'; '.join(faults)}."
        return [error("comparable", "same suite, settings and prompts", reason)]

    def pair(name: MetricName) -> Pair | str:
        return pair_of(name, candidate, champion, speed)

    conditions = [not_worse(pair(name), name, margin, policy) for name, margin in policy.must_not_regress.items()]
    improved = [(name, pair(name)) for name in policy.should_improve]
    if policy.improvement == "any" and improved:
        conditions.append(any_better(improved, policy))
    else:
        conditions += [better(each, name, policy) for name, each in improved]
    if policy.flip_budget is not None:
        conditions.append(flips(pair("rule_pass_rate"), policy.flip_budget))
    return conditions + list(_slices_against(candidate, champion, policy))


def _slices_against(candidate: Scorecard, champion: Scorecard, policy: GateSection) -> Iterator[Condition]:
    claims: list[SliceClaim] = []
    for part in policy.slices:
        theirs = dict(_places(champion, part))
        for place, answers in _places(candidate, part):
            for name, margin in part.must_not_regress.items():
                if applies(answers, name):
                    yield _if_enough(not_worse(_pair_in(answers, theirs[place], name), name, margin, policy, place), part)
            claims += [
                SliceClaim(place, name, _pair_in(answers, theirs[place], name), part.min_prompts)
                for name in part.not_shown_worse
                if applies(answers, name)
            ]
        for key, names in (("must_not_regress", tuple(part.must_not_regress)), ("not_shown_worse", part.not_shown_worse)):
            for name in names:
                yield from _nowhere(candidate, part, key, name)
    yield from none_shown_worse(claims, policy)


def _places(card: Scorecard, part: SliceSection) -> Iterator[tuple[Place, _Part]]:
    """The slices that a section judges; one that it names and the suite does not have is there without answers."""
    found = slices_of(card.answers, card.language, part.each)
    for value in part.only or found:
        yield Place(f"slices.{part.each}={value}.", f"{part.each}={value}"), found.get(value, ())


def _nowhere(card: Scorecard, part: SliceSection, key: str, name: MetricName) -> Iterator[Condition]:
    """An error for a condition that no slice, or not every slice it names, has prompts for."""
    there = {place.slice: applies(answers, name) for place, answers in _places(card, part)}
    missing = [str(place) for place, some in there.items() if not some]
    if (part.only and missing) or not any(there.values()):
        where = ", ".join(missing) if part.only else f"no {part.each} of the suite"
        threshold = f"prompts in every {part.each} named" if part.only else f"prompts in at least one {part.each}"
        reason = f"{name} applies to no prompt of {where}." if part.only else f"{name} applies to {where}."
        yield error(f"slices.{part.each}.{key}.{name}", threshold, reason, name=name)


def _if_enough(condition: Condition, part: SliceSection) -> Condition:
    """A PASS on a handful of prompts is none."""
    if condition.outcome is not Outcome.PASS or (condition.prompts or 0) >= part.min_prompts:
        return condition
    sentence = f"{condition.sentence} {count(condition.prompts or 0, 'prompt')} are too few; slices.min_prompts is {part.min_prompts}."
    return condition.model_copy(update={"outcome": Outcome.INCONCLUSIVE, "sentence": sentence})


def _pair_in(ours: _Part, theirs: _Part, name: MetricName) -> Pair | str:
    return pair_up(name, number_in(ours, name), number_in(theirs, name))
