"""TRL's trainers over preference rows that are tokenised already: pairs of answers, and single answers with a label.

Both go on from an adapter, and a method with a reference is held to a frozen copy of that adapter or to no adapter at all, over the
same base weights: no second model is in memory. Knows nothing of recipes' files or folders. Next: `preference_losses.py`.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from training.builders import training_arguments
from training.chat import IGNORED
from training.config import SftSection
from training.devices import Ranks
from training.preference_losses import Scored, reference_free_loss
from training.preference_section import PreferenceSection
from training.ranks import summed
from training.shards import SharedOut
from training.step_batches import InSteps
from training.trained import TrainedCheckpoints
from training.watch import Watch

_REFERENCE = "ref"  # TRL's name for the frozen copy of the adapter
Row = Mapping[str, Any]
ALONE_HERE = Ranks()


class PairTrainer(InSteps, SharedOut, TrainedCheckpoints, DPOTrainer):  # type: ignore[misc]
    """DPO with TRL's losses; CPO, SimPO and ORPO with ours, over the same batches and the same fused head."""

    def __init__(
        self,
        model: Any,
        sft: SftSection,
        preference: PreferenceSection,
        tokenizer: Any,
        rows: Sequence[Row],
        watch: Watch,
        ranks: Ranks = ALONE_HERE,
    ) -> None:
        self.watch, self.preference, self.ranks = watch, preference, ranks
        self.row_lengths = [len(row["prompt_ids"]) + len(row["chosen_ids"]) for row in rows]
        arguments = DPOConfig(**training_arguments(sft, watch.checkpoints.staging), **_dpo_settings(preference), max_length=None)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(_pairs(rows, blank=ranks.world > 1)),
            processing_class=tokenizer,
            callbacks=watch.callbacks,
        )
        self.remove_callback(PrinterCallback)
        _choose_reference(self.model, preference)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Leave the rows alone: TRL would render and tokenise text, and `prepare.py` has done both."""
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The loss of a batch whose first half is the chosen and second half the rejected answers."""
        self.watch.tokens += int(inputs["attention_mask"].sum()) * self.ranks.world
        if self.preference.way.has_reference:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return loss if self.ranks.world == 1 else self._without_blanks(loss, inputs["input_ids"])
        scored, balance = self._score(model, inputs)
        chosen, rejected = (mean.detach() for mean in scored.means)
        self._metrics["train"]["rewards/margins"].append(float((chosen - rejected).mean()))
        return reference_free_loss(scored, self.preference) + balance

    def _without_blanks(self, loss: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The mean over the pairs of all processes, of which each gives its share.

        A blank pair prefers an answer to itself: its sigmoid loss is ln 2, whatever the model, and its gradient 0.
        """
        chosen, rejected = ids.chunk(2)
        own = (chosen != rejected).any(1).sum()
        total = loss * len(chosen) - (len(chosen) - own) * math.log(2)
        return total * self.ranks.world / summed(own).clamp(min=1)

    def _score(self, model: Any, inputs: dict[str, Any]) -> tuple[Scored, Any]:
        """Log-probabilities of the answers in `inputs` (`(2 × batch, seq)`), and the loss that spreads work over experts."""
        mask = inputs["completion_mask"]
        experts = {"output_router_logits": True} if self.aux_loss_enabled else {}
        found = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=inputs["input_ids"].masked_fill(mask == 0, IGNORED),
            fused_lm_head=True,
            use_cache=False,
            **experts,
        )
        sums = found.log_probs[:, -(mask.shape[1] - 1) :].float().sum(dim=1)
        scored = Scored(*sums.chunk(2), *mask[:, 1:].sum(dim=1).chunk(2))
        return scored, self.router_aux_loss_coef * found.aux_loss if self.aux_loss_enabled else 0.0


class LabelledTrainer(TrainedCheckpoints, KTOTrainer):  # type: ignore[misc]
    """KTO: every row is one answer and whether it is wanted."""

    def __init__(
        self, model: Any, sft: SftSection, preference: PreferenceSection, tokenizer: Any, rows: Iterable[Row], watch: Watch
    ) -> None:
        self.watch = watch
        settings = training_arguments(sft, watch.checkpoints.staging)
        # KTO's estimate of the divergence pairs each prompt with its neighbour's answer: the batches are fixed beforehand.
        settings |= {"train_sampling_strategy": "sequential"}
        arguments = KTOConfig(
            **settings,
            loss_type=preference.loss,
            beta=preference.beta,
            desirable_weight=preference.desirable_weight,
            undesirable_weight=preference.undesirable_weight,
            max_length=None,
        )
        labelled = _in_batches(labelled_rows(rows), sft.batch_size, sft.seed)
        super().__init__(
            model=model, args=arguments, train_dataset=Dataset.from_list(labelled), processing_class=tokenizer, callbacks=watch.callbacks
        )
        self.remove_callback(PrinterCallback)
        _choose_reference(self.model, preference)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """KTO's loss of a batch of prompts with their own answers, and with their neighbours' for the divergence."""
        self.watch.tokens += int(inputs["attention_mask"].sum())
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def labelled_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Prepared rows as KTO takes them; a pair is two rows, the wanted answer and the unwanted."""
    found = []
    for row in rows:
        answers = (
            [(row["answer_ids"], row["desirable"])] if "answer_ids" in row else [(row["chosen_ids"], True), (row["rejected_ids"], False)]
        )
        found += [{"prompt_ids": row["prompt_ids"], "completion_ids": ids, "label": wanted} for ids, wanted in answers]
    return found


def _in_batches(rows: list[dict[str, Any]], batch_size: int, seed: int) -> list[dict[str, Any]]:
    """The rows in a shuffled order, each with the answer of the row before it in its batch, the first with the last one's."""
    order = random.Random(seed).sample(rows, len(rows))  # noqa: S311 - an order, not a secret
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [
        {**row, "KL_completion_ids": before["completion_ids"]}
        for batch in batches
        for row, before in zip(batch, [batch[-1], *batch[:-1]], strict=True)
    ]


def _pairs(rows: Sequence[Row], *, blank: bool) -> list[dict[str, Any]]:
    """The columns that the trainer reads; a blank pair behind them, where processes have to make the same number of passes."""
    found = [{key: row[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in rows]
    return [*found, {**found[0], "rejected_ids": found[0]["chosen_ids"]}] if blank else found


def _dpo_settings(preference: PreferenceSection) -> dict[str, Any]:
    if not preference.way.has_reference:
        return {}
    also = [("sft", preference.sft_weight)] if preference.sft_weight else []
    return {
        "loss_type": [preference.loss, *(name for name, _ in also)],
        "loss_weights": [1.0, *(weight for _, weight in also)],
        "beta": preference.beta,
        "label_smoothing": preference.label_smoothing or 0.0,
    }


def _choose_reference(model: Any, preference: PreferenceSection) -> None:
    """TRL has copied the adapter. Without that copy it turns the adapter off where it needs a reference: the base model."""
    if preference.reference != "sft":
        model.delete_adapter(_REFERENCE)


def margins(history: Iterable[Mapping[str, float]]) -> tuple[float | None, float | None]:
    """By how much the preferred answers were ahead, at the first and at the last logged step that had both kinds of answer."""
    logged = [entry["rewards/margins"] for entry in history if "rewards/margins" in entry]
    return (logged[0], logged[-1]) if logged else (None, None)
