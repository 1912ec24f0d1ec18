"""Several suites as one: every rule stays with its own prompts, and one name is one suite."""

from pathlib import Path

import pytest
import yaml

from evaluation.errors import SuiteError
from evaluation.rules import judge_answer, rules_for
from evaluation.suite_union import load_suites
from tests.fakes_suites import PROMPT, RULES, write_suite


def named(folder: Path, name: str, **header: object) -> Path:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | {"name": name} | header), encoding="utf-8")
    return folder


def test_one_suite_is_itself(tmp_path: Path) -> None:
    assert load_suites([write_suite(tmp_path)]).name == "small"


def test_rules_stay_with_the_prompts_of_their_suite(tmp_path: Path) -> None:
    everywhere = RULES.replace("    when: {topics: [pain]}\n", "").replace("pain-call", "own")
    first = write_suite(tmp_path / "a", rules=everywhere)
    other = named(write_suite(tmp_path / "b"), "other")
    united = load_suites([first, other])
    assert united.name == "small + other"
    held = {prompt.id: [rule.id for rule in rules_for(united.rules, prompt)] for prompt in united.prompts}
    assert held == {"p0": ["own"], "p1": ["own"], "other: p0": ["other: pain-call"], "other: p1": ["other: pain-call"]}
    assert [result.passed for result in judge_answer(united.rules, united.prompts[2], "Call 911.")] == [True]


def test_the_digest_covers_every_part(tmp_path: Path) -> None:
    first, other = write_suite(tmp_path / "a"), named(write_suite(tmp_path / "b"), "other")
    digests = {load_suites([first]).digest, load_suites([first, other]).digest, load_suites([other, first]).digest}
    named(write_suite(tmp_path / "b", prompts=[PROMPT | {"prompt": "Changed?"}]), "other")
    assert len(digests | {load_suites([first, other]).digest}) == 4


@pytest.mark.parametrize(
    ("prompts", "what"), [([PROMPT], "two suites of one name and other content"), (None, "the same suite is named twice")]
)
def test_two_suites_of_one_name_are_refused(prompts: list[dict[str, object]] | None, what: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=what):
        load_suites([write_suite(tmp_path / "a"), write_suite(tmp_path / "b", prompts=prompts)])


def test_references_in_another_language_are_refused(tmp_path: Path) -> None:
    other = named(write_suite(tmp_path / "b"), "other", language="zh")
    with pytest.raises(SuiteError, match="has references in 'zh'"):
        load_suites([write_suite(tmp_path / "a"), other])


def test_problems_of_all_suites_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        load_suites([tmp_path / "nowhere", write_suite(tmp_path / "b", prompts=[{"id": "x"}])])
    assert "nowhere/suite.yaml: no such file" in "\n".join(caught.value.problems)
    assert "prompt x topic: is missing" in "\n".join(caught.value.problems)


def test_a_missing_reference_is_named_unless_only_rules_judge(tmp_path: Path) -> None:
    bare = {key: value for key, value in PROMPT.items() if key != "reference"}
    folder = write_suite(tmp_path, prompts=[bare])
    with pytest.raises(SuiteError, match="reference: is missing; without one only rules can judge"):
        load_suites([folder])
    assert load_suites([named(folder, "small", references="optional")]).prompts[0].reference == ""
