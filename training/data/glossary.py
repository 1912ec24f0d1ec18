"""Writes terms as the recipe's glossary has them: MI → myocardial infarction, 心梗 → 心肌梗死.

The longest term wins; words of scripts with spaces match whole, Chinese and Japanese anywhere; abbreviations in capitals match only so.
Code, links and e-mail addresses stay. What the glossary wrote it never touches again: applying it twice is applying it once.
Reading the file and its faults are in `clean_terms.py`. Next: `cleaning.py`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import add, itemgetter
from pathlib import Path
from typing import Literal

from pydantic import Field

from training.data.clean_code import by_spans
from training.data.clean_terms import Case, Term, expanded, read_terms
from training.data.rows import Example, Message, Pair
from training.sections import Section

_MOST_ROUNDS = 6

# Written without spaces between words: a term may stand anywhere in it.
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(f"[^\\W{_NO_SPACES}]+")
_ADDRESS = re.compile(r"(?:https?|ftp)://[!-~]{1,2000}|www\.[!-~]{1,2000}|(?<![A-Za-z0-9_.+-])[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9.-]{1,255}")

Match = tuple[int, int, int]  # start, end, number of the term; a number past the terms is a replacement that stays as it is


class GlossarySection(Section):
    """How terms are written."""

    path: Path = Field(description="CSV or TSV with two columns (term, replacement), or a YAML mapping; UTF-8")
    where: tuple[Literal["questions", "answers", "system"], ...] = Field(
        default=("questions", "answers"), min_length=1, description="whose words are rewritten: the users', the assistant's, the system's"
    )
    case: Case = Field(
        default="auto", description="auto: terms in capitals (MI) match only in capitals, others in any case; or sensitive, insensitive"
    )


class Glossary:
    """A glossary, ready to be applied. Build one per process.

    Raises:
        DataError: as `clean_terms.read_terms`, and for terms that lead back to themselves.
    """

    def __init__(self, section: GlossarySection) -> None:
        self.section = section
        terms = read_terms(section.path, section.case)
        self._terms = terms
        self._find = _Finder(terms)
        self._written = expanded(section.path, terms, self._find.matches)
        # A replacement in which a term still stands would be rewritten by the next pass: it becomes a term of its own, that stays.
        again = sorted({written for written in self._written if self._find.matches(written)})
        self._find = _Finder([*terms, *(Term(written, written, 0, exact=False) for written in again)])

    def apply(self, text: str) -> tuple[str, Counter[str]]:
        """The text with every term rewritten, and how often each was. A text that does not settle in six passes stays as it is."""
        counts = Counter[str]()
        current = text
        for _ in range(_MOST_ROUNDS):
            after = self._once(current, counts)
            if after == current:
                return current, counts
            current = after
        return text, Counter()

    def apply_to(self, example: Example) -> tuple[Example, Counter[str]]:
        """The example with the texts of the section's `where` rewritten."""
        counts = Counter[str]()
        messages = tuple(self._message(message, counts) for message in example.messages)
        if isinstance(example, Pair):
            chosen, rejected = (self._counted("answers", text, counts) for text in (example.chosen, example.rejected))
            return replace(example, messages=messages, chosen=chosen, rejected=rejected), counts
        return replace(example, messages=messages), counts

    def _message(self, message: Message, counts: Counter[str]) -> Message:
        whose = {"user": "questions", "assistant": "answers", "system": "system"}.get(message["role"], "")
        content = message.get("content")
        return {**message, "content": self._counted(whose, content, counts)} if content else message

    def _counted(self, whose: str, text: str, counts: Counter[str]) -> str:
        if whose not in self.section.where:
            return text
        text, found = self.apply(text)
        counts.update(found)
        return text

    def _once(self, text: str, counts: Counter[str]) -> str:
        return "".join(piece if untouched else self._rewritten(piece, counts) for untouched, piece in _pieces(text))

    def _rewritten(self, piece: str, counts: Counter[str]) -> str:
        parts, position = [], 0
        for start, end, number in self._find.matches(piece):
            if number >= len(self._terms):
                continue
            written = _in_case_of(piece[start:end], self._terms[number], self._written[number])
            if written != piece[start:end]:
                counts[self._terms[number].written] += 1
                parts += [piece[position:start], written]
                position = end
        return "".join([*parts, piece[position:]]) if parts else piece


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """The text in pieces, and whether each is code, a link or an address."""
    for is_code, piece in by_spans(text):
        if is_code or not ("@" in piece or "://" in piece or "www." in piece):
            yield is_code, piece
            continue
        position = 0
        for match in _ADDRESS.finditer(piece):
            yield False, piece[position : match.start()]
            yield True, match[0]
            position = match.end()
        yield False, piece[position:]


