"""The recipe's `reward` and `online` sections: a model that rewards answers, and learning from rewards for one's own answers.

Knows nothing of what a reward is: rules belong to the evaluation, and `flows` hands them in. Next: `reward_model.py`, `online.py`.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from training.config import SftSection
from training.preference_section import lora_misfits
from training.sections import Section


class RewardSection(Section):
    """A reward model: the SFT adapter and a head that gives one number, trained on the pairs of `data.preferences`."""

    learning_rate: float = Field(default=1.0e-4, gt=0, le=1, description="peak, per step")
    epochs: float = Field(default=1.0, gt=0, le=100, description="passes over the pairs")
    batch_size: int = Field(default=2, ge=1, le=1024, description="pairs per forward pass and device")
    gradient_accumulation: int = Field(default=1, ge=1, le=4096, description="forward passes per step")
    centring: float = Field(default=0.01, ge=0, le=10, description="weight of what keeps rewards around 0 (arXiv:2312.09244)")
    held_out_fraction: float = Field(
        default=0.1, gt=0, le=0.5, description="share of pairs (0–0.5) held back, by hash of the question: its accuracy is that on them"
    )
    min_accuracy: float = Field(
        default=0.5, ge=0, le=1, description="of the pairs held back, the share it has to put in order; less ends the run"
    )


class OnlineSection(Section):
    """Online reinforcement learning: the model answers prompts, and learns from the reward of each answer against its others."""

    method: Literal["grpo", "rloo"] = Field(
        default="grpo",
        description="group-relative advantages (arXiv:2402.03300), or each answer against the mean of the others (arXiv:2402.14740)",
    )
    reward: Literal["rules", "model"] = Field(
        default="rules", description="the rules of the `prompts` suite, or the `reward` section's model"
    )
    prompts: Path = Field(description="folder of a suite whose prompts are answered; neither the gate's nor the merge's")
    answers_per_prompt: int = Field(default=4, ge=2, le=64, description="answers that are compared with each other")
    max_new_tokens: int = Field(default=64, ge=1, le=8192, description="tokens per answer")
    temperature: float = Field(default=1.0, gt=0, le=2, description="of the answers; too low, and they are all the same")
    beta: float = Field(default=0.05, ge=0, le=10, description="weight of the divergence (KL) from the adapter before; 0 lets it go")
    learning_rate: float = Field(default=1.0e-5, gt=0, le=1, description="peak, per step")
    epochs: float = Field(default=1.0, gt=0, le=100, description="passes over the prompts")
    batch_size: int = Field(default=2, ge=1, le=1024, description="prompts per forward pass and device, each with all its answers")
    gradient_accumulation: int = Field(default=1, ge=1, le=4096, description="forward passes per step")

    @property
    def prompts_per_step(self) -> int:
        """Prompts that are answered for one step; a last, smaller group of an epoch is left out."""
        return self.batch_size * self.gradient_accumulation

    @property
    def in_words(self) -> str:
        """Method, reward and the numbers it is computed with."""
        return f"{self.method}, rewarded by {self.reward}, {self.answers_per_prompt} answers, beta {self.beta:g}"

    def misfits(self, sft: SftSection) -> list[str]:
        """Why this cannot go on from what `sft` makes; empty when it can."""
        faults = lora_misfits("online learning", sft)
        if self.beta and sft.also_train:
            faults.append(
                "online.beta holds the model to a reference that is the same weights with another adapter, and sft.also_train moves "
                "those weights: set online.beta: 0, or remove sft.also_train"
            )
        return faults
