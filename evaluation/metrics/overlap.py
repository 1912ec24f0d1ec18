"""Exact match and token F1, as question answering is scored: case, punctuation and English articles do not count.

English follows SQuAD's official script; Chinese tokens are single characters, words of other scripts in it stay whole, so that no
segmenter's opinion enters the number. Source: Rajpurkar et al., "SQuAD: 100,000+ questions for machine comprehension of text",
EMNLP 2016. Next: `labels.py`.
"""

import re
import string
from collections import Counter

from evaluation.metrics.words import units_of
from evaluation.text import fold_text

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def tokens_of(text: str, language: str) -> tuple[str, ...]:
    """What is compared: SQuAD's normalised words, or Chinese characters."""
    if language == "zh":
        return units_of(text)
    return tuple(_ARTICLES.sub(" ", fold_text(text).translate(_PUNCTUATION)).split())


def overlap(answer: str, reference: str, language: str) -> tuple[bool, float]:
    """(exact match, token F1 0-1). Where one side has no tokens, F1 is 1 if both have none, and 0 otherwise."""
    ours, theirs = tokens_of(answer, language), tokens_of(reference, language)
    if not ours or not theirs:
        return ours == theirs, float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return ours == theirs, 2 * common / (len(ours) + len(theirs))
