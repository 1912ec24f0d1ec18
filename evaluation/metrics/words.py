"""Cuts text into words, twice: into units that need no dictionary, and into Chinese words by jieba.

Units are folded (case, width, quotes): a word of any script, but of Chinese a single character. Lengths, repetition and token F1
count units; only ROUGE takes jieba's words, because published Chinese ROUGE does. Next: `rouge.py`.
"""

import logging
from collections.abc import Iterator, Sequence

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


def units_of(text: str) -> tuple[str, ...]:
    """Words in order, a Chinese character being one; punctuation and white space are left out."""
    return tuple(WORD.findall(fold_text(text)))


def ngrams(units: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    """Every run of `order` units, in order."""
    return (tuple(units[at : at + order]) for at in range(len(units) - order + 1))
