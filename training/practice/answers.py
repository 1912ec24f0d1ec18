"""The trap of answers that were cut before they came here: a teacher's token limit, an export with a column too narrow.

A model trained on them learns to stop in the middle of a sentence. Nothing is cut by training itself: a row that is too long is left
out by name, and when that takes many rows this is said too. Answers that a model writes while it learns are cut by a limit of the
recipe's, and counted by `training/online.py`. Knows nothing of files. Next: `training/sft.py`.
"""

from collections.abc import Callable, Collection, Sequence
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
    answers = [_labels(row) for row in rows]
    return _judged(section, lambda: [_without_end(answers, stops), _mid_sentence(answers, tokenizer), _too_long(dataset)])


def cut_preferences(section: CutAnswersSection, rows: Sequence[dict[str, Any]], tokenizer: Any, stops: Collection[int]) -> tuple[str, ...]:
    """The same of pairs and of labelled answers, of the two sides apart: where only one is cut, being cut is what is learned.

    Raises:
        DataError: there are more than the recipe allows, and it says to stop.
    """
    single = [row for row in rows if "answer_ids" in row]
    pairs = [row for row in rows if "answer_ids" not in row]
    preferred = [row["answer_ids"] for row in single if row["desirable"]] + [row["chosen_ids"] for row in pairs]
    other = [row["answer_ids"] for row in single if not row["desirable"]] + [row["rejected_ids"] for row in pairs]
    sides = (("preferred answers", preferred), ("rejected answers", other))
    return _judged(
        section,
        lambda: [
            found for what, answers in sides for found in (_without_end(answers, stops, what), _mid_sentence(answers, tokenizer, what))
        ],
    )


def _judged(section: CutAnswersSection, count: Callable[[], list[tuple[float, str]]]) -> tuple[str, ...]:
    if section.action == "off":
        return ()
    found = [sentence for share, sentence in count() if share > section.max_share]
    if found and section.action == "stop":
        raise DataError(
            "\n".join(found),
            why="from answers that are cut a model learns to stop in the middle of a sentence",
            do="get these answers whole, raise `model.max_length`, or set `sft.cut_answers.action: warn`",
        )
    return tuple(found)


def _without_end(answers: Sequence[list[int]], stops: Collection[int], what: str = "rows") -> tuple[float, str]:
    cut = sum(answer[-1] not in stops for answer in answers)
    return _told(cut, len(answers), f"{what} end without the token that ends an answer")


def _mid_sentence(answers: Sequence[list[int]], tokenizer: Any, what: str = "answers") -> tuple[float, str]:
    every = max(1, len(answers) // _MOST_LOOKED_AT)
    tails = [answer[-_TAIL:] for answer in answers[::every] if len(answer) >= _LONG]
    cut = sum(ends_open(text) for text in tokenizer.batch_decode(tails, skip_special_tokens=True)) if tails else 0
    return _told(cut, len(tails), f"{what} of {_LONG} tokens or more end in the middle of a sentence")


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
