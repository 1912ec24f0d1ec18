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
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "grouped"
LONGEST = 512


def grouped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention; query `(batch, heads, seq, dim)`, key and value `(batch, key heads, keys, dim)`.

    `attention_mask` is boolean `(batch, 1, seq, keys)`, true where a query may look; None means plainly causal.
    `cu_seq_lens_q` `(rows + 1,)` says where rows begin and the last one ends, if the one sequence of the batch holds several.
    Returns `(batch, seq, heads, dim)`.
    """
    borders = kwargs.pop("cu_seq_lens_q", None)
    if borders is not None and len(borders) > 2:
        spans = [slice(start, end) for start, end in pairwise(borders.tolist())]
        masks = [None if attention_mask is None else attention_mask[:, :, span, span] for span in spans]
        parts = [(query[:, :, span], key[:, :, span], value[:, :, span], mask) for span, mask in zip(spans, masks, strict=True)]
        return torch.cat([grouped_attention(module, *part, scaling, dropout, **kwargs)[0] for part in parts], dim=1), None
    rows, heads, length, dim = query.shape
    key_heads, keys = key.shape[1], key.shape[2]
    if keys > LONGEST or dropout > 0:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)  # type: ignore[no-any-return]
    group = heads // key_heads
    queries = query.reshape(rows * key_heads, group * length, dim)
    scores = torch.bmm(queries, key.reshape(rows * key_heads, keys, dim).transpose(1, 2))
    scores = scores.view(rows, key_heads, group, length, keys).float() * (scaling or dim**-0.5)
    allowed = _causal(length, keys) if attention_mask is None else attention_mask[:, :, None, :, :keys]
    # The smallest finite number, not -inf: a padding query that may look nowhere then averages instead of giving NaN.
    weights = scores.masked_fill(~allowed, torch.finfo(torch.float32).min).softmax(-1).to(value.dtype)
    mixed = torch.bmm(weights.view(rows * key_heads, group * length, keys), value.reshape(rows * key_heads, keys, dim))
    return mixed.view(rows, heads, length, dim).transpose(1, 2).contiguous(), None


def _causal(length: int, keys: int) -> torch.Tensor:
    """The last `length` of `keys` positions, each looking at itself and back."""
    return torch.ones(length, keys, dtype=torch.bool).tril(keys - length)


def register() -> str:
    """Make the name known to transformers, and return it; doing so again changes nothing."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
