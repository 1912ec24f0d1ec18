"""Proven bounds, flip budgets, slices, one of several improvements, and prompts that were asked several times."""

import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from evaluation.client import ChatAnswer
from evaluation.config import Bound, FlipBudget, GateSection, SliceSection
from evaluation.gate import decide
from evaluation.records import AnswerRecord, Condition, Outcome, Scorecard, Verdict
from evaluation.scoring import judge
from evaluation.suite import load_suite
from tests.fakes_evaluation import make_answer, make_card, side_by_side
from tests.fakes_suites import PROMPT, write_suite

PASS, WAIT, FAIL, ERROR = Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL, Outcome.ERROR
HARMLESS = {"empty_answers": {"max": 0}}


def policy(**kwargs: object) -> GateSection:
    return GateSection.model_validate({"must": HARMLESS, "min_prompts": 1, "resamples": 400, **kwargs})


def answers(passed: list[bool], *, topic: str = "sleep", tags: tuple[str, ...] = (), start: int = 0) -> list[AnswerRecord]:
    """One answer each, keeping its rule or not."""
    return [
        make_answer(start + number, broken=None if each else "critical").model_copy(update={"topic": topic, "tags": tags})
        for number, each in enumerate(passed)
    ]


def card(*parts: list[AnswerRecord], subject: str = "candidate") -> Scorecard:
    return make_card([answer for part in parts for answer in part], subject=subject)


def counts(good: int, bad: int) -> list[bool]:
    return [True] * good + [False] * bad


def find(verdict: Verdict, name: str) -> Condition:
    return next(condition for condition in verdict.conditions if condition.name == name)


# proven


@pytest.mark.parametrize(
    ("good", "bad", "outcome"),
    [
        (100, 0, PASS),  # Wilson's lower bound is n / (n + z^2) = 97.4 %
        (95, 5, WAIT),  # 95 % measured, 90.1 % at the pessimistic end
        (89, 11, FAIL),
    ],
)
def test_a_proven_bound_is_kept_by_the_pessimistic_end(good: int, bad: int, outcome: Outcome) -> None:
    rules = policy(must={"rule_pass_rate": {"min": 0.92 if outcome is not FAIL else 0.9, "proven": True}})
    assert find(decide(card(answers(counts(good, bad))), None, rules), "must.rule_pass_rate").outcome is outcome


@pytest.mark.parametrize(("prompts", "outcome"), [(19, WAIT), (20, PASS)])
def test_a_score_is_not_proven_by_a_handful(prompts: int, outcome: Outcome) -> None:
    rules = policy(must={"rouge_l": {"min": 0.1, "proven": True}})
    assert find(decide(card(answers(counts(prompts, 0))), None, rules), "must.rouge_l").outcome is outcome


def test_nothing_proves_that_there_are_no_failures_at_all() -> None:
    with pytest.raises(ValidationError, match="no number of prompts proves"):
        Bound(max=0, proven=True)


@pytest.mark.parametrize(("prompts", "outcome"), [(19, WAIT), (20, PASS)])
def test_a_score_is_not_found_equal_on_a_handful(prompts: int, outcome: Outcome) -> None:
    same = card(answers(counts(prompts, 0)))
    rules = policy(must_not_regress={"rouge_l": {"by": 0.5}})
    assert find(decide(same, same, rules), "must_not_regress.rouge_l").outcome is outcome


# flip budget


@pytest.mark.parametrize(
    ("budget", "outcome"),
    [
        ({"max": 2}, PASS),
        ({"max": 1}, FAIL),
        ({"max_share": 0.1}, PASS),
        ({"max_share": 0.09}, FAIL),
        ({"max": 2, "max_share": 0.09}, FAIL),
        ({"max": 0, "max_share": 1.0}, FAIL),
    ],
)
def test_a_flip_budget_counts_what_is_broken_however_much_is_mended(budget: dict[str, float], outcome: Outcome) -> None:
    """20 prompts: the champion passes the first 10, the candidate all but the first two."""
    ours, theirs = card(answers([False] * 2 + [True] * 18)), card(answers(counts(10, 10)), subject="champion")
    condition = find(decide(ours, theirs, policy(flip_budget=budget)), "flip_budget")
    assert (condition.outcome, condition.broken, condition.measured) == (outcome, ("p000", "p001"), 2)
    assert "2 prompts of 20 that the champion passed are broken (p000, p001), 10 mended" in condition.sentence


