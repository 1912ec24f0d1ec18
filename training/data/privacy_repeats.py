"""Values that one place of a row gave away, found again where nothing announces them; and which of them are the same.

"我叫王小明" in the first turn makes 王小明 a name in every turn; "John Smith" makes Smith one. Each text is read once, whatever the
number of values. Lives for one row; knows nothing of placeholders. Next: `privacy_search.py`.
"""

import re
from collections.abc import Iterator

from training.data.privacy_spans import LIKELY, Span
from training.data.privacy_words_en import AMBIGUOUS_GIVEN_NAMES, EPONYMS, NOT_NAMES

_LATIN_WORD = re.compile(r"(?<![A-Za-z0-9_])[A-ZÀ-ÖØ-Þ][A-Za-zÀ-ÖØ-öø-ÿ]*(?:['’-][A-Za-zÀ-ÖØ-öø-ÿ]{2,})*")
_CODE = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9](?:[A-Za-z0-9_-]{3,38})[A-Za-z0-9](?![A-Za-z0-9_-])")
_CODES = frozenset({"phone", "cn_id", "us_ssn", "uk_nhs", "bank_card", "passport", "record_number", "account", "plate"})
_HAN = re.compile("[\u4e00-\u9fff]")
_SEPARATORS = str.maketrans("", "", " -.()·•+")
_WEAK_WORDS = NOT_NAMES | AMBIGUOUS_GIVEN_NAMES | EPONYMS


def key_of(kind: str, value: str) -> str:
    """The same for two ways to write one value: case, spaces, hyphens and the country code of a Chinese mobile do not count."""
    if kind in ("name", "address", "birth_date"):
        return " ".join(value.replace(".", " ").casefold().split())
    key = value.translate(_SEPARATORS).casefold()
    if kind == "phone":
        for code, length in (("86", 13), ("1", 11), ("44", 12)):
            if key.startswith(code) and len(key) == length and not (code == "1" and re.match("1[3-9]", key)):
                return key.removeprefix(code)
        return key.removeprefix("0")
    return key


class Known:
    """The values of one row so far."""

    def __init__(self) -> None:
        self._chinese: dict[str, set[str]] = {}  # by first character
        self._parts: set[str] = set()  # every word of a Latin name, small letters
        self._strong: set[str] = set()  # those that are a name by themselves
        self._codes: dict[str, str] = {}

    def add(self, kind: str, value: str) -> None:
        """Remember a value."""
        if kind == "name" and _HAN.match(value):
            if len(value) >= 2:
                self._chinese.setdefault(value[0], set()).add(value)
        elif kind == "name":
            words = [match[0].lower() for match in _LATIN_WORD.finditer(value)]
            self._parts.update(words)
            self._strong.update(word for word in words if len(word) >= 3 and word not in _WEAK_WORDS)
        elif kind in _CODES:
            self._codes.setdefault(value.translate(_SEPARATORS).casefold(), kind)

    @property
    def size(self) -> int:
        """Grows with every value that tells anything new."""
        return sum(map(len, self._chinese.values())) + len(self._parts) + len(self._codes)

    def find(self, text: str) -> Iterator[Span]:
        """Every repetition of a known value."""
        if self._chinese:
            yield from self._find_chinese(text)
        if self._strong:
            yield from self._find_latin(text)
        if self._codes:
            yield from self._find_codes(text)

    def _find_chinese(self, text: str) -> Iterator[Span]:
        for match in re.finditer(f"[{''.join(self._chinese)}]", text):
            names = self._chinese[match[0]]
            for length in (4, 3, 2):
                if text[match.start() : match.start() + length] in names:
                    yield Span(match.start(), match.start() + length, "name", LIKELY)
                    break

    def _find_latin(self, text: str) -> Iterator[Span]:
        run: list[re.Match[str]] = []
        for match in _LATIN_WORD.finditer(text):
            if run and (match[0].lower() not in self._parts or text[run[-1].end() : match.start()] not in (" ", ". ", ", ")):
                yield from self._run(run)
                run = []
            if match[0].lower() in self._parts:
                run.append(match)
        yield from self._run(run)

    def _run(self, run: list[re.Match[str]]) -> Iterator[Span]:
        if any(match[0].lower() in self._strong for match in run):
            yield Span(run[0].start(), run[-1].end(), "name", LIKELY)

    def _find_codes(self, text: str) -> Iterator[Span]:
        for match in _CODE.finditer(text):
            if kind := self._codes.get(match[0].translate(_SEPARATORS).casefold()):
                yield Span(*match.span(), kind, LIKELY)
