"""BLEU-4 by sacrebleu, kept as sufficient statistics: any set of answers has its exact corpus BLEU without cutting words again.

English is cut by sacrebleu's `13a`, Chinese by its `zh` (single characters), as published scores are. Next: `chrf.py`.
"""

from functools import cache
from typing import Any

from sacrebleu.metrics.bleu import BLEU

ORDER = 4
BLEU_COLUMNS = 2 + 2 * ORDER  # answer length, reference length, matches of order 1-4, n-grams of order 1-4


def bleu_stats(answer: str, reference: str, language: str) -> tuple[int, ...]:
    """The ten integers whose sums over answers give corpus BLEU-4; see `BLEU_COLUMNS` for their order."""
    # sacrebleu computes exactly these per segment and then adds them; its public API returns nothing but the score.
    (stats,) = _bleu(language)._extract_corpus_statistics([answer], [[reference]])
    return tuple(int(value) for value in stats)


def bleu_of(sums: tuple[int, ...]) -> float:
    """Corpus BLEU-4, 0-100, from summed statistics, with sacrebleu's default (exponential) smoothing."""
    return float(_bleu("en")._compute_score_from_stats(list(sums)).score)  # the words were cut before; the language is settled


def bleu_signature(language: str) -> str:
    """sacrebleu's signature: two BLEU numbers are comparable when theirs are equal."""
    metric = BLEU(tokenize=_tokenizer(language), max_ngram_order=ORDER)
    metric.corpus_score(["x"], [["x"]])  # the signature learns the number of references from a call
    return str(metric.get_signature())


def _tokenizer(language: str) -> str:
    return "zh" if language == "zh" else "13a"


@cache
def _bleu(language: str) -> Any:
    return BLEU(tokenize=_tokenizer(language), max_ngram_order=ORDER)
