"""Finds the prompt that a question nearly is: the same words for the most part, or the same letters.

Words and pairs of words are weighed by how few prompts have them, so that "What are the symptoms of …?" alone makes no likeness where
a hundred prompts begin so. The few prompts nearest by words are then compared by letters, which forgives spelling. A short prompt must be
met more closely, and its rare words and numbers kept: one word makes another question of it. Knows nothing of answers.
Next: `leakage.py`.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from training.data.duplicates_words import exchanged, has_numeral, likeness, respelt, trigrams_of, words_of
from training.data.leakage_needles import CHARACTERS_PER_WORD, Hit
from training.data.shingles import Hashes, Positions, shingles_of, tokens_of

_SHORT = 12  # words
_SHORT_EXTRA = 0.05  # on top of the threshold, for a short prompt
_RARE = 0.75  # of the greatest weight; of 500 prompts at most 4 have such a word
_WORTH_SPELLING = 0.25  # similarity by words from which letters are compared
_SPELLED = 4  # prompts per question, at most
_CELLS_AT_ONCE = 1 << 21  # of question × prompt
_HASH_BITS = np.uint64(40)  # the other 24 number a text
_READ_CHARACTERS = 4000  # of a question; what is longer is no near copy of a prompt, but may hold it: see `leakage_needles.py`


class NearIndex:
    """Prompts with their words, weighed."""

    def __init__(self, prompts: Sequence[str], threshold: float) -> None:
        self._threshold = threshold
        features, owners = _features(prompts)
        self._known, numbers, rows_with = np.unique(features, return_inverse=True, return_counts=True)
        self._unknown_weight = np.log(len(prompts) + 1)
        self._weights = np.log((len(prompts) + 1) / rows_with)
        self._totals = np.bincount(owners, self._weights[numbers], len(prompts))
        order, starts = np.argsort(numbers, kind="stable"), np.concatenate(([0], np.cumsum(rows_with)))
        self._having = csr_array((self._weights[numbers[order]], owners[order], starts), (len(self._known), len(prompts)))
        self._words = [words_of(prompt[:_READ_CHARACTERS]) for prompt in prompts]
        self._letters = [trigrams_of(words) for words in self._words]
        self._rare = self._rare_words(len(prompts))
        self._chinese = [sum(len(word) == 1 for word in words) * 2 > len(words) for words in self._words]

    def best(self, questions: Sequence[str]) -> dict[int, Hit]:
        """For each question that is nearly a prompt: the prompt, and how nearly."""
        hits: dict[int, Hit] = {}
        at_once = max(1, _CELLS_AT_ONCE // max(1, len(self._totals)))
        for start in range(0, len(questions), at_once):
            part = [question[:_READ_CHARACTERS] for question in questions[start : start + at_once]]
            rows, prompts, similarity = self._alike_by_words(part)
            first = np.searchsorted(rows, np.arange(len(part) + 1)).tolist()
            candidates = list(zip(prompts.tolist(), similarity.tolist(), strict=True))
            for row, (begin, end) in enumerate(pairwise(first)):
                if begin < end and (hit := self._nearest(part[row], candidates[begin : min(end, begin + _SPELLED)])):
                    hits[start + row] = hit
        return hits

    def _alike_by_words(self, questions: Sequence[str]) -> tuple[Positions, Positions, NDArray[np.float64]]:
        """Pairs of question and prompt that are alike, and their weighted Jaccard similarity: by question, the most alike first."""
        features, owners = _features(questions)
        places = np.minimum(np.searchsorted(self._known, features), max(0, len(self._known) - 1))
        known = self._known[places] == features
        weights = np.where(known, self._weights[places], self._unknown_weight)
        totals = np.bincount(owners, weights, len(questions))
        starts = np.searchsorted(owners[known], np.arange(len(questions) + 1))
        asked = csr_array((np.ones(int(known.sum())), places[known], starts), (len(questions), len(self._known)))
        shared = asked @ self._having
        likely = np.flatnonzero(shared.data >= _WORTH_SPELLING * np.repeat(totals, np.diff(shared.indptr)))  # all that can reach it
        rows, prompts, data = np.searchsorted(shared.indptr, likely, "right") - 1, shared.indices[likely], shared.data[likely]
        similarity = data / np.maximum(totals[rows] + self._totals[prompts] - data, 1e-9)
        alike = similarity >= _WORTH_SPELLING
        rows, prompts, similarity = rows[alike], prompts[alike], similarity[alike]
        order = np.lexsort((prompts, -similarity, rows))
        return rows[order], prompts[order], similarity[order]

    def _nearest(self, question: str, candidates: list[Hit]) -> Hit | None:
        """Of a few prompts with their similarity by words, the one most like the question, if any is like enough."""
        words = words_of(question)
        letters = trigrams_of(words)
        best: Hit | None = None
        for number, by_words in candidates:
            prompt = self._letters[number]
            at_most = min(len(letters), len(prompt)) / max(1, len(letters), len(prompt))
            score = max(by_words, likeness(letters, prompt) if at_most >= self._threshold else 0.0)
            if score >= self._threshold and (best is None or score > best[1]) and self._is_near(words, number, score):
                best = number, score
        return best

    def _is_near(self, words: list[str], number: int, score: float) -> bool:
        prompt, chinese = self._words[number], self._chinese[number]
        if len(prompt) >= _SHORT * (CHARACTERS_PER_WORD if chinese else 1):
            return score >= self._threshold
        if score < min(1.0, self._threshold + _SHORT_EXTRA):
            return False
        asked, prompted = exchanged(words, prompt)
        return not has_numeral(asked | prompted) and (not asked or respelt(prompted & self._rare, asked))

    def _rare_words(self, prompts: int) -> set[str]:
        having = Counter(word for words in self._words for word in set(words))
        most = np.log(prompts + 1)
        return {word for word, times in having.items() if np.log((prompts + 1) / times) >= _RARE * most}


def _features(texts: Sequence[str]) -> tuple[Hashes, Positions]:
    """The distinct words, pairs of words and pairs of Chinese characters of each text, and the text of each, in the texts' order."""
    tokens = tokens_of(texts)
    single, double = shingles_of(tokens, 1, 2, short=0), shingles_of(tokens, 2, 2, short=0)
    hashes, owners = np.concatenate((single.hashes, double.hashes)), np.concatenate((single.owners(), double.owners()))
    packed = np.sort(owners.astype(np.uint64) << _HASH_BITS | hashes >> (np.uint64(64) - _HASH_BITS))  # much faster than by two keys
    packed = packed[np.concatenate(([True], packed[1:] != packed[:-1]))] if len(packed) else packed
    return packed & ((np.uint64(1) << _HASH_BITS) - np.uint64(1)), (packed >> _HASH_BITS).astype(np.int64)
