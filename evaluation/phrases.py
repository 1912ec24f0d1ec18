"""Finds a rule's phrase in folded text: whole words in Latin script, substrings in Chinese, `...` as a short gap.

A gap is at most 6 words or 12 Chinese characters and stays inside one sentence. `{38 °C}` stands for a quantity in any spelling or
unit, and a phrase between slashes is a regular expression. Finding says nothing about whether the phrase is meant: that is the question
of `negation.py` and `framing.py`. Next: `negation.py`.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from evaluation.patterns import TimedPattern, timed
from evaluation.quantities import Wanted, quantities_in, read_wanted
from evaluation.text import CJK, count_units, fold_text

GAP_UNITS = 12  # half words, see text.count_units
_GAP_CHARS = 160  # no 6 words are longer; keeps endless answers cheap
_SENTENCE_CHARS = 500
_EDGE = rf"[^\W{CJK}]"
_ABBREVIATIONS = ("dr", "mr", "mrs", "ms", "st", "vs", "e.g", "i.e", "a.m", "p.m", "approx")
_STOP = re.compile(r"[.!?。\n]+")
_QUANTITY = re.compile(r"\{([^{}]*)\}")
_REGEX = re.compile(r"/(.+)/", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """What stands between two gaps. `touching`: it follows the part before with nothing but a blank between."""

    what: re.Pattern[str] | TimedPattern | Wanted
    touching: bool = False

    def find(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Spans of its occurrences in text[start:end], in order."""
        if isinstance(self.what, Wanted):
            for quantity in quantities_in(text):
                if start <= quantity.start and quantity.end <= end and self.what.holds(quantity):
                    yield quantity.start, quantity.end
        elif isinstance(self.what, TimedPattern):
            yield from self.what.find(text, start, end)
        else:
            for match in self.what.finditer(text, start, end):
                yield match.span()


@dataclass(frozen=True)
class Phrase:
    """A phrase as written in a rule, and its parts."""

    written: str
    parts: tuple[Part, ...]
    literal: str = ""  # stands in every text that has the phrase; empty where there is none


@dataclass(frozen=True)
class Found:
    """One occurrence, as spans in folded text: the whole, and each part."""

    parts: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        """Where the first part begins."""
        return self.parts[0][0]

    @property
    def end(self) -> int:
        """Where the last part ends."""
        return self.parts[-1][1]


@lru_cache(maxsize=4096)
def compile_phrase(written: str) -> Phrase:
    """Make a phrase ready for `find`.

    Raises:
        ValueError: nothing is left of it, it begins or ends with a gap, or its regular expression or quantity cannot be read.
    """
    if pattern := _REGEX.fullmatch(written.strip()):
        return Phrase(written=written, parts=(Part(timed(pattern[1])),))
    pieces = [piece.strip() for piece in re.split(r"\.{3,}", fold_text(written))]
    if not any(pieces):
        raise ValueError("the phrase is empty")
    if not all(pieces):
        raise ValueError(f"the phrase '{written}' begins or ends with '...' or has two gaps in a row; a gap stands between two words")
    parts = tuple(part for piece in pieces for part in _parts(piece))
    return Phrase(written=written, parts=parts, literal=max((_longest_word(piece) for piece in pieces), key=len))


def find(phrase: Phrase, text: str, sentences: tuple[tuple[int, int], ...]) -> Iterator[Found]:
    """Every occurrence of `phrase` in folded `text`, at most one for each place where its first part stands."""
    if phrase.literal not in text:
        return
    for first in phrase.parts[0].find(text, 0, len(text)):
        if len(phrase.parts) == 1:
            yield Found(parts=(first,))
            continue
        limit = sentences[bisect_right(sentences, (first[0], len(text))) - 1][1]
        rest = _follow(phrase.parts[1:], text, first[1], limit)
        if rest is not None:
            yield Found(parts=(first, *rest))


def split_sentences(text: str) -> tuple[tuple[int, int], ...]:
    """Half-open spans that cover folded `text`; a sentence keeps its closing mark. `38.5` and `Dr.` do not end one.

    A sentence longer than any person writes is cut, so that the cost of reading an endless answer grows with its length only.
    """
    ends = [stop.end() for stop in _STOP.finditer(text) if stop.group() != "." or not _is_inner_dot(text, stop.start())]
    spans, start = [], 0
    for end in (*ends, len(text)):
        while end - start > _SENTENCE_CHARS:
            cut = (
                max(text.rfind(" ", start, start + _SENTENCE_CHARS), text.rfind(",", start, start + _SENTENCE_CHARS)) + 1
                or start + _SENTENCE_CHARS
            )
            spans.append((start, cut))
            start = cut
        if end > start:
            spans.append((start, end))
            start = end
    return tuple(spans)


def _is_inner_dot(text: str, at: int) -> bool:
    if at + 1 < len(text) and text[at + 1].isascii() and text[at + 1].isalnum():
        return True
    return re.search(r"[a-z.]*$", text[max(0, at - 8) : at]).group() in _ABBREVIATIONS  # type: ignore[union-attr]  # `*$` always matches


def _parts(piece: str) -> Iterator[Part]:
    """A piece without gaps: words, and quantities in braces between them."""
    for position, part in enumerate(_QUANTITY.split(piece)):
        if position % 2:
            yield Part(read_wanted(part), touching=bool(piece.split("{", 1)[0].strip()) or position > 1)
        elif part.strip():
            yield Part(_pattern(part.strip()), touching=position > 0)


def _longest_word(piece: str) -> str:
    return max(re.findall(rf"[a-z0-9]+|[{CJK}]", _QUANTITY.sub(" ", piece)), key=len, default="")


def _pattern(piece: str) -> re.Pattern[str]:
    """Words of a part may be joined by blanks or hyphens, scripts by a blank; a Latin or digit edge is a word border."""
    spaced = re.sub(rf"(?<=[{CJK}])(?=[a-z0-9])|(?<=[a-z0-9])(?=[{CJK}])", "\0", re.sub(rf"(?<=[{CJK}]) | (?=[{CJK}])", "", piece))
    body = r"[ \n-]+".join(re.escape(word).replace("\0", " ?") for word in re.split(r"[ -]+", spaced) if word)
    before = rf"(?<!{_EDGE})" if re.match(_EDGE, piece) else ""
    after = rf"(?!{_EDGE})" if re.search(_EDGE + r"\Z", piece) else ""
    return re.compile(before + body + after)


def _follow(parts: tuple[Part, ...], text: str, at: int, limit: int) -> tuple[tuple[int, int], ...] | None:
    """Spans of the remaining parts, each within a gap of the one before; tries the nearest continuation first."""
    if not parts:
        return ()
    for start, end in parts[0].find(text, at, min(limit, at + _GAP_CHARS)):
        if text[at:start].strip(" -") if parts[0].touching else count_units(text[at:start]) > GAP_UNITS:
            return None
        rest = _follow(parts[1:], text, end, limit)
        if rest is not None:
            return ((start, end), *rest)
    return None
