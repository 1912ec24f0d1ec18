"""Whatever is missing, not finite, forged or measured on other terms is an ERROR: the gate fails closed."""

import math

import pytest

from evaluation.gate import decide
from evaluation.records import AnswerRecord, Scorecard
from evaluation.rules import RuleResult
from evaluation.suite import Generation, Message
from tests.fakes_evaluation import make_answer, make_card, side_by_side
from tests.fakes_gate import ERROR, answers, card, find, policy


def repeated(answer: AnswerRecord, repetition: int) -> AnswerRecord:
    return answer.model_copy(update={"repetition": repetition})


def changed(given: list[AnswerRecord], **update: object) -> Scorecard:
    """A scorecard whose fourth answer is another one in a field."""
    return make_card([*given[:3], given[3].model_copy(update=update), *given[4:]])


COMPARING = [{"must_not_regress": {"perplexity": {"by_ratio": 0.5}}}, {"should_improve": ["perplexity"]}]


@pytest.mark.parametrize("comparing", COMPARING)
@pytest.mark.parametrize("side", ["candidate", "champion"])
def test_a_number_that_was_not_measured_is_an_error(comparing: dict[str, object], side: str) -> None:
    with_it, without = card(40), card(40, logprob=None)
    pair = (without, with_it) if side == "candidate" else (with_it, without)
    verdict = decide(*pair, policy(**comparing))
    assert verdict.outcome is ERROR
    assert any(f"The {side}'s perplexity was not measured" in condition.sentence for condition in verdict.conditions)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("comparing", [{"must": {"perplexity": {"max": 100}}}, *COMPARING])
def test_a_number_that_is_not_finite_is_an_error(bad: float, comparing: dict[str, object]) -> None:
    """The schema refuses such a record; the gate does not rely on it."""
    sound = card(40)
    spoilt = sound.model_copy(update={"metrics": {**sound.metrics, "perplexity": bad}, "created_at": "x"})
    spoilt_digest = sound.digest
    verdict = decide(_with_digest(spoilt, spoilt_digest), sound, policy(**comparing))
    assert verdict.outcome is ERROR
    assert any("is not a finite number" in condition.sentence for condition in verdict.conditions)


def _with_digest(spoilt: Scorecard, digest: str) -> Scorecard:
    """A scorecard that answers `digest` although its content has none, as NaN has no canonical JSON."""

    class Spoilt(Scorecard):
        @property
        def digest(self) -> str:
            return digest

    return Spoilt.model_construct(**dict(spoilt))


def test_a_number_that_its_answers_do_not_give_is_an_error() -> None:
    sound = card(40, broken=3)
    forged = sound.model_copy(update={"metrics": {**sound.metrics, "critical_failures": 0.0}})
    verdict = decide(forged, None, policy())
    assert verdict.outcome is ERROR
    assert "its answers give 3" in find(verdict, "must.critical_failures").sentence


@pytest.mark.parametrize("comparing", COMPARING)
@pytest.mark.parametrize(
    "other",
    [
        make_card(answers(40), suite_digest="t" * 64),
        make_card(answers(40), concurrency=9),
        make_card(answers(40)).model_copy(update={"generation": Generation(max_tokens=17)}),
        make_card(answers(40)).model_copy(update={"generation": Generation(max_tokens=16, temperature=0.5)}),
        make_card(answers(40)).model_copy(update={"bleu_signature": "other"}),
        make_card(answers(40)).model_copy(update={"language": "zh"}),
        make_card(answers(40)).model_copy(update={"suite_version": 2}),
        make_card(answers(39)),
        make_card(answers(41)),
        make_card([*answers(39), make_answer(77)]),
        make_card([*answers(40), make_answer(7)]),
        make_card([*answers(40), *(repeated(answer, 1) for answer in answers(40))]),
        changed(answers(40), reference="another one"),
        changed(answers(40), messages=(Message(role="user", content="Something else?"),)),
        changed(answers(40), topic="sleep"),
        changed(answers(40), tags=("night",)),
        changed(answers(40), rules=()),
        changed(answers(40), rules=(RuleResult(rule_id="q", severity="critical", passed=True, reason=""),)),
    ],
    ids=[
        "suite",
        "concurrency",
        "max_tokens",
        "temperature",
        "signature",
        "language",
        "version",
        "missing prompt",
        "extra prompt",
        "other prompt",
        "duplicate",
        "repetitions",
        "reference",
        "conversation",
        "topic",
        "tags",
        "rules left out",
        "other rules",
    ],
)
def test_scorecards_of_other_terms_are_never_compared(other: Scorecard, comparing: dict[str, object]) -> None:
    assert find(decide(card(40), other, policy(**comparing)), "comparable").outcome is ERROR
    assert find(decide(other, card(40), policy(**comparing)), "comparable").outcome is ERROR


@pytest.mark.parametrize(
    "broken",
    [
        [*answers(40), make_answer(7)],
        [*answers(40), make_answer(7).model_copy(update={"repetition": 1})],
    ],
    ids=["duplicate", "one prompt answered more often"],
)
def test_a_scorecard_that_is_not_whole_is_an_error_even_alone(broken: list[AnswerRecord]) -> None:
    verdict = decide(make_card(broken), None, policy())
    assert verdict.outcome is ERROR
    assert "p0" in find(verdict, "complete").sentence


def test_the_order_of_the_answers_decides_nothing() -> None:
    rules = policy(
        must_not_regress={"rouge_l": {"by": 0.1}, "bleu_4": {"by": 1}, "latency_p95_s": {"by_ratio": 1}}, should_improve=["rouge_l"]
    )
    mixed = [make_answer(number, answer=f"call 911 {'now ' * (number % 4)}", latency_s=1 + number % 7) for number in range(40)]
    champion, speed = card(40, 3), side_by_side(make_card(mixed), card(40, 3))
    straight = decide(make_card(mixed), champion, rules, speed=speed)
    assert decide(make_card(mixed[::-1]), champion, rules, speed=speed).conditions == straight.conditions


def test_perplexities_over_different_tokens_are_never_compared() -> None:
    other = make_card([answer.model_copy(update={"reference_tokens": 11}) for answer in answers(40)])
    verdict = decide(card(40), other, policy(must_not_regress={"perplexity": {"by_ratio": 9}}))
    assert verdict.outcome is ERROR
    assert "different tokens" in find(verdict, "must_not_regress.perplexity").sentence
