"""What a run will take, by arithmetic: trainable parameters, steps, tokens, memory by part, and whether vLLM can serve it.

No weights are needed: a shape comes from a `config.json` or from a small table, so that a preset for a 34B model can be
planned on a laptop. Knows nothing of torch. Next: `config.py`, whose sections it reads.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from training.config import ModelSection, PreferenceSection, SftSection
from training.errors import ModelError

_BF16, _FP32 = 2, 4
# NF4: 4 bits per weight, and one constant per 64 weights: 32 bits, or 8 bits and 32 per 256 of them when quantised again.
_NF4_BYTES, _NF4_DOUBLE_BYTES = 0.5 + 4 / 64, 0.5 + 1 / 64 + 4 / (64 * 256)
_OVERHEAD = 0.9e9  # bytes: CUDA context, kernels, allocator's slack; measured figures lie between 0.6 and 1.2 GB
_SERVED = frozenset({"llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3", "granite", "olmo2", "starcoder2"})


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

    def linear_parameters(self) -> int:
        """Weights in the blocks' linear layers: what is quantised."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear_layers().values())

    def other_parameters(self) -> int:
        """Embedding, head and norms: what stays in bf16."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    def parameters(self) -> int:
        """All weights; biases, where a model has them, are left out (under 0.1 %)."""
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
    return _shape(
        name, config.get("model_type", "unknown"), sizes, config["vocab_size"], context, tied=bool(config.get("tie_word_embeddings"))
    )


class TrainingPlan(Plain):
    """Figures of one recipe; memory is for one GPU, in bytes, and meant to be right within a fifth."""

    parameters: int
    trainable_parameters: int
    rows_per_step: int
    steps: int | None = Field(description="SFT steps; null while the number of rows is not known")
    preference_steps: int | None
    tokens: int | None = Field(description="tokens seen in SFT, all epochs")
    memory_bytes: dict[str, int] = Field(description="part -> bytes at the peak of SFT")
    disk_bytes: int = Field(description="base, two merges while they are compared, and checkpoints")
    servable: bool
    servable_because: str

    @property
    def total_memory_bytes(self) -> int:
        """Sum of the parts."""
        return sum(self.memory_bytes.values())


def plan_training(
    shape: ModelShape,
    model: ModelSection,
    sft: SftSection,
    preference: PreferenceSection | None = None,
    *,
    rows: int | None = None,
    pairs: int | None = None,
    tokens_per_row: int | None = None,
) -> TrainingPlan:
    """Work out a run's figures.

    `rows` of the training split and preference `pairs` are given where they are known, and so is the mean length
    `tokens_per_row`. Memory is always that of full-length rows.

    Raises:
        ModelError: `target_modules` or `max_length` that this model does not have.
    """
    _require_fit(shape, model, sft)
    per_step = sft.batch_size * sft.gradient_accumulation
    trainable = trainable_in(shape, sft)
    servable, because = servable_by_vllm(shape)
    return TrainingPlan(
        parameters=shape.parameters(),
        trainable_parameters=trainable,
        rows_per_step=per_step,
        steps=steps_for(rows, per_step, sft.epochs),
        preference_steps=steps_for(pairs, preference.batch_size * preference.gradient_accumulation, preference.epochs)
        if preference
        else None,
        tokens=None if rows is None or tokens_per_row is None else int(rows * tokens_per_row * sft.epochs),
        memory_bytes=memory_parts(shape, model, sft),
        disk_bytes=3 * _BF16 * shape.parameters() + 3 * 12 * trainable,
        servable=servable,
        servable_because=because,
    )


def trainable_in(shape: ModelShape, sft: SftSection) -> int:
    """A LoRA pair of rank r on a layer (in, out) has r * (in + out) numbers."""
    layers = shape.linear_layers()
    return shape.layers * sum(sft.r * sum(layers[name.rsplit(".", 1)[-1]]) for name in sft.target_modules)


def steps_for(rows: int | None, rows_per_step: int, epochs: float) -> int | None:
    """Optimizer steps, as the trainer counts them: the last, smaller step of each epoch is made too."""
    if rows is None:
        return None
    per_epoch = -(-rows // rows_per_step)
    return max(1, -int(-(per_epoch * epochs) // 1))


def memory_parts(shape: ModelShape, model: ModelSection, sft: SftSection) -> dict[str, int]:
    """Bytes on the GPU by part, at full-length rows and with gradient checkpointing, which training on a GPU uses."""
    trainable = trainable_in(shape, sft)
    tokens = sft.batch_size * model.max_length
    per_weight: float = _BF16
    if sft.quantization:
        per_weight = _NF4_DOUBLE_BYTES if sft.quantization.double_quant else _NF4_BYTES
    # Checkpointing keeps each block's input, and rebuilds one block at a time: about 14 hidden and 3 inner tensors of it.
    block = tokens * (14 * shape.hidden + 3 * shape.intermediate) * _BF16
    return {
        "base weights": int(shape.linear_parameters() * per_weight + shape.other_parameters() * _BF16),
        "adapter and gradients": 2 * trainable * _BF16 if sft.quantization else 2 * trainable * _FP32,
        "optimizer": 2 * trainable * (1 if sft.optimizer in ("auto", "adamw_8bit", "paged_adamw_8bit") else _FP32),
        "block inputs": shape.layers * tokens * shape.hidden * _BF16,
        "one block rebuilt": block,
        "overhead": int(_OVERHEAD),
    }


def servable_by_vllm(shape: ModelShape) -> tuple[bool, str]:
    """The line serves merged bf16 weights, so adapter rank and modules do not matter; the architecture does."""
    if shape.architecture in _SERVED:
        return True, f"merged bf16 weights of architecture {shape.architecture}; the adapter's rank does not matter once it is merged"
    return False, f"architecture {shape.architecture!r} is not among those tried here: {', '.join(sorted(_SERVED))}"


def _require_fit(shape: ModelShape, model: ModelSection, sft: SftSection) -> None:
    known = shape.linear_layers()
    faults = [
        f"`target_modules` names {name}, the model has {', '.join(known)}"
        for name in sft.target_modules
        if name.rsplit(".", 1)[-1] not in known
    ]
    if model.max_length > shape.context:
        faults.append(f"`max_length` is {model.max_length}, the model reads at most {shape.context} tokens")
    if faults:
        raise ModelError(f"{shape.name}: " + "; ".join(faults), do="correct these values in the recipe")
