"""Statistics of numbers that have no formula for their error: prompts are drawn again, or models swapped, and the number made anew.

A corpus number (BLEU, perplexity, a quantile) is made anew from what each prompt adds to it, never from answers again. All of a
prompt's answers go together, so that asking a prompt ten times does not count as ten prompts. Next: `aggregates.py`.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics import Interval, Rows, widened_alpha

# Draws are made in blocks of about so many weights, so that 100 000 resamples of 2 000 prompts fit into memory.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class Sample:
    """What a number is made of.

    Attributes:
        prompts: the prompts it applies to, each once, in ascending order.
        rows: what each answer adds, shape (answers, k), in the order of `prompts`.
        owner: which prompt each row belongs to, shape (answers,), ascending.
    """

    prompts: tuple[str, ...]
    rows: Rows
    owner: NDArray[np.intp]

    @property
    def shares(self) -> Rows:
        """The mean of each prompt's rows, shape (prompts,); for numbers with one column."""
        counts = np.bincount(self.owner, minlength=len(self.prompts))
        result: Rows = np.bincount(self.owner, weights=self.rows[:, 0], minlength=len(self.prompts)) / counts
        return result


class Statistic(Protocol):
    """A corpus number: of rows as they are, and of rows counted several times or not at all."""

    def __call__(self, rows: Rows) -> float:
        """The number of all rows, shape (answers, k)."""
        ...

    def weighted(self, rows: Rows, owner: NDArray[np.intp], weights: Rows) -> Rows:
        """The number for each row of `weights`, shape (draws, prompts): how often a prompt's rows count."""
        ...


@dataclass(frozen=True)
class Totals:
    """A function of the sums over answers: a mean, BLEU, perplexity.

    Attributes:
        of: makes the number of the sums of the columns and the number of answers.
    """

    of: Callable[[Rows, float], float]

    def __call__(self, rows: Rows) -> float:
        """The number of all rows."""
        return self.of(rows.sum(axis=0), float(len(rows)))

    def weighted(self, rows: Rows, owner: NDArray[np.intp], weights: Rows) -> Rows:
        """See `Statistic`; one matrix product adds everything up."""
        per_prompt = np.zeros((weights.shape[1], rows.shape[1] + 1))
        np.add.at(per_prompt, owner, np.hstack([rows, np.ones((len(rows), 1))]))
        sums = weights @ per_prompt
        return np.array([self.of(one[:-1], float(one[-1])) for one in sums])


@dataclass(frozen=True)
class Quantile:
    """A quantile of one column, linear between neighbours, as numpy has it."""

    share: float

    def __call__(self, rows: Rows) -> float:
        """The quantile of all rows."""
        return float(np.quantile(rows[:, 0], self.share))

    def weighted(self, rows: Rows, owner: NDArray[np.intp], weights: Rows) -> Rows:
        """See `Statistic`; counts along the sorted rows until the quantile is reached."""
        order = np.argsort(rows[:, 0], kind="stable")
        values = rows[order, 0]
        reached = np.cumsum(weights.astype(np.int16)[:, owner[order]], axis=1, dtype=np.int32)
        place = (reached[:, -1] - 1) * self.share
        below = np.floor(place)
        first = (reached > below[:, None]).argmax(axis=1)
        second = (reached > np.ceil(place)[:, None]).argmax(axis=1)
        result: Rows = values[first] + (place - below) * (values[second] - values[first])
        return result


def mean(sums: Rows, count: float) -> float:
    """For `Totals`: the mean of the first column."""
    return float(sums[0]) / count


def total(sums: Rows, count: float) -> float:
    """For `Totals`: the sum of the first column."""
    return float(sums[0])


@dataclass(frozen=True)
class Resampled:
    """What drawing the prompts again says about a difference: its interval, and its standard error."""

    interval: Interval
    error: float


def paired_bootstrap(
    candidate: Sample, champion: Sample, statistic: Statistic, *, ratio: bool, alpha: float, resamples: int, seed: int
) -> Resampled:
    """Of statistic(candidate) - statistic(champion), or of that difference as a share of statistic(champion) when `ratio`.

    The prompts are drawn with replacement, the same ones for both models, which keeps easy and hard prompts paired; the bounds are
    the outer quantiles of the resampled differences, at an alpha widened for few prompts, outward to the next resample. They never lie
    inside of the measured difference, and making an answer worse moves both of them the worse way.
    Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13; for corpus BLEU: Koehn, EMNLP 2004.
    """
    prompts = len(candidate.prompts)
    draws = [
        _difference(_weighted(candidate, statistic, weights), _weighted(champion, statistic, weights), ratio)
        for weights in _draws(prompts, resamples, seed)
    ]
    differences = np.concatenate(draws)
    measured = float(_difference(np.array([statistic(candidate.rows)]), np.array([statistic(champion.rows)]), ratio)[0])
    tail = widened_alpha(prompts, alpha)
    low = float(np.quantile(differences, tail, method="lower"))
    high = float(np.quantile(differences, 1 - tail, method="higher"))
    finite = differences[np.isfinite(differences)]
    error = float(finite.std()) if len(finite) == len(differences) else math.inf
    return Resampled(Interval(min(low, measured), max(high, measured)), error)


