"""Words with a slip of the keyboard, read as the word of the rule that they were meant to be: "docter", "ambulence".

Only words of six letters and more are mended, only by one insertion, omission, change or swap, and only with the first letter right: what
is shorter or further off might be another word. Words that are known to be another one are left. Next: `phrase_groups.py`.
"""

import re
from functools import lru_cache

from evaluation.negation import Parsed, parse_folded
from evaluation.text import Folded, fold_text

_LEAST = 6
_WORD = re.compile(rf"[a-z]{{{_LEAST - 1},}}")
# One letter away from words that rules are made of, and something else.
_OTHER = (
    "meditation mediation dedication contract contrast context talking baking making faking stalking doctored visiting stooping"
    " stripping storing sending lending double-check capable tables talent losing loosing nursed crises crisp advise devise"
    " reception deception reply rely tracing trading raking waking staking hospitable serviced servicer sharing staring"
)
_OTHER_WORDS = frozenset(_OTHER.split())


@lru_cache(maxsize=512)
def without_typos(parsed: Parsed, phrases: tuple[str, ...]) -> Parsed:
    """The answer with its slips mended as far as these phrases are concerned; the same object where there are none."""
    words, near = _vocabulary(phrases)
    mended = [
        (match.span(), right)
        for match in _WORD.finditer(parsed.text)
        if match.group() not in words and match.group() not in _OTHER_WORDS and (right := _right(match.group(), near))
    ]
    return parse_folded(_mend(parsed.folded, mended)) if mended else parsed


@lru_cache(maxsize=1024)
def _vocabulary(phrases: tuple[str, ...]) -> tuple[frozenset[str], dict[str, str]]:
    """The long words of the phrases, and each of their forms with one letter left out."""
    words = frozenset(word for phrase in phrases if not phrase.startswith("/") for word in _WORD.findall(fold_text(phrase)))
    near: dict[str, str] = {}
    for word in sorted(words):
        if len(word) >= _LEAST:
            near |= dict.fromkeys(_shorter(word), word) | {word: word}
    return words, near


def _shorter(word: str) -> set[str]:
    return {word[:at] + word[at + 1 :] for at in range(1, len(word))}


def _right(word: str, near: dict[str, str]) -> str | None:
    """The word of a phrase that is one slip away, if there is one; plurals and other endings are left as they are."""
    candidates = (near[form] for form in (word, *sorted(_shorter(word))) if form in near)
    return next((right for right in candidates if _one_slip(word, right)), None)


def _one_slip(word: str, right: str) -> bool:
    if word[0] != right[0] or word in (right + "s", right + "ed", right + "d", right[:-1], right + "y"):
        return False
    if len(word) != len(right):
        return True  # a form of one is the other
    different = [at for at in range(len(word)) if word[at] != right[at]]
    swapped = len(different) == 2 and word[different[0]] == right[different[1]] and word[different[1]] == right[different[0]]
    return len(different) == 1 or (swapped and different[1] - different[0] == 1)


def _mend(folded: Folded, mended: list[tuple[tuple[int, int], str]]) -> Folded:
    text: list[str] = []
    origin: list[int] = []
    at = 0
    for (start, end), right in mended:
        text += [folded.text[at:start], right]
        origin += folded.origin[at:start]
        origin += [folded.origin[min(start + place, end - 1)] for place in range(len(right) - 1)] + [folded.origin[end - 1]]
        at = end
    return Folded(folded.source, "".join([*text, folded.text[at:]]), (*origin, *folded.origin[at:]))
