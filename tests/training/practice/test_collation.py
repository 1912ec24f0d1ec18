"""The planted fault is transformers' own collator, which masks padding by its token id."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DataCollatorForLanguageModeling as MasksByToken
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference as PadsLabelled
from trl.trainer.reward_trainer import DataCollatorForPreference as PadsRanked
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling as PadsLabels

from tests.fakes_training import TinyLine
from training.errors import TrainingError
from training.practice.collation import check_collation
from training.prepare import PREFERENCES, TRAIN, read_prepared
from training.tokenizer import load_tokenizer


@pytest.fixture
def ends_with_padding(tiny: TinyLine) -> Any:
    tokenizer = load_tokenizer(Path(tiny.base.folder))
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def supervised(tiny: TinyLine) -> list[dict[str, Any]]:
    return [{key: row[key] for key in ("input_ids", "labels")} for row in read_prepared(tiny.dataset_dir / TRAIN)]


def test_a_collator_that_takes_the_end_token_for_padding_is_refused(tiny: TinyLine, ends_with_padding: Any) -> None:
    collate = MasksByToken(ends_with_padding, mlm=False)

    def by_token(rows: list[Any]) -> Any:
        return collate([{"input_ids": row["input_ids"]} for row in rows])

    with pytest.raises(TrainingError, match="of them in its batch") as caught:
        check_collation(by_token, supervised(tiny), ends_with_padding.pad_token_id)
    assert "row 1 has" in str(caught.value)


def test_the_loss_on_the_end_token_alone_is_missed_too(tiny: TinyLine, ends_with_padding: Any) -> None:
    pad = PadsLabels(pad_token_id=ends_with_padding.pad_token_id)

    def without_end(rows: list[Any]) -> Any:
        batch = pad(rows)
        batch["labels"][batch["labels"] == ends_with_padding.pad_token_id] = -100
        return batch

    with pytest.raises(TrainingError) as caught:
        check_collation(without_end, supervised(tiny), ends_with_padding.pad_token_id)
    assert "pads the batches and ends the answers: without loss on it the model never learns to stop" in str(caught.value)


def test_a_collator_that_pads_labels_is_sound_with_the_same_tokenizer(tiny: TinyLine, ends_with_padding: Any) -> None:
    assert check_collation(PadsLabels(pad_token_id=ends_with_padding.pad_token_id), supervised(tiny), ends_with_padding.pad_token_id) == 4


def test_both_answers_of_a_pair_are_looked_at(tiny: TinyLine) -> None:
    pairs = [
        {key: row[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in read_prepared(tiny.dataset_dir / PREFERENCES)
    ]

    def collate(rows: list[Any]) -> Any:
        ids = [row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids") for row in rows]
        masks = [[0] * len(row["prompt_ids"]) + [1] * len(row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
        width = max(map(len, ids))
        return {
            "input_ids": torch.tensor([each + [0] * (width - len(each)) for each in ids]),
            "completion_mask": torch.tensor([each + [0] * (width - len(each)) for each in masks]),
        }

    assert check_collation(collate, pairs, 0) == 8


ENDS_WITH_PADDING = 2  # the last token of every answer below
LABELLED = [
    {"prompt_ids": [5, 6], "completion_ids": [7, 2], "KL_completion_ids": [8, 9, 2], "label": True},
    {"prompt_ids": [5], "completion_ids": [8, 9, 2], "KL_completion_ids": [7, 2], "label": False},
]
RANKED = [{"chosen_ids": [5, 6, 7, 2], "rejected_ids": [5, 6, 2]}, {"chosen_ids": [5, 8, 2], "rejected_ids": [5, 9, 9, 9, 2]}]


@pytest.mark.parametrize(
    ("pads", "rows", "answers", "mask"),
    [
        (PadsLabelled(pad_token_id=ENDS_WITH_PADDING), LABELLED, 4, "completion_mask"),
        (PadsLabelled(pad_token_id=ENDS_WITH_PADDING), LABELLED, 4, "KL_completion_mask"),
        (PadsRanked(pad_token_id=ENDS_WITH_PADDING), RANKED, 4, "attention_mask"),
    ],
    ids=["kto", "kto-divergence", "reward"],
)
def test_labelled_answers_and_a_reward_models_rows_are_looked_at_too(pads: Any, rows: list[Any], answers: int, mask: str) -> None:
    """TRL's own collators are sound; the planted one takes each token that is the padding token for padding."""

    def without_end(some: list[Any]) -> Any:
        batch = pads(some)
        batch[mask][batch[mask.replace("completion_mask", "input_ids").replace("attention_mask", "input_ids")] == ENDS_WITH_PADDING] = 0
        return batch

    assert check_collation(pads, rows, ENDS_WITH_PADDING) == answers
    with pytest.raises(TrainingError) as caught:
        check_collation(without_end, rows, ENDS_WITH_PADDING)
    assert "pads the batches and ends the answers" in caught.value.why


def test_rows_of_an_unknown_kind_are_passed_over() -> None:
    assert check_collation(lambda rows: {}, [{"prompt": [1]}], 0) == 0
