import math

import numpy as np
import pytest
from scipy.stats import beta, binomtest

from evaluation.statistics import (
    Correction,
    corrected,
    failure_rate_bound,
    mcnemar_exact,
    paired_share_interval,
    small_sample_z,
    trials_to_claim,
    widened_alpha,
    wilson_interval,
)

Z95 = 1.6448536269514722  # one-sided 5 %


def table(gained: int, lost: int, pairs: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.repeat([1.0, -1.0, 0.0], [gained, lost, pairs - gained - lost])


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (9, 10), (10, 10), (45, 50)])
def test_wilson_interval_solves_its_quadratic(hits: int, trials: int) -> None:
    """The bounds are the p with |hits/n - p| = z * sqrt(p(1-p)/n), by definition; scipy has the same."""
    interval = wilson_interval(hits / trials, trials, 0.05)
    for bound in (interval.low, interval.high):
        assert abs(hits / trials - bound) == pytest.approx(Z95 * math.sqrt(bound * (1 - bound) / trials), abs=1e-9)
    ci = binomtest(hits, trials).proportion_ci(0.9, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((ci.low, ci.high), abs=1e-12)


@pytest.mark.parametrize(("failures", "trials"), [(0, 45), (1, 45), (10, 45), (44, 45), (45, 45)])
def test_the_failure_bound_is_that_of_clopper_and_pearson(failures: int, trials: int) -> None:
    expected = 1.0 if failures == trials else float(beta.ppf(0.95, failures + 1, trials - failures))
    assert failure_rate_bound(failures, trials, 0.05) == pytest.approx(expected)


def test_without_a_failure_the_bound_is_near_the_rule_of_three() -> None:
    """(1 - p)^n = 0.05 gives p = 1 - 0.05^(1/n); 3/n is its usual shorthand."""
    assert (1 - failure_rate_bound(0, 45, 0.05)) ** 45 == pytest.approx(0.05)
    assert failure_rate_bound(0, 300, 0.05) == pytest.approx(3 / 300, rel=0.01)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05])
def test_the_trials_for_a_claim_are_just_enough(rate: float) -> None:
    trials = trials_to_claim(rate, 0.05)
    assert failure_rate_bound(0, trials, 0.05) <= rate < failure_rate_bound(0, trials - 1, 0.05)


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


def test_the_widened_quantile_is_students_with_the_bias_of_few_prompts() -> None:
    """t(49) at 95 % is 1.6766; times sqrt(50/49) it is 1.6936, and 4.52 % lie beyond."""
    assert small_sample_z(50, 0.05) == pytest.approx(1.6936, abs=1e-4)
    assert widened_alpha(50, 0.05) == pytest.approx(0.0452, abs=1e-4)
    assert widened_alpha(100_000, 0.05) == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize(("gained", "lost", "pairs"), [(10, 2, 100), (0, 0, 50), (0, 7, 50), (7, 0, 50), (25, 25, 50), (0, 50, 50)])
def test_tangos_bounds_solve_the_score_equation(gained: int, lost: int, pairs: int) -> None:
    """The likeliest table with p01 - p10 = d is found by a search here, and by its formula there."""
    interval, z = paired_share_interval(table(gained, lost, pairs), 0.05), small_sample_z(pairs, 0.05)
    for bound, side in ((interval.low, 1), (interval.high, -1)):
        if abs(bound) < 1 - 1e-9:
            q = np.linspace(max(0.0, -bound), (1 - bound) / 2, 400_001)[1:-1]
            with np.errstate(divide="ignore", invalid="ignore"):
                fit = gained * np.log(q + bound) + lost * np.log(q) + (pairs - gained - lost) * np.log(1 - 2 * q - bound)
            likeliest = q[np.nanargmax(fit)]
            variance = pairs * (2 * likeliest + bound - bound * bound)
            assert (gained - lost - pairs * bound) / math.sqrt(variance) == pytest.approx(side * z, abs=0.01)


def test_the_interval_has_width_when_nothing_changed_and_none_of_it_is_out_of_range() -> None:
    """Without a change Tango's bounds are z^2 / (n + z^2) from zero."""
    interval, z = paired_share_interval(table(0, 0, 50), 0.05), small_sample_z(50, 0.05)
    assert interval.low == pytest.approx(-interval.high) == pytest.approx(-z * z / (50 + z * z))
    assert paired_share_interval(table(0, 5, 5), 0.05).low >= -1
    assert paired_share_interval(table(1, 0, 1), 0.05) == paired_share_interval(table(0, 1, 1), 0.05)


def test_a_prompt_that_gets_worse_never_lifts_either_bound() -> None:
    """Every table of 12 prompts, and each way to lose one of them; also at the alpha of a corrected claim."""
    for alpha in (0.05, 0.002):
        found = {
            (gained, lost): paired_share_interval(table(gained, lost, 12), alpha) for gained in range(13) for lost in range(13 - gained)
        }
        for (gained, lost), interval in found.items():
            for worse in ((gained - 1, lost), (gained, lost + 1), (gained - 1, lost + 1)):
                if worse in found:
                    assert found[worse].low <= interval.low + 1e-9
                    assert found[worse].high <= interval.high + 1e-9


def test_a_wrong_claim_at_the_margin_stays_near_alpha_for_any_share_of_changes() -> None:
    """Exact, over every table of 60 prompts: 5 %, and at most 6 % where all changes are losses; half counts added to Wald's give 13 %."""
    n, margin, worst = 60, 0.05, 0.0
    cells = [(gained, lost) for gained in range(n + 1) for lost in range(n + 1 - gained)]
    passing = [cell for cell in cells if cell[1] - cell[0] < 0.2 * n and paired_share_interval(table(*cell, n), 0.05).low >= -margin]
    for changed in (0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3):
        won, lost = (changed - margin) / 2, (changed + margin) / 2
        chance = sum(
            math.comb(n, a) * math.comb(n - a, b) * won**a * lost**b * (1 - changed) ** (n - a - b) for a, b in passing if won or not a
        )
        worst = max(worst, chance)
    assert 0.02 < worst <= 0.06


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("holm", [0.03, 0.06, 0.06, 0.02]),  # 4 x 0.005, 3 x 0.01, 2 x 0.03, then never below the one before
        ("benjamini_hochberg", [0.02, 0.04, 0.04, 0.02]),  # 4/1 x 0.005, 4/2 x 0.01, 4/3 x 0.03, 4/4 x 0.04
    ],
)
def test_corrections_by_hand(method: Correction, expected: list[float]) -> None:
    assert corrected([0.01, 0.03, 0.04, 0.005], method) == pytest.approx(expected)


@pytest.mark.parametrize("method", ["holm", "benjamini_hochberg"])
def test_a_single_claim_is_not_corrected_and_none_exceeds_one(method: Correction) -> None:
    assert corrected([0.03], method) == [0.03]
    assert corrected([0.9, 0.8, 1.0], method) == pytest.approx([1.0, 1.0, 1.0])
    assert corrected([], method) == []
