"""Reads the label out of an answer of a classification suite, and macro-F1 over labels.

A label counts where it is the answer, or the only one named and not denied, or the last one behind "label:", "the answer is", 答案是.
Two labels without such a mark are no answer: nothing is guessed, and no label is a wrong label. Next: `text_scores.py`.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evaluation.text import fold_text, is_cjk

_EDGES = " \t\n\"'*_`#>-.,:;!?()[]{}<>。,:;!?、"
_DENIED = re.compile(r"(?:\b(?:not|never|isn't|is no|neither|nor)\s+(?:an?\s+|the\s+)?|不是|并非|而非|不属于|非|不)['\"*_`]*$")
_MARKED = re.compile(
    r"(?:\b(?:final answer|answer|label|category|class|classification|verdict)\b|答案|标签|类别|分类|结论)"
    r"['\"*_`]*\s*(?:is|are|as|:|=|为|是)+[\s:'\"*_`\[({]*$"
)
_LOOK_BACK = 48


def parse_label(answer: str, labels: Sequence[str]) -> str | None:
    """The label that the answer gives, or None where it gives none or more than one."""
    folded = {fold_text(label): label for label in labels}
    text = fold_text(answer)
    if (whole := text.strip(_EDGES)) in folded:
        return folded[whole]
    named = [(match.group(), text[max(0, match.start() - _LOOK_BACK) : match.start()]) for match in _mentions(tuple(folded), text)]
    named = [(label, before) for label, before in named if not _DENIED.search(before)]
    marked = [label for label, before in named if _MARKED.search(before)]
    if marked:
        return folded[marked[-1]]
    found = {label for label, _ in named}
    if len(found) == 1:
        return folded[found.pop()]
    first_line = fold_text(answer.strip().split("\n", 1)[0]).strip(_EDGES)
    return folded.get(first_line)


def label_row(truth: str, given: str | None, labels: Sequence[str]) -> tuple[float, ...]:
    """What one answer adds to the counts of `macro_f1`: which label is true, which was given, which is both; one column per label each."""
    columns = (truth, given, truth if truth == given else None)
    return tuple(float(label == column) for column in columns for label in labels)


def macro_f1(counts: NDArray[np.float64]) -> float:
    """Mean F1 over the labels that are true of any answer; `counts` are sums of `label_row`."""
    truth, given, both = counts.reshape(3, -1)
    known = truth > 0
    return float(np.mean(2 * both[known] / (truth[known] + given[known])))


def _mentions(labels: tuple[str, ...], text: str) -> Iterator[re.Match[str]]:
    return _pattern(labels).finditer(text)


@lru_cache(maxsize=16)
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Any label, the longest first, so that "urgent" is not found inside "non-urgent"; letters only at word borders."""
    return re.compile("|".join(_bordered(label) for label in sorted(labels, key=len, reverse=True)))


def _bordered(label: str) -> str:
    left = r"(?<![\w-])" if not is_cjk(label[0]) else ""
    right = r"(?![\w-])" if not is_cjk(label[-1]) else ""
    return left + re.escape(label) + right