def bootstrap(sample: Sample, statistic: Statistic, *, alpha: float, resamples: int, seed: int) -> Interval:
    """Interval of one model's own number; see `paired_bootstrap`."""
    prompts = len(sample.prompts)
    values = np.concatenate([_weighted(sample, statistic, weights) for weights in _draws(prompts, resamples, seed)])
    tail = widened_alpha(prompts, alpha)
    return Interval(float(np.quantile(values, tail, method="lower")), float(np.quantile(values, 1 - tail, method="higher")))


def swap_test(better: Sample, worse: Sample, statistic: Statistic, *, sign: float, resamples: int, seed: int) -> float:
    """One-sided p that `better` is better only by chance: how often models swapped at random, prompt by prompt, do as well.

    The measured order counts as one of the swaps, so that p is never 0 and the test keeps alpha exactly.
    Source: Noreen, "Computer-Intensive Methods for Testing Hypotheses" (1989); for corpus scores: Riezler & Maxwell, ACL 2005.

    Args:
        better: the model that is claimed to be better.
        worse: the model that it is compared with, on the same prompts.
        statistic: the number.
        sign: 1 where higher is better, -1 where lower is.
        resamples: how many swaps.
        seed: the same seed swaps the same prompts.
    """
    prompts = len(better.prompts)
    rows, owner = np.vstack([better.rows, worse.rows]), np.concatenate([better.owner, worse.owner + prompts])
    measured = sign * (statistic(better.rows) - statistic(worse.rows))
    slack = 1e-9 * max(1.0, abs(measured))  # the same sum in another order is not quite the same number
    as_good = 0
    for kept in _swaps(prompts, resamples, seed):
        ours = statistic.weighted(rows, owner, np.hstack([kept, 1 - kept]))
        theirs = statistic.weighted(rows, owner, np.hstack([1 - kept, kept]))
        as_good += int((sign * (ours - theirs) >= measured - slack).sum())
    return (1 + as_good) / (1 + resamples)


def _weighted(sample: Sample, statistic: Statistic, weights: Rows) -> Rows:
    return statistic.weighted(sample.rows, sample.owner, weights)


def _difference(candidate: Rows, champion: Rows, ratio: bool) -> Rows:
    difference: Rows = candidate - champion
    if not ratio:
        return difference
    with np.errstate(divide="ignore", invalid="ignore"):
        share = difference / champion
    result: Rows = np.where(difference == 0, 0.0, np.where(champion == 0, np.copysign(np.inf, difference), share))
    return result


def _draws(prompts: int, resamples: int, seed: int) -> Iterable[Rows]:
    """How often each prompt is drawn, shape (draws, prompts), in blocks; those of the last size are kept for the next metric."""
    return _kept_draws(prompts, resamples, seed) if prompts * resamples <= 2 * _BLOCK else _fresh_draws(prompts, resamples, seed)


@lru_cache(maxsize=1)
def _kept_draws(prompts: int, resamples: int, seed: int) -> tuple[Rows, ...]:
    return tuple(_fresh_draws(prompts, resamples, seed))


def _fresh_draws(prompts: int, resamples: int, seed: int) -> Iterator[Rows]:
    random = np.random.default_rng(seed)
    for size in _blocks(prompts, resamples):
        picked = random.integers(0, prompts, size=(size, prompts)) + prompts * np.arange(size)[:, None]
        yield np.bincount(picked.ravel(), minlength=size * prompts).reshape(size, prompts).astype(np.float64)


def _swaps(prompts: int, resamples: int, seed: int) -> Iterator[Rows]:
    """1 where a prompt's answers stay with their model and 0 where they are swapped, shape (draws, prompts), in blocks."""
    random = np.random.default_rng(seed)
    for size in _blocks(prompts, resamples):
        yield random.integers(0, 2, size=(size, prompts)).astype(np.float64)


def _blocks(prompts: int, resamples: int) -> Iterator[int]:
    most = max(1, _BLOCK // prompts)
    for done in range(0, resamples, most):
        yield min(most, resamples - done)
