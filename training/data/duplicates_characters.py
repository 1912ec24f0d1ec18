"""What each character is to a shingle: part of a word, a word of its own, a symbol that counts, or a border; and its folded form.

Tables indexed by code point, so that a text is folded and cut without a Python loop over its characters. What a table cannot
fold (a character that becomes several, a mark that joins the letter before it) is flagged, and `normalised` does it the slow way.
Next: `shingles.py`.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import regex
from numpy.typing import NDArray

from training.data.chinese_characters import simplified_characters

LAST = 0x323AF  # the last ideograph; what lies above is private or unassigned, and a border
SEPARATOR, LETTER, SPACELESS, SYMBOL = range(4)

_SPACELESS_SCRIPTS = (
    "CJK ",
    "HIRAGANA",
    "KATAKANA",
    "BOPOMOFO",
    "IDEOGRAPHIC",
    "YI SYLLABLE",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
    "TAI ",
)
_IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0x20000, 0x2F7FF),
    (0x2FA20, LAST),
)  # and Hangul: no need to ask one by one

# Putting combining marks in order takes CPython time quadratic in the length of their run (64,000 marks: 3 s, a megabyte: minutes).
# Unicode's own stream-safe format allows 30.
_MARK_FLOOD = regex.compile(r"(\p{M}{30})\p{M}+")


@dataclass(frozen=True, slots=True)
class CharacterTable:
    """For each code point up to `LAST`, and one more for all above."""

    kind: NDArray[np.uint8]
    folded: NDArray[np.uint32]
    hard: NDArray[np.bool_]
    hash: NDArray[np.uint64]


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every bit of each value over all 64 (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def composed(text: str, form: Literal["NFC", "NFKC"] = "NFC") -> str:
    """The text in that Unicode form, in linear time."""
    if text.isascii():
        return text
    text = _MARK_FLOOD.sub(r"\1", text)
    return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)


def normalised(text: str) -> str:
    """NFKC, casefolded and in simplified characters, in linear time."""
    if text.isascii():
        return text.lower()
    return composed(composed(text, "NFKC").casefold(), "NFKC").translate(simplified_characters())


@lru_cache(maxsize=1)
def character_table() -> CharacterTable:
    """Built once per process, in about 0.3 s."""
    kind = np.full(LAST + 2, SEPARATOR, np.uint8)
    folded = np.arange(LAST + 2, dtype=np.uint32)
    hard = np.zeros(LAST + 2, np.bool_)
    for first, last in _IDEOGRAPHS:
        kind[first : last + 1] = LETTER if first == 0xAC00 else SPACELESS
    for code in _other_codes():
        character = chr(code)
        kind[code] = _kind(character)
        form = normalised(character)
        hard[code] = unicodedata.combining(character) > 0
        if len(form) == 1 and not unicodedata.combining(form):
            folded[code] = ord(form)
        elif form and all(_kind(part) == SEPARATOR for part in form):
            folded[code] = ord(" ")
        else:
            hard[code] = True
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            hard[int(parts[1], 16)] = True  # it joins a letter before it, as a vowel sign does in Bengali
    for code, simplified in simplified_characters().items():
        folded[code] = simplified
    hard[0x1161:0x11C3] = True  # vowels and finals that join into a Hangul syllable by rule
    folded[LAST + 1] = ord(" ")
    hard |= hard[folded]
    return CharacterTable(kind, folded, hard, mix(np.arange(LAST + 2, dtype=np.uint64)))


def _other_codes() -> Iterator[int]:
    code = 0
    for first, last in _IDEOGRAPHS:
        yield from (other for other in range(code, first) if not 0xD800 <= other <= 0xF8FF)
        code = last + 1


def _kind(character: str) -> int:
    category = unicodedata.category(character)
    if category[0] in "LNM":
        spaceless = category != "Nd" and unicodedata.name(character, "").startswith(_SPACELESS_SCRIPTS)
        return SPACELESS if spaceless else LETTER
    return SYMBOL if category in ("Sm", "Sc", "So") and character not in "~|" else SEPARATOR
