"""Cross entropy of a model's head, without ever holding all its logits.

Logits in fp32, their softmax and both gradients are four passes over `answer tokens x vocabulary`: a tenth of a training step on a
CPU. Here the tokens go through the head a few at a time, the gradient is formed where the logits lie, and only the
gradient of the hidden states is kept. Knows nothing of models. Next: `sft.py`.
"""

from typing import Any

import torch
from torch import Tensor

_TOKENS_AT_ONCE = 64  # 12 MB of fp32 logits for a vocabulary of 49 000: they stay in the cache


def answer_loss(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross entropies in nats; hidden `(tokens, width)`, head `(vocabulary, width)`, targets `(tokens,)`.

    A head that is trained gets its gradient in fp32; the products are those of autocast's type where there is autocast.
    """
    total: Tensor = _AnswerLoss.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return total


class _AnswerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        device = hidden.device.type
        columns = head.detach().to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.dtype)
        total = torch.zeros((), dtype=torch.float32)
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        with torch.autocast(device, enabled=False):
            for start in range(0, len(targets), _TOKENS_AT_ONCE):
                rows = slice(start, start + _TOKENS_AT_ONCE)
                states = hidden[rows].to(columns.dtype)
                logits = (states @ columns.T).float()
                wanted = targets[rows, None]
                norm = logits.logsumexp(-1, keepdim=True)
                total += (norm - logits.gather(1, wanted)).sum()
                if of_hidden is None and of_head is None:
                    continue
                errors = logits.sub_(norm).exp_().scatter_add_(1, wanted, torch.full_like(norm, -1.0)).to(columns.dtype)
                if of_hidden is not None:
                    of_hidden[rows] = errors @ columns
                if of_head is not None:
                    of_head += errors.T @ states
        ctx.save_for_backward(of_hidden, of_head)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        of_hidden, of_head = (None if each is None else each * outputs[0] for each in ctx.saved_tensors)
        return of_hidden, of_head, None
