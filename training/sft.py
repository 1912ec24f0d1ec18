"""Supervised fine-tuning: TRL's SFTTrainer over prepared rows, resumed from the newest whole checkpoint.

Knows nothing of files that people write, of quantisation details (`builders.py`) or of merging.
Next: `preference.py`, or `merge.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft.optimizers import create_loraplus_optimizer
from transformers import PrinterCallback, TrainerCallback, TrainerState
from trl import SFTConfig, SFTTrainer

from training.adapters import base_of, new_adapter, save_adapter
from training.answer_loss import answer_loss
from training.builders import load_base, settle, training_arguments
from training.chat import IGNORED
from training.config import ModelSection, SftSection
from training.context import config_changes
from training.devices import Ranks, require_others, shared_out
from training.errors import InputError
from training.flat_rows import collator, keeps_rows_apart, tokens_in
from training.measure import answer_states, prompted_answer_states, spread_of_ranks
from training.memory import steps_for
from training.outcome import checkpoints_for, figures, keep, run
from training.practice.answers import cut_answers
from training.practice.course import Course
from training.practice.out_of_memory import Passes, with_smaller_passes
from training.practice.rates import odd_rate
from training.practice.seeds import be_deterministic
from training.practice.stopping import HeldOut, Validation, pass_rate_of
from training.practice.template import stop_tokens
from training.practice.trackers import require_trackers
from training.prepare import TRAIN, VALIDATION, read_prepared
from training.progress import Report, silent
from training.ranks import as_forward, join
from training.records import AdapterArtifact, BaseModelRecord, DatasetManifest, verify_files
from training.shards import SharedOut
from training.step_batches import InSteps
from training.tokenizer import load_tokenizer
from training.trained import TrainedCheckpoints
from training.watch import Watch


@dataclass(frozen=True)
class _Lesson:
    """All that a training is built from; one that runs out of memory is built again, with smaller passes."""

    model: ModelSection
    sft: SftSection
    base: Path
    rows: list[dict[str, list[int]]]
    held_back: list[dict[str, list[int]]]
    tokenizer: Any
    validation: Validation | None
    warnings: tuple[str, ...]
    config_changes: dict[str, Any]
    checkpoint_inputs: tuple[object, ...]
    out: Path
    ranks: Ranks
    shard: bool
    report: Report

    def attempt(self, passes: Passes) -> "AnswerTrainer":
        """Train to the end, and put the best weights back."""
        sft = self.sft
        settle(sft.seed)
        be_deterministic(sft.deterministic)
        trusted, changes = self.model.trust_remote_code, self.config_changes
        weights = load_base(self.base, sft.quantization, trust_remote_code=trusted, config_changes=changes, shard=self.shard)
        steps = steps_for(len(self.rows), sft.batch_size * sft.gradient_accumulation, sft.epochs) or 1
        adapted = new_adapter(weights, sft, steps, shard=self.shard)
        checkpoints = checkpoints_for(self.out, self.checkpoint_inputs, adapted)
        pass_rate = pass_rate_of(sft, self.validation, self.tokenizer)
        held_out = HeldOut(sft.held_out_every_steps, sft.early_stopping, checkpoints.root, pass_rate)
        watch = Watch(self.report, checkpoints, self.warnings, sft.report_to)
        trainer = AnswerTrainer(adapted, passes.of(sft), self.tokenizer, self.rows, watch, self.ranks, self.held_back, held_out)
        run(trainer, checkpoints)
        held_out.restore(trainer.state, trainer._load_from_checkpoint)
        return trainer


def train_sft(
    model: ModelSection,
    sft: SftSection,
    base: BaseModelRecord,
    dataset_dir: Path,
    dataset: DatasetManifest,
    out: Path,
    report: Report,
    validation: Validation | None = None,
    *,
    shard: bool = False,
) -> AdapterArtifact:
    """Train the recipe's adapter on the prepared rows and write it to `out`; every process of a spread run calls this.

    `validation` judges answers, for early stopping by rules; `shard` has the processes share out the frozen weights.

    Raises:
        InputError: the dataset was prepared for another base model, more of its answers are cut than the recipe allows, or a step cannot
            be shared by these processes.
        TrainingError: the loss left the finite numbers, or the disk is full.
    """
    started, ranks = time.monotonic(), join()
    lesson = _lesson(model, sft, base, dataset_dir, dataset, out, report if ranks.first else silent, validation, ranks, shard)
    share = share_of(sft, ranks)
    passes = Passes(share.batch_size, share.gradient_accumulation)
    trainer, shortages = with_smaller_passes(passes, lesson.attempt, fixed=waited_for(ranks))
    known = figures(trainer, started, shortages)
    course: Course = known["course"]
    artifact = AdapterArtifact(
        **known,
        stage="sft",
        method=sft.method,
        config_changes=lesson.config_changes,
        base_digest=base.digest,
        dataset_digest=dataset.digest,
        section_digest=sft.digest,
        quantization=sft.quantization.type if sft.quantization else "none",
        double_quant=bool(sft.quantization and sft.quantization.double_quant),
        validation_loss=dict(course.held_out)[course.kept_step],
        processes=ranks.world,
        files=(),
    )
    return keep(artifact, trainer.watch.checkpoints, out, partial(save_adapter, trainer.model, out, base.source))


def _lesson(
    model: ModelSection,
    sft: SftSection,
    base: BaseModelRecord,
    dataset_dir: Path,
    dataset: DatasetManifest,
    out: Path,
    report: Report,
    validation: Validation | None,
    ranks: Ranks,
    shard: bool,
) -> _Lesson:
    require_others(ranks, shard=shard)
    require_same_base(dataset, base)
    require_trackers(sft.report_to)
    verify_files(dataset_dir, dataset.files)
    folder = Path(base.folder)
    rows, held_back = (read_prepared(dataset_dir / name) for name in (TRAIN, VALIDATION))
    tokenizer, changes = load_tokenizer(folder), config_changes(folder, model)
    cut = cut_answers(sft.cut_answers, rows, dataset, tokenizer, stop_tokens(tokenizer, folder))
    inputs = (base.digest, dataset.digest, sft.digest, changes)
    warnings = (*cut, *odd_rate(sft, sft))
    return _Lesson(model, sft, folder, rows, held_back, tokenizer, validation, warnings, changes, inputs, out, ranks, shard, report)


def waited_for(ranks: Ranks) -> str:
    """Why one of these processes cannot make its passes smaller by itself; empty where it is alone."""
    return "the other processes wait in the middle of a step" if ranks.world > 1 else ""


def share_of(sft: SftSection, ranks: Ranks) -> SftSection:
    """The section as one of several processes carries it out.

    Raises:
        InputError: the rows of a step cannot be shared out equally.
    """
    rows_per_pass, passes = shared_out(sft.batch_size, sft.gradient_accumulation, ranks.world)
    return sft.model_copy(update={"batch_size": rows_per_pass, "gradient_accumulation": passes})


class AnswerTrainer(InSteps, SharedOut, TrainedCheckpoints, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, with logits computed only where there is a loss on machines without Triton.

    TRL's fused head scores the answer's tokens alone on a GPU, but every token, prompt and padding included, on a CPU,
    where the vocabulary's 49 000 columns are a third of the work.
    """

    def __init__(
        self,
        model: Any,
        sft: SftSection,
        tokenizer: Any,
        rows: list[dict[str, list[int]]],
        watch: Watch,
        ranks: Ranks,
        held_back: Sequence[dict[str, list[int]]] = (),
        held_out: HeldOut | None = None,
    ) -> None:
        self.watch, self.ranks = watch, ranks
        self.tokens_per_held_back_row = sum(map(_scored_tokens, held_back)) / max(len(held_back), 1)
        self.row_lengths = [len(row["input_ids"]) for row in rows]
        if ranks.world > 1:
            rows = [*rows, {"input_ids": [tokenizer.pad_token_id] * 2, "labels": [IGNORED] * 2}]
        arguments = SFTConfig(
            **training_arguments(sft, watch.checkpoints.staging),
            max_length=None,
            shuffle_dataset=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        self.sft = sft
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=self.rows(rows),
            eval_dataset=self.rows(held_back) if held_back else None,
            processing_class=tokenizer,
            data_collator=collator(tokenizer.pad_token_id, flat=False),
            callbacks=[*watch.callbacks, *([held_out] if held_out else []), *([_MovingRanks(model)] if sft.method == "adalora" else [])],
        )
        # Vectors before the prompt stand once before each row of a batch.
        flat = sft.tuning.family != "prompt" and keeps_rows_apart(base_of(self.model))
        self.collate_passes = collator(tokenizer.pad_token_id, flat=flat)
        self.held_out = held_out
        if held_out is not None:
            held_out.save = self.save_model
        self.remove_callback(PrinterCallback)  # it prints every log entry as a dict; progress goes through the report

    @staticmethod
    def rows(rows: Sequence[dict[str, list[int]]]) -> Dataset:
        """Prepared rows as the trainer takes them."""
        return Dataset.from_list([{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows])

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Mean cross entropy in nats over the labelled tokens of `inputs`: ids and labels are `(batch, seq)`, or `(1, sum of lengths)`."""
        if self.model.training:
            self.watch.tokens += tokens_in(inputs) * self.ranks.world
        if return_outputs or not self._scores_answers_alone(inputs):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # The labelled tokens of the whole step, counted over all processes, whose gradients are averaged afterwards.
        tokens = max(int(num_items_in_batch or 0) or int((inputs["labels"][:, 1:] != IGNORED).sum()), 1)
        share = tokens / self.ranks.world if num_items_in_batch is not None else tokens
        return as_forward(model, self.accelerator.unwrap_model(model), self._summed_loss, inputs) / share + self._penalty()

    def _summed_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        with self.accelerator.autocast():
            if self.sft.tuning.family == "prompt":
                return answer_loss(*prompted_answer_states(model, inputs))
            hidden, targets = answer_states(base_of(model), inputs)
            return answer_loss(hidden, model.get_output_embeddings().weight, targets)

    def _penalty(self) -> torch.Tensor | float:
        return spread_of_ranks(self.model) if self.sft.method == "adalora" and self.model.training else 0.0

    def _scores_answers_alone(self, inputs: dict[str, Any]) -> bool:
        if self.sft.tuning.family == "prompt" or self.sft.method == "adalora":
            return True  # TRL's own loss knows neither vectors before the prompt nor AdaLoRA's penalty
        return bool(inputs["input_ids"].device.type == "cpu")

    def prediction_step(self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """The loss of a batch of held-back rows, weighed so that the trainer's mean over rows is the mean over their answers' tokens."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss = self.compute_loss(model, inputs)
        tokens = (inputs["labels"][:, 1:] != IGNORED).sum()
        return loss.detach() * tokens / len(inputs["labels"]) / self.tokens_per_held_back_row, None, None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """LoRA+ gives B a higher learning rate than A; every other method takes the recipe's for all."""
        if self.sft.method == "lora_plus":
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            apart: torch.optim.Optimizer = create_loraplus_optimizer(
                self.model, kind, loraplus_lr_ratio=self.sft.lora_plus_ratio, **settings
            )
            self.optimizer = apart
            return apart
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer


def _scored_tokens(row: dict[str, list[int]]) -> int:
    return sum(label != IGNORED for label in row["labels"][1:])


class _MovingRanks(TrainerCallback):  # type: ignore[misc]
    """Lets AdaLoRA move ranks between layers, while the gradients of the step are still there."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def on_optimizer_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.model.base_model.update_and_allocate(state.global_step)


def require_same_base(dataset: DatasetManifest, base: BaseModelRecord) -> None:
    """Raises: InputError when the rows were tokenised for another base model."""
    if dataset.base_digest != base.digest:
        raise InputError(
            f"the dataset was prepared for base model {dataset.base_digest[:12]}, this is {base.digest[:12]}",
            why="the token ids would mean other words",
            do="prepare the dataset again with this base model",
        )
