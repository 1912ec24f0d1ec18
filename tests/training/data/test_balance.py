import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from training.data.balance import Balanced, BalanceSection, balance, folds, rank_of, side
from training.errors import DataError


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def balanced(rows: list[tuple[str, str, str]], weights: dict[str, float] | None = None, **settings: object) -> Balanced:
    """`rows` are (content, source, topic)."""
    contents, sources, topics = zip(*rows, strict=True) if rows else ((), (), ())
    return balance(BalanceSection.model_validate(settings), [rank_of(key(text)) for text in contents], sources, topics, weights or {})


def rows_of(source: str, count: int, topic: str = "") -> list[tuple[str, str, str]]:
    return [(f"{source}{topic}{number}", source, topic) for number in range(count)]


def taken(result: Balanced, rows: list[tuple[str, str, str]]) -> Counter[str]:
    return Counter({row[0]: int(copies) for row, copies in zip(rows, result.copies, strict=True) if copies})


def out(result: Balanced) -> dict[str, int]:
    return {part.source: part.rows_out for part in result.plan}


def test_by_default_every_row_is_used_once() -> None:
    result = balanced([*rows_of("a", 7), *rows_of("b", 3)], {"a": 5.0})

    assert result.copies.tolist() == [1] * 10


def test_a_weight_says_how_often_a_row_is_used() -> None:
    """10 × 2 and 10 × 0.5."""
    result = balanced([*rows_of("a", 10), *rows_of("b", 10), *rows_of("c", 10)], {"a": 2.0, "b": 0.5}, strategy="weights")

    assert out(result) == {"a": 20, "b": 5, "c": 10}
    assert [part.repeats for part in result.plan] == [2, 1, 1]
    assert [round(part.share_wanted, 3) for part in result.plan] == [0.571, 0.143, 0.286]


def test_a_group_that_grows_is_repeated_whole_and_the_rest_goes_to_the_smallest_hashes() -> None:
    """2.3 × 10 rows are two of each and a third of the three with the smallest hashes."""
    rows = rows_of("a", 10)
    result = balanced(rows, {"a": 2.3}, strategy="weights")

    thrice = {text for text, copies in taken(result, rows).items() if copies == 3}
    assert sorted(set(result.copies.tolist())) == [2, 3]
    assert thrice == set(sorted((row[0] for row in rows), key=lambda text: rank_of(key(text)))[:3])


def test_no_row_is_repeated_more_often_than_allowed() -> None:
    result = balanced([*rows_of("a", 3), *rows_of("b", 100)], {"a": 50.0}, strategy="weights", max_repeats=4)

    assert out(result) == {"a": 12, "b": 100}


def test_a_total_keeps_the_shares() -> None:
    result = balanced([*rows_of("a", 100), *rows_of("b", 100)], {"a": 3.0}, strategy="weights", total_rows=80)

    assert out(result) == {"a": 60, "b": 20}


def test_what_a_full_source_cannot_give_to_a_total_comes_from_the_others() -> None:
    """3 : 1 of 200 would be 150 and 50, but 30 rows twice are only 60."""
    result = balanced([*rows_of("a", 30), *rows_of("b", 90)], {"a": 9.0}, strategy="weights", total_rows=200, max_repeats=2)

    assert out(result) == {"a": 60, "b": 140}


def test_a_total_without_weights_takes_the_smallest_hashes_of_all() -> None:
    rows = [*rows_of("a", 50), *rows_of("b", 50)]
    result = balanced(rows, total_rows=20)

    assert set(taken(result, rows)) == set(sorted((row[0] for row in rows), key=lambda text: rank_of(key(text)))[:20])


def test_a_total_without_weights_never_repeats_a_row() -> None:
    assert balanced(rows_of("a", 5), total_rows=50).copies.tolist() == [1] * 5


def test_topics_are_tilted_by_their_weight() -> None:
    rows = [*rows_of("a", 10, "fever"), *rows_of("a", 10, "cough"), *rows_of("a", 10, "rash")]
    result = balanced(rows, strategy="weights", topic_field="topic", topic_weights={"fever": 3.0, "rash": 0.0})

    by_topic = Counter({topic: int(result.copies[at : at + 10].sum()) for at, topic in ((0, "fever"), (10, "cough"), (20, "rash"))})
    assert by_topic == {"fever": 30, "cough": 10, "rash": 0}
    assert result.reason(25) == "sampled_out"


def test_caps_hold_over_a_source_and_over_a_topic_of_all_sources() -> None:
    rows = [*rows_of("a", 40, "x"), *rows_of("b", 40, "x"), *rows_of("b", 40, "")]
    result = balanced(rows, max_rows_per_source=50, topic_field="topic", max_rows_per_topic=25)

    topics = Counter(row[2] for row, copies in zip(rows, result.copies, strict=True) if copies)
    assert topics["x"] == 25
    assert out(result)["b"] <= 50
    assert {result.reason(number) for number in range(len(rows))} == {None, "capped"}
    assert sum(part.capped for part in result.plan) == sum(copies == 0 for copies in result.copies)


