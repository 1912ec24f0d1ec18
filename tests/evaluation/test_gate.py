import itertools
import math
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from evaluation.config import Bound, GateSection, Margin, MetricName
from evaluation.gate import decide, worst
from evaluation.records import AnswerRecord, Outcome
from tests.fakes_evaluation import make_answer, make_card, side_by_side
from tests.fakes_gate import ERROR, FAIL, PASS, WAIT, answers, card, find, policy


@pytest.mark.parametrize(("first", "second"), list(itertools.product(Outcome, Outcome)))
def test_the_worst_outcome_wins(first: Outcome, second: Outcome) -> None:
    order = [PASS, WAIT, FAIL, ERROR]
    assert worst([first, second]) is order[max(order.index(first), order.index(second))]


def test_no_outcome_at_all_is_an_error() -> None:
    assert worst([]) is ERROR


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_pass_promotes(outcome: Outcome) -> None:
    verdict = decide(card(20), None, policy()).model_copy(update={"outcome": outcome})
    assert verdict.promotes == (outcome is PASS)


# must


@pytest.mark.parametrize(
    ("broken", "bound", "outcome"),
    [
        (0, {"max": 0}, PASS),
        (1, {"max": 0}, FAIL),
        (1, {"max": 1}, PASS),
        (2, {"max": 1}, FAIL),
        (0, {"min": 1}, FAIL),
        (1, {"min": 1, "max": 1}, PASS),
    ],
)
def test_an_absolute_bound_is_inclusive(broken: int, bound: dict[str, float], outcome: Outcome) -> None:
    assert decide(card(20, broken), None, policy(must={"critical_failures": bound})).outcome is outcome


@pytest.mark.parametrize(("broken", "outcome"), [(0, PASS), (2, PASS), (3, FAIL)])
def test_a_pass_rate_is_judged_by_its_own_value(broken: int, outcome: Outcome) -> None:
    verdict = decide(card(20, broken), None, policy(must={"rule_pass_rate": {"min": 0.9}}))
    assert verdict.outcome is outcome
    assert find(verdict, "must.rule_pass_rate").interval is not None


def test_zero_failures_say_what_so_few_prompts_cannot_rule_out() -> None:
    """1 - 0.05^(1/45) = 6.4 %."""
    sentence = find(decide(card(45), None, policy()), "must.critical_failures").sentence
    assert "no more is claimed than that the true rate is below 6.4%; to claim 1% takes 299 prompts without one" in sentence


def test_a_suite_on_which_no_critical_rule_holds_cannot_pass_zero_critical_failures() -> None:
    minor_only = make_card([make_answer(number, severity="minor") for number in range(20)])
    verdict = decide(minor_only, None, policy())
    assert verdict.outcome is ERROR
    assert "applies to no prompt" in find(verdict, "must.critical_failures").sentence


# min_prompts


@pytest.mark.parametrize(("count", "outcome"), [(9, WAIT), (10, PASS)])
def test_too_few_prompts_are_inconclusive(count: int, outcome: Outcome) -> None:
    assert decide(card(count), None, policy()).outcome is outcome


def test_too_few_prompts_do_not_hide_a_failure() -> None:
    assert decide(card(5, broken=1), None, policy()).outcome is FAIL


def test_no_answers_at_all_are_an_error() -> None:
    assert decide(make_card([]), None, policy()).outcome is ERROR


# must_not_regress


@pytest.mark.parametrize(
    ("ours", "theirs", "by", "outcome"),
    [
        (0, 0, 0.2, PASS),
        (0, 10, 0.0, PASS),
        (5, 0, 0.2, WAIT),  # measured 12.5 % worse: within the margin, but 20 % cannot be ruled out
        (20, 0, 0.2, FAIL),
        (0, 0, 0.0, WAIT),  # no two models can be shown equal to the last digit
    ],
)
def test_non_inferiority_of_a_pass_rate(ours: int, theirs: int, by: float, outcome: Outcome) -> None:
    verdict = decide(
        card(40, ours),
        card(40, theirs, subject="champion"),
        policy(must_not_regress={"rule_pass_rate": {"by": by}}, must={"empty_answers": {"max": 0}}),
    )
    assert find(verdict, "must_not_regress.rule_pass_rate").outcome is outcome


