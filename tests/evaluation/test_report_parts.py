"""What the report's pictures and lists are made of."""

import math

import pytest

from evaluation.config import GateSection
from evaluation.gate import decide
from evaluation.records import AnswerRecord
from evaluation.report_answers import Change, answer_rows, count_changes, cut_pieces, rule_rows
from evaluation.report_charts import forest, latency_curves, length_bars
from evaluation.report_numbers import Difference, number_rows, slices
from evaluation.report_text import ends, in_words, moment, number
from evaluation.rules import RuleResult, Span
from tests.fakes_evaluation import make_answer, make_card, side_by_side


def breaking(*rules: str, answer: str = "call 911 now") -> AnswerRecord:
    """An answer to one prompt that is judged by the rules a and b, and breaks these."""
    results = tuple(RuleResult(rule_id=rule, severity="major", passed=rule not in rules, reason="") for rule in ("a", "b"))
    return make_answer(1, answer=answer).model_copy(update={"rules": results})


@pytest.mark.parametrize(
    ("ours", "theirs", "change"),
    [
        (breaking("a"), breaking(), "broken"),
        (breaking("a"), breaking("b"), "broken"),
        (breaking("a", "b"), breaking("b"), "broken"),
        (breaking("a"), breaking("a"), "still"),
        (breaking("a"), breaking("a", "b"), "still"),
        (breaking(), breaking("b"), "fixed"),
        (breaking(answer="x"), breaking(answer="y"), "changed"),
        (breaking(answer="x"), breaking(answer="x"), "same"),
        (breaking("a"), None, "broken"),
        (breaking(), None, "kept"),
    ],
)
def test_a_prompt_changes_by_the_rules_that_each_model_breaks(ours: AnswerRecord, theirs: AnswerRecord | None, change: Change) -> None:
    rows = answer_rows(make_card([ours]), make_card([theirs]) if theirs else None)
    assert count_changes(rows) == {change: 1}


def test_evidence_is_cut_out_with_its_role() -> None:
    answer = "No need to call 911; wait at home."
    spans = (
        Span(start=11, end=19, text="call 911", phrase="call 911", role="denied"),
        Span(start=21, end=33, text="wait at home", phrase="wait at home", role="forbidden"),
    )
    pieces = cut_pieces(answer, [RuleResult(rule_id="r", severity="critical", passed=False, reason="", evidence=spans)])
    assert [(piece.text, piece.mark) for piece in pieces] == [
        ("No need to ", ""),
        ("call 911", "denied"),
        ("; ", ""),
        ("wait at home", "forbidden"),
        (".", ""),
    ]


def test_overlapping_evidence_shows_the_worse_role() -> None:
    spans = (Span(start=0, end=4, text="abcd", phrase="x", role="meant"), Span(start=2, end=6, text="cdef", phrase="y", role="forbidden"))
    pieces = cut_pieces("abcdef", [RuleResult(rule_id="r", severity="minor", passed=False, reason="", evidence=spans)])
    assert [(piece.text, piece.mark) for piece in pieces] == [("ab", "meant"), ("cdef", "forbidden")]


def test_evidence_beyond_the_end_of_an_answer_adds_nothing_to_it() -> None:
    spans = (Span(start=2, end=99, text="c", phrase="c", role="meant"),)
    assert (
        "".join(
            piece.text for piece in cut_pieces("abc", [RuleResult(rule_id="r", severity="minor", passed=True, reason="", evidence=spans)])
        )
        == "abc"
    )


def test_a_rule_counts_the_answers_that_break_it_on_both_sides() -> None:
    (row,) = rule_rows(make_card([breaking("a")]), make_card([breaking("a")]))
    assert (row.rule_id, row.judged, row.ours, row.theirs) == ("a", 1, 1, 1)


@pytest.mark.parametrize(
    ("difference", "higher", "tone", "value"),
    [
        (Difference(0.1, False, (0.05, 0.15), None), True, "better", "right"),
        (Difference(0.1, False, (0.05, 0.15), None), False, "worse", "left"),
        (Difference(-0.1, False, (-0.3, 0.1), None), True, "open", "left"),
        (Difference(0.0, False, (0.0, 0.0), None), True, "open", "middle"),
        (Difference(0.1, False, (None, 0.15), 0.02), True, "open", "right"),
    ],
)
def test_better_is_to_the_right_whichever_way_a_metric_runs(difference: Difference, higher: bool, tone: str, value: str) -> None:
    row = forest(difference, higher)
    assert row is not None
    assert row.tone == tone
    assert (row.value > 50, row.value < 50) == (value == "right", value == "left")
    assert 0 <= row.low <= row.value <= row.high <= 100