def test_a_row_without_a_topic_is_not_capped() -> None:
    assert balanced(rows_of("a", 40), topic_field="topic", max_rows_per_topic=5).copies.sum() == 40


def test_the_choice_does_not_depend_on_the_order_of_rows() -> None:
    rows = [*rows_of("a", 60, "x"), *rows_of("a", 30, "y"), *rows_of("b", 40, "x")]
    settings = {"strategy": "weights", "topic_field": "t", "max_rows_per_topic": 70, "total_rows": 90}

    forward, backward = balanced(rows, {"b": 2.0}, **settings), balanced(rows[::-1], {"b": 2.0}, **settings)

    assert taken(forward, rows) == taken(backward, rows[::-1])


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60))
def test_adding_rows_never_brings_back_an_old_row_and_removes_one_only_for_a_new_one(old: int, added: int, cap: int) -> None:
    """Under a cap an old row stays unless a new row took its place."""
    few, many = rows_of("a", old), rows_of("a", old + added)

    before, after = (set(taken(balanced(rows, max_rows_per_source=cap), rows)) for rows in (few, many))

    assert (after & {row[0] for row in few}) <= before
    assert len(before - after) <= len(after - before)


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 40), min_size=1),
    st.dictionaries(st.sampled_from("abc"), st.floats(0.01, 20)),
    st.one_of(st.none(), st.integers(1, 300)),
    st.integers(1, 6),
)
def test_the_plan_always_adds_up(sizes: dict[str, int], weights: dict[str, float], total: int | None, repeats: int) -> None:
    rows = [row for source, count in sizes.items() for row in rows_of(source, count)]

    result = balanced(rows, weights, strategy="weights", total_rows=total, max_repeats=repeats)

    assert sum(part.rows_out for part in result.plan) == result.copies.sum()
    assert result.copies.max(initial=0) <= repeats
    assert sum(part.share_wanted for part in result.plan) == pytest.approx(1)
    if total is not None:
        assert result.copies.sum() == min(total, repeats * len(rows))
    for source in sizes:
        copies = [count for row, count in zip(rows, result.copies, strict=True) if row[1] == source]
        assert max(copies) - min(copies) <= 1


def test_no_rows_make_an_empty_plan() -> None:
    assert balanced([], strategy="weights", total_rows=5).plan == ()


def test_weights_that_leave_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="every topic that has rows has weight 0"):
        balanced(rows_of("a", 3, "x"), strategy="weights", topic_field="t", topic_weights={"x": 0})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_rows_per_topic": 5}, "need `topic_field`"),
        ({"topic_field": "t", "topic_weights": {"x": 2}}, "`strategy: weights` only"),
        ({"total_rows": 0}, "greater than or equal to 1"),
        ({"strategy": "weights", "topic_field": "t", "topic_weights": {"x": -1}}, "greater than or equal to 0"),
        ({"strategi": "none"}, "Extra inputs"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        BalanceSection.model_validate(settings)


def test_the_side_of_a_question_is_fixed_by_its_hash_alone() -> None:
    """0x20000000 / 2**32 is 0.125."""
    assert side("20000000" + "0" * 56, 0.126) == "validation"
    assert side("20000000" + "f" * 56, 0.125) == "train"


def test_about_the_wanted_share_is_held_back() -> None:
    """2000 questions at 0.2: 400 ± 18, so 330 to 470 is four deviations."""
    held = sum(side(key(f"question {number}"), 0.2) == "validation" for number in range(2000))

    assert 330 < held < 470


def test_the_same_question_is_always_in_the_same_fold() -> None:
    keys = [key(f"q{number}") for number in range(60)]

    few, many = folds(keys[:40], 5), folds(keys, 5)

    assert many[:40] == few
    assert folds(keys[::-1], 5) == many[::-1]
    assert set(many) == set(range(5))


def test_folds_do_not_follow_the_validation_side() -> None:
    keys = [key(f"q{number}") for number in range(3000)]
    held = [fold for fold, each in zip(folds(keys, 5), keys, strict=True) if side(each, 0.2) == "validation"]

    assert min(Counter(held).values()) > 70


def test_more_folds_than_the_rows_can_fill_are_refused() -> None:
    with pytest.raises(DataError, match="folds are empty: there are 2 different questions"):
        folds([key("a"), key("a"), key("b")], 5)


def test_a_million_rows_are_balanced_in_arrays() -> None:
    """Memory is a few numbers per row, never a Python object: 100,000 rows here, all paths on."""
    count = 100_000
    ranks = (int(rank) for rank in np.random.default_rng(7).integers(0, 2**62, count))
    section = BalanceSection(strategy="weights", topic_field="t", max_rows_per_topic=900, total_rows=150_000)

    result = balance(section, ranks, ("ab"[row % 2] for row in range(count)), (f"t{row % 100}" for row in range(count)), {"a": 2.0})

    assert result.copies.sum() == 150_000
    assert result.plan[0].rows_out == 2 * result.plan[1].rows_out