@pytest.mark.parametrize(
    ("name", "better"),
    [("rouge_l", True), ("bleu_4", True), ("perplexity", False), ("latency_p95_s", False), ("latency_p50_s", False), ("ttft_p95_s", False)],
)
@pytest.mark.parametrize("margin", [{"by": 0.001}, {"by_ratio": 0.01}])
def test_scores_know_which_way_is_worse(name: MetricName, better: bool, margin: dict[str, float]) -> None:
    """Good answers against bad ones on every prompt, both ways round, and a model against itself."""
    good = card(40, answer="call 911 now please", logprob=-5.0, latency_s=1.0)
    bad = card(40, answer="no idea about it all", logprob=-20.0, latency_s=2.0, subject="champion")
    rules = policy(must_not_regress={name: margin})
    label = f"must_not_regress.{name}"
    assert find(decide(good, good, rules, speed=side_by_side(good, good)), label).outcome is PASS
    assert find(decide(bad, good, rules, speed=side_by_side(bad, good)), label).outcome is FAIL
    if not (better and "by_ratio" in margin and bad.metrics[name] == 0):
        assert find(decide(good, bad, rules, speed=side_by_side(good, bad)), label).outcome is PASS


def test_a_ratio_margin_is_a_share_of_the_champions_number() -> None:
    rules = policy(must_not_regress={"latency_p95_s": {"by_ratio": 1.0}})
    champion = card(40, latency_s=1.0, subject="champion")
    for latency_s, outcome in ((1.9, PASS), (2.1, FAIL)):
        candidate = card(40, latency_s=latency_s)
        assert decide(candidate, champion, rules, speed=side_by_side(candidate, champion)).outcome is outcome


def test_a_ratio_of_zero_is_an_error() -> None:
    champion = card(40, answer="zzz", subject="champion")
    verdict = decide(card(40), champion, policy(must_not_regress={"rouge_l": {"by_ratio": 0.1}}))
    assert verdict.outcome is ERROR


def test_a_scattered_small_loss_is_inconclusive_and_says_so() -> None:
    """Latency 1 s, and 3 s on 2 of 40 prompts: the mean of few such prompts may or may not move the 95 % quantile."""
    slow = make_card([make_answer(number, latency_s=3.0 if number < 2 else 1.0) for number in range(40)])
    champion, rules = card(40, subject="champion"), policy(must_not_regress={"latency_p95_s": {"by_ratio": 0.2}})
    verdict = decide(slow, champion, rules, speed=side_by_side(slow, champion))
    condition = find(verdict, "must_not_regress.latency_p95_s")
    assert condition.outcome is WAIT
    assert "ask more prompts" in condition.sentence


# should_improve


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        (0, 5, PASS),  # 5 gained, none lost: p = 1/32
        (0, 4, WAIT),  # p = 1/16
        (0, 0, WAIT),
        (1, 0, FAIL),
    ],
)
def test_improvement_needs_a_paired_test(ours: int, theirs: int, outcome: Outcome) -> None:
    rules = policy(should_improve=["rule_pass_rate"], must={"empty_answers": {"max": 0}})
    verdict = decide(card(40, ours), card(40, theirs, subject="champion"), rules)
    assert find(verdict, "should_improve.rule_pass_rate").outcome is outcome


def test_improvement_of_a_count_means_fewer() -> None:
    rules = policy(should_improve=["critical_failures"])
    assert decide(card(40, 0), card(40, 9, subject="champion"), rules).outcome is PASS


@pytest.mark.parametrize(("ours", "theirs", "outcome"), [(-5.0, -20.0, PASS), (-20.0, -5.0, FAIL), (-5.0, -5.0, WAIT)])
def test_improvement_of_a_score_needs_its_pessimistic_end_above_zero(ours: float, theirs: float, outcome: Outcome) -> None:
    rules = policy(should_improve=["perplexity"])
    assert decide(card(40, logprob=ours), card(40, logprob=theirs, subject="champion"), rules).outcome is outcome