def _in_case_of(found: str, term: Term, written: str) -> str:
    """A term at the start of a sentence hands its capital on."""
    if term.exact or not (found[0].isupper() and term.written[0].islower() and written[0].islower()):
        return written
    return written[0].upper() + written[1:]


class _Finder:
    """Finds terms by dictionary: one look-up per word, and one per pair of characters where no spaces part words."""

    def __init__(self, terms: list[Term]) -> None:
        backwards = [*enumerate(terms)][::-1]  # the first of two that are alike in lower case wins
        self._exact = {term.written: number for number, term in backwards if term.exact}
        self._folded = {_folded(term.written): number for number, term in backwards if not term.exact}
        by_word, by_pair = defaultdict[str, set[int]](set), defaultdict[str, set[int]](set)
        for term in terms:
            folded = _folded(term.written)
            word = _WORD.match(folded)
            (by_word[word[0]] if word else by_pair[folded[:2]]).add(len(folded))
        self._by_word = _longest_first(by_word)
        self._by_pair = _longest_first({pair: lengths for pair, lengths in by_pair.items() if len(pair) == 2})
        self._by_one = _longest_first({one: lengths for one, lengths in by_pair.items() if len(one) == 1})
        self._words_only_in_ascii = not any(start.isascii() for start in by_pair)

    def matches(self, text: str) -> list[Match]:
        """The longest term at each place, left to right, without overlaps."""
        folded, found, free = _folded(text), list[Match](), 0
        for begin, lengths in self._places(folded):
            if begin >= free and (match := self._longest(text, folded, begin, lengths)):
                found.append(match)
                free = match[1]
        return found

    def _places(self, folded: str) -> list[tuple[int, list[int]]]:
        """Where a term may start, left to right, and the lengths of the terms that start so."""
        places = [(word.start(), self._by_word[word[0]]) for word in _WORD.finditer(folded) if word[0] in self._by_word]
        if self._words_only_in_ascii and folded.isascii():
            return places
        pairs = enumerate(map(add, folded, folded[1:]))
        places += [(begin, self._by_pair[pair]) for begin, pair in pairs if pair in self._by_pair]
        if self._by_one:
            places += [(begin, self._by_one[one]) for begin, one in enumerate(folded) if one in self._by_one]
        return sorted(places, key=itemgetter(0))  # stable: of two at one place, the pair is tried before the single character

    def _longest(self, text: str, folded: str, begin: int, lengths: list[int]) -> Match | None:
        for length in lengths:
            end = begin + length
            number = self._exact.get(text[begin:end])
            if number is None:
                number = self._folded.get(folded[begin:end])
            if number is not None and not (_WORD.match(folded, end) and _WORD.match(folded, end - 1)):
                return begin, end, number
        return None


def _longest_first(lengths: Mapping[str, set[int]]) -> dict[str, list[int]]:
    return {start: sorted(known, reverse=True) for start, known in lengths.items()}


def _folded(text: str) -> str:
    """Lower case of the same length, so that places in it are places in the text."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(low if len(low := one.lower()) == 1 else one for one in text)
