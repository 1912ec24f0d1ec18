"""The sizes of decoder-only models, from a config.json or from a small table, and how many numbers each method trains of them.

No weights are needed, so that a preset for a 34B model can be planned on a laptop. Knows nothing of torch. Next: `memory.py`.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from training.config import SftSection
from training.errors import ModelError
from training.layouts import LAYOUTS, Layout

_ADALORA_START_RANK = 1.5  # times the rank it ends with


class Plain(BaseModel):
    """A frozen value."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Linears(Plain):
    """Linear layers of one name and size."""

    name: str = Field(description="the last part of their names")
    inputs: int
    outputs: int
    count: int = Field(description="in the whole model")
    stacked: bool = Field(default=False, description="experts, which transformers keeps as one weight of three dimensions")

    @property
    def parameters(self) -> int:
        """Their weights."""
        return self.count * self.inputs * self.outputs


class ModelShape(Plain):
    """The sizes of a decoder-only model."""

    name: str
    architecture: str = Field(description="`model_type` of its config.json")
    served_as: str = Field(description="the first of `architectures` there, by which vLLM knows it")
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
    expert_width: int = Field(default=0, ge=0, description="width inside each of them")
    shared_width: int = Field(default=0, ge=0, description="width inside the one that is used besides, always")
    dense_layers: int = Field(default=0, ge=0, description="blocks of such a model that have one feed-forward network all the same")
    biased: frozenset[str] = Field(default=frozenset(), description="linear layers with a bias")

    @property
    def layout(self) -> Layout:
        """How blocks of this architecture are built."""
        return LAYOUTS[self.architecture]

    def linears(self) -> tuple[Linears, ...]:
        """Every linear layer of the blocks."""
        queries, keys = self.heads * self.head_dim, self.key_heads * self.head_dim
        sides = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "qkv_proj": queries + 2 * keys}
        found = [Linears(name=name, inputs=self.hidden, outputs=sides[name], count=self.layers) for name in self.layout.reading]
        found.append(Linears(name="o_proj", inputs=queries, outputs=self.hidden, count=self.layers))
        found += self._feed_forward(self.intermediate, self.dense_layers if self.experts else self.layers)
        if self.experts:
            sparse = self.layers - self.dense_layers
            found += self._feed_forward(self.shared_width, sparse if self.shared_width else 0)
            if self.shared_width:
                found.append(Linears(name="shared_expert_gate", inputs=self.hidden, outputs=1, count=sparse))
            found += [
                Linears(name=name, inputs=inputs, outputs=outputs, count=sparse * self.experts, stacked=True)
                for name, inputs, outputs in (
                    ("gate_up_proj", self.hidden, 2 * self.expert_width),
                    ("down_proj", self.expert_width, self.hidden),
                )
            ]
        return tuple(found)

    def _feed_forward(self, width: int, count: int) -> list[Linears]:
        *widening, narrowing = self.layout.feed_forward
        if not count:
            return []
        outputs = 2 * width if widening == ["gate_up_proj"] else width
        return [
            *(Linears(name=name, inputs=self.hidden, outputs=outputs, count=count) for name in widening),
            Linears(name=narrowing, inputs=width, outputs=self.hidden, count=count),
        ]

    def named(self, targets: Collection[str]) -> list[Linears]:
        """The layers that a recipe's `target_modules` mean; stacked experts have a key of their own."""
        wanted = {target.rsplit(".", 1)[-1] for target in targets}
        return [layer for layer in self.linears() if not layer.stacked and layer.name in wanted]

    def linear_parameters(self) -> int:
        """Weights in the blocks' linear layers."""
        return sum(layer.parameters for layer in self.linears())

    def expert_parameters(self) -> int:
        """Those of the stacked experts, which bitsandbytes does not round."""
        return sum(layer.parameters for layer in self.linears() if layer.stacked)

    def bias_parameters(self) -> int:
        """Biases in the blocks, those of the norms among them."""
        linear = sum(layer.count * layer.outputs for layer in self.linears() if layer.name in self.biased and not layer.stacked)
        return linear + (self._norms() if self.layout.norm_bias else 0)

    def norm_parameters(self) -> int:
        """Weights of the norms."""
        return self._norms() * (2 if self.layout.norm_bias else 1)

    def _norms(self) -> int:
        """Per block, of queries and keys, and one behind all blocks."""
        return self.layers * self.block_norms() + self.hidden

    def block_norms(self) -> int:
        """Weights of one block's norms, without biases."""
        heads = {"none": 0, "head": 2 * self.head_dim, "all": (self.heads + self.key_heads) * self.head_dim}
        return self.layout.norms * self.hidden + heads[self.layout.query_norms]

    def router_parameters(self) -> int:
        """Weights that choose the experts."""
        return (self.layers - self.dense_layers) * self.experts * self.hidden

    def embedding_parameters(self) -> int:
        """Weights of the embedding, and of the head where it has its own."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def other_parameters(self) -> int:
        """Embedding, head, norms, routers and biases: what stays in bf16."""
        return self.embedding_parameters() + self._norms() + self.router_parameters() + self.bias_parameters()

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
        served_as={"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}.get(architecture, "none named"),
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_heads=key_heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
        tied=tied,
        context=context,
        biased=LAYOUTS[architecture].biased({}),
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
        ModelError: it lacks keys, and all of them are named; or how blocks of its architecture are built is not known.
    """
    needed = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    if missing := [key for key in needed if not isinstance(config.get(key), int)]:
        raise ModelError(f"{name}: config.json lacks {', '.join(missing)}", do="copy the model again")
    architecture = str(config.get("model_type"))
    if architecture not in LAYOUTS:
        raise ModelError(
            f"{name}: how models of type {architecture!r} are built is not known without their weights",
            do=f"plan works for {', '.join(sorted(LAYOUTS))}; tunegate run takes others too",
        )
    heads = config["num_attention_heads"]
    sizes = (
        config["num_hidden_layers"],
        config["hidden_size"],
        config["intermediate_size"],
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or config["hidden_size"] // heads,
    )
    shape = _shape(name, architecture, sizes, config["vocab_size"], config.get("max_position_embeddings", 2048), tied=tied(config))
    named = config.get("architectures") or ["none named"]
    return shape.model_copy(
        update={"served_as": str(named[0]), "biased": shape.layout.biased(config), **_experts(config, shape.layers, shape.intermediate)}
    )


