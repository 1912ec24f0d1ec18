"""ROUGE-L by rouge-score, in English and Chinese.

rouge-score's own tokenizer drops every non-ASCII character, so that Chinese would score 0: there jieba cuts the words.
Next: `perplexity.py`.
"""

import logging
from functools import cache
from typing import Any

from evaluation.text import WORD, fold_text


class ChineseTokenizer:
    """jieba's words, folded, without punctuation; words in other scripts stay whole."""

    def __init__(self) -> None:
        import jieba

        jieba.setLogLevel(logging.WARNING)  # it prints its loading time to stderr otherwise
        self._cutter = jieba.Tokenizer()  # our own: the module's is shared, and others may add words to it

    def tokenize(self, text: str) -> list[str]:
        """Words in order."""
        return [word for word in self._cutter.lcut(fold_text(text)) if WORD.search(word)]


def rouge_l(answer: str, reference: str, language: str) -> float:
    """ROUGE-L F1, 0-1, of one answer."""
    return float(_scorer(language).score(reference, answer)["rougeL"].fmeasure)


@cache
def _scorer(language: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # brings nltk and scikit-learn: five seconds that a command may not need

    return RougeScorer(["rougeL"], tokenizer=ChineseTokenizer() if language == "zh" else None)
