"""What of a row's text goes into a profile: short, masked, and from shortly before the first difference.

Knows nothing of rows or of how personal data is found: the mask is passed in. Next: `profile_builder.py`.
"""

import re
from collections import Counter
from collections.abc import Callable

Mask = Callable[[str], str]

_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_]{1,30})(?:_\d{1,6})?\]")  # as `privacy.py` writes them: [PHONE_1], [NAME]

_NAME_CHARACTERS = 120
_SAMPLE_CHARACTERS = 600
_LEAD_CHARACTERS = 80  # shown before the first difference
# A window is masked before it is cut to what is shown, and what lies within the margin of its cut ends is not shown: half a
# telephone number is no longer one to a masker, but still one to a reader.
_WINDOW_BEFORE, _WINDOW_AFTER, _MARGIN = 400, 2000, 64


def short(text: str, limit: int = _NAME_CHARACTERS) -> str:
    """At most `limit` characters that UTF-8 can carry."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return cut.encode("utf-8", "replace").decode()


def masked_pair(before: str, after: str, mask: Mask) -> tuple[str, str] | None:
    """Both texts from shortly before they first differ, masked, and short enough to be read; None where that shows nothing or too much.

    Dirt may hide personal data from a masker (a tag inside a number) that it finds in the clean text. So a pair is shown only
    if as many placeholders of each kind stand on both sides.
    """
    start = max(0, _same_length(before, after) - _WINDOW_BEFORE)
    windows = [text[start : start + _WINDOW_BEFORE + _WINDOW_AFTER] for text in (before, after)]
    cut_right = [len(text) > start + _WINDOW_BEFORE + _WINDOW_AFTER for text in (before, after)]
    masked = [mask(window) for window in windows]
    if masked[0] == masked[1] or _placeholders(masked[0]) != _placeholders(masked[1]):
        return None
    lead = max(_same_length(*masked) - _LEAD_CHARACTERS, _MARGIN if start else 0, 0)
    first, second = (_shown(text, lead, cut) for text, cut in zip(masked, cut_right, strict=True))
    return ("…" if start or lead else "") + first, ("…" if start or lead else "") + second


def _placeholders(masked: str) -> Counter[str]:
    return Counter(found.group(1) for found in _PLACEHOLDER.finditer(masked))


def _same_length(first: str, second: str) -> int:
    """How many characters both texts begin with alike."""
    alike = (number for number, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(alike, min(len(first), len(second)))


def _shown(masked: str, lead: int, cut_right: bool) -> str:
    end = max(lead, len(masked) - _MARGIN if cut_right else len(masked))
    shown = masked[lead : min(end, lead + _SAMPLE_CHARACTERS)]
    whole = end <= lead + _SAMPLE_CHARACTERS and not cut_right
    return short(shown if whole else shown + "…", _SAMPLE_CHARACTERS + 1)