def tied(config: Mapping[str, Any]) -> bool:
    """Whether the head shares the embedding's weights, where the config says nothing as transformers takes it."""
    return bool(config.get("tie_word_embeddings", LAYOUTS[config["model_type"]].tied))


def _experts(config: Mapping[str, Any], layers: int, intermediate: int) -> dict[str, int]:
    experts = int(config.get("num_local_experts") or config.get("num_experts") or 0)
    if not experts:
        return {}
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or ()
    return {
        "experts": experts,
        "expert_width": int(config.get("moe_intermediate_size") or intermediate),
        "shared_width": int(config.get("shared_expert_intermediate_size") or 0),
        "dense_layers": sum(number in dense or (number + 1) % step > 0 for number in range(layers)),
    }


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
    rank = math.ceil(_ADALORA_START_RANK * sft.r) if sft.method == "adalora" else sft.r
    total = 0
    for layer in shape.named(sft.target_modules):
        more = layer.outputs if sft.method == "dora" else rank if sft.method == "adalora" else 0
        total += layer.count * (rank * (layer.inputs + layer.outputs) + more)
    if sft.experts:
        total += sum(layer.count * rank * (layer.inputs + layer.outputs) for layer in shape.linears() if layer.stacked)
    return total


def _also(shape: ModelShape, sft: SftSection) -> int:
    sizes = {"embeddings": shape.vocabulary * shape.hidden, "norms": shape.norm_parameters(), "router": shape.router_parameters()}
    return sum(sizes[kind] for kind in sft.also_train)


def _ia3(shape: ModelShape, sft: SftSection) -> int:
    scaled = [layer for layer in shape.named(sft.target_modules) if layer.name in ("k_proj", "v_proj", "down_proj")]
    return sum(layer.count * (layer.inputs if layer.name == "down_proj" else layer.outputs) for layer in scaled)


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
        blocks = shape.linear_parameters() + shape.router_parameters() + shape.bias_parameters() + shape.layers * shape.block_norms()
        return sft.last_layers * (blocks - (shape.hidden if shape.layout.norm_bias else 0)) // shape.layers
    return shape.parameters()
