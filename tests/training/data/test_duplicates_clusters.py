import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.training.data.duplicates_rows import ANSWER, CHINESE, QUESTION, Row, find, instead
from training.data.duplicates import Compared, Fingerprints, find_duplicates, fingerprints
from training.data.duplicates_clusters import Clusters, bands_for, estimate, find_clusters, kept
from training.data.duplicates_same import SameRows, distinct_shingles, jaccard
from training.data.duplicates_section import DuplicatesSection
from training.data.duplicates_signatures import signature, signatures


def test_a_signature_alone_is_that_of_the_batch() -> None:
    texts = [QUESTION, ANSWER, "", "hi", CHINESE[1]]

    assert [signature(text, 32).tolist() for text in texts] == signatures(texts, 32).tolist()


def test_the_estimate_keeps_its_stated_error() -> None:
    """600 pairs, 256 permutations: bias within four standard errors of its mean, error within a fifth of sqrt(s (1 - s) / permutations)."""
    rng = random.Random(2)
    words = [f"w{number}" for number in range(3000)]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(600)]
    texts += [" ".join(rng.choice(words) if rng.random() < 0.05 else word for word in text.split()) for text in texts]
    left, right = np.arange(600), np.arange(600, 1200)

    exact = jaccard(*distinct_shingles(texts), left, right)
    error = estimate(signatures(texts, 256), left, right) - exact
    theory = float(np.sqrt((exact * (1 - exact) / 256).mean()))

    assert 0.3 < exact.mean() < 0.9
    assert abs(error.mean()) < 4 * theory / np.sqrt(600)
    assert 0.8 * theory < np.sqrt((error**2).mean()) < 1.2 * theory


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.75, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("permutations", [16, 64, 128])
def test_bands_miss_at_most_three_pairs_in_two_hundred_at_the_threshold(threshold: float, permutations: int) -> None:
    bands, width = bands_for(threshold, permutations)

    assert bands * width <= permutations
    assert (1 - threshold**width) ** bands <= 0.015


def test_groups_without_texts_go_by_the_estimate() -> None:
    sketch = signatures([ANSWER, ANSWER + " Take care.", QUESTION, "...", "!"], 64)

    clusters = find_clusters(sketch, 0.8)

    assert clusters.labels.tolist() == [0, 0, 2, 3, 4]
    assert kept(clusters, "longest", np.array([1, 2, 3, 4, 5]), np.ones(5)).tolist() == [1, 1, 2, 3, 4]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 3))
def test_rows_of_equal_signatures_come_together_and_others_do_not(kinds: list[int], seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 2**32 - 1, (6, 32), dtype=np.uint32)

    labels = find_clusters(drawn[kinds], 0.9).labels.tolist()

    assert labels == [kinds.index(kind) for kind in kinds]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from(["fever rest water", "fever rest", "rest water doctor", "a b c d e f g h", "a b c d e f g i", "", "?"]), max_size=12
    )
)
def test_every_row_dropped_is_replaced_by_a_row_that_stays(texts: list[str]) -> None:
    if not texts:
        return
    found = find([(text, "") for text in texts])

    assert (found.kept_instead[found.kept_instead] == found.kept_instead).all()
    assert ((found.kept_instead != np.arange(len(texts))) == (found.exact | found.near)).all()


@pytest.mark.parametrize("exact", [True, False])
def test_many_identical_rows_cost_a_comparison_each(exact: bool) -> None:
    """In a bucket of 50,000 all pairs would be 1.25 billion; a hundred times as many as the seconds allowed here."""
    compared_pairs: list[int] = []
    rows = [(QUESTION, ANSWER)] * 50_000
    section = DuplicatesSection(exact=exact)
    found = fingerprints([Compared(QUESTION, ANSWER, 0)], section)
    many = Fingerprints.joined([found] * len(rows))

    def sides(numbers: NDArray[np.int64]) -> list[Row]:
        compared_pairs.append(len(numbers))
        return [rows[0]] * len(numbers)

    started = time.process_time()
    result = find_duplicates(many, section, sides, np.ones(len(rows)))

    assert (result.kept_instead == 0).all()
    assert sum(compared_pairs) < 4 * len(rows)
    assert time.process_time() - started < 60


def test_rows_alike_that_are_never_the_same_cost_a_bounded_number_of_comparisons() -> None:
    """All 20,000 signatures are equal and every comparison says no: 20,000 × 16 at most, in place of 200 million."""
    sketch = np.repeat(signatures([ANSWER], 64), 20_000, axis=0)
    asked: list[int] = []

    def never(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        asked.append(len(left))
        return np.zeros(len(left), np.bool_)

    clusters = find_clusters(sketch, 0.75, never)

    assert clusters.labels.tolist() == list(range(20_000))
    assert sum(asked) <= 16 * 20_000


@pytest.mark.parametrize("text", ["word " * 1_000_000, "的" * 1_000_000, "\u0301\u0323" * 100_000, "\ud800" * 1000, "0123456789" * 100_000])
def test_a_huge_or_broken_row_is_a_row_like_any_other(text: str) -> None:
    assert instead([(QUESTION, text), ("Other?", "Other."), (QUESTION, text)]) == [0, 1, 0]


def test_no_rows_have_no_duplicates() -> None:
    section = DuplicatesSection()

    assert find_duplicates(fingerprints([], section), section, lambda _: [], np.zeros(0)).kept_instead.tolist() == []


def test_comparing_no_pairs_answers_nothing() -> None:
    none = np.zeros(0, np.int64)

    assert SameRows(lambda numbers: [(QUESTION, ANSWER)] * len(numbers), np.arange(4), 0.8)(none, none).tolist() == []
    assert kept(Clusters(none, lambda left, right: left == right), "first", none, np.zeros(0)).tolist() == []
