"""One spelling for all text before rules look at it, with a way back to the original characters.

Folded: compatibility forms (NFKC: full-width letters, digits and punctuation), case, runs of white space, curly quotes,
dashes, invisible characters, traditional Chinese (by the table that compares training rows).
Knows nothing of phrases, negation or metrics. Next: `phrases.py`.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from training.data.chinese_characters import simplified_characters

CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ffff"
_SINGLE, _DOUBLE = "\u2018\u2019\u201a\u201b\u2032\u02bc`\u00b4", "\u201c\u201d\u201e\u201f\u2033\u300c\u300d\u300e\u300f\u00ab\u00bb"
_QUOTES = str.maketrans(dict.fromkeys(_SINGLE, "'") | dict.fromkeys(_DOUBLE, '"'))
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"))
_BULLET = re.compile(r"(?:[-*•·▪]|\(?\d{1,2}[.)、])\s*")
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+(?:'[^\W_{CJK}]+)*")


@dataclass(frozen=True)
class Folded:
    """Folded text. `origin[i]` is where folded character i begins in `source`; one more entry closes the last."""

    source: str
    text: str
    origin: tuple[int, ...]

    def source_span(self, start: int, end: int) -> tuple[int, int]:
        """The half-open span in `source` of the folded span [start, end), without white space at its edges."""
        first, last = self.origin[start], self.origin[end - 1] + 1 if end > start else self.origin[start]
        while last < self.origin[end] and not self.source[last].isspace() and unicodedata.combining(self.source[last]):
            last += 1
        return first, last


def fold(source: str) -> Folded:
    """Fold `source` cluster by cluster (a character and its combining marks), so that every result knows its origin."""
    out: list[str] = []
    origin: list[int] = []
    at = 0
    while at < len(source):
        if source[at].isspace():
            at = _fold_space(source, at, out, origin)
            continue
        end = at + 1
        while end < len(source) and unicodedata.combining(source[end]):
            end += 1
        for char in _fold_cluster(source[at:end]):
            out.append(char)
            origin.append(at)
        at = end
    return Folded(source=source, text="".join(out), origin=(*origin, len(source)))


def fold_text(source: str) -> str:
    """Only the folded text, stripped."""
    return fold(source).text.strip()


@lru_cache(maxsize=16384)
def _fold_cluster(cluster: str) -> str:
    if unicodedata.category(cluster[0]) == "Cf":
        return ""
    folded = unicodedata.normalize("NFKC", cluster.translate(_QUOTES)).casefold()
    return simplify(unicodedata.normalize("NFKC", folded.translate(_QUOTES).translate(_DASHES)))


def simplify(text: str) -> str:
    """Traditional Chinese characters as simplified ones, one for one."""
    return text if text.isascii() else text.translate(simplified_characters())


def _fold_space(source: str, at: int, out: list[str], origin: list[int]) -> int:
    """A run of white space becomes one blank, or one line end where a paragraph or a list item ends."""
    end = at
    while end < len(source) and source[end].isspace():
        end += 1
    lines = source.count("\n", at, end)
    ends_item = lines > 1 or (lines == 1 and _BULLET.match(source, end) is not None)
    out.append("\n" if ends_item else " ")
    origin.append(at)
    return end


def count_units(text: str) -> int:
    """Length in half words: a word counts 2, a CJK character 1, so that 6 words weigh as much as 12 CJK characters."""
    return sum(1 if len(unit) == 1 and is_cjk(unit) else 2 for unit in WORD.findall(text))


def is_cjk(char: str) -> bool:
    """Whether `char` is a Han character."""
    return "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or "\U00020000" <= char <= "\U0002ffff"
