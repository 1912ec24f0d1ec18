"""chrF2 by sacrebleu, kept as sufficient statistics like `bleu.py`: any set of answers has its exact corpus chrF.

Character n-grams of order 1 to 6 without white space, recall weighed twice (beta 2), no word n-grams. It needs no tokenizer, so it is
the same measure in every language. Source: Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015.
Next: `rouge.py`.
"""

from functools import cache

from sacrebleu.metrics.chrf import CHRF

CHRF_COLUMNS = 3 * CHRF.CHAR_ORDER  # of each order: n-grams of the answer, of the reference, of both


def chrf_stats(answer: str, reference: str) -> tuple[int, ...]:
    """The integers whose sums over answers give corpus chrF; see `CHRF_COLUMNS` for their order."""
    # As in `bleu_stats`: what sacrebleu adds up is private, its public API returns nothing but the score.
    (stats,) = _chrf()._extract_corpus_statistics([answer], [[reference]])
    return tuple(int(value) for value in stats)


def chrf_of(sums: tuple[int, ...]) -> float:
    """Corpus chrF2, 0-100, from summed statistics."""
    return float(_chrf()._compute_score_from_stats(list(sums)).score)


def chrf_signature() -> str:
    """sacrebleu's signature: two chrF numbers are comparable when theirs are equal."""
    metric = CHRF()
    metric.corpus_score(["x"], [["x"]])  # the signature learns the number of references from a call
    return str(metric.get_signature())


@cache
def _chrf() -> CHRF:
    return CHRF()
