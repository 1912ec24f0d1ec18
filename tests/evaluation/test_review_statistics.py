"""Agreement and win rates: against published examples and against scipy."""

from typing import Any

import pytest
from scipy.stats import binomtest

from evaluation.review_statistics import cohen_kappa, fleiss_kappa, kappa, observed_agreement, wilson_of_share

# Fleiss (1971) as tabulated by many texts: 10 subjects, 14 raters, 5 categories; kappa is 0.210.
_FLEISS_1971 = (
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
)  # fmt: skip


def labels(counts: tuple[int, ...]) -> list[int]:
    return [label for label, count in enumerate(counts) for _ in range(count)]


def test_fleiss_kappa_of_the_published_example() -> None:
    assert fleiss_kappa([labels(row) for row in _FLEISS_1971]) == pytest.approx(0.210, abs=5e-4)


def test_cohen_kappa_by_hand() -> None:
    """20 both yes, 5 and 10 disagree, 15 both no: observed 35/50 = 0.7, by chance 0.5·0.6 + 0.5·0.4 = 0.5, so kappa is 0.4."""
    rows = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen_kappa(rows) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("a", "a"), ("b", "b")], 1.0),
        ([("a", "b"), ("b", "a")], -1.0),
        ([("a", "a"), ("a", "a")], None),
        ([("a",), ("b",)], None),
        ([], None),
        ([("a", "a", "a"), ("b", "b", "b")], 1.0),
        ([("a", "a", "a"), ("a", "a", "a")], None),
    ],
)
def test_kappa_at_its_ends(rows: list[Any], expected: float | None) -> None:
    assert kappa(rows) == (None if expected is None else pytest.approx(expected))


def test_observed_agreement_counts_pairs_of_votes() -> None:
    """Three votes a a b agree in one of three pairs, and a a a in all three: 4 of 6."""
    assert observed_agreement(["aab", "aaa"]) == pytest.approx(4 / 6)
    assert observed_agreement(["a", "b"]) is None


@pytest.mark.parametrize(("wins", "trials"), [(0, 10), (10, 10), (85, 100), (1, 3)])
def test_wilsons_interval_of_whole_wins_is_scipys(wins: int, trials: int) -> None:
    ours, scipys = wilson_of_share(wins / trials, trials, 0.05), binomtest(wins, trials).proportion_ci(0.9, method="wilson")
    assert (ours.low, ours.high) == (pytest.approx(scipys.low, abs=1e-12), pytest.approx(scipys.high, abs=1e-12))
