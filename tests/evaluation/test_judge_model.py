"""A judge adds a grade and excuses nothing; whatever it does wrong, no answer becomes good by it."""

from pathlib import Path
from typing import Any, Literal

import pytest

from evaluation.aggregates import METRICS, measure
from evaluation.client import Endpoint
from evaluation.config import JudgeSection
from evaluation.errors import JudgeError
from evaluation.judge_model import GRADES_NAME, grade_answers, read_grade
from evaluation.records import AnswerRecord
from tests.fakes_evaluation import KEY, MODEL, FakeModel, make_answer, serve


def section(endpoint: Endpoint, **changes: Any) -> JudgeSection:
    return JudgeSection.model_validate(
        {"base_url": endpoint.base_url, "model": MODEL, "api_key_env": "JUDGE_KEY", "attempts": 1, "timeout_s": 2} | changes
    )


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)


def graded(model: FakeModel, answers: list[AnswerRecord], out: Path, **changes: Any) -> tuple[AnswerRecord, ...]:
    with serve(model) as endpoint:
        return grade_answers(answers, section(endpoint, **changes), out)


def rate(answers: tuple[AnswerRecord, ...]) -> float | None:
    return measure(answers, ())["judge_pass_rate"]


@pytest.mark.parametrize(
    ("said", "style", "passed", "reason"),
    [
        ("PASS: clear and safe.", "verdict", True, "clear and safe."),
        ("**FAIL** it is unsafe", "verdict", False, "it is unsafe"),
        ("<think>PASS or FAIL?</think>\nFAIL - wrong dose", "verdict", False, "wrong dose"),
        ("PASS", "verdict", True, "PASS"),
        ("PASS or FAIL", "verdict", None, "neither"),
        ("I think it should PASS", "verdict", None, "neither"),
        ("PASSABLE", "verdict", None, "neither"),
        ("", "verdict", None, "neither"),
        ("safe", "llama_guard", True, "safe"),
        ("\n\nunsafe\nS1,S10", "llama_guard", False, "S1, S10"),
        ("unsafe", "llama_guard", False, "no category"),
        ("unsafe\nS1 because it is bad", "llama_guard", None, "neither"),
        ("safe or not", "llama_guard", None, "neither"),
        ("PASS", "llama_guard", None, "neither"),
    ],
)
def test_a_judges_words_are_read_strictly(said: str, style: Literal["verdict", "llama_guard"], passed: bool | None, reason: str) -> None:
    grade = read_grade(said, style)
    assert grade.passed is passed
    assert reason in grade.reason


def test_a_judge_never_excuses_what_a_rule_found(tmp_path: Path) -> None:
    answers = graded(FakeModel(answer=lambda _: "PASS fine"), [make_answer(1), make_answer(2, broken="critical")], tmp_path)
    assert [answer.grade.passed for answer in answers if answer.grade] == [True, True]
    assert rate(answers) == 0.5
    assert measure(answers, ())["critical_failures"] == 1


@pytest.mark.parametrize("fault", ["http_500", "cut", "not_json", "slow"])
def test_one_answer_without_a_grade_and_nothing_is_measured(fault: Any, tmp_path: Path) -> None:
    model = FakeModel(answer=lambda _: "PASS it is all fine here", faults=[fault], slow_s=1.0)
    answers = graded(model, [make_answer(1), make_answer(2)], tmp_path, concurrency=1)
    assert [answer.grade.passed for answer in answers if answer.grade] == [None, True]
    assert rate(answers) is None


def test_nonsense_is_not_measured_either_and_is_asked_again_next_time(tmp_path: Path) -> None:
    assert rate(graded(FakeModel(answer=lambda _: "well, hm"), [make_answer(1)], tmp_path)) is None
    assert rate(graded(FakeModel(answer=lambda _: "PASS"), [make_answer(1)], tmp_path)) == 1


def test_grades_are_kept_and_not_asked_for_again(tmp_path: Path) -> None:
    with serve(FakeModel(answer=lambda _: "PASS")) as endpoint:
        judge = section(endpoint)
        grade_answers([make_answer(1)], judge, tmp_path)
    answers = grade_answers([make_answer(1)], judge, tmp_path)  # its server is gone
    assert rate(answers) == 1


def test_a_dead_judge_is_given_up_on(tmp_path: Path) -> None:
    judge = JudgeSection(base_url="http://127.0.0.1:9", model="m", attempts=1, concurrency=1)
    answers = grade_answers([make_answer(number) for number in range(8)], judge, tmp_path)
    assert [answer.grade.reason.startswith("not asked") for answer in answers if answer.grade] == [False] * 5 + [True] * 3
    assert rate(answers) is None


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = graded(FakeModel(answer=lambda _: "PASS"), [make_answer(1)], tmp_path)
    assert KEY not in (tmp_path / GRADES_NAME).read_text(encoding="utf-8")
    assert KEY not in answers[0].model_dump_json()
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(JudgeError, match="JUDGE_KEY, which is not set"):
        graded(FakeModel(), [make_answer(1)], tmp_path)


def test_a_guard_reads_the_conversation_and_a_general_model_gets_it_as_data(tmp_path: Path) -> None:
    guard, general = FakeModel(answer=lambda _: "safe"), FakeModel(answer=lambda _: "PASS")
    graded(guard, [make_answer(1)], tmp_path, style="llama_guard")
    graded(general, [make_answer(1)], tmp_path, criteria="Be kind.")
    assert [message["role"] for message in guard.chats[0]["messages"]][-2:] == ["user", "assistant"]
    (task,) = general.chats[0]["messages"]
    assert "Be kind." in task["content"]
    assert task["content"].count("===") == 6


def test_the_metric_is_a_share_so_that_exact_tests_apply() -> None:
    assert METRICS["judge_pass_rate"].kind == "share"
