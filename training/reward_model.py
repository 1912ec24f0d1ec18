"""A reward model: TRL's RewardTrainer over prepared pairs, for a head on the SFT adapter that gives an answer one number.

Of two answers the preferred one is to have the higher number (Bradley-Terry, arXiv:2203.02155). How well it does is measured on pairs
it has not seen. Knows nothing of what its numbers are used for. Next: `online.py`.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import RewardConfig, RewardTrainer

from training.adapters import base_of, load_adapter, save_adapter
from training.builders import load_base, training_arguments
from training.config import ModelSection, SftSection
from training.devices import Ranks
from training.errors import TrainingError
from training.online_section import RewardSection
from training.outcome import checkpoints_for, figures, keep, run
from training.parent import load_parent, taken_over
from training.practice.answers import cut_preferences
from training.practice.out_of_memory import Passes, with_smaller_passes
from training.practice.rates import odd_rate
from training.practice.template import stop_tokens
from training.practice.trackers import require_trackers
from training.preference import held_apart, require_rows
from training.prepare import PREFERENCES, read_prepared
from training.progress import Report
from training.records import AdapterArtifact, BaseModelRecord, DatasetManifest, RewardArtifact, digest_of, verify_files
from training.step_batches import InSteps
from training.tokenizer import load_tokenizer
from training.trained import TrainedCheckpoints
from training.watch import Watch

HEAD = "score.safetensors"
_INHERITED = ("learning_rate", "epochs", "batch_size", "gradient_accumulation")
_ROWS_AT_ONCE = 8


class RewardModel(torch.nn.Module):
    """An adapted language model whose last hidden state of the last token gives one number, in fp32."""

    def __init__(self, adapted: Any, seed: int) -> None:
        super().__init__()
        self.adapted, self.config = adapted, adapted.config
        self.config.num_labels = 1
        width = self.config.get_text_config().hidden_size
        drawn = torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) * self.config.initializer_range
        self.score = torch.nn.Parameter(drawn.to(adapted.device))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool = False) -> SequenceClassifierOutput:
        """Rewards `(batch, 1)` of rows that are padded on the right: ids and mask are `(batch, seq)`."""
        blocks = base_of(self.adapted).base_model
        hidden = blocks(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(hidden), device=hidden.device), attention_mask.sum(dim=1) - 1]
        with torch.autocast(hidden.device.type, enabled=False):
            return SequenceClassifierOutput(logits=last.float() @ self.score.T)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """What a trainer asks of a model on a GPU."""
        self.adapted.enable_input_require_grads()
        self.adapted.gradient_checkpointing_enable(**options)

    def add_model_tags(self, tags: Sequence[str]) -> None:
        """A trainer tags models for a hub; this one goes nowhere."""

    def rewards(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The reward of each row of token ids, a prompt and its answer, in the order given."""
        found: list[float] = []
        self.eval()
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            batch = [torch.tensor(row) for row in rows[start : start + _ROWS_AT_ONCE]]
            ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).to(self.score.device)
            lengths = torch.tensor([len(row) for row in batch], device=ids.device)
            mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
            with torch.inference_mode():
                found += self(ids, mask).logits[:, 0].tolist()
        return found