# no champion


def test_a_first_release_is_judged_by_the_absolute_conditions_and_a_note_says_so() -> None:
    verdict = decide(card(40), None, policy(must_not_regress={"rouge_l": {"by": 0.0}}, should_improve=["rule_pass_rate"]))
    assert verdict.outcome is PASS
    assert [condition.name for condition in verdict.conditions] == ["min_prompts", "must.critical_failures"]
    assert "were not judged" in verdict.notes[0]


def test_a_policy_that_requires_a_champion_errs_without_one() -> None:
    assert decide(card(40), None, policy(require_champion=True)).outcome is ERROR


def test_a_policy_without_a_condition_that_applies_is_an_error() -> None:
    loose = GateSection.model_construct(**{**dict(policy()), "must": {}})
    assert decide(card(40), None, loose).outcome is ERROR


@pytest.mark.parametrize("bad", [{"must": {}}, {"must": {}, "should_improve": ["rouge_l"]}])
def test_a_section_that_would_pass_everything_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        policy(**bad)


@pytest.mark.parametrize("bad", [{}, {"min": 2, "max": 1}, {"max": math.nan}])
def test_a_bound_that_bounds_nothing_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Bound.model_validate(bad)


@pytest.mark.parametrize("bad", [{}, {"by": 1, "by_ratio": 1}, {"by": -1}])
def test_a_margin_is_exactly_one_of_two(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Margin.model_validate(bad)


# the whole


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product((0, 1, 5), (0, 1, 5))))
def test_the_same_scorecards_give_the_same_bytes_20_of_20_times(ours: int, theirs: int) -> None:
    rules = policy(
        must_not_regress={"rouge_l": {"by": 0.02}, "latency_p95_s": {"by_ratio": 1.0}}, should_improve=["rule_pass_rate", "rouge_l"]
    )
    candidate, champion = card(40, ours), card(40, theirs, subject="champion")
    speed = side_by_side(candidate, champion)
    assert len({decide(candidate, champion, rules, speed=speed, at="now").model_dump_json() for _ in range(20)}) == 1


def test_a_verdict_names_what_it_was_made_from() -> None:
    candidate, champion = card(40), card(40, 3, subject="champion")
    verdict = decide(candidate, champion, policy())
    assert (verdict.candidate_digest, verdict.champion_digest, verdict.suite_digest) == (
        candidate.digest,
        champion.digest,
        candidate.suite_digest,
    )


def test_a_whole_policy_passes_a_candidate_that_is_better_and_explains_itself() -> None:
    rules = policy(
        must={"critical_failures": {"max": 0}, "rule_pass_rate": {"min": 0.9}},
        must_not_regress={"rouge_l": {"by": 0.02}, "perplexity": {"by_ratio": 0.1}, "latency_p95_s": {"by_ratio": 1.0}},
        should_improve=["rule_pass_rate"],
    )
    candidate, champion = card(40), card(40, 12, subject="champion")
    verdict = decide(candidate, champion, rules, speed=side_by_side(candidate, champion))
    assert verdict.outcome is PASS
    assert len(verdict.conditions) == 7
    assert all(condition.sentence.endswith(".") for condition in verdict.conditions)


def worse_everywhere(count: int) -> Sequence[AnswerRecord]:
    return answers(count, broken=count, answer="", logprob=-90.0, latency_s=30.0)


@pytest.mark.parametrize("count", [10, 40])
def test_a_candidate_that_is_worse_everywhere_fails_every_comparison(count: int) -> None:
    names: tuple[MetricName, ...] = (
        "rule_pass_rate",
        "critical_failures",
        "empty_answers",
        "rouge_l",
        "bleu_4",
        "perplexity",
        "latency_p95_s",
    )
    rules = policy(must_not_regress={name: {"by": 0.01} for name in names}, should_improve=list(names))
    candidate, champion = make_card(worse_everywhere(count)), card(count, answer="call 911 now please", subject="champion")
    verdict = decide(candidate, champion, rules, speed=side_by_side(candidate, champion))
    assert {condition.outcome for condition in verdict.conditions if condition.metric} == {FAIL}
