"""The trap of a padding token that is the end token too: whoever masks padding by its id takes the loss off the end of every answer.

The model then never learns to stop, and no loss shows it. So the first rows are put through the very function that makes batches, and
every token that bears loss in a row must bear loss in its batch. Works for supervised rows, for pairs and for labelled answers. A reward
model reads its number at the last token, so that its rows must be whole in what the batch attends to. Next: `training/watch.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from training.chat import IGNORED
from training.errors import TrainingError

_ROWS = 4  # of different lengths, so that some are padded


def check_collation(collate: Callable[[list[Any]], Any], rows: Sequence[dict[str, Any]], pad_token_id: int | None) -> int:
    """How many answers of the first rows were found whole in their batch; 0 for rows of a kind that is not known here.

    Raises:
        TrainingError: a token of an answer lost its loss on the way into the batch.
    """
    some = [rows[number] for number in range(min(_ROWS, len(rows)))]
    answers = _answers(some)
    scored = _scored(collate([dict(row) for row in some])) if answers else []
    if len(scored) != len(answers):
        return 0
    for number, (wanted, found) in enumerate(zip(answers, scored, strict=True)):
        if wanted != found:
            raise TrainingError(
                f"row {number + 1} has {len(wanted)} tokens that bear loss, and {len(found)} of them in its batch",
                why=_why(wanted, found, pad_token_id),
                do="give the tokenizer a padding token of its own, or a collator that pads labels instead of masking by token",
            )
    return len(answers)


def _answers(rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    """What is to be learned from each row; of pairs, the chosen answers first, as their batches have it.

    Of labelled answers, those of the rows' neighbours, by which KTO estimates the divergence, come last.
    """
    if all("labels" in row and "input_ids" in row for row in rows):
        return [[label for label in row["labels"] if label != IGNORED] for row in rows]
    if all("chosen_ids" in row and "rejected_ids" in row for row in rows):
        return [list(row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
    if all("completion_ids" in row for row in rows):
        sides = ["completion_ids", *(["KL_completion_ids"] if all("KL_completion_ids" in row for row in rows) else [])]
        return [list(row[side]) for side in sides for row in rows]
    return []


def _scored(batch: Any) -> list[list[int]]:
    if "labels" in batch:
        return [[label for label in labels if label != IGNORED] for labels in batch["labels"].tolist()]
    mask = "completion_mask" if "completion_mask" in batch else "attention_mask"
    if mask not in batch:
        return []
    parts = ["", "KL_"] if "KL_completion_mask" in batch else [""]
    pairs = [pair for part in parts for pair in zip(batch[f"{part}input_ids"].tolist(), batch[f"{part}{mask}"].tolist(), strict=True)]
    return [[token for token, kept in zip(ids, mask, strict=True) if kept] for ids, mask in pairs]


def _why(wanted: list[int], found: list[int], pad_token_id: int | None) -> str:
    if pad_token_id in wanted and pad_token_id not in found:
        return f"token {pad_token_id} pads the batches and ends the answers: without loss on it the model never learns to stop"
    return "the model would be trained on other tokens than the rows have"