def test_a_flip_budget_needs_a_limit() -> None:
    with pytest.raises(ValidationError, match="give max"):
        FlipBudget()


def test_a_suite_without_rules_has_no_flips_to_count() -> None:
    bare = make_card([answer.model_copy(update={"rules": ()}) for answer in answers(counts(20, 0))])
    assert find(decide(bare, bare, policy(flip_budget={"max": 3})), "flip_budget").outcome is ERROR


# one of several


def scored(good: int, bad: int, words: str) -> Scorecard:
    return make_card([make_answer(n, broken=None if n < good else "critical", answer=words) for n in range(good + bad)])


def test_one_improvement_of_several_is_enough_where_the_policy_says_any() -> None:
    """5 prompts gained is p = 1/32; Holm doubles it to 1/16, and 6 gained to 1/32."""
    same = "call 911 now"
    for gained, outcome in ((5, WAIT), (6, PASS)):
        rules = policy(should_improve=["rule_pass_rate", "empty_answers"], improvement="any")
        condition = find(decide(scored(20, 20, same), scored(20 - gained, 20 + gained, same), rules), "should_improve")
        assert (condition.outcome, condition.metric) == (outcome, "rule_pass_rate")
        assert condition.p_value == pytest.approx(2 * 0.5**gained)


def test_all_improvements_have_to_be_shown_by_default() -> None:
    rules = policy(should_improve=["rule_pass_rate", "empty_answers"])
    verdict = decide(scored(20, 20, "x"), scored(10, 30, "x"), rules)
    assert [find(verdict, f"should_improve.{name}").outcome for name in rules.should_improve] == [PASS, WAIT]


def test_worse_in_everything_is_a_failure_and_not_merely_undecided() -> None:
    rules = policy(should_improve=["rule_pass_rate", "rouge_l"], improvement="any")
    verdict = decide(scored(10, 30, "zzz"), scored(20, 20, "call 911 now"), rules)
    assert find(verdict, "should_improve").outcome is FAIL


def test_one_improvement_that_cannot_be_compared_is_an_error_whatever_the_others_are() -> None:
    rules = policy(should_improve=["rule_pass_rate", "forgetting_accuracy"], improvement="any")
    assert find(decide(scored(40, 0, "x"), scored(0, 40, "x"), rules), "should_improve").outcome is ERROR


# slices


@pytest.mark.parametrize(
    ("good", "outcome"),
    [(9, PASS), (8, FAIL)],
)
def test_a_bound_in_each_topic_is_judged_there(good: int, outcome: Outcome) -> None:
    """80 prompts of another topic keep the average high."""
    whole = card(answers(counts(80, 0), topic="colds"), answers(counts(good, 10 - good), start=100))
    rules = policy(slices=[{"each": "topic", "must": {"rule_pass_rate": {"min": 0.9}}}])
    verdict = decide(whole, None, rules)
    assert find(verdict, "slices.topic=sleep.must.rule_pass_rate").outcome is outcome
    assert find(verdict, "slices.topic=colds.must.rule_pass_rate").outcome is PASS


@pytest.mark.parametrize(("each", "name"), [("topic", "topic=sleep"), ("tag", "tag=night"), ("language", "language=en")])
def test_prompts_are_sorted_by_topic_tag_or_language(each: str, name: str) -> None:
    whole = card(answers(counts(10, 0), tags=("night",)))
    condition = decide(whole, None, policy(slices=[{"each": each, "must": {"rule_pass_rate": {"min": 0.9}}}])).conditions[-1]
    assert (condition.name, condition.slice, condition.prompts) == (f"slices.{name}.must.rule_pass_rate", name, 10)
    assert condition.sentence.startswith(f"On {name}, ")


