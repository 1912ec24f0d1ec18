"""ROUGE-1, ROUGE-2 and ROUGE-L by rouge-score, in English and Chinese.

rouge-score's own tokenizer drops every non-ASCII character, so that Chinese would score 0: there jieba cuts the words. No stemmer,
and ROUGE-L over the whole answer, as rouge-score's command line does by default. Next: `overlap.py`.
"""

from functools import cache
from typing import Any

from evaluation.metrics.words import ChineseTokenizer

TYPES = ("rouge1", "rouge2", "rougeL")


def rouge(answer: str, reference: str, language: str) -> tuple[float, float, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L, 0-1 each, of one answer."""
    scores = _scorer(language).score(reference, answer)
    one, two, longest = (float(scores[kind].fmeasure) for kind in TYPES)
    return one, two, longest


@cache
def _scorer(language: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # brings nltk and scikit-learn: seconds that a command may not need

    return RougeScorer(list(TYPES), tokenizer=ChineseTokenizer() if language == "zh" else None)
