"""Losses that compare two answers without a reference model: CPO, SimPO and ORPO, as functions of log-probabilities.

They are TRL's formulas, without the logits of a whole batch that its experimental trainers hold in memory, and over prepared
tokens, which those would tokenise again. A test holds each one against TRL's own function.
Knows nothing of models. Next: `preference_trainers.py`.
"""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from training.preference_section import PreferenceSection

_NEARLY_CERTAIN = -1e-6  # log-probability above which the odds p / (1 - p) overflow


@dataclass(frozen=True)
class Scored:
    """Two answers to each of a batch of prompts: summed log-probabilities in nats and numbers of tokens, all `(batch,)`."""

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities per token of the chosen and the rejected answers, `(batch,)` each."""
        return self.chosen / self.chosen_tokens.clamp(min=1), self.rejected / self.rejected_tokens.clamp(min=1)

    @property
    def own(self) -> Tensor:
        """Which pairs there are, `(batch,)`: a blank one, which fills a pass where processes share a step, has no answers."""
        return self.chosen_tokens > 0

    @property
    def pairs(self) -> Tensor:
        """How many those are."""
        return self.own.sum()

    @property
    def ahead(self) -> Tensor:
        """By how much the chosen answer of each pair is ahead, in nats per token."""
        return torch.sub(*self.means)[self.own].detach()


def reference_free_loss(scored: Scored, preference: PreferenceSection, pairs: Tensor, tokens: Tensor) -> Tensor:
    """The loss of a batch by the number of pairs, and of tokens in chosen answers, that it is the mean over.

    The cross entropy of the chosen answers is part of it, by `sft_weight`.
    """
    if preference.method == "orpo":
        contrast = odds_ratio(scored, preference.beta or 0.0)
    elif preference.method == "simpo":
        contrast = simpo(scored, preference.beta or 0.0, preference.margin or 0.0)
    else:
        contrast = cpo(scored, preference)
    cross_entropy = -scored.chosen.sum() / tokens
    return contrast[scored.own].sum() / pairs + (preference.sft_weight or 0.0) * cross_entropy


def unmoved_loss(preference: PreferenceSection) -> float:
    """What a loss of DPO's is for a pair whose answers are as likely as under the reference: every log-ratio is 0."""
    beta, smoothing = preference.beta or 0.0, preference.label_smoothing or 0.0
    match preference.loss:
        case "hinge" | "apo_zero" | "apo_down":
            return 1.0
        case "ipo":
            return 1 / (2 * beta) ** 2
        case "sppo_hard":
            return 2 * (0.5 / beta) ** 2
        case "exo_pair":
            return -log(2) - (log(1 - smoothing) + log(smoothing)) / 2
        case "nca_pair" | "bco_pair":
            return 2 * log(2)
        case "discopop":
            return (log(2) + 1) / 2
        case "robust" | "sigmoid" | "sigmoid_norm":
            return log(2)  # of robust, (1 - ε - ε) / (1 - 2ε) times that
        case _:
            raise AssertionError(f"loss {preference.loss} is not computed pair by pair")


def cpo(scored: Scored, preference: PreferenceSection) -> Tensor:
    """DPO's loss with a reference that finds all answers equally likely (arXiv:2401.08417, equation 3), `(batch,)`."""
    beta, smoothing = preference.beta or 0.0, preference.label_smoothing or 0.0
    if preference.loss == "ipo":
        chosen, rejected = scored.means
        return (chosen - rejected - 1 / (2 * beta)) ** 2
    ahead = beta * (scored.chosen - scored.rejected)
    if preference.loss == "hinge":
        return torch.relu(1 - ahead)
    return -logsigmoid(ahead) * (1 - smoothing) - logsigmoid(-ahead) * smoothing


def simpo(scored: Scored, beta: float, margin: float) -> Tensor:
    """Mean log-probabilities that are to be `margin` apart (arXiv:2405.14734, equation 6), `(batch,)`."""
    chosen, rejected = scored.means
    return -logsigmoid(beta * (chosen - rejected) - margin)


def odds_ratio(scored: Scored, weight: float) -> Tensor:
    """The odds of the chosen answer against those of the rejected (arXiv:2403.07691, equation 7), `(batch,)`."""
    chosen, rejected = (mean.clamp(max=_NEARLY_CERTAIN) for mean in scored.means)
    log_odds = (chosen - rejected) - (torch.log1p(-chosen.exp()) - torch.log1p(-rejected.exp()))
    return -weight * logsigmoid(log_odds)
