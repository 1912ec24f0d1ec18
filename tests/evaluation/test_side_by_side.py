"""Two servers timed by turns, and what the gate makes of it."""

from pathlib import Path

import pytest

from evaluation.config import EvaluationSection, GateSection
from evaluation.errors import EndpointError
from evaluation.gate import decide
from evaluation.records import Condition, Outcome, Scorecard, SideBySide, Timing
from evaluation.side_by_side import measure_side_by_side, spread, turns
from evaluation.suite import load_suite
from tests.fakes_evaluation import FakeModel, make_answer, make_card, serve
from tests.fakes_suites import PROMPT, write_suite
from training.progress import silent
from training.records import RECORD_NAME

PASS, WAIT, FAIL, ERROR = Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL, Outcome.ERROR
TWICE = GateSection.model_validate({"must_not_regress": {"latency_p95_s": {"by_ratio": 1.0}}, "min_prompts": 10, "resamples": 200})


def card(latency_s: float = 1.0, model: str = "m") -> Scorecard:
    return make_card([make_answer(number, latency_s=latency_s) for number in range(40)]).model_copy(update={"model_digest": model * 64})


def timings(latency_s: float, count: int = 24) -> tuple[Timing, ...]:
    return tuple(
        Timing(prompt_id=f"p{number:03d}", latency_s=latency_s, ttft_s=latency_s / 4, completion_tokens=20) for number in range(count)
    )


def measured(ours: float, theirs: float, **update: object) -> SideBySide:
    """The candidate's model is `m`, the champion's `c`."""
    whole = SideBySide(
        created_at="now",
        candidate_model="m" * 64,
        champion_model="c" * 64,
        suite_digest="s" * 64,
        generation=card().generation,
        in_flight=8,
        candidate=timings(ours),
        champion=timings(theirs),
    )
    return whole.model_copy(update=update)


def speed_of(candidate: Scorecard, champion: Scorecard, speed: SideBySide | None, policy: GateSection = TWICE) -> Condition:
    return next(each for each in decide(candidate, champion, policy, speed=speed).conditions if each.metric == "latency_p95_s")


@pytest.mark.parametrize(("ours", "theirs", "outcome"), [(1.0, 1.0, PASS), (1.9, 1.0, PASS), (2.1, 1.0, FAIL), (0.1, 9.0, PASS)])
def test_speed_is_judged_by_what_was_timed_side_by_side(ours: float, theirs: float, outcome: Outcome) -> None:
    """The scorecards say the opposite each time: theirs were taken at another hour."""
    assert speed_of(card(theirs), card(ours, "c"), measured(ours, theirs)).outcome is outcome


def test_an_old_scorecard_of_a_quiet_hour_fails_nobody() -> None:
    slow_now, quick_then = card(29.0), card(6.7, "c")
    assert speed_of(slow_now, quick_then, measured(1.1, 1.0)).outcome is PASS


@pytest.mark.parametrize(
    ("speed", "words"),
    [
        (None, "was not measured side by side"),
        (measured(1, 1, candidate_model="x" * 64), "for other models"),
        (measured(1, 1, champion_model="x" * 64), "for other models"),
        (measured(1, 1, suite_digest="x" * 64), "for other models"),
        (measured(1, 1, candidate=timings(1, 41)), "which the suite does not have"),
        (measured(1, 1, champion=timings(1, 23)), "they are not the same ones"),
        (measured(1, 1, candidate=(), champion=()), "was not measured"),
    ],
)
def test_without_a_fair_measurement_of_these_two_there_is_no_verdict_on_speed(speed: SideBySide | None, words: str) -> None:
    condition = speed_of(card(), card(model="c"), speed)
    assert condition.outcome is ERROR
    assert words in condition.sentence


def test_too_few_prompts_never_pass() -> None:
    few = measured(1, 1, candidate=timings(1, 19), champion=timings(1, 19))
    assert speed_of(card(), card(model="c"), few).outcome is WAIT


def test_a_verdict_names_the_measurement_only_where_the_policy_compares_speed() -> None:
    speed, other = measured(1, 1), TWICE.model_copy(update={"must_not_regress": {}})
    assert decide(card(), card(model="c"), TWICE, speed=speed).speed_digest == speed.digest
    assert decide(card(), card(model="c"), other, speed=speed).speed_digest is None


@pytest.mark.parametrize("key", ["must_not_regress", "not_shown_worse"])
def test_a_policy_that_compares_speed_on_slices_is_refused(key: str) -> None:
    value = {"tokens_per_s": {"by": 1}} if key == "must_not_regress" else ["tokens_per_s"]
    with pytest.raises(ValueError, match="speed is compared on the whole"):
        GateSection.model_validate({"slices": [{"each": "topic", key: value}]})


def test_the_servers_take_turns_and_each_goes_first_as_often() -> None:
    assert list(turns(4)) == [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1), (3, 1), (3, 0)]


@pytest.fixture
def suite_of_thirty(tmp_path: Path) -> Path:
    prompts = [{**PROMPT, "id": f"q{number:02d}", "prompt": f"Question {number}?"} for number in range(30)]
    return write_suite(tmp_path / "suite", prompts=prompts)


def test_both_servers_are_asked_the_same_prompts_and_neither_from_a_cache(suite_of_thirty: Path, tmp_path: Path) -> None:
    """24 of 30 prompts, 8 at once: three turns each, after one answer that is not counted."""
    suite, ours, theirs = load_suite(suite_of_thirty), FakeModel(), FakeModel()
    section = EvaluationSection(suite=suite_of_thirty)
    with serve(ours) as candidate, serve(theirs) as champion:
        record = measure_side_by_side(candidate, champion, suite, section, models=("a", "b"), out=tmp_path / "out", report=silent)
    asked = [each.id for each in spread(suite.prompts, 24)]
    assert [each.prompt_id for each in record.candidate] == [each.prompt_id for each in record.champion] == asked
    assert [len(ours.chats), len(theirs.chats), ours.most_in_flight] == [25, 25, 8]
    assert len({chat["cache_salt"] for chat in ours.chats}) == 2
    assert {chat["max_tokens"] for chat in ours.chats} == {min(32, suite.generation.max_tokens)}
    assert SideBySide.read(tmp_path / "out") == record


def test_a_server_that_dies_leaves_no_measurement(suite_of_thirty: Path, tmp_path: Path) -> None:
    section = EvaluationSection(suite=suite_of_thirty, attempts=1)
    suite, out = load_suite(suite_of_thirty), tmp_path / "out"
    with (
        serve(FakeModel()) as candidate,
        serve(FakeModel(faults=["none", "none", "cut"])) as champion,
        pytest.raises(EndpointError) as failure,
    ):
        measure_side_by_side(candidate, champion, suite, section, models=("a", "b"), out=out, report=silent)
    assert "side by side" in str(failure.value.__notes__)
    assert not (out / RECORD_NAME).exists()
