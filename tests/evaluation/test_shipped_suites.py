"""The suites under flows/recipes: they load, their rules keep their own promises, and their references are good answers."""

from pathlib import Path

import pytest

from evaluation.rule_testing import check_examples, run_tests
from evaluation.rules import judge_answer, rules_for
from evaluation.suite import Suite, load_suite
from evaluation.suite_union import load_suites

RECIPES = Path(__file__).parents[2] / "flows" / "recipes"
SUITES = {path.parent.relative_to(RECIPES).as_posix(): path.parent for path in sorted(RECIPES.rglob("suite.yaml"))}


def suite(name: str) -> Suite:
    return load_suite(SUITES[name])


def test_the_five_suites_are_there() -> None:
    assert sorted(SUITES) == ["clinic_en/suite", "clinic_en/validation", "clinic_zh/suite", "clinic_zh/validation", "safety"]


@pytest.mark.parametrize("name", SUITES)
def test_every_rule_passes_and_fails_what_its_author_says(name: str) -> None:
    assert check_examples(suite(name).rules) == []


@pytest.mark.parametrize("name", SUITES)
def test_every_rule_has_three_examples_of_each_kind(name: str) -> None:
    assert [rule.id for rule in suite(name).rules.rules if len(rule.passes) < 3 or len(rule.fails) < 3] == []


@pytest.mark.parametrize("name", SUITES)
def test_every_reference_keeps_every_rule(name: str) -> None:
    loaded = suite(name)
    broken = [
        (prompt.id, result.rule_id, result.reason)
        for prompt in loaded.prompts
        if prompt.reference
        for result in judge_answer(loaded.rules, prompt, prompt.reference)
        if not result.passed
    ]
    assert broken == []


@pytest.mark.parametrize("name", SUITES)
def test_no_rule_is_met_by_silence_alone_where_it_is_critical_action(name: str) -> None:
    """Every prompt of a topic with a critical rule has one that an empty answer breaks."""
    loaded = suite(name)
    for prompt in loaded.prompts:
        if any(rule.severity == "critical" and rule.when for rule in rules_for(loaded.rules, prompt)):
            assert any(not result.passed for result in judge_answer(loaded.rules, prompt, "")), prompt.id


@pytest.mark.parametrize(
    ("name", "prompts", "ruled", "rules", "topics"), [("clinic_en/suite", 90, 45, 12, 8), ("clinic_zh/suite", 40, 20, 10, 8)]
)
def test_a_gates_suite_is_large_enough(name: str, prompts: int, ruled: int, rules: int, topics: int) -> None:
    loaded = suite(name)
    assert len(loaded.prompts) >= prompts
    assert sum(bool(rules_for(loaded.rules, prompt)) for prompt in loaded.prompts) >= ruled
    assert len(loaded.rules.rules) >= rules
    assert len(loaded.rules.topics) >= topics


@pytest.mark.parametrize("language", ["clinic_en", "clinic_zh"])
def test_validation_prompts_are_not_in_the_gates_suite(language: str) -> None:
    gate = {prompt.text for prompt in suite(f"{language}/suite").prompts}
    validation = {prompt.text for prompt in suite(f"{language}/validation").prompts}
    assert len(validation) >= 12
    assert not gate & validation


@pytest.mark.parametrize("name", ["clinic_en/suite", "clinic_zh/suite", "safety"])
def test_rules_tell_nearly_all_mutants_of_their_examples_apart(name: str) -> None:
    report = run_tests(suite(name).rules)
    assert len(report.trials) > 10
    assert report.catch_rate >= 0.98, report.survivors


@pytest.mark.parametrize("name", ["clinic_en/suite", "clinic_zh/suite"])
def test_the_safety_suite_can_be_added_to_a_recipes_own(name: str) -> None:
    united = load_suites([SUITES[name], SUITES["safety"]])
    added = [prompt for prompt in united.prompts if prompt.id.startswith("safety: ")]
    assert len(added) >= 50
    assert {rule.id.startswith("safety: ") for prompt in added for rule in rules_for(united.rules, prompt)} == {True}
    assert all(rules_for(united.rules, prompt) for prompt in added)
