"""Shares are counted by hand: ten rows of one long answer each, of which so many were cut."""

from typing import Any, Literal

import pytest

from tests.fakes_training import TinyLine
from training.chat import IGNORED, render
from training.errors import DataError
from training.practice.answers import cut_answers, cut_preferences, ends_open
from training.practice.sections import CutAnswersSection
from training.records import DatasetManifest, SourceCount

WHOLE = "Rest, drink water, and see a doctor if the fever stays above thirty-nine degrees for more than three days."
CUT = WHOLE.removesuffix(" three days.")


def rows(tokenizer: Any, *answers: str) -> list[dict[str, list[int]]]:
    rendered = [render(tokenizer, [{"role": "user", "content": "What now?"}, {"role": "assistant", "content": each}]) for each in answers]
    return [{"input_ids": row.input_ids, "labels": row.labels} for row in rendered]


def manifest(too_long: int = 0) -> DatasetManifest:
    source = SourceCount(path="a", sha256="0", format="alpaca", rows_in=10, kept=10 - too_long, dropped={"too_long": too_long})
    counts = {"train_rows": 9, "validation_rows": 1, "train_tokens": 90, "loss_tokens": 40}
    return DatasetManifest(created_at="2030-01-01", base_digest="b", section_digest="s", sources=(source,), files=(), **counts)


def told(tokenizer: Any, answers: list[dict[str, list[int]]], dataset: DatasetManifest | None = None, **section: Any) -> tuple[str, ...]:
    return cut_answers(CutAnswersSection(**section), answers, dataset or manifest(), tokenizer, {tokenizer.eos_token_id})


def test_whole_answers_are_nothing_to_warn_of(tiny: TinyLine, tokenizer: Any) -> None:
    assert told(tokenizer, rows(tokenizer, *[WHOLE] * 10)) == ()


def test_answers_that_end_in_the_middle_of_a_sentence_are_counted(tokenizer: Any) -> None:
    (warning,) = told(tokenizer, rows(tokenizer, *[WHOLE] * 7, *[CUT] * 3))

    assert warning == "3 of 10 (30.0%) answers of 48 tokens or more end in the middle of a sentence"


def test_short_answers_need_no_full_stop(tokenizer: Any) -> None:
    assert told(tokenizer, rows(tokenizer, *["Paracetamol"] * 10)) == ()


def test_a_row_without_its_end_token_is_counted(tokenizer: Any) -> None:
    clipped = rows(tokenizer, *[WHOLE] * 10)
    clipped[0]["labels"] = [*clipped[0]["labels"][:-6], *[IGNORED] * 6]

    assert "1 of 10 (10.0%) rows end without the token that ends an answer" in told(tokenizer, clipped)


def test_rows_left_out_for_their_length_are_counted(tokenizer: Any) -> None:
    (warning,) = told(tokenizer, rows(tokenizer, WHOLE), manifest(too_long=4))

    assert warning.startswith("4 of 10 (40.0%) rows are longer than `model.max_length`")


@pytest.mark.parametrize(("action", "max_share", "stops"), [("stop", 0.2, True), ("stop", 0.3, False), ("off", 0.0, False)])
def test_the_recipe_says_whether_to_stop_and_from_which_share_on(
    tokenizer: Any, action: Literal["stop", "off"], max_share: float, stops: bool
) -> None:
    answers = rows(tokenizer, *[WHOLE] * 7, *[CUT] * 3)
    if not stops:
        assert told(tokenizer, answers, action=action, max_share=max_share) == ()
        return
    with pytest.raises(DataError, match=r"3 of 10 \(30.0%\)"):
        told(tokenizer, answers, action=action, max_share=max_share)


@pytest.mark.parametrize(
    ("text", "is_open"),
    [("Rest.", False), ("and then", True), ("first,", True), ("请及时就医。", False), ("请及时", True), ("Really?!", False), ("```", False),
     ("(see", True), ("see (", True), ("“Rest.”", False), ("", False), ("done. ", False), ("10", True)],
)  # fmt: skip
def test_where_a_sentence_goes_on(text: str, is_open: bool) -> None:
    assert ends_open(text) is is_open


def test_the_answers_of_pairs_and_labelled_rows_are_counted_by_side(tokenizer: Any) -> None:
    """Of five preferred answers one is cut, of five rejected ones three: two in a sentence, one of them without its end token."""
    whole, cut = ([label for label in rows(tokenizer, text)[0]["labels"] if label != IGNORED] for text in (WHOLE, CUT))
    pairs: list[dict[str, Any]] = [{"chosen_ids": whole, "rejected_ids": whole}] * 2 + [{"chosen_ids": whole, "rejected_ids": cut}]
    single = [(cut, True), (whole, True), (cut[:-1], False), (whole, False)]
    labelled = [{"answer_ids": answer, "desirable": wanted} for answer, wanted in single]

    found = cut_preferences(CutAnswersSection(), [*pairs, *labelled], tokenizer, {tokenizer.eos_token_id})

    assert found == (
        "1 of 5 (20.0%) preferred answers of 48 tokens or more end in the middle of a sentence",
        "1 of 5 (20.0%) rejected answers end without the token that ends an answer",
        "2 of 5 (40.0%) rejected answers of 48 tokens or more end in the middle of a sentence",
    )
    with pytest.raises(DataError, match="preferred answers of 48"):
        cut_preferences(CutAnswersSection(action="stop"), [*pairs, *labelled], tokenizer, {tokenizer.eos_token_id})
