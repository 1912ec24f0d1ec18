"""Finds a rule's phrase in folded text: whole words in Latin script, substrings in Chinese, `...` as a short gap.

A gap is at most 6 words or 12 Chinese characters and stays inside one sentence. Finding says nothing about whether the
phrase is meant: that is `negation.py`'s question. Next: `negation.py`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from evaluation.text import CJK, count_units, fold_text

GAP_UNITS = 12  # half words, see text.count_units
_GAP_CHARS = 160  # no 6 words are longer; keeps endless answers cheap
_SENTENCE_CHARS = 500
_EDGE = rf"[^\W{CJK}]"
_ABBREVIATIONS = ("dr", "mr", "mrs", "ms", "st", "vs", "e.g", "i.e", "a.m", "p.m", "approx")
_STOP = re.compile(r"[.!?。\n]+")


@dataclass(frozen=True)
class Phrase:
    """A phrase as written in a rule, and one pattern for each part between its gaps."""

    written: str
    parts: tuple[re.Pattern[str], ...]


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
        ValueError: nothing is left of it, or it begins or ends with a gap.
    """
    pieces = [piece.strip() for piece in re.split(r"\.{3,}", fold_text(written))]
    if not any(pieces):
        raise ValueError("the phrase is empty")
    if not all(pieces):
        raise ValueError(f"the phrase '{written}' begins or ends with '...' or has two gaps in a row; a gap stands between two words")
    return Phrase(written=written, parts=tuple(_pattern(piece) for piece in pieces))


def find(phrase: Phrase, text: str, sentences: tuple[tuple[int, int], ...]) -> Iterator[Found]:
    """Every occurrence of `phrase` in folded `text`, at most one for each place where its first part stands."""
    for first in phrase.parts[0].finditer(text):
        limit = next((end for start, end in sentences if start <= first.start() < end), len(text))
        rest = _follow(phrase.parts[1:], text, first.end(), limit)
        if rest is not None:
            yield Found(parts=(first.span(), *rest))


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


def _pattern(piece: str) -> re.Pattern[str]:
    """Words of a part may be joined by blanks or hyphens, scripts by a blank; a Latin or digit edge is a word border."""
    spaced = re.sub(rf"(?<=[{CJK}])(?=[a-z0-9])|(?<=[a-z0-9])(?=[{CJK}])", "\0", re.sub(rf"(?<=[{CJK}]) | (?=[{CJK}])", "", piece))
    body = r"[ \n-]+".join(re.escape(word).replace("\0", " ?") for word in re.split(r"[ -]+", spaced) if word)
    before = rf"(?<!{_EDGE})" if re.match(_EDGE, piece) else ""
    after = rf"(?!{_EDGE})" if re.search(_EDGE + r"\Z", piece) else ""
    return re.compile(before + body + after)


def _follow(parts: tuple[re.Pattern[str], ...], text: str, at: int, limit: int) -> tuple[tuple[int, int], ...] | None:
    """Spans of the remaining parts, each within a gap of the one before; tries the nearest continuation first."""
    if not parts:
        return ()
    for match in parts[0].finditer(text, at, min(limit, at + _GAP_CHARS)):
        if count_units(text[at : match.start()]) > GAP_UNITS:
            return None
        rest = _follow(parts[1:], text, match.end(), limit)
        if rest is not None:
            return (match.span(), *rest)
    return None
