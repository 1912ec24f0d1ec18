"""Online reinforcement learning: the model answers prompts, and moves towards those of its answers that were rewarded more.

TRL's GRPO and RLOO trainers; what an answer is worth is a function that is handed in, for rules belong to the evaluation, and training
must not know them. PPO is not offered: the TRL this is built on carries it no more. The order of the prompts is laid down for the whole
run beforehand: the trainers' own sampler begins anew when a run is resumed. Next: `online_section.py`.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerState
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from training.adapters import save_adapter
from training.builders import training_arguments
from training.chat import prompt_ids
from training.config import ModelSection, SftSection
from training.errors import InputError, TrainingError
from training.measure import ValidationPrompt
from training.online_section import OnlineSection
from training.outcome import checkpoints_for, figures, keep, run
from training.parent import load_parent, taken_over
from training.practice.course import Course
from training.practice.rates import odd_rate
from training.practice.trackers import require_trackers
from training.progress import Report
from training.records import AdapterArtifact, BaseModelRecord, digest_of
from training.rewarding import Answered, Rewarding
from training.tokenizer import load_tokenizer
from training.trained import TrainedCheckpoints
from training.watch import Watch

_INHERITED = ("learning_rate", "gradient_accumulation")
_CUT = "completions/clipped_ratio"  # TRL's name for the share of answers that end without their end token


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
    require_trackers(sft.report_to)
    _require_prompts(online, len(prompts))
    adapted, tokenizer = load_parent(model, sft, base, parent_dir, parent), load_tokenizer(Path(base.folder))
    section, rows = _as_passes(sft, online), _in_order(_rows(tokenizer, prompts), online.epochs, sft.seed)
    section_digest = digest_of([online.digest, section.digest, rewarding.digest, digest_of(rows)])
    checkpoints = checkpoints_for(out, [base.digest, parent.digest, section_digest], adapted)
    watch = RewardWatch(report, checkpoints, (*parent.course.warnings, *odd_rate(online, sft)), sft.report_to)
    watch.cut_from = 1.0 if sft.cut_answers.action == "off" else sft.cut_answers.max_share
    trainer = _trainer(adapted, section, online, tokenizer, rows, rewarding, watch)
    run(trainer, checkpoints)
    first_reward, last_reward = _rewards(trainer.state.log_history)
    artifact = AdapterArtifact(
        **taken_over(parent),
        **figures(trainer, started),
        stage="online",
        method=parent.method,
        objective=online.in_words,
        dataset_digest=parent.dataset_digest,
        section_digest=section_digest,
        first_reward=first_reward,
        last_reward=last_reward,
        files=(),
    )
    return keep(artifact, checkpoints, out, partial(save_adapter, adapted, out, base.source))


def _as_passes(sft: SftSection, online: OnlineSection) -> SftSection:
    """The section as the trainer takes it: its passes count answers, the recipe's count prompts."""
    passes = {key: getattr(online, key) for key in _INHERITED}
    passes |= {"batch_size": online.batch_size * online.answers_per_prompt, "epochs": 1.0}
    return sft.model_copy(update={**passes, "neftune_alpha": 0.0})


class RewardWatch(Watch):
    """Watches rewards, and how many answers end at their limit; a loss of 0 says nothing here, where answers are weighed by others."""

    cut_from = 1.0  # share of answers that may be cut before it is said

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._zeros = 0
        super().on_log(args, state, control, logs, **kwargs)

    def course(self, trainer: Any, out_of_memory: tuple[str, ...] = ()) -> Course:
        course = super().course(trainer, out_of_memory)
        logged = [entry[_CUT] for entry in trainer.state.log_history if _CUT in entry]
        share = sum(logged) / max(len(logged), 1)
        if share <= self.cut_from:
            return course
        said = f"{share:.1%} of the answers were cut at `online.max_new_tokens`: what they were worth was judged without their end"
        return course.model_copy(update={"warnings": (*course.warnings, said)})

    def _note(self, loss: float, state: TrainerState) -> str:
        return f"mean reward {state.log_history[-1]['reward']:.3f}, {super()._note(loss, state)}"


class _CountedAnswers(TrainedCheckpoints):
    """Tells the watch how many tokens were trained on."""

    watch: Watch

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.watch.tokens += int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum())
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]


class GroupTrainer(_CountedAnswers, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPOTrainer; the divergence is part of the loss."""


class LeaveOneOutTrainer(_CountedAnswers, RLOOTrainer):  # type: ignore[misc]
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
        callbacks=watch.callbacks,
    )
    trainer.watch = watch
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


def _require_prompts(online: OnlineSection, prompts: int) -> None:
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
