"""Attention for short rows on a CPU, registered with transformers under the name `grouped`.

torch's fused CPU attention is built for long sequences: forward and backward over 4 rows of 90 tokens take 13 ms per
layer of the embedded model, two matrix products and a softmax take 5. Query heads that share a key head are multiplied
with it in one product, so keys and values are never copied. Scores and probabilities are held at once, so rows beyond
`LONGEST` tokens go to torch's attention. Rows behind each other in one sequence (`flat_rows.py`) are gone through one by one: nothing
is computed between two of them. Knows nothing of models. Next: `builders.py`.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "grouped"
LONGEST = 512


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention; query `(batch, heads, seq, dim)`, key and value `(batch, key heads, keys, dim)`.

    `attention_mask` is boolean `(batch, 1, seq, keys)`, true where a query may look; None means plainly causal.
    `cu_seq_lens_q` `(rows + 1,)` says where rows begin and the last one ends, if the one sequence of the batch holds several.
    Returns `(batch, seq, heads, dim)`.
    """
    borders = kwargs.pop("cu_seq_lens_q", None)
    if borders is not None and len(borders) > 2:
        lengths = borders.diff().tolist()
        masks = _own_masks(attention_mask, borders.tolist())
        # Cut with `split`: the gradient of a slice would be as large as the whole for every row.
        queries, every_key, values = (torch.split(each, lengths, dim=2) for each in (query, key, value))
        parts = zip(queries, every_key, values, masks, strict=True)
        mixed = [grouped_attention(module, *part, scaling=scaling, dropout=dropout, **kwargs)[0] for part in parts]
        return torch.cat(mixed, dim=1), None
    length, keys = query.shape[2], key.shape[2]
    if keys > LONGEST or dropout > 0:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)  # type: ignore[no-any-return]
    allowed = _causal(length, keys) if attention_mask is None else attention_mask[:, :, None, :, :keys]
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotated positions may have widened them under autocast
    return _Grouped.apply(query, key, value, allowed, scaling or query.shape[-1] ** -0.5), None  # type: ignore[no-untyped-call]


class _Grouped(torch.autograd.Function):
    """Keeps the probabilities as they were multiplied with the values, and nothing else of that size.

    Source: O = PV with P = softmax(sQKᵀ) gives dV = Pᵀ dO, dP = dO Vᵀ, dS = P ∘ (dP - rowsum(P ∘ dP)), dQ = s dS K, dK = s dSᵀ Q.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float) -> Tensor:
        rows, heads, length, dim = query.shape
        key_heads, keys = key.shape[1], key.shape[2]
        group = heads // key_heads
        with torch.autocast(query.device.type, enabled=False):
            queries = query.reshape(rows * key_heads, group * length, dim)
            flat_keys, values = (each.reshape(rows * key_heads, keys, dim) for each in (key, value))
            scores = torch.bmm(queries, flat_keys.transpose(1, 2)).float().mul_(scale)
            # The smallest finite number, not -inf: a padding query that may look nowhere then averages instead of giving NaN.
            scores.view(rows, key_heads, group, length, keys).masked_fill_(~allowed, torch.finfo(torch.float32).min)
            weights = scores.softmax(-1).to(value.dtype)
            mixed = torch.bmm(weights, values)
        ctx.save_for_backward(queries, flat_keys, values, weights)
        ctx.scale, ctx.key_heads = scale, key_heads
        return mixed.view(rows, heads, length, dim).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        queries, flat_keys, values, weights = ctx.saved_tensors
        rows, length, heads, dim = outputs[0].shape
        with torch.autocast(values.device.type, enabled=False):
            mixed = outputs[0].to(values.dtype).transpose(1, 2).reshape(queries.shape)
            of_scores = torch.bmm(mixed, values.transpose(1, 2)).float()
            probabilities = weights.float()
            means = (of_scores * probabilities).sum(-1, keepdim=True)
            scores = of_scores.sub_(means).mul_(probabilities).mul_(ctx.scale).to(values.dtype)
            of_queries = torch.bmm(scores, flat_keys).view(rows, heads, length, dim)
            of_keys, of_values = torch.bmm(scores.transpose(1, 2), queries), torch.bmm(weights.transpose(1, 2), mixed)
        back = (rows, ctx.key_heads, -1, dim)
        return of_queries, of_keys.view(back), of_values.view(back), None, None


def _own_masks(attention_mask: Tensor | None, borders: list[int]) -> list[Tensor | None]:
    """Each row's part of the mask of them all."""
    spans = [slice(start, end) for start, end in pairwise(borders)]
    return [None if attention_mask is None else attention_mask[:, :, span, span] for span in spans]


def _causal(length: int, keys: int) -> Tensor:
    """The last `length` of `keys` positions, each looking at itself and back."""
    return torch.ones(length, keys, dtype=torch.bool).tril(keys - length)


def register() -> str:
    """Make the name known to transformers, and return it; doing so again changes nothing."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
