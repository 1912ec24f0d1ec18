"""Masks personal data in the texts of one row, English and Chinese, with placeholders that stay the same through the row.

    masker = Masker(PrivacySection())
    masker.mask(["我叫王小明，电话13800001234", "王小明您好"]).texts  →  ("我叫[NAME_1]，电话[PHONE_1]", "[NAME_1]您好")

Recognisers propose spans; the more certain wins; a name or number that one turn gives away is then masked in every turn. Masking
a masked row changes nothing. A `Finding` says what kind of thing stood where and never what it was, so that records and reports hold
no personal data. Knows nothing of files, rows and ledgers. Next: `privacy_spans.py`, then the recognisers `privacy_*.py`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast, get_args

from pydantic import Field, field_validator

from training.data.privacy_repeats import key_of
from training.data.privacy_spans import Span, narrow
from training.data.privacy_words_zh import COMPOUND_SURNAMES
from training.sections import Section

Kind = Literal[
    "name", "phone", "email", "cn_id", "us_ssn", "uk_nhs", "bank_card", "iban", "passport", "record_number",
    "address", "birth_date", "ip", "url", "account", "plate",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)

_PLACEHOLDER = re.compile(rf"\[({'|'.join(kind.upper() for kind in KINDS)})(?:_([0-9]{{1,6}}))?\]")

Phrase = Annotated[str, Field(min_length=1, max_length=200)]
Region = Annotated[str, Field(pattern="^[A-Z]{2}$")]


class PrivacySection(Section):
    """What counts as personal data and what is done with it."""

    enabled: bool = Field(default=True, description="look for personal data at all")
    kinds: tuple[Kind, ...] = Field(default=KINDS, min_length=1, description="kinds of personal data that count")
    mode: Literal["mask", "drop_row", "count"] = Field(
        default="mask", description="put placeholders in their place, drop every row that holds any, or only count"
    )
    regions: tuple[Region, ...] = Field(
        default=("CN", "US", "GB"), min_length=1, max_length=20, description="countries whose telephone numbers are known without +code"
    )
    allow: tuple[Phrase, ...] = Field(
        default=(), max_length=1000, description="never masked: the hospital's own numbers and address, public figures; case does not count"
    )
    placeholders: Literal["typed", "bare"] = Field(
        default="typed", description="typed is [NAME_1], the same for the same value; bare is [NAME]"
    )

    @field_validator("allow")
    @classmethod
    def _phrases_say_something(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        if blank := [phrase for phrase in allow if not phrase.strip()]:
            raise ValueError(f"{len(blank)} allowed phrase(s) consist of spaces only")
        return tuple(phrase.strip() for phrase in allow)

    @field_validator("regions")
    @classmethod
    def _regions_exist(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        import phonenumbers  # here, as it takes a fraction of a second to load

        if unknown := [region for region in regions if region not in phonenumbers.SUPPORTED_REGIONS]:
            raise ValueError(f"no telephone region is called {', '.join(unknown)}; two capital letters of ISO 3166, such as CN, US, GB, DE")
        return regions


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data of this kind stood in characters `start` to `end` of the row's n-th text (from 0). Never holds what it was."""

    kind: Kind
    text: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Masked:
    """The texts of a row without personal data (as they were, where the recipe only counts), and whether to drop the row."""

    texts: tuple[str, ...]
    findings: tuple[Finding, ...]
    drop: bool

    @property
    def counts(self) -> Counter[str]:
        """Findings by kind."""
        return Counter(finding.kind for finding in self.findings)


class Masker:
    """Masks rows as a recipe wants it. Holds nothing of a row; can be pickled, or built in each process from its section."""

    def __init__(self, section: PrivacySection) -> None:
        from training.data.privacy_search import Allowed  # the recognisers' patterns take 0.1 s to compile

        self.section = section
        self._kinds = frozenset[str](section.kinds)
        self._allowed = Allowed(section.allow)

    def mask(self, texts: Sequence[str]) -> Masked:
        """The texts of one row, all at once: the same value gets the same placeholder in each. Never raises on a string."""
        from training.data.privacy_search import Search

        if not self.section.enabled:
            return Masked(tuple(texts), (), drop=False)
        there = [list(_PLACEHOLDER.finditer(text)) if "[" in text else [] for text in texts]
        search = Search(texts, kinds=self._kinds, regions=self.section.regions, allowed=self._allowed)
        spans = search.run([[match.span() for match in matches] for matches in there])
        findings = tuple(Finding(cast(Kind, span.kind), index, span.start, span.end) for index, found in enumerate(spans) for span in found)
        if not findings or self.section.mode == "count":
            return Masked(tuple(texts), findings, drop=False)
        names = _Placeholders(self.section.placeholders == "typed", [match for matches in there for match in matches])
        names.meet(texts, spans)
        masked = tuple(names.put(text, found) for text, found in zip(texts, spans, strict=True))
        return Masked(masked, findings, drop=self.section.mode == "drop_row")


class _Placeholders:
    """The placeholder of each value of one row."""

    def __init__(self, typed: bool, there: Sequence[re.Match[str]]) -> None:
        """Counting goes on after the placeholders that are there already, as their values are not known."""
        self._typed = typed
        self._last: Counter[str] = Counter()
        self._numbers: dict[tuple[str, str], int] = {}
        for match in there:
            self._last[match[1]] = max(self._last[match[1]], int(match[2] or 0))

    def meet(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> None:
        """Number every value in reading order; a surname alone gets the number of the one full name that has it."""
        keys = [self._key(text, span) for text, found in zip(texts, spans, strict=True) for span in found]
        owners = _owners(key for kind, key in keys if kind == "name")
        for kind, key in keys:
            full = (kind, owners.get(key, key) if kind == "name" else key)
            if full not in self._numbers:
                self._last[kind.upper()] += 1
                self._numbers[full] = self._last[kind.upper()]
            self._numbers[kind, key] = self._numbers[full]

    def put(self, text: str, spans: Sequence[Span]) -> str:
        """The text with placeholders; from right to left, so that the places stay true."""
        pieces, last = [], len(text)
        for span in reversed(spans):
            pieces += [text[span.end : last], self._placeholder(*self._key(text, span))]
            last = span.start
        return "".join(reversed([*pieces, text[:last]]))

    def _placeholder(self, kind: str, key: str) -> str:
        return f"[{kind.upper()}_{self._numbers[kind, key]}]" if self._typed else f"[{kind.upper()}]"

    @staticmethod
    def _key(text: str, span: Span) -> tuple[str, str]:
        return span.kind, key_of(span.kind, narrow(text[span.start : span.end]))


def _owners(names: Iterable[str]) -> dict[str, str]:
    """For a surname or given name alone, the full name it belongs to, where there is exactly one: 王 → 王建国, smith → john smith."""
    holders: dict[str, set[str]] = {}
    for name in set(names):
        for part in name.split() if name.isascii() or " " in name else {name[0], name[:2]} & {name[0], *COMPOUND_SURNAMES}:
            holders.setdefault(part, set()).add(name)
    return {part: full for part, fulls in holders.items() if len(fulls - {part}) == 1 for full in fulls - {part}}