def test_the_allowed_loss_lies_to_the_left_and_the_scale_holds_it() -> None:
    """The widest thing is the margin of 0.2; with 12 % of air it stands at 50 - 50/1.12."""
    row = forest(Difference(0.1, False, (0.05, 0.15), 0.2), True)
    assert row is not None
    assert row.margin == pytest.approx(50 - 50 / 1.12)


def test_without_an_interval_there_is_no_row_in_the_plot() -> None:
    assert forest(Difference(0.1, False, None, None), True) is None


def test_a_metric_that_the_gate_compared_is_shown_with_the_gates_own_interval() -> None:
    policy = GateSection(min_prompts=1, resamples=200, must_not_regress={"latency_p50_s": {"by_ratio": 0.5}})  # type: ignore[dict-item]
    ours, theirs = (make_card([make_answer(number, latency_s=scale * (1 + number / 10)) for number in range(9)]) for scale in (1.0, 2.0))
    verdict = decide(ours, theirs, policy, speed=side_by_side(ours, theirs))
    (condition,) = [each for each in verdict.conditions if each.name == "must_not_regress.latency_p50_s"]
    (row,) = [row for row in number_rows(ours, theirs, verdict, policy) if row.name == "latency_p50_s"]
    assert row.difference is not None
    assert (row.difference.interval, row.difference.margin, row.difference.ratio) == (condition.interval, 0.5, True)
    assert row.difference.value == pytest.approx(-0.5)
    assert in_words(row.difference) == "−50.0 %"


def test_two_suites_get_no_interval() -> None:
    ours, theirs = make_card([make_answer(1)]), make_card([make_answer(1)], suite_digest="t" * 64)
    rows = number_rows(ours, theirs, decide(ours, theirs, GateSection(min_prompts=1)), GateSection())
    assert {row.difference.interval if row.difference else None for row in rows} == {None}


def test_the_topic_that_lost_most_comes_first() -> None:
    def card(broken: str) -> list[AnswerRecord]:
        return [
            make_answer(n, broken="minor" if topic == broken else None).model_copy(update={"topic": topic}) for n, topic in enumerate("abc")
        ]

    found = slices(make_card(card("b")), make_card(card("a")), 0.05)
    assert [(each.topic, each.ours.kept, each.theirs.kept if each.theirs else None) for each in found] == [
        ("b", 0, 1),
        ("c", 1, 1),
        ("a", 1, 0),
    ]


def test_a_latency_curve_ends_at_everything_and_names_the_median() -> None:
    """Latencies 1 to 5 s: the median is 3 s, the axis goes to 5 s, and the last step reaches the top at its right end."""
    whole, first = latency_curves(make_card([make_answer(number, latency_s=float(number)) for number in range(1, 6)]), None)
    assert (whole.medians, whole.ticks[-1]) == ((3.0,), (100.0, "5"))
    assert whole.paths[0].endswith("H1000.0V0.0H1000")
    assert first.medians == (pytest.approx(0.3),)


def test_many_latencies_make_a_short_path() -> None:
    (whole, _) = latency_curves(make_card([make_answer(number, latency_s=1 + number / 1000) for number in range(2000)]), None)
    assert whole.paths[0].count("V") <= 301


def test_lengths_are_in_tokens_only_where_every_answer_was_counted() -> None:
    answers = [make_answer(number).model_copy(update={"completion_tokens": 5}) for number in range(3)]
    assert length_bars(make_card(answers), None).title == "Tokens per answer"  # type: ignore[union-attr]
    assert length_bars(make_card([*answers, make_answer(9)]), None).title == "Characters per answer"  # type: ignore[union-attr]


def test_the_bars_hold_every_answer() -> None:
    bars = length_bars(make_card([make_answer(number, answer="x" * number) for number in range(50)]), None)
    assert bars is not None
    assert sum(int(title.rsplit(": ", 1)[1]) for *_, title in bars.ours) == 50


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(None), "–"),
        (number(math.nan), "–"),
        (number(-1.23456), "−1.235"),
        (in_words(Difference(0.0, False, None, None)), "0"),
        (ends(Difference(0.1, True, (None, 0.2), None)), "open to +20.0 %"),
        (moment("2030-01-01T12:34:56+00:00"), "2030-01-01 12:34 UTC"),
        (moment("yesterday"), "yesterday"),
    ],
)
def test_numbers_are_written_for_people(shown: str, expected: str) -> None:
    assert shown == expected
