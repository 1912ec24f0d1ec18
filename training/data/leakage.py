"""Finds training rows that overlap the prompts a model will be judged by, so that it is judged on what it has not seen.

Four ways to overlap, the surest first: the question is the prompt (`exact`), is nearly it (`near`), the prompt stands inside the row
(`ngram`), or its reference answer does (`reference`). Sharing a topic is none of them. An index is built from prompts given as plain
values and may be sent to another process; it knows nothing of suites' files or of what happens to the row. Next:
`leakage_needles.py` finds texts inside texts, `leakage_near.py` compares questions, `leakage_keys.py` keeps the questions trained on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from training.data.leakage_near import NearIndex
from training.data.leakage_needles import Hit, NeedleIndex, RowRuns
from training.data.leakage_section import LeakageSection
from training.data.shingles import Hashes, keys_of, tokens_of

Kind = Literal["exact", "near", "ngram", "reference"]
KINDS: tuple[Kind, ...] = ("exact", "near", "ngram", "reference")  # the surest first

SHORTEST_PROMPT, SHORTEST_REFERENCE = 6, 10  # words; a shorter one inside a row says nothing

_ROWS_AT_ONCE = 1000
_LINES_READ = 200  # of a question
_SHORTEST_LINE = 3  # words; a prompt such as "Hello" stands in many conversations


@dataclass(frozen=True, slots=True)
class SuitePrompt:
    """A prompt of a suite: the last user message and the reference answer."""

    suite: str
    id: str
    text: str
    reference: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """The prompt a row overlaps, how, and how much (1 is all of it)."""

    kind: Kind
    suite: str
    prompt_id: str
    score: float

    def __str__(self) -> str:
        return f"{_SENTENCES[self.kind]} prompt {self.prompt_id} of suite {self.suite} ({self.score:.0%})"


_SENTENCES: dict[Kind, str] = {
    "exact": "the question is",
    "near": "the question is nearly",
    "ngram": "the row contains",
    "reference": "the row contains the reference answer of",
}


class Index:
    """Built once from all prompts of all suites; asked about rows in chunks."""

    def __init__(self, prompts: Sequence[SuitePrompt], section: LeakageSection | None = None) -> None:
        section = section or LeakageSection()
        self._prompts = tuple(prompts)
        texts, references = tokens_of([prompt.text for prompt in prompts]), tokens_of([prompt.reference for prompt in prompts])
        self._first_with: dict[int, int] = {}
        keys = keys_of(texts)
        for number, key in enumerate(keys.tolist()):
            self._first_with.setdefault(key, number)
        self._first_with.pop(0, None)
        self._near = NearIndex([prompt.text for prompt in prompts], section.near_threshold)
        self._prompts_inside = NeedleIndex(texts, keys, section.ngram, section.containment, SHORTEST_PROMPT)
        self._references_inside = NeedleIndex(references, keys, section.ngram, section.containment, SHORTEST_REFERENCE)
        self._pieces = self._prompts_inside.pieces | self._references_inside.pieces

    def overlap(self, question: str, answer: str) -> Overlap | None:
        """The surest overlap of one row, if there is any; `overlaps` costs far less per row."""
        return self.overlaps([(question, answer)])[0]

    def overlaps(self, rows: Sequence[tuple[str, str]]) -> list[Overlap | None]:
        """For each (question, answer) its surest overlap, if there is any."""
        if not self._first_with:
            return [None] * len(rows)
        parts = (rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE))
        return [overlap for part in parts for overlap in self._overlaps(part)]

    def _overlaps(self, rows: Sequence[tuple[str, str]]) -> list[Overlap | None]:
        tokens = tokens_of([text for row in rows for text in row])
        runs_of = cache(RowRuns(tokens.of_each(2), self._pieces).of)
        questions = [question for question, _ in rows]
        hits: dict[Kind, dict[int, Hit]] = {
            "exact": self._prompts_with(keys_of(tokens)[::2], range(len(rows))),
            "near": self._near.best(questions),
            "ngram": self._prompts_inside.best(runs_of) | self._prompts_on_a_line(questions),
            "reference": self._references_inside.best(runs_of),
        }
        found: list[Overlap | None] = [None] * len(rows)
        for kind in reversed(KINDS):
            for row, (number, score) in hits[kind].items():
                prompt = self._prompts[number]
                found[row] = Overlap(kind, prompt.suite, prompt.id, round(score, 4))
        return found

    def _prompts_with(self, keys: Hashes, rows: Iterable[int]) -> dict[int, Hit]:
        numbers = ((row, self._first_with.get(key)) for row, key in zip(rows, keys.tolist(), strict=True))
        return {row: (number, 1.0) for row, number in numbers if number is not None}

    def _prompts_on_a_line(self, questions: Sequence[str]) -> dict[int, Hit]:
        """Prompts that are a turn of a conversation, or a line of a question: even those too short to be looked for inside a text."""
        lines = [(row, line) for row, question in enumerate(questions) if "\n" in question for line in question.splitlines()[:_LINES_READ]]
        tokens = tokens_of([line for _, line in lines])
        telling = tokens.counts >= _SHORTEST_LINE
        return self._prompts_with(keys_of(tokens) * telling, (row for row, _ in lines))
