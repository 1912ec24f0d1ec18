"""Which parts of a text are code, so that cleaning and renaming leave them as they are.

Code is what Markdown marks as such: fenced blocks and `inline spans`. Code that nobody marked cannot be told from prose here;
steps that could harm it (indentation, whole HTML pages) are careful by themselves. Next: `cleaning.py`.
"""

import re
from collections.abc import Callable, Iterator

# A fence's own line holds nothing but the fence and a language name, so a backtick later in the line makes it an inline span.
_FENCE = re.compile(r"^[ \t]{0,12}(`{3,}|~{3,})([^\n`]*)$", re.MULTILINE)
_INLINE = re.compile(r"``[^\n]{1,400}?``|`[^`\n]{1,400}`")

Piece = tuple[bool, str]  # whether it is code, and its text; all pieces together are the text


def by_fences(text: str) -> list[Piece]:
    """The text as whole-line pieces of prose and fenced code; a fence that is never closed reaches to the end."""
    if "```" not in text and "~~~" not in text:
        return [(False, text)]
    pieces, position = [], 0
    for start, end in _fenced(text):
        pieces += [(False, text[position:start]), (True, text[start:end])]
        position = end
    return [piece for piece in [*pieces, (False, text[position:])] if piece[1]]


def by_spans(text: str) -> list[Piece]:
    """The text as pieces of prose and code, inline spans included."""
    if "`" not in text and "~~~" not in text:
        return [(False, text)]
    return [piece for is_code, part in by_fences(text) for piece in ([(True, part)] if is_code else _inline(part))]


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """The text with every whole-line piece of prose changed."""
    return "".join(piece if is_code else change(piece) for is_code, piece in by_fences(text))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with every piece of prose between fences and inline spans changed."""
    return "".join(piece if is_code else change(piece) for is_code, piece in by_spans(text))


def prose_of(text: str) -> str:
    """The text without its code."""
    return " ".join(piece for is_code, piece in by_spans(text) if not is_code)


def _fenced(text: str) -> Iterator[tuple[int, int]]:
    opened: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        if opened is None:
            opened = match
        elif match[1].startswith(opened[1]) and not match[2].strip():
            yield opened.start(), match.end()
            opened = None
    if opened is not None:
        yield opened.start(), len(text)


def _inline(text: str) -> Iterator[Piece]:
    position = 0
    for match in _INLINE.finditer(text):
        yield False, text[position : match.start()]
        yield True, match[0]
        position = match.end()
    yield False, text[position:]
