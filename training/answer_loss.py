"""Cross entropy of a frozen head, without ever holding all its logits.

Logits in fp32, their softmax and both gradients are four passes over `answer tokens x vocabulary`: a tenth of a training step on a
CPU. Here the tokens go through the head a few at a time, the gradient is formed where the logits lie, and only the
gradient of the hidden states is kept. Knows nothing of models. Next: `sft.py`.
"""

from typing import Any

import torch
from torch import Tensor

_TOKENS_AT_ONCE = 64  # 12 MB of fp32 logits for a vocabulary of 49 000: they stay in the cache


def answer_loss(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross entropies in nats; hidden `(tokens, width)`, head `(vocabulary, width)` frozen, targets `(tokens,)`."""
    if head.requires_grad:
        raise ValueError("the head is trained, and this loss has no gradient for it")
    total: Tensor = _AnswerLoss.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return total


class _AnswerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32)
        gradients = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(targets), _TOKENS_AT_ONCE):
                rows = slice(start, start + _TOKENS_AT_ONCE)
                logits = (hidden[rows].to(head.dtype) @ head.T).float()
                wanted = targets[rows, None]
                norm = logits.logsumexp(-1, keepdim=True)
                total += (norm - logits.gather(1, wanted)).sum()
                if gradients is not None:
                    probabilities = logits.sub_(norm).exp_()
                    probabilities.scatter_add_(1, wanted, torch.full_like(norm, -1.0))
                    gradients[rows] = probabilities.to(head.dtype) @ head
        ctx.save_for_backward(gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * outputs[0] if gradients is not None else None, None, None
