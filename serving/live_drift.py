"""How far the last answers of a release have drifted from the suite it was judged by: length, language and topic, as stability indices.

A live prompt's topic is that of the suite's prompt with which it shares the most telling words; one that is less like all of them than
nearly all of the suite's prompts are like each other is `other`. The suite's own prompts are sorted in the same way, each against all
others, so that a mistake of the sorting is no drift. Good enough to see shares move, not to say what one prompt is about.
Pure. Next: `live_check.py`; `training/data/drift.py`, where the index comes from.
"""

import bisect
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from evaluation.suite import Prompt
from evaluation.text import WORD, fold_text
from serving.live_figures import DriftIndex, Measure
from serving.live_reference import LiveReference
from training.data.drift import index_by_chance, stability_index
from training.data.languages import detect

OTHER = "other"
WINDOW_ANSWERS = 500
_UNLIKE_SHARE = 0.05  # of the suite itself that is `other`
_SAME = 0.5
_LENGTH_BINS = 5
_RARE_SHARE = 0.05
_LEAST_LETTERS = 4


class Topics:
    """Sorts prompts by the telling words they share with the suite's: rare words count more than common ones."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._prompts = prompts
        self._words = [words_of(prompt.text) for prompt in prompts]
        holding = Counter(word for words in self._words for word in words)
        self._weights = {word: math.log(1 + len(prompts) / count) for word, count in holding.items()}
        self._unseen = math.log(1 + len(prompts))
        everyone = range(len(prompts))
        self._own = [self._nearest(words, [o for o in everyone if o != own]) for own, words in enumerate(self._words)]
        self._least_like = sorted(near.likeness for near in self._own)[int(_UNLIKE_SHARE * len(prompts))]

    def topic(self, text: str) -> str:
        """What a prompt counts as."""
        return self._topic(self._nearest(words_of(text), range(len(self._prompts))))

    def same(self, text: str) -> Prompt | None:
        """The suite's prompt of which `text` is another wording of nearly the same words, if there is one."""
        near = self._nearest(words_of(text), range(len(self._prompts)))
        return self._prompts[near.place] if near.likeness >= _SAME else None

    def of_suite(self) -> list[str]:
        """What each prompt of the suite counts as, by the others."""
        return [self._topic(near) for near in self._own]

    def _topic(self, near: "_Near") -> str:
        return self._prompts[near.place].topic if near.likeness >= self._least_like and near.place >= 0 else OTHER

    def _nearest(self, words: frozenset[str], among: Iterable[int]) -> "_Near":
        return max((_Near(self._likeness(words, self._words[place]), place) for place in among), default=_Near(0.0, -1))

    def _likeness(self, ours: frozenset[str], theirs: frozenset[str]) -> float:
        return self._weight(ours & theirs) / (self._weight(ours | theirs) or 1.0)

    def _weight(self, words: frozenset[str]) -> float:
        return sum(self._weights.get(word, self._unseen) for word in words)


class _Near(NamedTuple):
    likeness: float
    place: int


class Seen(NamedTuple):
    """What is kept of one exchange: numbers and classes, no text."""

    prompt_length: int
    prompt_language: str
    prompt_topic: str
    answer_length: int
    answer_language: str


class DriftWindow:
    """The last exchanges of one release, against its reference."""

    def __init__(self, reference: LiveReference, topics: Topics) -> None:
        prompts = [prompt.text for prompt in reference.suites[0].prompts]
        self._lengths = {"prompt_length": _lengths(prompts), "answer_length": _lengths(reference.answers)}
        self._classes = {
            "prompt_language": Counter(_language(prompt) for prompt in prompts),
            "answer_language": Counter(_language(answer) for answer in reference.answers),
            "prompt_topic": Counter(topics.of_suite()),
        }
        self._seen: deque[Seen] = deque(maxlen=WINDOW_ANSWERS)

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, prompt: str, answer: str, topic: str) -> None:
        """One more exchange; the oldest makes room."""
        self._seen.append(Seen(len(prompt), _language(prompt), topic, len(answer), _language(answer)))

    def indices(self) -> dict[Measure, DriftIndex]:
        """The index of every measure, of those that the reference has something to say about."""
        found: dict[Measure, DriftIndex] = {}
        for name, lengths in self._lengths.items():
            if lengths:
                live = [getattr(seen, name) for seen in self._seen]
                found[name] = _of_lengths(live, lengths)  # type: ignore[index]  # the two names are measures
        for name, classes in self._classes.items():
            if classes:
                found[name] = _of_classes(Counter(getattr(seen, name) for seen in self._seen), classes)  # type: ignore[index]
        return found


def words_of(text: str) -> frozenset[str]:
    """The distinct words of a text, folded."""
    return frozenset(match[0] for match in WORD.finditer(fold_text(text)))


def _language(text: str) -> str:
    return detect(text, _LEAST_LETTERS).code


def _lengths(texts: Sequence[str]) -> list[int]:
    return sorted(len(text) for text in texts)


def _of_lengths(live: Sequence[int], reference: Sequence[int]) -> DriftIndex:
    """Over bins that hold about equally many of the reference's texts."""
    edges = sorted({reference[len(reference) * cut // _LENGTH_BINS] for cut in range(1, _LENGTH_BINS)})
    bins = len(edges) + 1
    ours, theirs = ([counts[place] for place in range(bins)] for counts in (_binned(live, edges), _binned(reference, edges)))
    return _index(ours, theirs)


def _binned(lengths: Sequence[int], edges: Sequence[int]) -> Counter[int]:
    return Counter(bisect.bisect_right(edges, length) for length in lengths)


def _of_classes(live: Mapping[str, int], reference: Mapping[str, int]) -> DriftIndex:
    """Over the classes that are common on either side; the rare ones are one together."""
    totals = sum(live.values()), sum(reference.values())
    names = sorted({*live, *reference})
    common = [n for n in names if max(live.get(n, 0) / totals[0], reference.get(n, 0) / totals[1]) >= _RARE_SHARE]
    ours, theirs = ([counts.get(name, 0) for name in common] for counts in (live, reference))
    rare = totals[0] - sum(ours), totals[1] - sum(theirs)
    return _index([*ours, rare[0]], [*theirs, rare[1]]) if any(rare) else _index(ours, theirs)


def _index(live: Sequence[int], reference: Sequence[int]) -> DriftIndex:
    return DriftIndex(index=stability_index(live, reference), chance=index_by_chance(sum(live), sum(reference), len(live)))
