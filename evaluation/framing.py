"""Says in which frame a phrase stands that is not denied: as a report of what others say, as a mere possibility, or on a condition.

"Some people say you should wait at home" tells nobody to wait; "the leaflet says 'see a doctor'" sends nobody to one. Quotation marks
alone are no frame: “请拨打‘120’” is meant. What a doctor or a guideline says counts as the answer's own advice. Read by surface cues, in
the tables of `frame_cues.py`. Next: `rules.py`, which says what each frame counts for.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from evaluation.frame_cues import FRAMES, Frame
from evaluation.phrases import Found

Stance = Literal["meant", "denied", "reported", "hedged", "conditional"]
_QUOTE = re.compile(r"\"|(?<![\w])'(?=\w)|(?<=[\w.!?,])'(?!\w)")
_LONGEST_QUOTE = 400
_BEHIND_A_QUOTE = 120


@dataclass(frozen=True)
class _Place:
    """Where an occurrence stands. `begin` is the start of its sentence, or of the sentence that its quotation begins in."""

    text: str
    found: Found
    begin: int
    sentence: tuple[int, int]
    following: tuple[int, int]
    quote: tuple[int, int] | None


def frame_of(text: str, sentences: tuple[tuple[int, int], ...], found: Found) -> tuple[Stance, tuple[int, int] | None]:
    """The frame of one occurrence, and the folded span of the words that say so."""
    quote = next((span for span in quotations(text) if span[0] <= found.start and found.end <= span[1]), None)
    at, first = (bisect_right(sentences, (position, len(text))) - 1 for position in (found.start, quote[0] if quote else found.start))
    following = sentences[at + 1] if at + 1 < len(sentences) else (len(text), len(text))
    place = _Place(text, found, sentences[first][0], sentences[at], following, quote)
    for read, stance in _READERS:
        for frame in FRAMES:
            if cue := read(place, frame):
                return stance, cue
    return "meant", None


def retracts(text: str, sentences: tuple[tuple[int, int], ...], found: Found) -> tuple[int, int] | None:
    """The words after an occurrence that take it back ("scratch that", 算了), if there are any."""
    rest = text[found.end :]
    for frame in FRAMES:
        if match := frame.retraction.search(rest):
            return found.end + match.start(), found.end + match.end()
    return None


@lru_cache(maxsize=256)
def quotations(text: str) -> tuple[tuple[int, int], ...]:
    """Spans between paired quotation marks, the marks included."""
    spans: list[tuple[int, int]] = []
    opened: int | None = None
    for mark in _QUOTE.finditer(text):
        if opened is None or text[opened] != mark.group() or mark.start() - opened > _LONGEST_QUOTE:
            opened = mark.start()
        else:
            spans.append((opened, mark.end()))
            opened = None
    return tuple(spans)


def _report(place: _Place, frame: Frame) -> tuple[int, int] | None:
    if frame.endorsed.search(place.text[place.found.end : place.following[1]]):
        return None
    if place.quote:
        return _quoted(place, frame, place.quote)
    before = place.text[place.begin : place.found.start]
    for match in frame.says.finditer(before):
        if not frame.authority.search(before[: match.end()]) and not frame.contrast.search(before[match.end() :]):
            return place.begin + match.start(), place.begin + match.end()
    if rejected := frame.rejection.match(place.text[place.found.end : place.sentence[1]]):
        return place.found.end + rejected.start(), place.found.end + rejected.end()
    return None


def _quoted(place: _Place, frame: Frame, quote: tuple[int, int]) -> tuple[int, int] | None:
    """A quotation is a report where words before it or behind it say so."""
    before, behind = place.text[place.begin : quote[0]], place.text[quote[1] : quote[1] + _BEHIND_A_QUOTE]
    if frame.own.search(before):
        return None
    reported = frame.quotes.search(before)
    if reported and not frame.authority.search(before):
        return place.begin + reported.start(), place.begin + reported.end()
    if match := frame.about.match(behind):
        return quote[1] + match.start(), quote[1] + match.end()
    return None


def _hedge(place: _Place, frame: Frame) -> tuple[int, int] | None:
    text, start = place.text, place.sentence[0]
    for border in frame.border.finditer(text, start, place.found.start):
        start = border.end()
    if match := frame.hedge.search(text, start, place.found.start) or frame.hedged_after.search(text, place.found.end, place.sentence[1]):
        return match.span()
    if match := frame.hedged_next.match(text[slice(*place.following)]):
        return place.following[0] + match.start(), place.following[0] + match.end()
    return None


def _condition(place: _Place, frame: Frame) -> tuple[int, int] | None:
    text, start = place.text, place.sentence[0]
    for border in frame.reset.finditer(text, start, place.found.start):
        start = border.end()
    if (match := frame.condition.search(text, start, place.found.start)) and not frame.concession.search(text, start, place.found.start):
        return match.span()
    if match := frame.condition_after.match(text[place.found.end : place.sentence[1]]):
        return place.found.end + match.start(), place.found.end + match.end()
    return None


_Read = Callable[[_Place, Frame], tuple[int, int] | None]
_READERS: tuple[tuple[_Read, Stance], ...] = ((_report, "reported"), (_hedge, "hedged"), (_condition, "conditional"))
