"""What answers are worth under rules, and which prompts may be learned from."""

from pathlib import Path

import pytest

from evaluation.rules import RuleResult, Severity
from evaluation.suite import load_suite
from flows.errors import RecipeError
from flows.recipe import load_recipe
from flows.rewards import require_prompts, reward_by_model, reward_by_rules, worth
from flows.stage_process import StageRequest, run_stage
from tests.fakes_flows import recipe_values, write_recipe
from tests.fakes_suites import PROMPT, write_suite
from tests.fakes_training import QUESTIONS, TinyLine, sft_section
from tests.repository.checkout import ROOT
from training.data.leakage import SuitePrompt
from training.progress import silent
from training.records import AdapterArtifact
from training.rewarding import Answered
from training.sft import train_sft

SUITE = ROOT / "flows" / "recipes" / "clinic_en" / "suite"


def result(severity: Severity, passed: bool) -> RuleResult:
    return RuleResult(rule_id="a", severity=severity, passed=passed, reason="because")


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([("critical", True), ("minor", True)], 1.0),
        ([("critical", True), ("minor", False)], 4 / 5),
        ([("major", False), ("minor", True)], 1 / 3),
        ([("critical", False), ("minor", True)], 1 / 5 - 1),
        ([("critical", False)], -1.0),
    ],
)
def test_rules_count_by_severity_and_a_broken_critical_one_outweighs_all(results: list[tuple[Severity, bool]], expected: float) -> None:
    assert worth([result(severity, passed) for severity, passed in results]) == pytest.approx(expected)


def test_an_answer_is_judged_under_its_own_prompts_rules() -> None:
    suite = load_suite(SUITE)
    ruled = next(prompt for prompt in suite.prompts if prompt.topic == "chest_pain")
    answers = [Answered(ruled.id, text, [], []) for text in (ruled.reference, "Wait and see, it will pass.")]

    good, bad = reward_by_rules(suite).rewards(answers)

    assert good is not None
    assert bad is not None
    assert good > 0 > bad


def test_a_reward_model_reads_the_prompts_tokens_and_then_the_answers() -> None:
    rewarding = reward_by_model(lambda rows: [float(sum(row)) for row in rows], "d")

    assert rewarding.rewards([Answered("a", "", (1, 2), (3,))]) == [6.0]


def test_prompts_that_the_model_is_judged_by_are_refused_by_name(tmp_path: Path) -> None:
    suite = load_suite(SUITE)
    judged = [SuitePrompt("gate", "first", suite.prompts[0].text.upper(), "")]

    with pytest.raises(RecipeError, match=r"gate/first is the same as a prompt of online\.prompts"):
        require_prompts(suite, judged, by_rules=True)


def test_a_prompt_that_no_rule_holds_for_is_refused_only_where_rules_reward() -> None:
    suite = load_suite(SUITE)
    book = suite.rules.model_copy(update={"rules": tuple(rule for rule in suite.rules.rules if rule.when)[:1]})
    few = suite.model_copy(update={"rules": book})

    require_prompts(few, [], by_rules=False)
    with pytest.raises(RecipeError, match="every answer to it would be worth the same"):
        require_prompts(few, [], by_rules=True)


RULES = """
version: 1
rules:
  - id: says-doctor
    severity: major
    why: Somebody has to look.
    expect: {any_of: [doctor]}
    passes: [See a doctor.]
    fails: [Wait and see.]
  - id: says-rest
    severity: minor
    why: It helps.
    expect: {any_of: [rest]}
    passes: [Rest a little.]
    fails: [Wait and see.]
"""


def test_a_stage_learns_from_the_rules_of_its_suite(tmp_path: Path) -> None:
    tiny = TinyLine(tmp_path / "tiny")
    parent = tmp_path / "sft"
    train_sft(tiny.model, sft_section(dropout=0.0), tiny.base, tiny.dataset_dir, tiny.dataset, parent, silent)
    online = {"prompts": "practice", "learning_rate": 1e-3, "max_new_tokens": 16, "batch_size": 4}
    values = recipe_values() | {"sft": sft_section(dropout=0.0).model_dump(mode="json"), "online": online}
    values["model"] = tiny.model.model_dump()
    recipe = write_recipe(tmp_path / "recipe", values)
    asked = [PROMPT | {"id": str(number), "prompt": question} for number, question in enumerate(QUESTIONS[:8])]
    write_suite(tmp_path / "recipe" / "practice", prompts=asked, rules=RULES)
    request = StageRequest(
        stage="online", recipe=load_recipe(recipe), home=tmp_path, out=tmp_path / "out", base=Path(tiny.base.folder), adapter=parent
    )

    run_stage(request, silent)

    artifact = AdapterArtifact.read(tmp_path / "out")
    assert (artifact.stage, artifact.objective, artifact.steps) == ("online", "grpo, rewarded by rules, 4 answers, beta 0.05", 2)
    assert artifact.first_reward is not None
    assert 0 <= artifact.first_reward <= 1
