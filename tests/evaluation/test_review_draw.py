"""What is drawn for a blind review, and what of it could tell whose an answer is."""

import json
from collections import Counter
from random import Random

import pytest

from evaluation.errors import ReviewError
from evaluation.review_draw import draw_review
from evaluation.review_records import seal_of
from tests.fakes_evaluation import make_card
from tests.fakes_review import OURS, THEIRS, two_cards


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("prompts", "count"), [(40, 40), (41, 30), (7, 100)])
def test_the_candidate_stands_first_in_half_of_the_pairs_of_every_topic_and_of_all(seed: int, prompts: int, count: int) -> None:
    drawn = draw_review(*two_cards(prompts, ("a", "b", "c")), ["ann"], count, Random(seed))
    sides: dict[str, Counter[bool]] = {}
    for pair, first in zip(drawn.review.pairs, drawn.key.candidate_first, strict=True):
        sides.setdefault(pair.topic, Counter())[first] += 1
    assert all(abs(each[True] - each[False]) <= 1 for each in (*sides.values(), sum(sides.values(), Counter())))


def test_the_key_says_which_text_is_the_candidates() -> None:
    drawn = draw_review(*two_cards(), ["ann"], 12, Random(1))
    for pair, first in zip(drawn.review.pairs, drawn.key.candidate_first, strict=True):
        assert pair.first.startswith(OURS if first else THEIRS)
        assert pair.second.startswith(THEIRS if first else OURS)


def test_topics_are_drawn_by_their_share() -> None:
    """Of 40 prompts half are of topic a, a quarter each of b and c: a sample of 20 has 10, 5 and 5."""
    drawn = draw_review(*two_cards(40, ("a", "b", "a", "c")), ["ann"], 20, Random(2))
    assert Counter(pair.topic for pair in drawn.review.pairs) == {"a": 10, "b": 5, "c": 5}


def test_no_prompt_is_drawn_twice_and_the_order_is_not_that_of_the_suite() -> None:
    drawn = draw_review(*two_cards(40), ["ann"], 40, Random(2))
    ids = [pair.prompt_id for pair in drawn.review.pairs]
    assert len(set(ids)) == 40
    assert ids != sorted(ids)


def test_the_same_answer_twice_is_not_asked_about_but_counted() -> None:
    review = draw_review(*two_cards(12, identical=5), ["ann"], 12, Random(1)).review
    assert (len(review.pairs), review.prompts, review.identical) == (7, 12, 5)


def test_the_review_holds_the_hash_of_its_key_and_of_the_tokens_and_neither_of_them() -> None:
    drawn = draw_review(*two_cards(), ["ann", "bob"], 12, Random(1))
    text = drawn.review.model_dump_json()
    assert drawn.review.key_sha256 == seal_of(drawn.key.sealed())
    assert [each.token_sha256 for each in drawn.review.reviewers] == [seal_of(token) for token in drawn.tokens.values()]
    assert drawn.key.nonce not in text
    assert not any(token in text for token in drawn.tokens.values())


def test_a_pair_says_nothing_about_its_models_but_what_they_said() -> None:
    """The pairs of a draw and of the draw with the models exchanged and the sides turned are the same, byte for byte."""
    ours, theirs = two_cards()
    drawn, turned = draw_review(ours, theirs, ["ann"], 12, Random(5)), draw_review(theirs, ours, ["ann"], 12, Random(5))
    shown = [pair.model_dump(mode="json") for pair in drawn.review.pairs]
    exchanged = [{**pair.model_dump(mode="json"), "first": pair.second, "second": pair.first} for pair in turned.review.pairs]
    assert json.dumps(shown) == json.dumps(exchanged)
    assert drawn.key.candidate_first == turned.key.candidate_first


def test_blanks_round_an_answer_are_not_shown() -> None:
    ours, theirs = two_cards(1)
    spaced = make_card([ours.answers[0].model_copy(update={"answer": f"\n  {OURS} "})], subject="clinic-2")
    pair = draw_review(spaced, theirs, ["ann"], 1, Random(1)).review.pairs[0]
    assert OURS in (pair.first, pair.second)


@pytest.mark.parametrize("reviewers", [[], ["ann", "ann"], [" "], ["x" * 81], ["ann", "ann "]])
def test_reviewers_have_different_names(reviewers: list[str]) -> None:
    with pytest.raises(ReviewError, match="reviewers: "):
        draw_review(*two_cards(), reviewers, 12, Random(1))


def test_two_suites_cannot_be_compared() -> None:
    ours, theirs = two_cards()
    with pytest.raises(ReviewError, match="was asked suite"):
        draw_review(ours, theirs.model_copy(update={"suite_digest": "t" * 64}), ["ann"], 12, Random(1))


def test_a_review_of_nothing_but_same_answers_is_refused() -> None:
    with pytest.raises(ReviewError, match="all 3 answers are the same"):
        draw_review(*two_cards(3, identical=3), ["ann"], 3, Random(1))
