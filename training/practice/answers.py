"""The trap of answers that were cut before they came here: a teacher's token limit, an export with a column too narrow.

A model trained on them learns to stop in the middle of a sentence. Nothing is cut by training itself: a row that is too long is left
out by name, and when that takes many rows this is said too. Knows nothing of files. Next: `training/sft.py`.
"""

from collections.abc import Collection, Sequence
from typing import Any

from training.chat import IGNORED
from training.errors import DataError
from training.practice.sections import CutAnswersSection
from training.records import DatasetManifest

_MOST_LOOKED_AT = 20_000
_LONG = 48  # tokens; shorter answers often are a word or a name, which has no full stop
_TAIL = 8
_OPEN_END = frozenset(",;:-–—([{/\\&+=<、，；：（「《")


def cut_answers(
    section: CutAnswersSection, rows: Sequence[dict[str, list[int]]], dataset: DatasetManifest, tokenizer: Any, stops: Collection[int]
) -> tuple[str, ...]:
    """Warnings about answers that are cut.

    Raises:
        DataError: there are more than the recipe allows, and it says to stop.
    """
    if section.action == "off":
        return ()
    found = [
        sentence
        for share, sentence in (_without_end(rows, stops), _mid_sentence(rows, tokenizer), _too_long(dataset))
        if share > section.max_share
    ]
    if found and section.action == "stop":
        raise DataError(
            "\n".join(found),
            why="from answers that are cut a model learns to stop in the middle of a sentence",
            do="get these answers whole, raise `model.max_length`, or set `sft.cut_answers.action: warn`",
        )
    return tuple(found)


def _without_end(rows: Sequence[dict[str, list[int]]], stops: Collection[int]) -> tuple[float, str]:
    cut = sum(_labels(row)[-1] not in stops for row in rows)
    return _told(cut, len(rows), "rows end without the token that ends an answer")


def _mid_sentence(rows: Sequence[dict[str, list[int]]], tokenizer: Any) -> tuple[float, str]:
    every = max(1, len(rows) // _MOST_LOOKED_AT)
    tails = [labels[-_TAIL:] for row in rows[::every] if len(labels := _labels(row)) >= _LONG]
    cut = sum(ends_open(text) for text in tokenizer.batch_decode(tails, skip_special_tokens=True)) if tails else 0
    return _told(cut, len(tails), f"answers of {_LONG} tokens or more end in the middle of a sentence")


def ends_open(text: str) -> bool:
    """Whether an answer stops where a sentence goes on: at a letter, a digit, or a mark that opens or joins."""
    last = text.rstrip()[-1:]
    return last.isalnum() or last in _OPEN_END


def _too_long(dataset: DatasetManifest) -> tuple[float, str]:
    rows_in = sum(source.rows_in for source in dataset.sources)
    return _told(
        sum(source.dropped.get("too_long", 0) for source in dataset.sources),
        rows_in,
        "rows are longer than `model.max_length` and left out",
    )


def _told(cut: int, of: int, what: str) -> tuple[float, str]:
    share = cut / of if of else 0.0
    return share, f"{cut:,} of {of:,} ({share:.1%}) {what}"


def _labels(row: dict[str, list[int]]) -> list[int]:
    return [label for label in row["labels"] if label != IGNORED]
