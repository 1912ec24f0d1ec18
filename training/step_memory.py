"""Memory of training on a CPU, by part, at the fullest moment of a step.

On a CPU nothing is computed twice to save memory: what every block needs for its gradients is kept until then. The terms below are the
tensors that autograd keeps, counted one by one for Llama-like blocks as `stacked.py`, `attention.py` and peft compute them under bf16;
a test counts them on a model. Methods without a term of their own take the nearest. Knows nothing of torch. Next: `memory.py`.
"""

from training.config import SftSection
from training.shapes import ModelShape, trainable_in

_BF16, _FP32 = 2, 4
_STACKED = frozenset({"qlora", "lora", "rslora", "lora_plus"})  # without dropout, `stacked.py` computes them
_GROUPED_ATTENTION_TOKENS = 512  # longer rows go to torch's attention, which keeps no scores
_TOKENS_AT_THE_HEAD = 64  # `answer_loss.py`
_HOLES = 0.2  # of what is kept: freed memory stays with the process, and not every new tensor fits where an old one lay
_LIBRARIES = 60_000_000  # bytes: the threads' buffers, kernels that were compiled, the trainer's own


def cpu_memory_parts(shape: ModelShape, sft: SftSection, length: int, sharing: int = 1) -> dict[str, int]:
    """Bytes by part for passes of full-length rows, in one of the processes that share the blocks' weights out."""
    tokens, trainable = sft.batch_size * length, trainable_in(shape, sft)
    whole = trainable if sft.tuning.family == "weights" else 0
    kept = _trained_blocks(shape, sft) * kept_per_block(shape, sft, sft.batch_size, length, stacked=sharing == 1) + _BF16 * trainable
    gradients = _FP32 * trainable
    return {
        "base weights": _BF16 * (shape.linear_parameters() // sharing + shape.other_parameters() - whole),
        **({"blocks fetched whole": 2 * _BF16 * shape.linear_parameters() // shape.layers} if sharing > 1 else {}),
        "trained weights": _FP32 * trainable,
        "optimizer": optimizer_bytes(shape, sft, trainable, moment_bytes=_FP32),
        "activations": kept,
        "room between them": int(_HOLES * kept),
        "gradients beyond them": max(0, gradients - kept),  # they take the place of activations, block by block
        "one block at work": max(12 * shape.heads * length * _scores(length), 8 * shape.intermediate * tokens),  # attention: one row
        "logits": shape.vocabulary * (min(tokens, _TOKENS_AT_THE_HEAD) * (_FP32 + 2 * _BF16) + _trained_head(shape, sft)),
        "libraries": _LIBRARIES,
    }


def kept_per_block(shape: ModelShape, sft: SftSection, rows: int, length: int, *, stacked: bool = True) -> int:
    """Bytes that one trained block keeps for its gradients; those of the adapters' own weights are not in it."""
    hidden, inner = shape.hidden, shape.intermediate
    queries, keys = shape.heads * shape.head_dim, shape.key_heads * shape.head_dim
    attention = 2 * queries + 4 * keys + (2 * shape.heads * length if _scores(length) else 4 * queries)
    reads = 5 * hidden + queries  # inputs of the projections, down_proj's apart, where each keeps its own
    ranks = 14 * sft.r if sft.tuning.family == "lora" else 0
    whole_blocks = 0
    if sft.tuning.family == "weights":
        per_token = 16 * hidden + 2 * reads + 8 * inner
    elif sft.method == "dora":
        per_token = 16 * hidden + 2 * reads + 4 * queries + 8 * keys + 16 * inner
        whole_blocks = _BF16 * (5 * hidden**2 + queries**2 + inner**2)  # identity matrices by which peft multiplies B and A
    elif stacked and sft.method in _STACKED and not sft.dropout:
        per_token = 12 * hidden + 2 * queries + 8 * inner
    elif sft.tuning.family == "lora":
        noise = 4 * (reads + inner) if sft.dropout else 0
        per_token = 8 * hidden + noise + 2 * (reads + inner) + 6 * inner
    else:
        per_token = 8 * hidden + 6 * inner
    return rows * length * (per_token + attention + ranks) + whole_blocks


def optimizer_bytes(shape: ModelShape, sft: SftSection, trainable: int, *, moment_bytes: int) -> int:
    """AdamW keeps two moments of each number; GaLore and APOLLO keep those of a gradient projected to rank r, in fp32."""
    if sft.method in ("galore", "apollo"):
        targeted = shape.named(sft.target_modules)
        kept = sum(each.count * sft.r * (max(each.inputs, each.outputs) + min(each.inputs, each.outputs) // 2) for each in targeted)
        return 2 * _FP32 * (kept + trainable - sum(each.parameters for each in targeted))
    return 2 * trainable * moment_bytes


def _trained_head(shape: ModelShape, sft: SftSection) -> int:
    """Bytes per token of the vocabulary that a trained head takes besides: its gradient, and itself in the type that is multiplied."""
    trained = sft.method in ("full", "galore", "apollo") or "embeddings" in sft.also_train
    return shape.hidden * (_FP32 + _BF16) if trained else 0


def _trained_blocks(shape: ModelShape, sft: SftSection) -> int:
    return min(sft.last_layers, shape.layers) if sft.method == "freeze" else shape.layers


def _scores(length: int) -> int:
    """Columns of the attention scores that are held at once."""
    return length if length <= _GROUPED_ATTENTION_TOKENS else 0
