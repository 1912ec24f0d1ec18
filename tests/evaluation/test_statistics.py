import math

import numpy as np
import pytest

from evaluation.statistics import (
    Interval,
    Rows,
    mcnemar_exact,
    paired_bootstrap,
    paired_proportion_interval,
    wilson_interval,
    zero_failures_bound,
)

Z95 = 1.6448536269514722  # one-sided 5 %


def mean(rows: Rows) -> float:
    return float(rows.mean())


def column(*values: float) -> Rows:
    return np.array(values, dtype=np.float64).reshape(-1, 1)


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (9, 10), (10, 10), (45, 50)])
def test_wilson_interval_solves_its_quadratic(hits: int, trials: int) -> None:
    """The bounds are the p with |hits/n - p| = z * sqrt(p(1-p)/n), by definition."""
    interval = wilson_interval(hits, trials, 0.05)
    for bound in (interval.low, interval.high):
        assert abs(hits / trials - bound) == pytest.approx(Z95 * math.sqrt(bound * (1 - bound) / trials), abs=1e-9)


def test_zero_failures_bound_is_near_the_rule_of_three() -> None:
    """(1 - p)^n = 0.05 gives p = 1 - 0.05^(1/n); 3/n is its usual shorthand."""
    assert (1 - zero_failures_bound(45, 0.05)) ** 45 == pytest.approx(0.05)
    assert zero_failures_bound(300, 0.05) == pytest.approx(3 / 300, rel=0.01)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1 / 2),
        (5, 0, 1 / 32),
        (6, 1, (7 + 1) / 128),  # P(6 or 7 heads of 7)
        (0, 5, 1.0),
    ],
)
def test_mcnemar_is_the_exact_coin_tail(gained: int, lost: int, p: float) -> None:
    assert mcnemar_exact(gained, lost) == pytest.approx(p)


def test_paired_proportion_interval_by_hand() -> None:
    """10 gained, 2 lost of 100: b = 10.5, c = 2.5, n = 102; centre 8/102, half z * sqrt(13 - 64/102) / 102."""
    interval = paired_proportion_interval(10, 2, 100, 0.05)
    half = Z95 * math.sqrt(13 - 64 / 102) / 102
    assert interval.low == pytest.approx(8 / 102 - half)
    assert interval.high == pytest.approx(8 / 102 + half)


def test_paired_proportion_interval_has_width_when_nothing_changed() -> None:
    interval = paired_proportion_interval(0, 0, 50, 0.05)
    assert interval.low == -interval.high
    assert interval.high > 0


def test_bootstrap_of_a_model_against_itself_is_exactly_zero() -> None:
    rows = column(0.1, 0.9, 0.4)
    assert paired_bootstrap(rows, rows, mean, ratio=False, alpha=0.05, resamples=200, seed=1) == Interval(0.0, 0.0)


def test_bootstrap_keeps_prompts_paired() -> None:
    """A constant gain on very unequal prompts has no spread at all when prompts are paired."""
    champion = column(0.0, 1.0, 5.0, 50.0)
    interval = paired_bootstrap(champion + 2, champion, mean, ratio=False, alpha=0.05, resamples=300, seed=1)
    assert interval.low == pytest.approx(2)
    assert interval.high == pytest.approx(2)


def test_bootstrap_is_the_same_for_the_same_seed_and_near_the_normal_interval() -> None:
    """Differences 0, 1, …, 99: mean 49.5, standard error 28.87/10, so the 5 % bound is near 49.5 - 1.645 * 2.887 = 44.75."""
    champion = np.zeros((100, 1))
    candidate = np.arange(100, dtype=np.float64).reshape(-1, 1)
    first = paired_bootstrap(candidate, champion, mean, ratio=False, alpha=0.05, resamples=2000, seed=7)
    assert first == paired_bootstrap(candidate, champion, mean, ratio=False, alpha=0.05, resamples=2000, seed=7)
    assert first.low == pytest.approx(44.75, abs=0.5)


def test_a_ratio_is_a_share_of_the_champions_number() -> None:
    champion = column(1.0, 2.0, 4.0)
    interval = paired_bootstrap(champion * 1.5, champion, mean, ratio=True, alpha=0.05, resamples=200, seed=1)
    assert interval.low == pytest.approx(0.5)
    assert interval.high == pytest.approx(0.5)


def test_a_ratio_to_nothing_is_infinite() -> None:
    interval = paired_bootstrap(column(1.0), column(0.0), mean, ratio=True, alpha=0.05, resamples=200, seed=1)
    assert interval == Interval(math.inf, math.inf)


def test_wrong_non_inferiority_claims_stay_at_alpha() -> None:
    """The candidate is truly worse by exactly the margin; claims that it is not may happen in about 5 % of trials (+3 s.e.)."""
    random, wrong, trials = np.random.default_rng(3), 0, 200
    for trial in range(trials):
        champion = random.normal(0.5, 0.2, size=(80, 1))
        candidate = champion - 0.05 + random.normal(0, 0.1, size=(80, 1))
        interval = paired_bootstrap(candidate, champion, mean, ratio=False, alpha=0.05, resamples=300, seed=trial)
        wrong += -interval.low <= 0.05
    assert wrong / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
