"""What of two scorecards may be compared: the same suite, settings, prompts and tokens, and only whole, finite, honest numbers.

Whatever is not so becomes a sentence that says why, and at the gate an ERROR. Next: `conditions.py`.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.aggregates import METRICS, sample_of
from evaluation.config import SPEED, MetricName
from evaluation.records import AnswerRecord, Scorecard, SideBySide, Timing
from evaluation.resampling import Sample

# What two scorecards may differ in; everything else are terms that have to be equal.
_OWN = Scorecard.volatile | {"subject", "model_digest", "answers", "tasks", "metrics"}
_NAMED = 3
_NOT_MEASURED = "was not measured, or applies to no prompt"
_NOT_FINITE = "is not a finite number"


@dataclass(frozen=True)
class Measured:
    """A number with what it is made of."""

    value: float
    sample: Sample


@dataclass(frozen=True)
class Pair:
    """One metric of both models on the same prompts."""

    name: MetricName
    candidate: Measured
    champion: Measured

    @property
    def prompts(self) -> int:
        """How many prompts it is made of."""
        return len(self.candidate.sample.prompts)

    @property
    def sign(self) -> float:
        """1 where higher is better, -1 where lower is."""
        return 1.0 if METRICS[self.name].higher_is_better else -1.0


def unsound(card: Scorecard) -> Iterator[str]:
    """What is wrong with one scorecard by itself: a prompt without an answer, or with another number of answers than the others."""
    asked = Counter((answer.prompt_id, answer.repetition) for answer in card.answers)
    if twice := sorted({prompt for (prompt, _), count in asked.items() if count > 1}):
        yield f"{_some(twice)} was recorded twice"
    times = Counter(answer.prompt_id for answer in card.answers)
    most = max(times.values(), default=0)
    if fewer := sorted(prompt for prompt, count in times.items() if count < most):
        yield f"{_some(fewer)} was not answered {most} times as others were"


def unequal(candidate: Scorecard, champion: Scorecard) -> Iterator[str]:
    """Why two scorecards cannot be compared; nothing when they can."""
    for key in sorted(Scorecard.model_fields.keys() - _OWN):
        ours, theirs = getattr(candidate, key), getattr(champion, key)
        if ours != theirs:
            yield f"{key} is {str(ours)[:60]} for the candidate and {str(theirs)[:60]} for the champion"
    ours_by, theirs_by = _by_prompt(candidate), _by_prompt(champion)
    if alone := sorted({prompt for prompt, _ in ours_by.keys() ^ theirs_by.keys()}):
        yield f"only one of the two has all answers to {_some(alone)}"
    if other := sorted({key[0] for key in ours_by.keys() & theirs_by.keys() if _asked(ours_by[key]) != _asked(theirs_by[key])}):
        yield f"the two were asked or are judged differently on {_some(other)}"


def number_of(card: Scorecard, name: MetricName) -> Measured | str:
    """A number of a whole scorecard, or what is wrong with it; what is recorded must be what the answers give."""
    number, recorded = _number(sample_of(name, card), name), card.metrics.get(name)
    if recorded is None:
        return _NOT_MEASURED
    if not math.isfinite(recorded):
        return _NOT_FINITE
    if isinstance(number, Measured) and not math.isclose(recorded, number.value, rel_tol=1e-9, abs_tol=1e-12):
        return f"is recorded as {recorded:.4g}, but its answers give {number.value:.4g}"
    return number


def number_in(answers: Sequence[AnswerRecord], name: MetricName) -> Measured | str:
    """A number of some of a scorecard's answers, or what is wrong with it."""
    return _number(METRICS[name].sample(answers, ()), name)


def applies(answers: Sequence[AnswerRecord], name: MetricName) -> bool:
    """Whether a metric says anything about these prompts; one that was not measured does, and is an error later."""
    sample = METRICS[name].sample(answers, ())
    return sample is None or bool(sample.prompts)


def pair_of(name: MetricName, candidate: Scorecard, champion: Scorecard, speed: SideBySide | None) -> Pair | str:
    """One metric of two scorecards, or why they cannot be compared; what tells of speed is taken from `speed`, never from the cards."""
    if name in SPEED:
        return _timed_pair(name, candidate, champion, speed)
    return pair_up(name, number_of(candidate, name), number_of(champion, name))


def pair_up(name: MetricName, candidate: Measured | str, champion: Measured | str) -> Pair | str:
    """Both models' number, or the sentence that says why they cannot be compared."""
    if isinstance(candidate, str):
        return f"The candidate's {name} {candidate}."
    if isinstance(champion, str):
        return f"The champion's {name} {champion}."
    ours, theirs = candidate.sample, champion.sample
    if ours.prompts != theirs.prompts or not np.array_equal(ours.owner, theirs.owner):
        return (
            f"{name} was measured on {len(ours.prompts)} prompts for the candidate and {len(theirs.prompts)} for the champion, "
            "and they are not the same ones."
        )
    if name == "perplexity" and not np.array_equal(ours.rows[:, 1], theirs.rows[:, 1]):
        return "The two servers cut the references into different tokens, so their perplexities cannot be compared."
    return Pair(name, candidate, champion)


def _timed_pair(name: MetricName, candidate: Scorecard, champion: Scorecard, speed: SideBySide | None) -> Pair | str:
    if speed is None:
        return f"{name} was not measured side by side, and times of different hours are those of different machines."
    measured = (speed.candidate_model, speed.champion_model, speed.suite_digest)
    if measured != (candidate.model_digest, champion.model_digest, candidate.suite_digest):
        return f"{name} was measured side by side for other models, or on another suite, than these scorecards."
    asked = {answer.prompt_id: answer for answer in candidate.answers}
    if foreign := sorted({timing.prompt_id for timing in (*speed.candidate, *speed.champion)} - asked.keys()):
        return f"{name} was measured side by side on {_some(foreign)}, which the suite does not have."
    ours, theirs = (number_in([_timed(asked[each.prompt_id], each) for each in side], name) for side in (speed.candidate, speed.champion))
    return pair_up(name, ours, theirs)


def _timed(answer: AnswerRecord, timing: Timing) -> AnswerRecord:
    return answer.model_copy(update={"repetition": 0, **timing.model_dump()})


def slices_of(
    answers: Sequence[AnswerRecord], language: str, each: Literal["topic", "tag", "language"]
) -> dict[str, tuple[AnswerRecord, ...]]:
    """The answers of each topic, tag or language, in the order of their names."""
    found: dict[str, list[AnswerRecord]] = {}
    for answer in answers:
        for value in {"topic": (answer.topic,), "tag": answer.tags, "language": (language,)}[each]:
            found.setdefault(value, []).append(answer)
    return {value: tuple(found[value]) for value in sorted(found)}


def _number(sample: Sample | None, name: MetricName) -> Measured | str:
    if sample is None or not sample.prompts:
        return _NOT_MEASURED
    value = METRICS[name].value(sample.rows) if bool(np.isfinite(sample.rows).all()) else math.nan
    return Measured(value, sample) if math.isfinite(value) else _NOT_FINITE


def _by_prompt(card: Scorecard) -> dict[tuple[str, int], AnswerRecord]:
    return {(answer.prompt_id, answer.repetition): answer for answer in card.answers}


def _asked(answer: AnswerRecord) -> tuple[object, ...]:
    """What the suite decides about an answer, and no model can."""
    rules = tuple(sorted((result.rule_id, result.severity) for result in answer.rules))
    return answer.messages, answer.reference, answer.topic, answer.tags, rules


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
