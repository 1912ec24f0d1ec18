"""Win rate and agreement of reviewers. Pure functions of labels, each with the source of its formula. Next: `review_close.py`."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations
from statistics import NormalDist

from evaluation.statistics import Interval

Labels = Sequence[Sequence[Hashable]]


def wilson_of_share(share: float, trials: float, alpha: float) -> Interval:
    """Wilson's interval, each end alone wrong with probability alpha, for a share that may come from half successes.

    With ties as halves the true variance is smaller than the binomial one assumed here, so the interval is rather too wide.
    Source: Wilson, JASA 22 (1927).
    """
    z = NormalDist().inv_cdf(1 - alpha)
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def observed_agreement(rows: Labels) -> float | None:
    """Share of pairs of votes on the same prompt that say the same; None with one vote per prompt.

    Args:
        rows: for each prompt, the label that each reviewer gave it, reviewers in the same order.
    """
    pairs = [first == second for row in rows for first, second in combinations(row, 2)]
    return sum(pairs) / len(pairs) if pairs else None


def cohen_kappa(rows: Labels) -> float | None:
    """Agreement of two reviewers beyond chance, 1 at most; None where chance alone would always agree.

    Source: Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20 (1960).
    """
    observed = sum(first == second for first, second in rows) / len(rows)
    first, second = (Counter(row[side] for row in rows) for side in (0, 1))
    return _beyond_chance(observed, sum(first[label] * second[label] for label in first) / len(rows) ** 2)


def fleiss_kappa(rows: Labels) -> float | None:
    """Agreement of three or more reviewers beyond chance, 1 at most; None where chance alone would always agree.

    Source: Fleiss, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76 (1971).
    """
    raters = len(rows[0])
    counts = [Counter(row) for row in rows]
    observed = sum(sum(n * (n - 1) for n in count.values()) / (raters * (raters - 1)) for count in counts) / len(rows)
    totals = sum(counts, Counter())
    return _beyond_chance(observed, sum((n / (len(rows) * raters)) ** 2 for n in totals.values()))


def kappa(rows: Labels) -> float | None:
    """Cohen's for two reviewers, Fleiss' for more; None for one."""
    raters = len(rows[0]) if rows else 0
    return None if raters < 2 else cohen_kappa(rows) if raters == 2 else fleiss_kappa(rows)


def _beyond_chance(observed: float, expected: float) -> float | None:
    return None if math.isclose(expected, 1.0) else (observed - expected) / (1 - expected)
