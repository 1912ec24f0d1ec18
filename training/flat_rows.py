"""Rows of one pass behind each other in one sequence, so that no token is padding.

Each row keeps its own positions and sees itself alone. Whether a model keeps to that is asked of the model before it is trusted: an
architecture that mixes tokens in a way of its own would let rows read each other, and no loss would show it.
Knows nothing of trainers. Next: `attention.py`, which goes through such a sequence row by row.
"""

from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from training.attention import NAME

_ROW = 8  # tokens; long enough for every kind of mixing to reach from one row into the next
_ALIKE = 0.05  # of the states' own size: other shapes of the same products round otherwise


def collator(pad_token_id: int, *, flat: bool) -> DataCollatorForLanguageModeling:
    """What makes a pass of rows: padded `(rows, longest)`, or flat `(1, sum of lengths)` with positions and row boundaries."""
    return DataCollatorForLanguageModeling(pad_token_id=pad_token_id, padding_free=flat)


def keeps_rows_apart(model: Any) -> bool:
    """Whether a causal language model gives flat rows the states that it gives them alone.

    Only with the attention of this package, which knows about rows; for any other the answer is no without a look, and so it is for a
    model that does not take rows' borders.
    """
    if model.config._attn_implementation != NAME:
        return False
    try:
        return _keeps_apart(model)
    except TypeError:
        return False


def _keeps_apart(model: Any) -> bool:
    first, other, last = (torch.arange(_ROW, device=model.device) + start for start in (3, 3 + _ROW, 3 + 2 * _ROW))
    behind_first, behind_other, alone = (_states(model, rows)[-_ROW:] for rows in ([first, last], [other, last], [last]))
    difference = (behind_first - alone).norm() / alone.norm()
    return torch.equal(behind_first, behind_other) and bool(difference < _ALIKE)


def _states(model: Any, rows: list[torch.Tensor]) -> torch.Tensor:
    """Last hidden states `(tokens, width)` in fp32."""
    batch = collator(0, flat=True)([{"input_ids": row.tolist()} for row in rows])
    training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(model.device.type, dtype=torch.bfloat16):  # as trainings compute
        states: torch.Tensor = model.base_model(**seen(batch), use_cache=False).last_hidden_state[0]
    model.train(training)
    return states.float()


def tokens_in(batch: dict[str, Any]) -> int:
    """How many tokens of a batch are not padding."""
    return int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()


def seen(batch: dict[str, Any]) -> dict[str, Any]:
    """What a model reads of a batch: all but the labels, which are for the loss."""
    return {key: value for key, value in batch.items() if key != "labels"}