def train_reward(
    model: ModelSection,
    sft: SftSection,
    reward: RewardSection,
    base: BaseModelRecord,
    dataset_dir: Path,
    dataset: DatasetManifest,
    parent_dir: Path,
    parent: AdapterArtifact,
    out: Path,
    report: Report,
) -> RewardArtifact:
    """Train a reward model that goes on from the adapter in `parent_dir`, and write it to `out`.

    Raises:
        InputError: the dataset or the adapter belongs to another base model, or there are no pairs.
        TrainingError: it puts too few of the held-back pairs in order, the loss left the finite numbers, or the disk is full.
    """
    started = time.monotonic()
    require_trackers(sft.report_to)
    require_rows(dataset_dir, dataset, base)
    taught, held_out = held_apart(read_prepared(dataset_dir / PREFERENCES), reward.held_out_fraction, key="reward.held_out_fraction")
    section = sft.model_copy(update={key: getattr(reward, key) for key in _INHERITED})
    section_digest = digest_of([reward.digest, section.digest])
    tokenizer = load_tokenizer(Path(base.folder))
    cut = cut_preferences(sft.cut_answers, taught, tokenizer, stop_tokens(tokenizer, Path(base.folder)))

    def attempt(passes: Passes) -> tuple[RewardModel, RankingTrainer]:
        rewarding = RewardModel(load_parent(model, sft, base, parent_dir, parent), sft.seed)
        checkpoints = checkpoints_for(out, [base.digest, dataset.digest, parent.digest, section_digest], rewarding)
        watch = Watch(report, checkpoints, (*parent.course.warnings, *cut, *odd_rate(reward, sft)), sft.report_to)
        trainer = RankingTrainer(rewarding, passes.of(section), reward, tokenizer, taught, watch)
        run(trainer, checkpoints)
        return rewarding, trainer

    (rewarding, trainer), shortages = with_smaller_passes(Passes(section.batch_size, section.gradient_accumulation), attempt)
    accuracy = _accuracy(rewarding, held_out)
    _require_order(accuracy, reward.min_accuracy, len(held_out))
    artifact = RewardArtifact(
        **taken_over(parent),
        **figures(trainer, started, shortages),
        dataset_digest=dataset.digest,
        section_digest=section_digest,
        held_out_pairs=len(held_out),
        held_out_accuracy=accuracy,
        files=(),
    )
    return keep(artifact, trainer.watch.checkpoints, out, partial(_save, rewarding, out, base.source))


def _save(rewarding: RewardModel, out: Path, base_name: str) -> None:
    save_adapter(rewarding.adapted, out, base_name)
    save_file({"score": rewarding.score.detach().cpu().contiguous()}, out / HEAD)


def load_reward(model: ModelSection, sft: SftSection, base: BaseModelRecord, folder: Path, artifact: RewardArtifact) -> RewardModel:
    """A finished reward model, frozen.

    Raises:
        RecordError: its files are not those of its record.
    """
    verify_files(folder, artifact.files)
    trusted, changes = model.trust_remote_code, artifact.config_changes
    weights = load_base(Path(base.folder), sft.quantization, trust_remote_code=trusted, config_changes=changes)
    rewarding = RewardModel(load_adapter(weights, folder, trainable=False), sft.seed)
    rewarding.score.data = load_file(folder / HEAD)["score"].to(rewarding.score.device)
    return rewarding.requires_grad_(False)


class RankingTrainer(InSteps, TrainedCheckpoints, RewardTrainer):  # type: ignore[misc]
    """TRL's RewardTrainer over pairs that are tokenised already."""

    def __init__(
        self, model: RewardModel, sft: SftSection, reward: RewardSection, tokenizer: Any, pairs: Sequence[dict[str, Any]], watch: Watch
    ) -> None:
        self.watch, self.ranks = watch, Ranks()
        self.row_lengths = [len(pair["prompt_ids"]) + len(pair["chosen_ids"]) for pair in pairs]
        settings = training_arguments(sft, watch.checkpoints.staging)
        arguments = RewardConfig(**settings, center_rewards_coefficient=reward.centring, max_length=None)
        rows = [{key: pair["prompt_ids"] + pair[key] for key in ("chosen_ids", "rejected_ids")} for pair in pairs]
        super().__init__(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=watch.callbacks
        )
        self.remove_callback(PrinterCallback)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The loss of a batch whose first half is the chosen and second half the rejected rows."""
        self.watch.tokens += int(inputs["attention_mask"].sum())
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def _accuracy(rewarding: RewardModel, pairs: Sequence[dict[str, Any]]) -> float:
    chosen, rejected = (rewarding.rewards([pair["prompt_ids"] + pair[key] for pair in pairs]) for key in ("chosen_ids", "rejected_ids"))
    return sum(better > worse for better, worse in zip(chosen, rejected, strict=True)) / len(pairs)


def _require_order(accuracy: float, least: float, pairs: int) -> None:
    if accuracy < least:
        raise TrainingError(
            f"the reward model puts {accuracy:.0%} of {pairs} held-back pairs in order, `reward.min_accuracy` is {least:.0%}",
            why="what learns from its rewards would learn something else than people prefer",
            do="add pairs, or train it longer (`reward.epochs`, `reward.learning_rate`)",
        )
