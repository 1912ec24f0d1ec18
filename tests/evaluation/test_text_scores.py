"""Exact match, token F1, repetition and labels: numbers that follow from their definitions."""

import pytest

from evaluation.metrics.labels import parse_label
from evaluation.metrics.overlap import overlap
from evaluation.metrics.repetition import distinct, ends_in_loop, repeated_share
from evaluation.metrics.text_scores import score_text
from evaluation.metrics.words import units_of

LABELS = ("urgent", "routine", "non-urgent")
CHINESE_LABELS = ("紧急", "普通", "不紧急")


@pytest.mark.parametrize(
    ("answer", "reference", "language", "exact", "f1"),
    [
        ("The Chest.", "chest", "en", True, 1.0),  # article, case and full stop do not count
        ("call 911 now", "call 911", "en", False, 2 * 2 / 5),
        ("don't wait", "dont wait!", "en", True, 1.0),  # SQuAD's script deletes punctuation, apostrophes too
        ("rest rest rest", "rest", "en", False, 2 * 1 / 4),  # a word counts as often as both sides have it
        ("", "rest", "en", False, 0.0),
        ("the", "a", "en", True, 1.0),  # nothing is left of either
        ("１２０急救", "120 急救。", "zh", True, 1.0),
        ("请就医", "请及时就医", "zh", False, 2 * 3 / 8),
        ("服用aspirin", "Aspirin 服用", "zh", False, 1.0),  # the same three tokens in another order
    ],
)
def test_exact_match_and_token_f1(answer: str, reference: str, language: str, exact: bool, f1: float) -> None:
    assert overlap(answer, reference, language) == (exact, pytest.approx(f1))


def test_units_are_words_or_chinese_characters() -> None:
    assert units_of("Take 120 毫克, now!") == ("take", "120", "毫", "克", "now")


@pytest.mark.parametrize(
    ("text", "order", "share"), [("a b a c", 1, 3 / 4), ("a b a b a", 2, 2 / 4), ("a", 2, 1.0), ("", 1, 0.0), ("多喝水多喝水", 1, 3 / 6)]
)
def test_distinct_is_the_share_of_different_ngrams(text: str, order: int, share: float) -> None:
    assert distinct(units_of(text), order) == share


def test_repeated_share_counts_four_grams_that_were_there_before() -> None:
    """a b c d a b c d has five 4-grams, of which the last is the first again."""
    assert repeated_share(units_of("a b c d a b c d")) == pytest.approx(1 / 5)
    assert repeated_share(units_of("a b c")) == 0.0


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("I see. " + "sit down " * 6, True),
        ("one two three four five " * 4 + "one two", True),  # cut off in the fifth round
        ("再" * 8, True),
        ("no no no", False),  # too short to be a loop
        ("sit down sit down", False),
        ("first rest, then drink, then eat, then sleep, then rest again and call", False),
        ("", False),
    ],
)
def test_an_endless_answer_is_one_that_ends_in_a_loop(text: str, loops: bool) -> None:
    assert ends_in_loop(units_of(text)) is loops


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("urgent", "urgent"),
        (" **Urgent**. ", "urgent"),
        ("Answer: routine", "routine"),
        ("This is non-urgent.", "non-urgent"),  # and not "urgent"
        ("It is not urgent; routine.", "routine"),
        ("It could be urgent or routine, but the answer is routine", "routine"),
        ('{"label": "urgent", "not": "routine"}', "urgent"),
        ("routine\nurgent would be wrong", "routine"),
        ("urgent or routine", None),
        ("It isn't urgent.", None),
        ("urgently", None),  # another word
        ("", None),
        ("I cannot say.", None),
    ],
)
def test_a_label_is_read_and_never_guessed(answer: str, label: str | None) -> None:
    assert parse_label(answer, LABELS) == label


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("紧急", "紧急"),
        ("分类：普通。", "普通"),
        ("属于不紧急的情况", "不紧急"),
        ("不是紧急，是普通", "普通"),
        ("紧急还是普通", None),
    ],
)
def test_a_chinese_label_is_read(answer: str, label: str | None) -> None:
    assert parse_label(answer, CHINESE_LABELS) == label


def test_an_empty_answer_scores_nothing() -> None:
    scores = score_text("", "Call 911 now.", "en")
    numbers = scores.model_dump(exclude={"bleu_stats", "chrf_stats", "exact_match", "loops"})
    assert set(numbers.values()) == {0}
    assert not scores.exact_match
