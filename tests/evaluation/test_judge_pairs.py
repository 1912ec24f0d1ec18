"""A judge compares two models' answers in both orders; what a rule found outweighs whatever it says."""

from pathlib import Path
from typing import Any, Literal

import pytest

from evaluation.config import GateSection, JudgeSection
from evaluation.gate import decide
from evaluation.judge_pairs import CHOICES_NAME, Winner, compare_answers, winner
from evaluation.records import Choice, Condition, Outcome, Preferences, Scorecard
from tests.fakes_evaluation import KEY, MODEL, FakeModel, make_answer, make_card, serve
from training.records import RECORD_NAME

PASS, WAIT, FAIL, ERROR = Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL, Outcome.ERROR
POLICY = GateSection.model_validate(
    {"must": {"empty_answers": {"max": 0}}, "judge_win_rate": {"min_win_rate": 0.5, "min_prompts": 5}, "min_prompts": 1, "resamples": 200}
)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)


def card(answer: str, count: int = 6, broken: int = 0) -> Scorecard:
    """The last `broken` answers break the critical rule."""
    return make_card(
        [make_answer(number, answer=answer, broken="critical" if number >= count - broken else None) for number in range(count)]
    )


def compared(model: FakeModel, ours: Scorecard, theirs: Scorecard, out: Path, **changes: Any) -> Preferences:
    with serve(model) as endpoint:
        values = {"base_url": endpoint.base_url, "model": MODEL, "api_key_env": "JUDGE_KEY", "attempts": 1, "timeout_s": 2} | changes
        return compare_answers(ours, theirs, JudgeSection.model_validate(values), out)


def condition(ours: Scorecard, theirs: Scorecard, found: Preferences | None, policy: GateSection = POLICY) -> Condition:
    return next(each for each in decide(ours, theirs, policy, preferences=found).conditions if each.name == "judge_win_rate")


def prefers_good(task: str) -> str:
    return "A" if "answer A: good" in task else "B"


@pytest.mark.parametrize(
    ("says", "preferred", "outcome"),
    [
        (prefers_good, "candidate", PASS),
        (lambda task: "B" if "answer A: good" in task else "A", "champion", FAIL),
        (lambda _: "A", "tie", PASS),
        (lambda _: "B", "tie", PASS),
        (lambda _: "<think>A or B?</think> TIE", "tie", PASS),
        (lambda task: "A" if "answer A: good" in task else "TIE", "tie", PASS),
    ],
)
def test_a_preference_must_survive_that_the_answers_swap_places(says: Any, preferred: str, outcome: Outcome, tmp_path: Path) -> None:
    ours, theirs = card("good"), card("bad")
    found = compared(FakeModel(answer=says), ours, theirs, tmp_path)
    assert {choice.preferred for choice in found.choices} == {preferred}
    assert condition(ours, theirs, found).outcome is outcome


@pytest.mark.parametrize("preferred", ["candidate", "champion", "tie"])
@pytest.mark.parametrize(
    ("ours", "theirs", "allowed"),
    [
        (False, False, {"candidate": "candidate", "champion": "champion", "tie": "tie"}),
        (True, False, {"candidate": "champion", "champion": "champion", "tie": "champion"}),
        (False, True, {"candidate": "candidate", "champion": "tie", "tie": "tie"}),
        (True, True, {"candidate": "tie", "champion": "tie", "tie": "tie"}),
    ],
)
def test_an_answer_that_breaks_a_rule_never_wins(ours: bool, theirs: bool, allowed: dict[str, str], preferred: Winner) -> None:
    one, other = (make_answer(1, broken="critical" if broken else None) for broken in (ours, theirs))
    assert winner(one, other, preferred) == allowed[preferred]


def test_a_judge_that_loves_the_candidate_lifts_no_verdict(tmp_path: Path) -> None:
    """All its answers break the critical rule and none of the champion's: the judge is not even asked."""
    ours, theirs, judge = card("good", broken=6), card("bad"), FakeModel(answer=prefers_good)
    found = compared(judge, ours, theirs, tmp_path)
    assert judge.chats == []
    policy = POLICY.model_copy(update={"must": GateSection().must})
    assert condition(ours, theirs, found, policy).outcome is FAIL
    assert decide(ours, theirs, policy, preferences=found).outcome is FAIL


def test_the_same_answer_twice_is_a_tie_without_asking(tmp_path: Path) -> None:
    judge = FakeModel(answer=lambda _: "A")
    found = compared(judge, card("good"), card("good"), tmp_path)
    assert (judge.chats, {choice.preferred for choice in found.choices}) == ([], {"tie"})


@pytest.mark.parametrize("fault", ["nonsense", "http_500", "no_finish"])
def test_a_judge_without_a_clear_word_is_an_error_and_is_asked_again(fault: Any, tmp_path: Path) -> None:
    ours, theirs = card("good"), card("bad")
    judge = FakeModel(answer=lambda _: "both") if fault == "nonsense" else FakeModel(answer=prefers_good, faults=[fault] * 12)
    found = compared(judge, ours, theirs, tmp_path, concurrency=1)
    assert condition(ours, theirs, found).outcome is ERROR
    assert not (tmp_path / RECORD_NAME).exists()
    assert condition(ours, theirs, compared(FakeModel(answer=prefers_good), ours, theirs, tmp_path)).outcome is PASS


def test_what_was_said_is_kept_and_a_torn_line_passed_over(tmp_path: Path) -> None:
    ours, theirs, judge = card("good"), card("bad"), FakeModel(answer=prefers_good)
    with serve(judge) as endpoint:
        section = JudgeSection(base_url=endpoint.base_url, model=MODEL, api_key_env="JUDGE_KEY")
        first = compare_answers(ours, theirs, section, tmp_path)
        asked = len(judge.chats)
        with (tmp_path / CHOICES_NAME).open("a", encoding="utf-8") as log:
            log.write('{"key": "torn')
        assert compare_answers(ours, theirs, section, tmp_path).digest == first.digest
    assert len(judge.chats) == asked == 12


@pytest.mark.parametrize("side", ["candidate", "champion"])
def test_preferences_of_other_answers_are_an_error(side: Literal["candidate", "champion"], tmp_path: Path) -> None:
    cards = {"candidate": card("good"), "champion": card("bad")}
    found = compared(FakeModel(answer=prefers_good), cards["candidate"], cards["champion"], tmp_path)
    cards[side] = card("another")
    assert condition(cards["candidate"], cards["champion"], found).outcome is ERROR


def test_no_preferences_or_not_of_every_prompt_are_an_error(tmp_path: Path) -> None:
    ours, theirs = card("good"), card("bad")
    found = compared(FakeModel(answer=prefers_good), ours, theirs, tmp_path)
    one_twice = (*found.choices[:-1], Choice(prompt_id="p000", preferred="candidate"))
    assert condition(ours, theirs, None).outcome is ERROR
    assert condition(ours, theirs, found.model_copy(update={"choices": found.choices[:-1]})).outcome is ERROR
    assert condition(ours, theirs, found.model_copy(update={"choices": one_twice})).outcome is ERROR


def test_too_few_prompts_are_inconclusive(tmp_path: Path) -> None:
    ours, theirs = card("good", 4), card("bad", 4)
    assert condition(ours, theirs, compared(FakeModel(answer=prefers_good), ours, theirs, tmp_path)).outcome is WAIT
