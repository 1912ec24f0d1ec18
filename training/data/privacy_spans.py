"""Places of personal data in a text: how sure a recogniser is, which of two overlapping ones counts, and what is left to search.

A text is searched again after its findings are taken out, until nothing more is found; so masking a masked text changes nothing.
For that, everything already masked is *one* filler character: the search then cannot depend on how long a value or its
placeholder was. Knows nothing of any kind of personal data. Next: `privacy.py`, then the recognisers `privacy_*.py`.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

FILLER = "\ue000"  # private use: no letter, digit, space or punctuation to any recogniser

CHECKED = 3  # a checksum or a format that hardly anything else has
STATED = 2  # the words around it say what it is
LIKELY = 1  # it looks like one

_WIDE = re.compile("[０-９Ａ-Ｚａ-ｚ＠＋－．]|（(?=[0-9])")
_ASCII = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz@+-.()"
_NARROW = str.maketrans("".join(chr(ord(character) + 0xFEE0) for character in _ASCII), _ASCII)


class Span(NamedTuple):
    """Characters `start` to `end` are personal data of this kind."""

    start: int
    end: int
    kind: str
    certainty: int


def narrow(text: str) -> str:
    """Full-width digits and letters, and what stands in numbers, as ASCII; every character in its place."""
    return text.translate(_NARROW) if _WIDE.search(text) else text


def without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """In reading order; of two that overlap the more certain counts, then the longer, then the first."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (-s.certainty, s.start - s.end, s.start)):
        at = bisect_left(kept, span.start, key=lambda s: s.start)
        free_before = at == 0 or kept[at - 1].end <= span.start
        if span.end > span.start and free_before and (at == len(kept) or span.end <= kept[at].start):
            kept.insert(at, span)
    return kept


def outside(span: Span, holes: Sequence[tuple[int, int]]) -> list[Span]:
    """What is left of a span when the holes, which are sorted and do not overlap, are cut out of it."""
    left, start = [], span.start
    for hole_start, hole_end in holes[bisect_left(holes, span.start, key=lambda hole: hole[1]) :]:
        if hole_start >= span.end:
            break
        if hole_start > start:
            left.append(span._replace(start=start, end=hole_start))
        start = max(start, hole_end)
    return [*left, span._replace(start=start)] if start < span.end else left


class Draft:
    """A text whose taken places are one filler each, and the way back from its positions to those of the original."""

    def __init__(self, original: str, taken: Sequence[tuple[int, int]]) -> None:
        """`taken` is sorted and does not overlap."""
        pieces, last = [], 0
        self._fillers: list[int] = []  # position in the draft
        self._shifts = [0]  # what a position after the n-th filler lacks
        for start, end in taken:
            pieces.append(original[last:start])
            self._fillers.append(start - self._shifts[-1])
            self._shifts.append(self._shifts[-1] + end - start - 1)
            last = end
        self.text = FILLER.join([*pieces, original[last:]]) if taken else original

    def original(self, span: Span) -> Span:
        """The same span in the original; it must not hold a filler."""
        shift = self._shifts[bisect_left(self._fillers, span.start)]
        return span._replace(start=span.start + shift, end=span.end + shift)


def words_before(text: str, start: int, characters: int) -> str:
    """The text just before a place, in small letters; what lies beyond a line break does not count."""
    return text[max(0, start - characters) : start].rpartition("\n")[2].lower()
