"""Says whether two rows that look alike are the same row written twice, or two rows that must both be kept.

Sharing most of their shingles is not enough: "Is Fabry disease inherited?" and "Is Gaucher disease inherited?" may have the same
answer word for word. So the questions are compared on their own and may differ in spelling, not in words; numbers and negations must
agree; a word that was exchanged in question *and* answer is the subject of the row; and text that a large share of all rows has in
common (a prompt template, a disclaimer) is no evidence. In doubt the rows are two: a row kept too many costs less than knowledge
lost. Knows nothing of signatures and clusters. Next: `duplicates_clusters.py` asks it about pairs.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates_clusters import OWN_SIMILARITY
from training.data.duplicates_signatures import Signatures, signatures_of
from training.data.duplicates_words import (
    Exchanged,
    Trigrams,
    exchanged,
    has_negation,
    has_number,
    has_numeral,
    likeness,
    respelt_both,
    trigrams_of,
    words_of,
)
from training.data.shingles import CHARACTERS, SHORT, WORDS, Hashes, Positions, Shingles, shingles_of, tokens_of

Sides = Callable[[Positions], Sequence[tuple[str, str]]]  # row numbers -> (question, answer) of each

ANSWER_SIMILARITY = 0.6  # share of common words; a long question must not make `yes` and `no` alike
QUESTION_SIMILARITY = 0.8  # share of character trigrams: one typo in an eight-word question leaves about that, another disease 0.3 to 0.7
TEMPLATE_SHARE, TEMPLATE_ROWS = 0.01, 20  # what more than both of these of the sampled rows have in common is a template
_SAMPLE_ROWS = 20_000
_PAIRS_AT_ONCE = 2048
_PAIR_BITS = 11  # of a sorting key; the other 53 are the shingle's
_GUARDED_CHARACTERS = 20_000  # of a question and of an answer; what follows is compared by its shingles only


class SameRows:
    """Compares pairs of rows; `sides` is asked for the texts of a few thousand rows at a time."""

    def __init__(self, sides: Sides, rows: Positions, threshold: float) -> None:
        self._sides, self._threshold = sides, threshold
        self._template = _template_shingles(sides, rows)

    def __call__(self, left: Positions, right: Positions) -> NDArray[np.bool_]:
        """For each pair of row numbers, whether the two are the same row."""
        parts = [slice(start, start + _PAIRS_AT_ONCE) for start in range(0, len(left), _PAIRS_AT_ONCE)]
        return np.concatenate([np.zeros(0, np.bool_), *(self._same(left[part], right[part]) for part in parts)])

    def own_signatures(self, rows: Positions, permutations: int) -> Signatures:
        """Signatures of the rows without what they share with a template."""
        parts = [np.zeros((0, permutations), np.uint32)]
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            hashes, starts = self._own(*self._shingles(self._sides(rows[start : start + _PAIRS_AT_ONCE])))
            parts.append(signatures_of(Shingles(hashes, starts), permutations))
        return np.concatenate(parts)

    def _same(self, left: Positions, right: Positions) -> NDArray[np.bool_]:
        rows, places = np.unique(np.concatenate((left, right)), return_inverse=True)
        texts = self._sides(rows)
        first, second = places[: len(left)], places[len(left) :]
        same = self._alike(texts, first, second)
        of_text = cache(_content)
        for pair in np.flatnonzero(same):
            same[pair] = _agree(of_text(texts[first[pair]]), of_text(texts[second[pair]]))
        return same

    def _alike(self, texts: Sequence[tuple[str, str]], first: Positions, second: Positions) -> NDArray[np.bool_]:
        """Whether the rows share enough of all their shingles, and of those that are not the template's."""
        hashes, starts = self._shingles(texts)
        own, own_starts = self._own(hashes, starts)
        nothing_own = np.diff(own_starts) == 0
        own_alike = jaccard(own, own_starts, first, second) >= OWN_SIMILARITY
        alike = jaccard(hashes, starts, first, second) >= self._threshold
        return np.asarray(alike & (own_alike | (nothing_own[first] & nothing_own[second])))

    def _own(self, hashes: Hashes, starts: Positions) -> tuple[Hashes, Positions]:
        own = ~np.isin(hashes, self._template)
        return hashes[own], np.concatenate(([0], np.cumsum(own)))[starts]

    @staticmethod
    def _shingles(texts: Sequence[tuple[str, str]]) -> tuple[Hashes, Positions]:
        return distinct_shingles([f"{question}\n{answer}" for question, answer in texts])


