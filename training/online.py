"""Online reinforcement learning: the model answers prompts, and moves towards those of its answers that were rewarded more.

TRL's GRPO and RLOO trainers; what an answer is worth is a function that is handed in, for rules belong to the evaluation, and training
must not know them. PPO is not offered: the TRL this is built on carries it no more. The order of the prompts is laid down for the whole
run beforehand: the trainers' own sampler begins anew when a run is resumed. Next: `online_section.py`.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerState
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from training.adapters import load_adapter, trainable_parameters
from training.builders import load_base, settle, training_arguments
from training.chat import prompt_ids
from training.checkpoints import CheckpointFolder
from training.config import ModelSection, SftSection
from training.errors import InputError, TrainingError
from training.measure import ValidationPrompt
from training.online_section import OnlineSection
from training.progress import Report
from training.records import CHECKPOINTS, AdapterArtifact, BaseModelRecord, digest_of, verify_files
from training.rewarding import Answered, Rewarding
from training.sft import CHECKPOINT_BYTES_PER_PARAMETER, keep, run
from training.tokenizer import load_tokenizer
from training.trained import TrainedCheckpoints
from training.watch import Watch, losses

_INHERITED = ("learning_rate", "gradient_accumulation")


def train_online(
    model: ModelSection,
    sft: SftSection,
    online: OnlineSection,
    base: BaseModelRecord,
    prompts: Sequence[ValidationPrompt],
    rewarding: Rewarding,
    parent_dir: Path,
    parent: AdapterArtifact,
    out: Path,
    report: Report,
) -> AdapterArtifact:
    """Let the adapter in `parent_dir` learn from the rewards of its answers to `prompts`, and write the new one to `out`.

    Raises:
        InputError: the adapter belongs to another base model, or there are fewer prompts than a step takes.
        TrainingError: no reward ever differed, the loss left the finite numbers, or the disk is full.
    """
    started = time.monotonic()
    _require_usable(online, base, parent, len(prompts))
    verify_files(parent_dir, parent.files)
    # A pass of the trainer counts answers, the recipe counts prompts.
    passes = {key: getattr(online, key) for key in _INHERITED}
    passes |= {"batch_size": online.batch_size * online.answers_per_prompt, "epochs": 1.0}
    merged_section = sft.model_copy(update={**passes, "neftune_alpha": 0.0})
    settle(sft.seed)
    trusted, changes = model.trust_remote_code, parent.config_changes
    weights = load_base(Path(base.folder), sft.quantization, trust_remote_code=trusted, config_changes=changes)
    adapted, tokenizer = load_adapter(weights, parent_dir, trainable=True), load_tokenizer(Path(base.folder))
    trained, rows = trainable_parameters(adapted), _in_order(_rows(tokenizer, prompts), online.epochs, sft.seed)
    section_digest = digest_of([online.digest, merged_section.digest, rewarding.digest, digest_of(rows)])
    checkpoints = CheckpointFolder(out / CHECKPOINTS, digest_of([base.digest, parent.digest, section_digest]))
    checkpoints.require_space(CHECKPOINT_BYTES_PER_PARAMETER * trained)
    trainer = _trainer(adapted, merged_section, online, tokenizer, rows, rewarding, RewardWatch(report, checkpoints))
    run(trainer, checkpoints)
    first_loss, last_loss = losses(trainer.state)
    first_reward, last_reward = _rewards(trainer.state.log_history)
    artifact = AdapterArtifact(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - started,
        stage="online",
        method=parent.method,
        objective=online.in_words,
        config_changes=parent.config_changes,
        base_digest=base.digest,
        dataset_digest=parent.dataset_digest,
        parent_digest=parent.digest,
        section_digest=section_digest,
        quantization=parent.quantization,
        double_quant=parent.double_quant,
        trainable_parameters=trained,
        steps=trainer.state.global_step,
        first_loss=first_loss,
        last_loss=last_loss,
        validation_loss=None,
        first_reward=first_reward,
        last_reward=last_reward,
        files=(),
    )
    return keep(adapted, artifact, base, checkpoints, out)


class RewardWatch(Watch):
    """Watches rewards: a loss of 0 says nothing here, where answers are weighed against each other."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._zeros = 0
        super().on_log(args, state, control, logs, **kwargs)

    def _note(self, loss: float, state: TrainerState) -> str:
        return f"mean reward {state.log_history[-1]['reward']:.3f}, {super()._note(loss, state)}"


