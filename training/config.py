"""The recipe's sections about the model, the data and the tuning: what may be written, and within which bounds.

A section is frozen and refuses unknown keys, so a misspelt key is an error and never a silent default. Paths arrive
absolute: the recipe resolves them against its own folder. Knows nothing of torch, so that a plan costs no import.
Next: `base_model.py`, then `prepare.py`.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from training.data.config import DataSection as DataSection
from training.methods import METHODS, SPECIAL_KEYS, Method, Name, readers_of, unread_keys
from training.practice.sections import CutAnswersSection, EarlyStoppingSection
from training.practice.trackers import Tracker
from training.sections import Section

EMBEDDED_PREFIX = "embedded:"
EMBEDDED_MODELS = ("smollm2-135m-instruct",)

# vLLM cannot serve an adapter on these, and TRL reads `lm_head.weight` directly: an adapter there would not be trained.
_UNTRAINABLE_MODULES = ("lm_head", "embed_tokens")

Word = Annotated[str, Field(min_length=1)]


class RopeSection(Section):
    """Stretches the rotary positions of a model, so that it reads more tokens than it was made for."""

    type: Literal["linear", "dynamic", "yarn"] = Field(default="yarn", description="how positions are stretched")
    factor: float = Field(default=2.0, gt=1, le=64, description="times as many positions as the base model has")


class ModelSection(Section):
    """Which base model, and how long a row may be."""

    base: Word = Field(description="`embedded:smollm2-135m-instruct`, a folder, or a hub id such as `org/name`")
    revision: str | None = Field(default=None, description="commit or tag of a hub model; null takes the newest")
    trust_remote_code: bool = Field(default=False, description="let a hub model run its own Python code on this machine")
    template: Literal["own", "completion"] = Field(
        default="own", description="completion gives a base model without a chat template a plain one: texts one after another"
    )
    max_length: int = Field(default=1024, ge=16, le=131_072, description="tokens per training row; longer rows are dropped by name")
    rope_scaling: RopeSection | None = Field(default=None, description="lets it read longer rows than the base model was made for")

    @property
    def cache_name(self) -> str:
        """Name of the folder in which this base model is kept."""
        name = Path(self.base).name if Path(self.base).is_dir() else self.base.removeprefix(EMBEDDED_PREFIX)
        marks = f"{name}@{self.revision}" if self.revision else name
        return re.sub(r"[^\w.-]+", "--", f"{marks}+completion" if self.template == "completion" else marks)

    @field_validator("base")
    @classmethod
    def _embedded_name_is_known(cls, base: str) -> str:
        name = base.removeprefix(EMBEDDED_PREFIX)
        if base.startswith(EMBEDDED_PREFIX) and name not in EMBEDDED_MODELS:
            raise ValueError(f"no embedded model is called {name!r}; there is: {', '.join(EMBEDDED_MODELS)}")
        return base


class QuantizationSection(Section):
    """How the frozen base weights are rounded while the adapter is trained."""

    type: Literal["nf4", "fp4", "int8"] = Field(default="nf4", description="4-bit NormalFloat, 4-bit float, or 8-bit integers (LLM.int8)")
    double_quant: bool = Field(
        default=True, description="quantise the quantisation constants of 4-bit weights too: 0.4 bits less per weight"
    )


class SftSection(Section):
    """Supervised fine-tuning by one of the methods in `methods.py`."""

    method: Name = Field(default="qlora", description="what is trained: see the table of methods in training/README.md")
    quantization: QuantizationSection | None = Field(
        default=None, description="rounds the frozen base weights; qlora without it takes NF4 with double quantisation"
    )
    r: int = Field(default=16, ge=1, le=1024, description="rank of the adapter, width of the bottleneck, or rank of the projected gradient")
    alpha: float = Field(default=32.0, gt=0, le=4096, description="LoRA: the adapter's update is scaled by alpha / r")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="share of adapter inputs zeroed while training; 0 is fastest")
    target_modules: tuple[Word, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="linear layers that are tuned, by the last part of their name",
    )
    also_train: tuple[Literal["embeddings", "norms", "router"], ...] = Field(
        default=(), description="LoRA: weights that are trained whole beside it; embeddings and norms for longer contexts"
    )
    experts: bool = Field(default=False, description="LoRA: also tune the experts of a mixture-of-experts model; needs dropout 0")
    lora_plus_ratio: float = Field(default=16.0, ge=1, le=1000, description="lora_plus: learning rate of B over that of A")
    virtual_tokens: int = Field(default=20, ge=1, le=4096, description="prompt methods: trained vectors before the prompt")
    encoder_hidden: int = Field(default=128, ge=1, le=16_384, description="p_tuning: width of the network that makes the vectors")
    last_layers: int = Field(default=2, ge=1, le=1024, description="freeze: blocks that are trained, counted from the end")
    projection_gap_steps: int = Field(default=200, ge=1, le=100_000, description="galore, apollo: steps until the projection is renewed")
    learning_rate: float = Field(default=2.0e-4, gt=0, le=1, description="peak, per step")
    epochs: float = Field(default=3.0, gt=0, le=100, description="passes over the training rows")
    batch_size: int = Field(default=1, ge=1, le=1024, description="rows per forward pass and device")
    gradient_accumulation: int = Field(default=1, ge=1, le=4096, description="forward passes per step")
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="share of the steps during which the rate climbs")
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = Field(default="cosine", description="how the rate falls afterwards")
    optimizer: Literal["auto", "adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = Field(
        default="auto", description="auto is paged 8-bit AdamW on a GPU and AdamW on a CPU; galore and apollo bring their own"
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="per step, on what is trained only")
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000, description="gradients are scaled down to this norm")
    neftune_alpha: float = Field(default=0.0, ge=0, le=100, description="noise on the embeddings while training (NEFTune); 0 is none")
    cut_answers: CutAnswersSection = Field(default=CutAnswersSection(), description="answers that were cut before they came here")
    held_out_every_steps: int | None = Field(
        default=None, ge=1, le=100_000, description="steps between two measurements on the held-back rows; null is after each epoch"
    )
    early_stopping: EarlyStoppingSection | None = Field(
        default=None, description="ends a run that gets no better, and keeps its best weights"
    )
    checkpoint_every_steps: int = Field(default=100, ge=1, le=100_000, description="steps lost at most when the run is killed")
    report_to: tuple[Tracker, ...] = Field(
        default=(),
        description="where the curves go besides their own page: each needs its package, and reads its own environment variables",
    )
    deterministic: bool = Field(default=False, description="on a GPU, take only algorithms that give the same bits each time; slower")
    seed: int = Field(default=7, ge=0, le=2**31 - 1, description="of the adapter's first values, of dropout and of the row order")

    @model_validator(mode="before")
    @classmethod
    def _quantization_follows_method(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("method", "qlora") == "qlora" and values.get("quantization") is None:
            return {**values, "quantization": {}}
        return values

    @model_validator(mode="after")
    def _keys_belong_to_the_method(self) -> Self:
        # A default that was dumped to JSON comes back as a given value: only values that differ from it were meant.
        given = frozenset(key for key in SPECIAL_KEYS if getattr(self, key) != type(self).model_fields[key].default)
        faults = [
            f"method {self.method} does not read `{key}`; it belongs to {', '.join(readers_of(key))}"
            for key in unread_keys(self.method, given)
        ]
        if self.quantization is not None and not METHODS[self.method].quantizable:
            better = "remove `quantization`, or set method to qlora" if self.method == "lora" else "remove `quantization`"
            faults.append(f"method {self.method} trains over bf16 weights: {better}")
        if self.experts and self.dropout:
            faults.append("`experts` needs dropout 0: an update of stacked weights cannot drop single inputs")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def tuning(self) -> Method:
        """What is known about the method."""
        return METHODS[self.method]

    @field_validator("target_modules")
    @classmethod
    def _modules_can_be_served(cls, modules: tuple[str, ...]) -> tuple[str, ...]:
        if refused := [name for name in modules if name.split(".")[-1] in _UNTRAINABLE_MODULES]:
            raise ValueError(f"{', '.join(refused)} cannot carry an adapter; name linear layers inside the blocks, such as q_proj")
        if len(set(modules)) != len(modules):
            raise ValueError(f"a module is named twice: {', '.join(modules)}")
        return modules


class MergeSection(Section):
    """How the two ways to merge are compared."""

    validation_suite: Path = Field(description="folder of prompts that are neither trained on nor in the gate's suite")
    max_validation_rows: int = Field(
        default=32, ge=1, le=4096, description="validation rows on which KL, flips and perplexity are measured"
    )
    max_new_tokens: int = Field(default=64, ge=1, le=4096, description="tokens per answer to a validation prompt")
