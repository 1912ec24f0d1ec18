import math

import numpy as np
import pytest

from evaluation import resampling
from evaluation.resampling import Quantile, Sample, Statistic, Totals, bootstrap, mean, paired_bootstrap, swap_test, total
from evaluation.statistics import Interval, Rows

MEAN = Totals(mean)


def sample(*values: float, answers: int = 1) -> Sample:
    """One column; `answers` rows in a row belong to one prompt."""
    rows = np.array(values, dtype=np.float64).reshape(-1, 1)
    owner = np.arange(len(rows)) // answers
    return Sample(tuple(f"p{number:04d}" for number in range(int(owner[-1]) + 1)), rows, owner)


def interval(ours: Sample, theirs: Sample, *, ratio: bool = False, resamples: int = 400, seed: int = 7) -> Interval:
    return paired_bootstrap(ours, theirs, MEAN, ratio=ratio, alpha=0.05, resamples=resamples, seed=seed).interval


@pytest.mark.parametrize("statistic", [MEAN, Totals(total), Quantile(0.5), Quantile(0.95), Totals(lambda sums, n: math.exp(sums[0] / n))])
def test_weights_count_a_prompt_as_often_as_they_say(statistic: Statistic) -> None:
    """The oracle repeats the rows themselves."""
    random = np.random.default_rng(3)
    given = sample(*random.normal(size=24), answers=3)
    weights = np.bincount(random.integers(0, 8, size=800) + 8 * np.repeat(np.arange(100), 8), minlength=800).reshape(100, 8).astype(float)
    expected = [statistic(np.repeat(given.rows, one.astype(int)[given.owner], axis=0)) for one in weights]
    assert statistic.weighted(given.rows, given.owner, weights) == pytest.approx(expected)


def test_a_model_against_itself_is_exactly_equal() -> None:
    same = sample(0.1, 0.9, 0.4)
    assert interval(same, same) == Interval(0.0, 0.0)


def test_prompts_are_kept_paired() -> None:
    """A constant gain on very unequal prompts has no spread at all when prompts are paired."""
    found = interval(sample(2, 3, 7, 52), sample(0, 1, 5, 50))
    assert (found.low, found.high) == pytest.approx((2, 2))


def test_the_bounds_are_near_the_normal_ones_and_the_same_for_the_same_seed() -> None:
    """Differences 0, 1, …, 99: mean 49.5, standard error 28.87/10, so the 5 % bound is near 49.5 - 1.66 * 2.887 = 44.7."""
    champion, candidate = sample(*[0.0] * 100), sample(*range(100))
    first = interval(candidate, champion, resamples=4000)
    assert first == interval(candidate, champion, resamples=4000)
    assert first.low == pytest.approx(44.7, abs=0.5)


def test_a_ratio_is_a_share_of_the_champions_number() -> None:
    found = interval(sample(1.5, 3.0, 6.0), sample(1, 2, 4), ratio=True)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))


def test_a_ratio_to_nothing_is_infinite() -> None:
    assert interval(sample(1, 1), sample(0, 0), ratio=True) == Interval(math.inf, math.inf)


def test_the_interval_holds_the_measured_difference() -> None:
    found = interval(sample(*[0.0] * 99, 50.0), sample(*[0.0] * 100), resamples=200)
    assert found.low <= 0.5 <= found.high


def test_answers_to_one_prompt_go_together() -> None:
    """20 prompts answered 10 times alike are as wide as 20 prompts, and not as 200."""
    random = np.random.default_rng(5)
    once = random.normal(size=20)
    zero = np.zeros(20)
    narrow = interval(sample(*np.repeat(once, 10), answers=10), sample(*np.repeat(zero, 10), answers=10), resamples=2000)
    wide = interval(sample(*once), sample(*zero), resamples=2000)
    assert (narrow.low, narrow.high) == pytest.approx((wide.low, wide.high))


def test_large_draws_are_made_in_blocks_with_the_same_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = sample(*range(50)), sample(*[20.0] * 50)
    whole = (interval(ours, theirs, seed=11), swap_test(ours, theirs, MEAN, sign=1, resamples=400, seed=11))
    monkeypatch.setattr(resampling, "_BLOCK", 700)
    assert (interval(ours, theirs, seed=11), swap_test(ours, theirs, MEAN, sign=1, resamples=400, seed=11)) == whole


def test_the_interval_of_one_model_is_wide_where_its_prompts_differ() -> None:
    found = bootstrap(sample(*range(100)), MEAN, alpha=0.05, resamples=2000, seed=7)
    assert found.low == pytest.approx(44.7, abs=0.6)
    assert found.high == pytest.approx(54.3, abs=0.6)


@pytest.mark.parametrize(("gained", "p"), [(0, 1.0), (3, 1 / 8), (6, 1 / 64)])
def test_swapping_models_finds_the_coin_tail_of_single_answers(gained: int, p: float) -> None:
    """Only the prompts that changed count, and each is a fair coin: all heads again has probability 1/2^gained."""
    ours, theirs = sample(*[1.0] * 20), sample(*[0.0] * gained, *[1.0] * (20 - gained))
    assert swap_test(ours, theirs, MEAN, sign=1, resamples=20_000, seed=7) == pytest.approx(p, abs=0.01)


def test_swapping_knows_which_way_is_better_and_never_gives_zero() -> None:
    ours, theirs = sample(*[5.0] * 60), sample(*[1.0] * 60)
    assert swap_test(ours, theirs, MEAN, sign=1, resamples=400, seed=7) == 1 / 401
    assert swap_test(ours, theirs, MEAN, sign=-1, resamples=400, seed=7) == 1.0


def test_shares_are_means_over_a_prompts_answers() -> None:
    found: Rows = sample(1, 0, 1, 1, answers=2).shares
    assert found.tolist() == [0.5, 1.0]