@pytest.mark.parametrize(
    "section",
    [
        {"each": "topic", "only": ["slep"], "must": {"rule_pass_rate": {"min": 0.5}}},
        {"each": "tag", "must": {"rule_pass_rate": {"min": 0.5}}},
        {"each": "topic", "must": {"major_failures": {"max": 0}}},
        {"each": "topic", "must": {"forgetting_accuracy": {"min": 0.5}}},
        {"each": "topic", "only": ["slep"], "not_shown_worse": ["rule_pass_rate"]},
        {"each": "tag", "not_shown_worse": ["rule_pass_rate"]},
        {"each": "topic", "must_not_regress": {"major_failures": {"by": 1}}},
        {"each": "topic", "not_shown_worse": ["forgetting_accuracy"]},
    ],
)
def test_a_slice_condition_that_finds_nothing_to_judge_is_an_error(section: dict[str, object]) -> None:
    whole = card(answers(counts(40, 0)))
    assert decide(whole, whole, policy(slices=[section])).outcome is ERROR


@pytest.mark.parametrize(("size", "outcome"), [(4, WAIT), (5, PASS)])
def test_a_slice_of_too_few_prompts_is_inconclusive(size: int, outcome: Outcome) -> None:
    whole = card(answers(counts(40, 0), topic="colds"), answers(counts(size, 0), start=100))
    rules = policy(slices=[{"each": "topic", "must": {"rule_pass_rate": {"min": 0.5}}}])
    assert decide(whole, None, rules).outcome is outcome


def test_too_few_prompts_do_not_hide_a_slice_that_fails() -> None:
    whole = card(answers(counts(40, 0), topic="colds"), answers(counts(0, 2), start=100))
    assert decide(whole, None, policy(slices=[{"each": "topic", "must": {"rule_pass_rate": {"min": 0.5}}}])).outcome is FAIL


def test_no_regression_in_a_slice_has_to_be_shown_there() -> None:
    rules = policy(slices=[{"each": "topic", "must_not_regress": {"rule_pass_rate": {"by": 0.1}}}])
    theirs = card(answers(counts(200, 0), topic="colds"), answers(counts(10, 0), start=300), subject="champion")
    verdict = decide(card(answers(counts(200, 0), topic="colds"), answers(counts(10, 0), start=300)), theirs, rules)
    assert find(verdict, "slices.topic=colds.must_not_regress.rule_pass_rate").outcome is PASS
    assert find(verdict, "slices.topic=sleep.must_not_regress.rule_pass_rate").outcome is WAIT


@pytest.mark.parametrize(
    ("lost", "slices", "outcome"),
    [
        (5, 1, FAIL),  # p = 1/32
        (4, 1, PASS),  # p = 1/16
        (5, 2, PASS),  # 2/32 after Holm
        (6, 2, FAIL),  # 2/64
        (6, 4, PASS),  # 4/64
    ],
)
def test_a_slice_is_shown_worse_only_after_correction_for_all_slices(lost: int, slices: int, outcome: Outcome) -> None:
    parts = [answers(counts(30, 0), topic=f"t{number}", start=100 * number) for number in range(slices)]
    hurt = [answers(counts(30 - lost, lost), topic="t0"), *parts[1:]]
    rules = policy(slices=[{"each": "topic", "not_shown_worse": ["rule_pass_rate"]}])
    condition = find(decide(card(*hurt), card(*parts, subject="champion"), rules), "slices.topic=t0.not_shown_worse.rule_pass_rate")
    assert condition.outcome is outcome
    assert condition.p_value == pytest.approx(slices * 0.5**lost)


@pytest.mark.parametrize(("size", "outcome"), [(8, WAIT), (9, PASS)])
def test_a_slice_in_which_no_loss_could_be_shown_is_inconclusive(size: int, outcome: Outcome) -> None:
    """Of 18 slices, all of 9 prompts lost is 18/512 < 0.05, all of 8 is not."""
    parts = [answers(counts(size, 0), topic=f"t{number}", start=20 * number) for number in range(18)]
    rules = policy(slices=[{"each": "topic", "not_shown_worse": ["rule_pass_rate"]}])
    assert decide(card(*parts), card(*parts, subject="champion"), rules).outcome is outcome


