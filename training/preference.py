"""Preference tuning: TRL's DPOTrainer goes on from the SFT adapter, held to it as the reference.

The reference is a frozen copy of the SFT adapter over the same base weights (TRL's `ref` adapter), so no second model is
in memory. Knows nothing of how pairs were written or rendered. Next: `merge.py`.
"""

import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from training.adapters import load_adapter, trainable_parameters
from training.builders import load_base, settle, training_arguments
from training.checkpoints import CheckpointFolder
from training.config import ModelSection, PreferenceSection, SftSection
from training.devices import Ranks
from training.errors import InputError
from training.prepare import PREFERENCES, read_prepared
from training.progress import Report, silent
from training.ranks import join, summed
from training.records import CHECKPOINTS, AdapterArtifact, BaseModelRecord, DatasetManifest, digest_of, verify_files
from training.sft import CHECKPOINT_BYTES_PER_PARAMETER, keep, require_same_base, run, share_of
from training.step_batches import InSteps
from training.tokenizer import load_tokenizer
from training.trained import load_trained, save_trained
from training.watch import Watch, losses

_INHERITED = ("learning_rate", "epochs", "batch_size", "gradient_accumulation")


def train_preference(
    model: ModelSection,
    sft: SftSection,
    preference: PreferenceSection,
    base: BaseModelRecord,
    dataset_dir: Path,
    dataset: DatasetManifest,
    parent_dir: Path,
    parent: AdapterArtifact,
    out: Path,
    report: Report,
) -> AdapterArtifact:
    """Tune the adapter in `parent_dir` on the prepared pairs and write the new one to `out`; every process of a spread run calls this.

    Raises:
        InputError: the dataset or the adapter belongs to another base model, or there are no pairs.
        TrainingError: the loss left the finite numbers, or the disk is full.
    """
    started, ranks = time.monotonic(), join()
    require_same_base(dataset, base)
    _require_pairs(dataset, parent, base)
    verify_files(dataset_dir, dataset.files)
    verify_files(parent_dir, parent.files)
    merged_section = sft.model_copy(update={key: getattr(preference, key) for key in _INHERITED})
    settle(sft.seed)
    trusted, changes = model.trust_remote_code, parent.config_changes
    weights = load_base(Path(base.folder), sft.quantization, trust_remote_code=trusted, config_changes=changes)
    adapted = load_adapter(weights, parent_dir, trainable=True)
    trained = trainable_parameters(adapted)
    section_digest = digest_of([preference.digest, merged_section.digest])
    checkpoints = CheckpointFolder(out / CHECKPOINTS, digest_of([base.digest, dataset.digest, parent.digest, section_digest]))
    checkpoints.require_space(CHECKPOINT_BYTES_PER_PARAMETER * trained)
    pairs, watch = read_prepared(dataset_dir / PREFERENCES), Watch(report if ranks.first else silent, checkpoints)
    tokenizer = load_tokenizer(Path(base.folder))
    trainer = PairTrainer(adapted, share_of(merged_section, ranks), preference, tokenizer, pairs, watch, ranks)
    run(trainer, checkpoints)
    first_loss, last_loss = losses(trainer.state)
    artifact = AdapterArtifact(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - started,
        stage="dpo",
        method=parent.method,
        config_changes=parent.config_changes,
        base_digest=base.digest,
        dataset_digest=dataset.digest,
        parent_digest=parent.digest,
        section_digest=section_digest,
        quantization=parent.quantization,
        double_quant=parent.double_quant,
        trainable_parameters=trained,
        steps=trainer.state.global_step,
        first_loss=first_loss,
        last_loss=last_loss,
        validation_loss=None,
        processes=ranks.world,
        files=(),
    )
    return keep(adapted, artifact, base, checkpoints, out)


class PairTrainer(InSteps, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer over pairs that are tokenised already."""

    def __init__(
        self,
        model: Any,
        sft: SftSection,
        preference: PreferenceSection,
        tokenizer: Any,
        pairs: list[dict[str, list[int]]],
        watch: Watch,
        ranks: Ranks,
    ) -> None:
        self.watch, self.ranks = watch, ranks
        arguments = DPOConfig(**training_arguments(sft, watch.checkpoints.staging), beta=preference.beta, max_length=None)
        columns = ("prompt_ids", "chosen_ids", "rejected_ids")
        self.row_lengths = [len(pair["prompt_ids"]) + len(pair["chosen_ids"]) for pair in pairs]
        rows = [{key: pair[key] for key in columns} for pair in pairs]
        if ranks.world > 1:
            rows.append({**rows[0], "rejected_ids": rows[0]["chosen_ids"]})
        super().__init__(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[watch])
        self.remove_callback(PrinterCallback)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Leave the rows alone: TRL would render and tokenise text, and `prepare.py` has done both."""
        return dataset

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write a checkpoint's weights: the tuned adapter; the reference is the SFT adapter, which lies elsewhere."""
        save_trained(self.model, Path(output_dir or self.args.output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(model or self.model, Path(resume_from_checkpoint))

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The DPO loss of a batch whose first half is the chosen and second half the rejected answers."""
        self.watch.tokens += int(inputs["attention_mask"].sum()) * self.ranks.world
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return loss if self.ranks.world == 1 else self._without_blanks(loss, inputs["input_ids"])

    def _without_blanks(self, loss: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The mean over the pairs of all processes, of which each gives its share.

        A blank pair prefers an answer to itself: its loss is ln 2, whatever the model, and its gradient 0.
        """
        chosen, rejected = ids.chunk(2)
        own = (chosen != rejected).any(1).sum()
        total = loss * len(chosen) - (len(chosen) - own) * math.log(2)
        return total * self.ranks.world / summed(own).clamp(min=1)


def _require_pairs(dataset: DatasetManifest, parent: AdapterArtifact, base: BaseModelRecord) -> None:
    if parent.base_digest != base.digest:
        raise InputError(
            f"the adapter was trained on base model {parent.base_digest[:12]}, this is {base.digest[:12]}",
            why="its numbers mean nothing on other weights",
            do="train the adapter again on this base model",
        )
    if dataset.preference_rows == 0:
        raise InputError("the dataset has no preference pairs", do="name a file in `data.preferences`, or leave this stage out")
