"""Compares two short texts by their words and letters: how alike they are, and which words were exchanged between them.

Shared by the search for duplicates and for leaks; knows nothing of either. Next: `duplicates_same.py` and `leakage_near.py`.
"""

import re
from collections import Counter
from collections.abc import Sequence

import regex

from training.data.duplicates_characters import normalised

Trigrams = frozenset[tuple[str, ...]]
Exchanged = tuple[set[str], set[str]]

_SPELLED_ALIKE = 0.25  # share of trigrams: `fever` and `feevr` have as much, `Fryns` and `Frasier` 0.1

_WORD = regex.compile(r"\p{Han}|[\p{L}\p{N}\p{M}--\p{Han}]+", regex.V1)
_ASCII_WORD = re.compile(r"[a-z0-9]+")  # finds the same in such a text, in a quarter of the time
_HAN = regex.compile(r"\p{Han}")
_DIGIT = regex.compile(r"\p{Nd}")
_NUMBER = regex.compile(r"two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|hundred|thousand|once|twice|half|double")
# type II, hepatitis B, 二期; an `a` is mostly an article, an `s` or `t` what is left of "isn't"
_NUMERAL = regex.compile(r"[ivx]+|[b-ru-z]|[一二三四五六七八九十两]")
_NEGATION = regex.compile(r"no|not|never|none|nor|neither|without|cannot|(do|does|did|is|are|was|wo|should|must)n|[不没無无非勿未别莫禁]")


def words_of(text: str) -> list[str]:
    """Words in order, a Chinese character counting as one."""
    return _ASCII_WORD.findall(text.lower()) if text.isascii() else list(_WORD.findall(normalised(text)))


def trigrams_of(words: Sequence[str]) -> Trigrams:
    """All runs of three letters, borders of words included."""
    line = f" {' '.join(words)} "
    return frozenset(zip(line, line[1:], line[2:], strict=False))


def likeness(one: Trigrams, other: Trigrams) -> float:
    """Jaccard similarity; 0 where both are empty."""
    shared = len(one & other)
    return shared / max(1, len(one) + len(other) - shared)


def exchanged(one: Sequence[str], other: Sequence[str]) -> Exchanged:
    """Words that the one has more often, and words that the other has more often."""
    words, other_words = Counter(one), Counter(other)
    return set(words - other_words), set(other_words - words)


def respelt(words: set[str], others: set[str], *, strictly: bool = False) -> bool:
    """Whether each of the words is another spelling of one of the others. Of a Chinese character nobody can say; `strictly`, it is none."""
    spellings = [trigrams_of([other]) for other in others]
    sayable = (trigrams_of([word]) for word in words if strictly or not _HAN.match(word))
    return all(any(likeness(word, spelling) >= _SPELLED_ALIKE for spelling in spellings) for word in sayable)


def respelt_both(difference: Exchanged, *, strictly: bool = False) -> bool:
    """Whether what was exchanged is nothing but other spellings."""
    one, other = difference
    return respelt(one, other, strictly=strictly) and respelt(other, one, strictly=strictly)


def has_number(words: set[str]) -> bool:
    """Whether one of the words has a digit or is a number."""
    return any(_DIGIT.search(word) or _NUMBER.fullmatch(word) for word in words)


def has_numeral(words: set[str]) -> bool:
    """Whether one of the words numbers or letters something: 2, 1b, iii, b, 二."""
    return has_number(words) or any(_NUMERAL.fullmatch(word) for word in words)


def has_negation(words: set[str]) -> bool:
    """Whether one of the words turns a sentence round."""
    return any(_NEGATION.fullmatch(word) for word in words)
