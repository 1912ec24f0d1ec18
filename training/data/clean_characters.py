"""Characters: normal forms, invisible ones, and white space. Each function gives back the text itself when nothing is to do.

Knows nothing of words or markup. Written so that a clean row costs a few C-speed scans and nothing else; hostile rows cost time in
proportion to their length. Next: `cleaning.py`, which puts the steps in order.
"""

import re
import unicodedata
from functools import cache
from typing import Literal

from training.data.clean_code import outside_fences

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Joiners carry meaning inside emoji and in scripts whose letters join or stack; anywhere else they are invisible noise.
_JOINING = "\u0600-\u07ff\u0840-\u08ff\u0900-\u0dff\u0e80-\u109f\u1780-\u18af\ua840-\ua87f\ua8e0-\ua8ff\ufb50-\ufdff\ufe70-\ufefc"
_PICTURE = "\u2190-\u2bff\U0001f000-\U0001faff"
_STRAY_JOINER = re.compile(
    f"(?<![{_JOINING}])\u200c|\u200c(?![{_JOINING}])|(?<![{_JOINING}{_PICTURE}\ufe0f])\u200d|\u200d(?![{_JOINING}{_PICTURE}])"
)
# Tag characters spell the flags of England, Scotland and Wales after a black flag; elsewhere they hide ASCII from the reader.
_TAGS = re.compile("(\U0001f3f4[\U000e0061-\U000e007a]{2,6}\U000e007f)|[\U000e0000-\U000e007f]+")
_VARIANTS = re.compile("(?<![\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af])[\U000e0100-\U000e01ef]+")

_ODD_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_WIDE_INDENT = re.compile("^[ \t]*[\u2002\u2003\u3000][ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]*", re.MULTILINE)
_RUN = re.compile(r"``[^\n]{1,400}?``|`[^`\n]{1,400}`|(?<=\S)[ \t]{2,}")

_SHORT = 1000  # characters below which even the worst normalisation takes well under a millisecond
_MOST_MARKS = 30  # combining marks on one letter that Unicode's stream-safe format allows


def without_controls(text: str) -> str:
    """No invisible characters, no halves of surrogate pairs; line ends become a line feed, tabs stay."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    text = _LINE_ENDS.sub("\n", text)
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    text = _VARIANTS.sub("", _TAGS.sub(r"\1", text.translate(_invisible())))
    return _STRAY_JOINER.sub("", text)


@cache
def _invisible() -> dict[int, None]:
    """Control and format characters to be removed; tags, variants and joiners are looked at in context instead."""
    kept = {"\t", "\n", "\u200c", "\u200d"}
    codes = [code for code in range(0x10000) if unicodedata.category(chr(code)) in ("Cc", "Cf") and chr(code) not in kept]
    # The Arabic and Syriac signs of category Cf are visible: they enclose a number or mark a year.
    visible = {*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2}
    unassigned = [*range(0xFDD0, 0xFDF0), 0xFFFE, 0xFFFF]
    return dict.fromkeys([code for code in [*codes, 0x034F, 0xFFFC, *unassigned] if code not in visible])


def normal_form(text: str, form: Literal["NFC", "NFKC"]) -> str:
    """The text in a Unicode normal form."""
    if text.isascii():
        return text
    if len(text) > _SHORT:  # sorting the marks of one letter takes quadratic time, so a pile of a million must not reach it
        text = _piled_marks().sub(lambda pile: pile[0][:_MOST_MARKS], text)
    return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)


@cache
def _piled_marks() -> re.Pattern[str]:
    marks = [code for code in range(0x300, 0x1E94B) if unicodedata.combining(chr(code))]
    return re.compile(f"[{''.join(map(chr, marks))}]{{{_MOST_MARKS + 1},}}")


def tidy_spaces(text: str, max_blank_lines: int) -> str:
    """One space between words, none at line ends, few blank lines; the indentation of a line and fenced code stay as they are."""
    if _is_tidy(text, max_blank_lines):
        return text
    tidied = outside_fences(text, lambda prose: _tidied(prose, max_blank_lines))
    return _without_edges(tidied)


def _is_tidy(text: str, max_blank_lines: int) -> bool:
    if "  " in text or "\t" in text or " \n" in text or "\n" * (max_blank_lines + 2) in text:
        return False
    if text[:1].isspace() or text[-1:].isspace():
        return False
    return text.isascii() or not _ODD_SPACE.search(text)


def _tidied(prose: str, max_blank_lines: int) -> str:
    if not prose.isascii():
        prose = _ODD_SPACE.sub(" ", _WIDE_INDENT.sub("", prose))
    lines = "\n".join(line.rstrip(" \t") for line in _RUN.sub(_one_space, prose).split("\n"))
    return re.sub(rf"\n{{{max_blank_lines + 2},}}", "\n" * (max_blank_lines + 1), lines)


def _one_space(match: re.Match[str]) -> str:
    """A run with a tab in it parts the columns of a table."""
    run = match[0]
    if run[0] == "`":
        return run
    return "\t" if "\t" in run else " "


def _without_edges(text: str) -> str:
    """No blank lines at either end. The first line keeps its indentation when the lines below it may be measured against it."""
    text = text.rstrip()
    first = len(text) - len(text.lstrip())
    start = text.rfind("\n", 0, first) + 1
    return text[start:] if "\n" in text[start:] else text[first:]
