"""Losses that compare two answers without a reference model: CPO, SimPO and ORPO, as functions of log-probabilities.

They are TRL's formulas, without the logits of a whole batch that its experimental trainers hold in memory, and over prepared
tokens, which those would tokenise again. A test holds each one against TRL's own function.
Knows nothing of models. Next: `preference_trainers.py`.
"""

from dataclasses import dataclass

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


def reference_free_loss(scored: Scored, preference: PreferenceSection) -> Tensor:
    """The mean loss of a batch; the cross entropy of the chosen answers is part of it, by `sft_weight`."""
    if preference.method == "orpo":
        contrast = odds_ratio(scored, preference.beta or 0.0)
    elif preference.method == "simpo":
        contrast = simpo(scored, preference.beta or 0.0, preference.margin or 0.0)
    else:
        contrast = cpo(scored, preference)
    cross_entropy = -scored.chosen.sum() / scored.chosen_tokens.sum().clamp(min=1)
    return contrast.mean() + (preference.sft_weight or 0.0) * cross_entropy


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
