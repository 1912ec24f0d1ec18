"""Mutants are what they say, rules that are weak are found out, and rules that run without end are named."""

import pytest

from evaluation.evidence import Case
from evaluation.mutations import Mutation, mutants_of
from evaluation.rule_testing import check_examples, run_tests
from evaluation.rules import Rule, RuleBook


def rule(expect: dict[str, object], passes: list[str], fails: list[str]) -> Rule:
    return Rule.model_validate({"id": "r", "severity": "major", "why": "w", "expect": expect, "passes": passes, "fails": fails})


CALL = rule({"any_of": ["call 911", "dial 911"]}, ["Call 911. Sit down."], ["Sit down."])
WAIT = rule({"none_of": ["wait at home"]}, ["Call 911."], ["Wait at home."])
FEVER = rule({"any_of": ["{38 °C}"]}, ["The limit is 38 °C."], ["Sleep."])
CHINESE = rule({"any_of": ["打电话"]}, ["打电话。"], ["睡觉。"])


@pytest.mark.parametrize(
    ("tested", "answer", "keeps", "mutation", "made", "verdict"),
    [
        (CALL, "Call 911. Sit down.", True, "negate", "call 911.", False),
        (CALL, "Call 911. Sit down.", True, "hide in a quotation", '"Call 911. Sit down"', False),
        (CALL, "Call 911. Sit down.", True, "take back", "Call 911. Sit down. ", False),
        (CALL, "Call 911. Sit down.", True, "paraphrase", "Dial 911. Sit down.", True),
        (CALL, "Call 911. Sit down.", True, "reorder", "Sit down. Call 911.", True),
        (CALL, "Call 911. Sit down.", True, "other case", "CALL 911. SIT DOWN.", True),
        (CALL, "Call 911. Sit down.", True, "other width", "Ｃａｌｌ ９１１．", True),
        (WAIT, "Wait at home.", False, "negate", "wait at home", True),
        (WAIT, "Wait at home.", False, "hide in a quotation", '"Wait at home"', True),
        (FEVER, "The limit is 38 °C.", True, "wrong unit", "38  °F", False),
        (CHINESE, "打电话。", True, "other script", "打電話。", True),
    ],
)
def test_a_mutant_is_what_it_says(tested: Rule, answer: str, keeps: bool, mutation: Mutation, made: str, verdict: bool) -> None:
    (mutant,) = [each for each in mutants_of(tested, Case(answer), keeps=keeps) if each.mutation == mutation]
    assert made in mutant.answer
    assert mutant.keeps == verdict


def test_rules_that_hold_are_caught_out_by_no_mutant() -> None:
    report = run_tests(RuleBook(version=1, rules=(CALL, WAIT, FEVER, CHINESE)))
    assert report.problems == ()
    assert report.survivors == ()
    assert report.catch_rate == 1
    assert report.by_rule() == {"r": (len(report.trials), len(report.trials))}


def test_a_rule_that_does_not_look_at_units_is_found_out() -> None:
    """A plain number in a regular expression is met by any unit; the mutants of the example in letters survive."""
    weak = rule({"any_of": ["call /911/", "/9.1/"]}, ["Call 911. Sit down."], ["Sleep."])
    assert {each.mutant.mutation for each in run_tests(RuleBook(version=1, rules=(weak,))).survivors} <= {
        "negate",
        "hide in a quotation",
        "take back",
    }


def test_a_bomb_that_its_examples_do_not_set_off_is_named() -> None:
    bomb = rule({"any_of": ["/(a|aa)+$|call/"]}, ["Call."], ["Sleep."])
    (problem,) = check_examples(RuleBook(version=1, rules=(bomb,)))
    assert "needs more than 0.5 s" in problem
    assert "repetition inside a repetition" in problem
