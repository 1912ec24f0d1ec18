"""The sizes of decoder-only models, from a config.json or from a small table, and how many numbers each method trains of them.

No weights are needed, so that a preset for a 34B model can be planned on a laptop. Knows nothing of torch. Next: `memory.py`.
"""

import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from training.config import SftSection
from training.errors import ModelError

_BIASED = frozenset({"qwen2"})  # queries, keys and values have a bias
_ADALORA_START_RANK = 1.5  # times the rank it ends with


class Plain(BaseModel):
    """A frozen value."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelShape(Plain):
    """The sizes of a decoder-only model."""

    name: str
    architecture: str = Field(description="`model_type` of its config.json")
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1, description="width of the residual stream")
    intermediate: int = Field(ge=1, description="width inside the feed-forward block")
    heads: int = Field(ge=1)
    key_heads: int = Field(ge=1, description="heads of keys and values")
    head_dim: int = Field(ge=1)
    vocabulary: int = Field(ge=1, description="rows of the embedding")
    tied: bool = Field(description="the head shares the embedding's weights")
    context: int = Field(ge=1, description="longest sequence, tokens")
    experts: int = Field(default=0, ge=0, description="feed-forward networks per block, of which few are used at once; 0: one, always used")

    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear layer of one block."""
        queries, keys = self.heads * self.head_dim, self.key_heads * self.head_dim
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    def copies(self, layer: str) -> int:
        """How often a block has this layer: once, or once per expert."""
        return self.experts if self.experts and layer in ("gate_proj", "up_proj", "down_proj") else 1

    def linear_parameters(self) -> int:
        """Weights in the blocks' linear layers: what is quantised."""
        return self.layers * sum(self.copies(name) * math.prod(sizes) for name, sizes in self.linear_layers().items())

    def bias_parameters(self) -> int:
        """Biases in the blocks."""
        queries, keys = self.heads * self.head_dim, self.key_heads * self.head_dim
        return self.layers * (queries + 2 * keys) if self.architecture in _BIASED else 0

    def norm_parameters(self) -> int:
        """Weights of the norms: two per block and one behind them all."""
        return (2 * self.layers + 1) * self.hidden

    def router_parameters(self) -> int:
        """Weights that choose the experts."""
        return self.layers * self.experts * self.hidden

    def embedding_parameters(self) -> int:
        """Weights of the embedding, and of the head where it has its own."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def other_parameters(self) -> int:
        """Embedding, head, norms, routers and biases: what stays in bf16."""
        return self.embedding_parameters() + self.norm_parameters() + self.router_parameters() + self.bias_parameters()

    def parameters(self) -> int:
        """All weights."""
        return self.linear_parameters() + self.other_parameters()


def _shape(
    name: str, architecture: str, sizes: tuple[int, int, int, int, int, int], vocabulary: int, context: int, *, tied: bool = False
) -> ModelShape:
    layers, hidden, intermediate, heads, key_heads, head_dim = sizes
    return ModelShape(
        name=name,
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_heads=key_heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
        tied=tied,
        context=context,
    )


KNOWN_SHAPES = {
    shape.name.casefold(): shape
    for shape in (
        _shape("embedded:smollm2-135m-instruct", "llama", (30, 576, 1536, 9, 3, 64), 49_152, 8192, tied=True),
        _shape("Qwen/Qwen2.5-0.5B-Instruct", "qwen2", (24, 896, 4864, 14, 2, 64), 151_936, 32_768, tied=True),
        _shape("Qwen/Qwen2.5-7B-Instruct", "qwen2", (28, 3584, 18_944, 28, 4, 128), 152_064, 32_768),
        _shape("Qwen/Qwen2.5-14B-Instruct", "qwen2", (48, 5120, 13_824, 40, 8, 128), 152_064, 32_768),
        _shape("meta-llama/Llama-2-13b-chat-hf", "llama", (40, 5120, 13_824, 40, 40, 128), 32_000, 4096),
        _shape("codellama/CodeLlama-13b-Instruct-hf", "llama", (40, 5120, 13_824, 40, 40, 128), 32_016, 16_384),
        _shape("codellama/CodeLlama-34b-Instruct-hf", "llama", (48, 8192, 22_016, 64, 8, 128), 32_000, 16_384),
    )
}


def shape_of(base: str) -> ModelShape:
    """The shape of a recipe's base model: of a folder from its config.json, else from the table.

    Raises:
        ModelError: neither is there.
    """
    config = Path(base) / "config.json"
    if config.is_file():
        return shape_from_config(base, json.loads(config.read_text(encoding="utf-8")))
    if shape := KNOWN_SHAPES.get(base.casefold()):
        return shape
    raise ModelError(
        f"the sizes of {base!r} are not known without its weights",
        do=f"download it and name the folder, or plan with one of: {', '.join(shape.name for shape in KNOWN_SHAPES.values())}",
    )


def shape_from_config(name: str, config: dict[str, Any]) -> ModelShape:
    """Read the sizes from a transformers config.

    Raises:
        ModelError: it is not the config of a decoder-only model with these keys; all missing ones are named.
    """
    needed = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    if missing := [key for key in needed if not isinstance(config.get(key), int)]:
        raise ModelError(f"{name}: config.json lacks {', '.join(missing)}", do="plan works for Llama-like models")
    heads = config["num_attention_heads"]
    sizes = (
        config["num_hidden_layers"],
        config["hidden_size"],
        config["intermediate_size"],
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or config["hidden_size"] // heads,
    )
    context = config.get("max_position_embeddings", 2048)
    architecture, tied = config.get("model_type", "unknown"), bool(config.get("tie_word_embeddings"))
    experts = config.get("num_local_experts") or config.get("num_experts") or 0
    return _shape(name, architecture, sizes, config["vocab_size"], context, tied=tied).model_copy(update={"experts": experts})


def trainable_in(shape: ModelShape, sft: SftSection) -> int:
    """How many numbers a method moves."""
    match sft.tuning.family:
        case "lora":
            return _low_rank(shape, sft) + _also(shape, sft)
        case "ia3":
            return _ia3(shape, sft)
        case "bottleneck":
            return shape.layers * (2 * shape.hidden * sft.r + shape.hidden + sft.r)
        case "prompt":
            return _prompts(shape, sft)
        case "weights":
            return _whole(shape, sft)


def _low_rank(shape: ModelShape, sft: SftSection) -> int:
    """A pair of rank r on a layer (in, out) has r * (in + out) numbers; DoRA adds one per output, AdaLoRA one per rank."""
    layers = shape.linear_layers()
    rank = math.ceil(_ADALORA_START_RANK * sft.r) if sft.method == "adalora" else sft.r
    total = 0
    for name in (name.rsplit(".", 1)[-1] for name in sft.target_modules):
        if shape.copies(name) > 1:
            continue
        inputs, outputs = layers[name]
        total += rank * (inputs + outputs) + (outputs if sft.method == "dora" else 0) + (rank if sft.method == "adalora" else 0)
    if sft.experts:  # gate and up are one stacked weight
        total += shape.experts * rank * (shape.hidden + 2 * shape.intermediate + shape.intermediate + shape.hidden)
    return shape.layers * total


def _also(shape: ModelShape, sft: SftSection) -> int:
    sizes = {"embeddings": shape.vocabulary * shape.hidden, "norms": shape.norm_parameters(), "router": shape.router_parameters()}
    return sum(sizes[kind] for kind in sft.also_train)


def _ia3(shape: ModelShape, sft: SftSection) -> int:
    layers, wanted = shape.linear_layers(), {name.rsplit(".", 1)[-1] for name in sft.target_modules}
    return shape.layers * sum(
        layers[name][0] if name == "down_proj" else layers[name][1] for name in ("k_proj", "v_proj", "down_proj") if name in wanted
    )


def _prompts(shape: ModelShape, sft: SftSection) -> int:
    keys = shape.key_heads * shape.head_dim
    if sft.method == "prefix_tuning":
        return sft.virtual_tokens * shape.layers * 2 * keys
    vectors = sft.virtual_tokens * shape.hidden
    if sft.method == "prompt_tuning":
        return vectors
    inner = sft.encoder_hidden
    return vectors + (shape.hidden * inner + inner) + (inner * inner + inner) + (inner * shape.hidden + shape.hidden)


def _whole(shape: ModelShape, sft: SftSection) -> int:
    if sft.method == "bitfit":
        return shape.bias_parameters()
    if sft.method == "freeze":
        return sft.last_layers * (shape.linear_parameters() + shape.bias_parameters() + shape.router_parameters()) // shape.layers + (
            2 * sft.last_layers * shape.hidden
        )
    return shape.parameters()