def distinct_shingles(
    texts: Sequence[str], words: int = WORDS, characters: int = CHARACTERS, short: int = SHORT
) -> tuple[Hashes, Positions]:
    """The set of shingles of each text: of text `i` the sorted `hashes[starts[i]:starts[i + 1]]`."""
    shingles = shingles_of(tokens_of(texts), words, characters, short)
    owners = shingles.owners()
    order = np.lexsort((shingles.hashes, owners))
    hashes, owners = shingles.hashes[order], owners[order]
    new = np.ones(len(hashes), np.bool_)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[new], np.searchsorted(owners[new], np.arange(len(texts) + 1))


def jaccard(hashes: Hashes, starts: Positions, first: Positions, second: Positions) -> NDArray[np.float64]:
    """Shared share of the shingle sets `first[i]` and `second[i]`, for at most 2048 pairs; 0 where both are empty."""
    sizes = np.diff(starts)
    total = sizes[first] + sizes[second]
    keys = np.concatenate([_keys(hashes, starts, sizes, side) for side in (first, second)])
    keys.sort()
    shared_keys = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(64 - _PAIR_BITS)
    shared = np.bincount(shared_keys.astype(np.int64), minlength=len(first))
    return np.asarray(shared / np.maximum(total - shared, 1))


def _keys(hashes: Hashes, starts: Positions, sizes: Positions, sets: Positions) -> Hashes:
    """All shingles of the sets on end, each with the number of its pair in the upper bits."""
    lengths = sizes[sets]
    ends = np.cumsum(lengths)
    within = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    pair = np.repeat(np.arange(len(sets), dtype=np.uint64), lengths) << np.uint64(64 - _PAIR_BITS)
    return pair | (hashes[np.repeat(starts[:-1][sets], lengths) + within] >> np.uint64(_PAIR_BITS))


def _template_shingles(sides: Sides, rows: Positions) -> Hashes:
    """Sorted shingles that more than `TEMPLATE_SHARE` of the rows have, judged by rows taken evenly from all."""
    sample = rows[:: max(1, len(rows) // _SAMPLE_ROWS)]
    found = [np.zeros(0, np.uint64)]
    for start in range(0, len(sample), _PAIRS_AT_ONCE):
        texts = sides(sample[start : start + _PAIRS_AT_ONCE])
        found.append(distinct_shingles([f"{question}\n{answer}" for question, answer in texts])[0])
    shingles, counts = np.unique(np.concatenate(found), return_counts=True)
    return shingles[counts > max(TEMPLATE_ROWS, TEMPLATE_SHARE * len(sample))]


@dataclass(frozen=True, slots=True)
class _Content:
    """What must agree in two rows."""

    asked: list[str]
    answered: list[str]
    letters: Trigrams  # of the question


def _content(text: tuple[str, str]) -> _Content:
    question, answer = text
    asked, answered = words_of(question[:_GUARDED_CHARACTERS]), words_of(answer[:_GUARDED_CHARACTERS])
    return _Content(asked, answered, trigrams_of(asked))


def _agree(one: _Content, other: _Content) -> bool:
    if one is other:
        return True
    return likeness(one.letters, other.letters) >= QUESTION_SIMILARITY and _same_words(
        exchanged(one.asked, other.asked), _answered(one.answered, other.answered)
    )


def _same_words(asked: Exchanged, answered: Exchanged | None) -> bool:
    """Whether nothing that was exchanged changes the meaning; `answered` is None where the answers are different altogether."""
    if answered is None or (all(asked) and not respelt_both(asked)):
        return False
    same_word_in_both = (asked[0] & answered[0]) and (asked[1] & answered[1])
    other_numbers = has_numeral(asked[0] | asked[1]) or all(has_number(words) for words in answered)
    return not (same_word_in_both or other_numbers or has_negation(asked[0] | asked[1] | answered[0] | answered[1]))


def _answered(one: list[str], other: list[str]) -> Exchanged | None:
    """What was exchanged between two answers; nothing where one is the other with something added at its end."""
    shorter, longer = sorted((one, other), key=len)
    if 2 * len(shorter) >= len(longer) and longer[: len(shorter)] == shorter:
        return set(), set()
    shared = (Counter(one) & Counter(other)).total()
    difference = exchanged(one, other)
    alike = shared >= ANSWER_SIMILARITY * len(longer) or (all(difference) and respelt_both(difference, strictly=True))
    return difference if alike else None