class GroupTrainer(TrainedCheckpoints, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPOTrainer; the divergence is part of the loss."""


class LeaveOneOutTrainer(TrainedCheckpoints, RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOOTrainer; the divergence is taken off the reward."""


def _trainer(
    adapted: Any,
    sft: SftSection,
    online: OnlineSection,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    rewarding: Rewarding,
    watch: Watch,
) -> Any:
    kind, settings = (GroupTrainer, GRPOConfig) if online.method == "grpo" else (LeaveOneOutTrainer, RLOOConfig)
    arguments = settings(
        **training_arguments(sft, watch.checkpoints.staging),
        num_generations=online.answers_per_prompt,
        max_completion_length=online.max_new_tokens,
        temperature=online.temperature,
        beta=online.beta,
        disable_dropout=True,
        shuffle_dataset=False,
    )
    trainer = kind(
        model=adapted,
        reward_funcs=[_rewards_for_trl(rewarding)],
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _rows(tokenizer: Any, prompts: Sequence[ValidationPrompt]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [dict(message) for message in prompt.messages],
            "prompt_id": prompt.id,
            "rendered": prompt_ids(tokenizer, prompt.messages),
        }
        for prompt in prompts
    ]


def _in_order(rows: Sequence[dict[str, Any]], epochs: float, seed: int) -> list[dict[str, Any]]:
    """The prompts of all epochs, each in an order of its own."""
    shuffler = random.Random(seed)  # noqa: S311 - an order, not a secret
    ordered = [row for _ in range(math.ceil(epochs)) for row in shuffler.sample(rows, len(rows))]
    return ordered[: round(len(rows) * epochs)]


def _rewards_for_trl(rewarding: Rewarding) -> Callable[..., Sequence[float | None]]:
    def reward(
        completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], prompt_id: Sequence[str], rendered: Any, **others: Any
    ) -> Sequence[float | None]:
        answers = zip(prompt_id, completions, rendered, completion_ids, strict=True)
        return rewarding.rewards([Answered(name, said[0]["content"].strip(), asked, ids) for name, said, asked, ids in answers])

    return reward


def _require_usable(online: OnlineSection, base: BaseModelRecord, parent: AdapterArtifact, prompts: int) -> None:
    if parent.base_digest != base.digest:
        raise InputError(
            f"the adapter was trained on base model {parent.base_digest[:12]}, this is {base.digest[:12]}",
            why="its numbers mean nothing on other weights",
            do="train the adapter again on this base model",
        )
    if prompts < online.prompts_per_step:
        raise InputError(
            f"`online.prompts` has {prompts} prompts, and a step takes {online.prompts_per_step}",
            do="add prompts, or lower `online.batch_size` or `online.gradient_accumulation`",
        )


def _rewards(history: Sequence[dict[str, float]]) -> tuple[float, float]:
    """Mean rewards at the first and at the last logged step.

    Raises:
        TrainingError: at no step did two answers to a prompt differ in their reward.
    """
    logged = [entry for entry in history if "reward" in entry]
    if all(entry["frac_reward_zero_std"] == 1 for entry in logged):
        raise TrainingError(
            f"in {len(logged)} steps all answers to a prompt got the same reward, {logged[-1]['reward']:.3f} on average at last",
            why="an answer is learned from only by its being better or worse than another to the same prompt",
            do="raise `online.temperature` or `online.answers_per_prompt`, or reward by rules that some answers keep and others break",
        )
    return logged[0]["reward"], logged[-1]["reward"]