@pytest.mark.parametrize(
    "bad",
    [
        {"each": "topic"},
        {"each": "colour", "must": HARMLESS},
        {"each": "topic", "only": ["a", "a"], "must": HARMLESS},
        {"each": "topic", "not_shown_worse": ["rouge_l", "rouge_l"]},
        {"each": "topic", "must": HARMLESS, "min_prompts": 0},
    ],
)
def test_a_slice_section_that_says_nothing_or_twice_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SliceSection.model_validate(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"should_improve": ["rouge_l", "rouge_l"]},
        {"alpha": 0.001, "resamples": 2000},
        {"must": {}, "slices": [{"each": "topic", "not_shown_worse": ["rouge_l"]}]},
        {"must": {}, "flip_budget": {"max": 1}},
        {"correction": "bonferroni"},
        {"improvement": "some"},
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        policy(**bad)


def test_a_prompts_tags_go_into_its_answers(tmp_path: Path) -> None:
    suite = load_suite(write_suite(tmp_path, prompts=[PROMPT | {"tags": ["night"]}]))
    chat = ChatAnswer(text="Call 911.", finish_reason="stop", latency_s=1.0, ttft_s=0.1, completion_tokens=3)
    assert judge(suite, suite.prompts[0], chat).tags == ("night",)


# several answers to a prompt


def several(passes: list[int], times: int = 4) -> Scorecard:
    """Each prompt asked `times` times, and passed so many of them."""
    return make_card(
        [
            make_answer(number, broken=None if turn < good else "critical").model_copy(update={"repetition": turn})
            for number, good in enumerate(passes)
            for turn in range(times)
        ]
    )


def test_answers_to_one_prompt_count_as_one_prompt() -> None:
    """One prompt of ten fails 4 of 4 times: 4 of 40 answers, but 1 of 10 prompts, whose exact bound is 39.4 %."""
    condition = find(decide(several([4] * 9 + [0]), None, policy(must={"critical_failures": {"max": 4}})), "must.critical_failures")
    assert (condition.measured, condition.prompts, condition.outcome) == (4, 10, PASS)
    assert "4 of 40 answers" in condition.sentence
    assert "below 39.4%" in condition.sentence


def test_asking_again_does_not_make_a_few_prompts_many() -> None:
    """Five prompts better, four times each, is p near 1/32 and not the 1/2^20 of twenty independent answers."""
    rules = policy(should_improve=["rule_pass_rate"])
    condition = find(decide(several([4] * 20), several([4] * 15 + [0] * 5), rules), "should_improve.rule_pass_rate")
    assert condition.p_value == pytest.approx(1 / 32, abs=0.02)


def test_most_answers_decide_whether_a_prompt_is_flipped() -> None:
    """The champion passes all; 4, 3, 2 and 0 of 4 answers: a half is not most."""
    condition = find(decide(several([4, 3, 2, 0]), several([4] * 4), policy(flip_budget={"max": 9})), "flip_budget")
    assert condition.broken == ("p002", "p003")


def test_min_prompts_counts_prompts_and_not_answers() -> None:
    assert find(decide(several([4] * 10), None, policy(min_prompts=11)), "min_prompts").outcome is WAIT


# the whole


def test_2000_prompts_in_20_topics_are_decided_in_a_second() -> None:
    """Measured in processor time, with room for a slow machine; the benchmark of the gate says what it takes."""
    four = [make_answer(0, answer=f"call 911 {'now ' * number}", logprob=-9.0 - number, latency_s=1.0 + number) for number in range(4)]
    cards = [
        make_card(
            [
                four[(number * step) % 4].model_copy(update={"prompt_id": f"p{number:04d}", "topic": f"t{number % 20}"})
                for number in range(2000)
            ]
        )
        for step in (3, 7)
    ]
    rules = policy(
        must_not_regress={"rouge_l": {"by": 0.02}, "perplexity": {"by_ratio": 0.1}, "latency_p95_s": {"by_ratio": 1.0}},
        should_improve=["rule_pass_rate", "rouge_l"],
        flip_budget={"max": 3},
        slices=[{"each": "topic", "must": {"critical_failures": {"max": 0}}, "not_shown_worse": ["rule_pass_rate"]}],
        resamples=2000,
    )
    speed = side_by_side(cards[0], cards[1])
    decide(cards[0], cards[1], rules, speed=speed)
    began = time.process_time()
    assert len(decide(cards[0], cards[1], rules, speed=speed).conditions) == 48
    assert time.process_time() - began < 2.0
