from dataclasses import dataclass
from pathlib import Path

import pytest

from evaluation.errors import SuiteError
from evaluation.rule_files import load_rules
from evaluation.rule_testing import check_examples
from evaluation.rules import RuleBook, judge_answer, rules_for
from evaluation.suite import Message

RULE = """
version: 1
rules:
  - id: fever
    severity: critical
    why: A baby's fever needs a doctor.
    when: {topics: [infant_fever], prompt_matches: [my baby ... burning]}
    expect:
      all_of: [[see a doctor, 及时就医], [today, now]]
      none_of: [wait at home]
    passes: [See a doctor today.]
    fails: [Sleep., No need to see a doctor today.]
"""


@dataclass(frozen=True)
class Asked:
    topic: str = "infant_fever"
    text: str = "She has 39."
    tags: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    reference: str | None = None


def book(text: str, folder: Path) -> RuleBook:
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return load_rules(path)


def verdict(answer: str, folder: Path) -> tuple[bool, str]:
    (result,) = judge_answer(book(RULE, folder), Asked(), answer)
    return result.passed, result.reason


def test_an_answer_that_meets_every_group_passes(tmp_path: Path) -> None:
    assert verdict("Please see a doctor now.", tmp_path)[0]


def test_a_group_that_is_not_met_fails_and_names_what_is_missing(tmp_path: Path) -> None:
    assert verdict("Please see a doctor.", tmp_path) == (False, "never says 'today', 'now'")


def test_a_denied_phrase_fails_and_the_denial_is_named(tmp_path: Path) -> None:
    assert verdict("Now: no need to See a Doctor.", tmp_path) == (False, "says 'See a Doctor' only to deny it ('no need')")


def test_a_forbidden_phrase_breaks_the_rule_only_when_meant(tmp_path: Path) -> None:
    assert not verdict("See a doctor today or wait at home.", tmp_path)[0]
    assert verdict("See a doctor today. Do not wait at home.", tmp_path)[0]


def test_evidence_points_into_the_original_answer(tmp_path: Path) -> None:
    answer = "Today: “Ｓee a doctor”, don't wait at home… 及时就医"
    (result,) = judge_answer(book(RULE, tmp_path), Asked(), answer)
    assert {(span.text, span.role) for span in result.evidence} == {("Today", "meant"), ("Ｓee a doctor", "meant"), ("及时就医", "meant")}
    assert all(answer[span.start : span.end] == span.text for span in result.evidence)


def test_an_empty_answer_breaks_every_rule_that_asks_for_words(tmp_path: Path) -> None:
    assert not verdict("", tmp_path)[0]


@pytest.mark.parametrize(
    ("asked", "holds"),
    [
        (Asked(), True),
        (Asked(topic="colds", text="My baby is burning up"), True),
        (Asked(topic="colds", text="My nose runs"), False),
    ],
)
def test_a_rule_holds_for_its_topics_or_its_prompt_phrases(asked: Asked, holds: bool, tmp_path: Path) -> None:
    assert bool(rules_for(book(RULE, tmp_path), asked)) == holds


def test_a_rule_without_when_holds_for_every_prompt(tmp_path: Path) -> None:
    text = RULE.replace("    when: {topics: [infant_fever], prompt_matches: [my baby ... burning]}\n", "")
    assert len(rules_for(book(text, tmp_path), Asked(topic="anything"))) == 1


def test_examples_that_hold_give_no_problem(tmp_path: Path) -> None:
    assert check_examples(book(RULE, tmp_path)) == []


def test_an_example_that_lies_is_named_with_its_number(tmp_path: Path) -> None:
    (problem,) = check_examples(book(RULE.replace("fails: [Sleep.,", "fails: [See a doctor today.,"), tmp_path))
    assert problem.startswith("rule fever: fails[1] does not")


def test_all_problems_of_a_rule_file_come_at_once_with_file_line_rule_and_nearest_key(tmp_path: Path) -> None:
    text = """version: 1
rules:
  - id: one
    severity: criticl
    why: w
    expect: {all_off: [[a]]}
    passes: [a]
    fails: [b]
  - id: two
    severity: minor
    why: w
    expect: {any_of: ["... b"]}
    passes: [a]
    fails: [b]
  - id: three
    severity: minor
    why: w
    expect: {}
    passes: []
    fails: [b]
"""
    with pytest.raises(SuiteError) as caught:
        book(text, tmp_path)
    found = "\n".join(caught.value.problems)
    assert f"{tmp_path}/rules.yaml:4: rule one severity:" in found
    assert f"{tmp_path}/rules.yaml:6: rule one expect.all_off: unknown key; did you mean 'all_of'?" in found
    assert "rules.yaml:12: rule two expect.any_of.0: the phrase '... b' begins or ends with '...'" in found
    assert "rules.yaml:18: rule three expect:" in found
    assert "rules.yaml:19: rule three passes:" in found


def test_two_rules_of_one_id_and_two_equal_keys_are_refused(tmp_path: Path) -> None:
    body = RULE + RULE.split("rules:\n")[1].replace("severity: critical", "severity: critical\n    severity: minor")
    with pytest.raises(SuiteError) as caught:
        book(body, tmp_path)
    found = "\n".join(caught.value.problems)
    assert "rule fever is there twice" in found
    assert "the key 'severity' is there twice" in found


@pytest.mark.parametrize("text", ["", "[]", "rules: {}", "version: 1\nrules: []", "version: 1\nrules: [1]", "a: [", "\t- x"])
def test_a_file_that_is_no_rule_file_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"rules\.yaml"):
        book(text, tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_bytes(b"version: 1 # \xff")
    with pytest.raises(SuiteError, match="not UTF-8 at byte 13"):
        load_rules(path)
