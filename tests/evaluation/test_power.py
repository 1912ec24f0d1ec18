import math

import pytest

from evaluation.power import detectable_score, detectable_share, prompts_to_show, sure_margin_share
from evaluation.statistics import mcnemar_exact


def power_of_mcnemar(prompts: int, changed: float, gain: float, alpha: float) -> float:
    """Exact: the sum over how many prompts change, and how many of those are gains."""
    share, found = (changed + gain) / (2 * changed), 0.0
    for moved in range(prompts + 1):
        weight = math.comb(prompts, moved) * changed**moved * (1 - changed) ** (prompts - moved)
        if weight > 1e-12:
            found += weight * sum(
                math.comb(moved, won) * share**won * (1 - share) ** (moved - won)
                for won in range(moved + 1)
                if mcnemar_exact(won, moved - won) <= alpha
            )
    return found


@pytest.mark.parametrize("prompts", [50, 100, 300])
@pytest.mark.parametrize("changed", [0.2, 0.3, 0.5])
def test_the_stated_gain_is_found_four_times_in_five_and_a_much_smaller_one_is_not(prompts: int, changed: float) -> None:
    gain = detectable_share(prompts, changed, 0.05)
    assert gain is not None
    assert power_of_mcnemar(prompts, changed, gain, 0.05) >= 0.8
    assert power_of_mcnemar(prompts, changed, gain * 0.7, 0.05) < 0.8


@pytest.mark.parametrize(("prompts", "changed"), [(20, 0.05), (10, 0.2), (98, 0.0)])
def test_where_too_few_prompts_change_no_gain_is_stated(prompts: int, changed: float) -> None:
    assert detectable_share(prompts, changed, 0.05) is None


def test_a_stricter_claim_needs_a_larger_gain() -> None:
    strict, loose = detectable_share(300, 0.2, 0.005), detectable_share(300, 0.2, 0.05)
    assert strict is not None
    assert loose is not None
    assert strict > loose


def test_more_prompts_make_a_sure_margin_smaller() -> None:
    margins = [sure_margin_share(prompts, 0.2, 0.05) for prompts in (50, 100, 300, 1000)]
    assert margins == sorted(margins, reverse=True)
    assert margins[-1] < 0.04


def test_a_score_is_detectable_at_two_and_a_half_standard_errors() -> None:
    """1.645 + 0.842 = 2.487 for many prompts."""
    assert detectable_score(100_000, 0.01, 0.05) == pytest.approx(0.02487, abs=1e-4)
    assert detectable_score(1, 0.01, 0.05) is None


@pytest.mark.parametrize(("claims", "prompts"), [(1, 5), (2, 6), (18, 9), (20, 9), (100, 11)])
def test_the_worst_that_can_happen_to_a_slice_is_just_shown(claims: int, prompts: int) -> None:
    assert prompts_to_show(claims, 0.05) == prompts
    assert claims * 0.5**prompts <= 0.05 < claims * 0.5 ** (prompts - 1)
