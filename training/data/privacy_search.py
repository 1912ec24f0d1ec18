"""Everything in the texts of one row that is personal data, in positions of the original.

Recognisers run until a text gives nothing more; see `privacy_spans.py` for why. Knows nothing of placeholders, and does not change a
text. Next: the recognisers, from `privacy_numbers.py` on.
"""

import re
from bisect import insort
from collections.abc import Iterable, Sequence

from training.data.privacy_addresses import find_addresses
from training.data.privacy_names_en import find_english_names
from training.data.privacy_names_zh import find_chinese_names
from training.data.privacy_network import find_network_addresses
from training.data.privacy_numbers import find_numbers
from training.data.privacy_phones import find_phones
from training.data.privacy_repeats import Known, key_of
from training.data.privacy_spans import FILLER, Draft, Span, narrow, outside, without_overlaps
from training.data.privacy_stated import find_stated

_MOST_ROUNDS = 12  # hostile text could go on uncovering new matches; ordinary text is done after two
_LONG_NUMBER = re.compile(r"[0-9](?:[ .()/-]{0,3}[0-9]){6}")  # every telephone, personal and account number has seven digits in a row
_EDGES = " \t\n\r,.;:，。；：、"


def detect(text: str, regions: Sequence[str]) -> list[Span]:
    """Spans of one text by what it says itself; they do not overlap."""
    numbered = _LONG_NUMBER.search(text)
    return without_overlaps(
        [
            *(find_numbers(text) if numbered else ()),
            *(find_phones(text, regions) if numbered else ()),
            *find_network_addresses(text),
            *find_stated(text),
            *find_addresses(text),
            *find_chinese_names(text),
            *find_english_names(text),
        ]
    )


class Allowed:
    """Phrases that stay, wherever they stand as whole words."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._patterns = [(phrase.lower(), _whole(phrase)) for phrase in sorted({narrow(phrase) for phrase in phrases})]
        self._keys = {key_of(kind, phrase) for phrase, _ in self._patterns for kind in ("name", "phone")}

    def cut(self, text: str, spans: list[Span]) -> list[Span]:
        """The spans less what is allowed."""
        if not self._patterns or not spans:
            return [piece for span in spans if (piece := _trimmed(text, span))]
        lower = text.lower()
        places = sorted(match.span() for phrase, pattern in self._patterns if phrase in lower for match in pattern.finditer(text))
        holes = _merged(places)
        kept = [span for span in spans if key_of(span.kind, text[span.start : span.end]) not in self._keys]
        return [piece for span in kept for cut in outside(span, holes) if (piece := _trimmed(text, cut))]


def _whole(phrase: str) -> re.Pattern[str]:
    before = r"(?<![A-Za-z0-9])" if phrase[0].isascii() and phrase[0].isalnum() else ""
    after = r"(?![A-Za-z0-9])" if phrase[-1].isascii() and phrase[-1].isalnum() else ""
    return re.compile(before + re.escape(phrase) + after, re.IGNORECASE)


def _merged(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in places:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _trimmed(text: str, span: Span) -> Span | None:
    value = text[span.start : span.end]
    start, end = span.start + len(value) - len(value.lstrip(_EDGES)), span.end - len(value) + len(value.rstrip(_EDGES))
    return span._replace(start=start, end=end) if any(character.isalnum() for character in text[start:end]) else None


class Search:
    """The search through one row."""

    def __init__(self, texts: Sequence[str], *, kinds: frozenset[str], regions: Sequence[str], allowed: Allowed) -> None:
        self._texts, self._kinds, self._regions, self._allowed = texts, kinds, regions, allowed
        self._taken: list[list[tuple[int, int]]] = [[] for _ in texts]
        self._known = Known()
        self._found: list[list[Span]] = [[] for _ in texts]

    def run(self, placeholders: Sequence[list[tuple[int, int]]]) -> list[list[Span]]:
        """Spans per text, in reading order; placeholders that are there already are passed over."""
        self._taken = [list(places) for places in placeholders]
        waiting = list(range(len(self._texts)))
        for _ in range(_MOST_ROUNDS):
            known = self._known.size
            changed = {index for index in waiting if self._detect(index)}
            if self._known.size > known:
                changed |= {index for index in range(len(self._texts)) if self._repeat(index)}
            if not changed:
                break
            waiting = sorted(changed)
        return [sorted(spans) for spans in self._found]

    def _detect(self, index: int) -> bool:
        draft = self._draft(index)
        return self._take(index, draft, detect(draft.text, self._regions))

    def _repeat(self, index: int) -> bool:
        draft = self._draft(index)
        return self._take(index, draft, without_overlaps(self._known.find(draft.text)))

    def _draft(self, index: int) -> Draft:
        return Draft(narrow(self._texts[index]), self._taken[index])

    def _take(self, index: int, draft: Draft, spans: list[Span]) -> bool:
        wanted = [span for span in spans if span.kind in self._kinds and FILLER not in draft.text[span.start : span.end]]
        accepted = self._allowed.cut(draft.text, wanted)
        for span in accepted:
            self._known.add(span.kind, draft.text[span.start : span.end])
            original = draft.original(span)
            self._found[index].append(original)
            insort(self._taken[index], (original.start, original.end))
        return bool(accepted)
