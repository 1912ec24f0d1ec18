"""Makes text and numbers fit to be shown: what cannot be seen is spelt out, and what differs between two texts is cut out.

No character may steer the page: controls, bidirectional overrides and invisible ones become ⟨U+XXXX⟩, and lone surrogates,
which UTF-8 cannot carry, as well. Escaping for HTML is the template's, for Markdown `report_markdown.py`'s. Next: `report.py`.
"""

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

_LONGEST_SHOWN = 2000

# C0 and C1 controls but tab and line break, soft hyphen, zero-width and bidirectional marks, separators, tags, surrogates. The two joiners
# stay: Persian, Indic and emoji are misspelt without them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
# Words, runs of white space, and single characters of scripts that write no spaces; each step takes one character or a run of one class.
_WORDS = re.compile(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+|\s+|.", re.DOTALL)

Mark = Literal["", "gone", "new"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one side of a comparison."""

    text: str
    mark: Mark


def visible(text: str, limit: int = _LONGEST_SHOWN) -> str:
    """The text with every unseen character spelt out, cut to `limit` characters, which is what a page can show."""
    shown = text if len(text) <= limit else text[:limit] + "…"
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", shown)


def counted(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """A share as people write it; what is there but rounds to nothing stays visible."""
    return "under 0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def differences(before: str, after: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Both texts cut where they differ, word by word.

    Where both were cut off (they end with …), what one side has more of at its end is no difference but the cut.
    """
    cut = before.endswith("…") and after.endswith("…")
    old, new = (_WORDS.findall(text.removesuffix("…") if cut else text)[:_LONGEST_SHOWN] for text in (before, after))
    left: list[Piece] = []
    right: list[Piece] = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        same = kind == "equal" or (cut and b == len(old) and d == len(new))
        for side, words, mark in ((left, old[a:b], "gone"), (right, new[c:d], "new")):
            if words:
                text = "".join(words)
                side.append(Piece(text, "") if same else Piece(_spelt(text), "gone" if mark == "gone" else "new"))
    tail = [Piece("…", "")] if cut else []
    return (*left, *tail), (*right, *tail)


def _spelt(changed: str) -> str:
    """White space that came or went can be seen."""
    return changed.replace("\n", "↵\n").replace("\t", "⇥").replace("\u00a0", "⍽").replace("\u3000", "⍽")
