"""Does an answer go round in circles? Distinct and repeated n-grams, and the loop that an answer never leaves.

Each number is of one answer and averaged over answers later. Over all answers at once (as Li et al. define distinct-n) a resample
of prompts, in which prompts come twice, would look repetitive. Next: `text_scores.py`.
"""

from collections.abc import Sequence

from evaluation.metrics.words import ngrams

_ORDER = 4
_LONGEST_PERIOD = 64
_ROUNDS = 3
_LEAST_UNITS = 8


def distinct(units: Sequence[str], order: int) -> float:
    """Share of n-grams that are different from each other, 0-1; 1 for an answer too short to have any, 0 for an empty one.

    Source: Li et al., "A diversity-promoting objective function for neural conversation models", NAACL 2016.
    """
    if not units:
        return 0.0
    grams = list(ngrams(units, order))
    return len(set(grams)) / len(grams) if grams else 1.0


def repeated_share(units: Sequence[str]) -> float:
    """Share of 4-grams that were there before, 0-1: the "seq-rep-4" of one answer.

    Source: Welleck et al., "Neural text generation with unlikelihood training", ICLR 2020.
    """
    return 1 - distinct(units, _ORDER) if len(units) >= _ORDER else 0.0


def ends_in_loop(units: Sequence[str]) -> bool:
    """Whether the end repeats one run of at most 64 units three times or more, over at least 8 units; the last may be cut off."""
    return any(_repeats(units, period) for period in range(1, min(_LONGEST_PERIOD, len(units) // _ROUNDS) + 1))


def _repeats(units: Sequence[str], period: int) -> bool:
    rounds = max(_ROUNDS, -(-_LEAST_UNITS // period))
    tail = units[-period * rounds :]
    return len(tail) == period * rounds and tail[period:] == tail[:-period]
