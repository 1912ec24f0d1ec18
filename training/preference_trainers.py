"""TRL's trainers over preference rows that are tokenised already: pairs of answers, and single answers with a label.

Both go on from an adapter, and a method with a reference is held to a frozen copy of that adapter or to no adapter at all, over the
same base weights: no second model is in memory. Knows nothing of recipes' files or folders. Next: `preference_losses.py`.
"""

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
from training.practice.history import HELD_OUT, HELD_OUT_ACCURACY
from training.practice.stopping import HeldOut
from training.preference_losses import Scored, reference_free_loss, unmoved_loss
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

    control: Any

    def __init__(
        self,
        model: Any,
        sft: SftSection,
        preference: PreferenceSection,
        tokenizer: Any,
        rows: Sequence[Row],
        watch: Watch,
        ranks: Ranks = ALONE_HERE,
        held_back: Sequence[Row] = (),
        held_out: HeldOut | None = None,
    ) -> None:
        self.watch, self.preference, self.ranks = watch, preference, ranks
        self.row_lengths = [len(row["prompt_ids"]) + len(row["chosen_ids"]) for row in rows]
        arguments = DPOConfig(**training_arguments(sft, watch.checkpoints.staging), **_dpo_settings(preference), max_length=None)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(_pairs(rows, blank=ranks.world > 1)),
            processing_class=tokenizer,
            callbacks=[*watch.callbacks, *([held_out] if held_out and held_back else [])],
        )
        self.remove_callback(PrinterCallback)
        _choose_reference(self.model, preference)
        self.held_back, self.held_out = sorted(_pairs(held_back, blank=False), key=_length), held_out
        if held_out is not None:
            held_out.save = self.save_model

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Leave the rows alone: TRL would render and tokenise text, and `prepare.py` has done both."""
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The loss of a batch whose first half is the chosen and second half the rejected answers."""
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self.watch.tokens += int(inputs["attention_mask"].sum()) * self.ranks.world
        if self.preference.way.has_reference:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return loss if self.ranks.world == 1 else self._without_blanks(loss, inputs["completion_mask"])
        scored, balance = self._score(model, inputs)
        for name, ahead in (("rewards/margins", scored.ahead), ("rewards/accuracies", (scored.ahead > 0).float())):
            self._metrics[mode][name].append(float(summed(ahead.sum()) / _of_all(scored.pairs)))
        return self._share_of_all(scored) + balance

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss, and share of pairs whose preferred answer is ahead, over the held-back pairs: each counts the same."""
        self.model.eval()
        size, loss, in_order = self.args.per_device_eval_batch_size, 0.0, 0.0
        for start in range(0, len(self.held_back), size):
            rows = self.held_back[start : start + size]
            inputs = self._prepare_inputs(self.data_collator(rows))
            with torch.no_grad(), self.compute_loss_context_manager():
                loss += float(self.compute_loss(self.model, inputs)) * len(rows)
            in_order += self._metrics["eval"]["rewards/accuracies"][-1] * len(rows)
        found = {HELD_OUT: loss / len(self.held_back), HELD_OUT_ACCURACY: in_order / len(self.held_back)}
        self._metrics["eval"].clear()  # means over batches, of which the last one is smaller
        self.log(found)
        self.model.train()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _without_blanks(self, loss: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
        """The mean over the pairs of all processes, of which each gives its share.

        A blank pair has no answers: its loss is that of pairs which have not moved, whatever the model, and its gradient 0.
        """
        chosen = completion_mask.chunk(2)[0]
        own = chosen.any(1).sum()
        total = loss * len(chosen) - (len(chosen) - own) * unmoved_loss(self.preference)
        return total * self.ranks.world / _of_all(own)

    def _share_of_all(self, scored: Scored) -> torch.Tensor:
        """This process's share of the mean over the pairs, and over the preferred answers' tokens, of all processes."""
        pairs, tokens = (_of_all(number) / self.ranks.world for number in (scored.pairs, scored.chosen_tokens.sum()))
        return reference_free_loss(scored, self.preference, pairs, tokens)

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


def _length(pair: Row) -> int:
    return len(pair["prompt_ids"]) + len(pair["chosen_ids"])


def _of_all(number: torch.Tensor) -> torch.Tensor:
    """A count summed over all processes, to divide by."""
    return summed(number).clamp(min=1)


def _pairs(rows: Sequence[Row], *, blank: bool) -> list[dict[str, Any]]:
    """The columns that the trainer reads; a blank pair behind them, where processes have to make the same number of passes."""
    found = [{key: row[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in rows]
    return [*found, {**found[0], "chosen_ids": [], "rejected_ids": []}] if blank else found


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
