"""Finds the prompt that a question nearly is: the same words for the most part, or the same letters.

Words and pairs of words are weighed by how few prompts have them, so that "What are the symptoms of …?" alone makes no likeness where
a hundred prompts begin so. The few prompts nearest by words are then compared by letters, which forgives spelling. A short prompt must be
met more closely, and its rare words and numbers kept: one word makes another question of it. Knows nothing of answers.
Next: `leakage.py`.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates_words import exchanged, has_numeral, likeness, respelt, trigrams_of, words_of
from training.data.leakage_needles import CHARACTERS_PER_WORD, Hit
from training.data.shingles import Hashes, Positions, shingles_of, tokens_of

_SHORT = 12  # words
_SHORT_EXTRA = 0.05  # on top of the threshold, for a short prompt
_RARE = 0.75  # of the greatest weight; of 500 prompts at most 4 have such a word
_WORTH_SPELLING = 0.25  # similarity by words from which letters are compared
_SPELLED = 4  # prompts per question, at most
_CELLS_AT_ONCE = 1 << 21
_READ_CHARACTERS = 4000  # of a question; what is longer is no near copy of a prompt, but may hold it: see `leakage_needles.py`


class NearIndex:
    """Prompts with their words, weighed."""

    def __init__(self, prompts: Sequence[str], threshold: float) -> None:
        self._threshold = threshold
        features, owners = _features(prompts)
        self._known, numbers, rows_with = np.unique(features, return_inverse=True, return_counts=True)
        order = np.argsort(numbers, kind="stable")
        self._owners, self._starts = owners[order], np.concatenate(([0], np.cumsum(rows_with)))
        self._unknown_weight = np.log(len(prompts) + 1)
        self._weights = np.log((len(prompts) + 1) / rows_with)
        self._totals = np.bincount(owners, self._weights[numbers], len(prompts))
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
            similarity = self._by_words(part)
            rows, prompts = np.nonzero(similarity >= _WORTH_SPELLING)
            for row in np.unique(rows).tolist():
                likely = prompts[np.searchsorted(rows, row) : np.searchsorted(rows, row, "right")]
                nearest = likely[np.argsort(-similarity[row, likely], kind="stable")[:_SPELLED]]
                if hit := self._nearest(part[row], [(number, float(similarity[row, number])) for number in nearest.tolist()]):
                    hits[start + row] = hit
        return hits

    def _by_words(self, questions: Sequence[str]) -> NDArray[np.float64]:
        """Weighted Jaccard similarity (questions, prompts)."""
        features, rows = _features(questions)
        places = np.minimum(np.searchsorted(self._known, features), max(0, len(self._known) - 1))
        known = self._known[places] == features
        weights = np.where(known, self._weights[places], self._unknown_weight)
        totals = np.bincount(rows, weights, len(questions))
        times = np.where(known, np.diff(self._starts)[places], 0)
        first = np.repeat(self._starts[places] - (np.cumsum(times) - times), times)
        cells = np.repeat(rows, times) * len(self._totals) + self._owners[np.arange(len(first)) + first]
        shared = np.bincount(cells, np.repeat(weights, times), len(questions) * len(self._totals)).reshape(len(questions), -1)
        return np.asarray(shared / np.maximum(totals[:, None] + self._totals - shared, 1e-9))

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
    """The distinct words, pairs of words and pairs of Chinese characters of each text, and the text of each."""
    tokens = tokens_of(texts)
    single, double = shingles_of(tokens, 1, 2, short=0), shingles_of(tokens, 2, 2, short=0)
    hashes, owners = np.concatenate((single.hashes, double.hashes)), np.concatenate((single.owners(), double.owners()))
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    new = np.ones(len(hashes), np.bool_)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[new], owners[new]
