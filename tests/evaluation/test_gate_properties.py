"""What holds for any two scorecards."""

from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.config import GateSection
from evaluation.gate import decide
from evaluation.records import AnswerRecord, Outcome, Scorecard, Verdict
from tests.fakes_evaluation import make_answer, make_card, side_by_side

SAID = ("", "no idea", "call now", "call 911 now", "call 911 now please")
RULES = GateSection.model_validate(
    {
        "must": {"critical_failures": {"max": 2}, "rule_pass_rate": {"min": 0.7}, "rouge_l": {"min": 0.3, "proven": True}},
        "must_not_regress": {
            "rule_pass_rate": {"by": 0.2},
            "rouge_l": {"by": 0.1},
            "perplexity": {"by_ratio": 0.2},
            "latency_p50_s": {"by_ratio": 0.3},
        },
        "should_improve": ["rule_pass_rate", "rouge_l"],
        "improvement": "any",
        "flip_budget": {"max": 2},
        "slices": [{"each": "topic", "min_prompts": 2, "must": {"rule_pass_rate": {"min": 0.5}}, "not_shown_worse": ["rule_pass_rate"]}],
        "min_prompts": 5,
        "resamples": 200,
    }
)

answer = st.tuples(st.booleans(), st.integers(0, 4), st.integers(1, 40), st.integers(1, 9))
pairs = st.lists(st.tuples(answer, answer), min_size=6, max_size=30)
examples = settings(max_examples=40, deadline=None)


def build(number: int, drawn: tuple[bool, int, int, int]) -> AnswerRecord:
    kept, said, nats, seconds = drawn
    made = make_answer(number, broken=None if kept else "critical", answer=SAID[said], logprob=-float(nats), latency_s=float(seconds))
    return made.model_copy(update={"topic": f"t{number % 2}"})


def cards(drawn: list[tuple[tuple[bool, int, int, int], tuple[bool, int, int, int]]]) -> tuple[Scorecard, Scorecard]:
    ours = [build(number, each) for number, (each, _) in enumerate(drawn)]
    return make_card(ours), make_card([build(number, each) for number, (_, each) in enumerate(drawn)], subject="champion")


def judged(pair: tuple[Scorecard, Scorecard], at: str | None = None) -> Verdict:
    """Each as fast, when they took turns, as its scorecard says."""
    return decide(*pair, RULES, speed=side_by_side(*pair), at=at)


@examples
@given(pairs, st.data())
def test_making_an_answer_worse_never_turns_a_failure_into_a_pass(
    drawn: list[tuple[tuple[bool, int, int, int], tuple[bool, int, int, int]]], data: st.DataObject
) -> None:
    """For the verdict, and for each of its conditions by itself."""
    at = data.draw(st.integers(0, len(drawn) - 1))
    (_, said, nats, seconds), theirs = drawn[at]
    worse = [*drawn[:at], ((False, min(said, data.draw(st.integers(0, 1))), nats + 5, seconds + 3), theirs), *drawn[at + 1 :]]
    before, after = judged(cards(drawn)), judged(cards(worse))
    assert not (before.outcome is Outcome.FAIL and after.promotes)
    for first, second in zip(before.conditions, after.conditions, strict=True):
        assert not (first.outcome is Outcome.FAIL and second.outcome is Outcome.PASS), (first, second)


@examples
@given(pairs, st.randoms(use_true_random=False))
def test_shuffling_the_prompts_changes_nothing(
    drawn: list[tuple[tuple[bool, int, int, int], tuple[bool, int, int, int]]], random: object
) -> None:
    ours, theirs = cards(drawn)
    mixed = list(ours.answers)
    random.shuffle(mixed)  # type: ignore[attr-defined]  # hypothesis hands out a random.Random
    assert judged((make_card(mixed), theirs)).conditions == judged((ours, theirs)).conditions


@examples
@given(pairs)
def test_the_same_scorecards_give_the_same_bytes(drawn: list[tuple[tuple[bool, int, int, int], tuple[bool, int, int, int]]]) -> None:
    one, other = judged(cards(drawn), at="now"), judged(cards(drawn), at="now")
    assert one.model_dump_json() == other.model_dump_json()


@examples
@given(pairs)
def test_no_sentence_is_missing_and_no_interval_leaves_the_measured_difference_out(
    drawn: list[tuple[tuple[bool, int, int, int], tuple[bool, int, int, int]]],
) -> None:
    for condition in judged(cards(drawn)).conditions:
        assert condition.sentence.endswith(".")
        if condition.difference is not None and condition.interval is not None:
            low, high = condition.interval
            assert low is None or low <= condition.difference + 1e-9
            assert high is None or high >= condition.difference - 1e-9


@examples
@given(pairs)
def test_a_model_against_itself_is_never_shown_better_or_worse(
    drawn: list[tuple[tuple[bool, int, int, int], tuple[bool, int, int, int]]],
) -> None:
    ours, _ = cards(drawn)
    outcomes = {condition.name: condition.outcome for condition in judged((ours, ours)).conditions}
    assert outcomes["should_improve"] is Outcome.INCONCLUSIVE
    assert outcomes["flip_budget"] is Outcome.PASS
    assert Outcome.FAIL not in [outcomes[name] for name in outcomes if "must_not_regress" in name or "not_shown_worse" in name]
