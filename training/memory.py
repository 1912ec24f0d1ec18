"""What a run will take, by arithmetic: trainable parameters, steps, tokens, memory by part, and whether vLLM can serve it.

No weights are needed: `shapes.py` knows the sizes. Knows nothing of torch. Next: `config.py`, whose sections it reads.
"""

from pydantic import Field

from training.config import ModelSection, SftSection
from training.errors import ModelError
from training.preference_section import PreferenceSection
from training.served import servable
from training.shapes import ModelShape, Plain, trainable_in
from training.step_memory import cpu_memory_parts, optimizer_bytes

_BF16, _FP32 = 2, 4
# NF4: 4 bits per weight, and one constant per 64 weights: 32 bits, or 8 bits and 32 per 256 of them when quantised again.
_NF4_BYTES, _NF4_DOUBLE_BYTES = 0.5 + 4 / 64, 0.5 + 1 / 64 + 4 / (64 * 256)
_OVERHEAD = 0.9e9  # bytes: CUDA context, kernels, allocator's slack; measured figures lie between 0.6 and 1.2 GB


class TrainingPlan(Plain):
    """Figures of one recipe; memory is for one process, in bytes."""

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
    gpu: bool = True,
    sharing: int = 1,
) -> TrainingPlan:
    """Work out a run's figures.

    `rows` of the training split and preference `pairs` are given where they are known, and so is the mean length
    `tokens_per_row`. Memory is always that of full-length rows, on a GPU or without one, in one of the
    `sharing` processes that hold the blocks' weights together.

    Raises:
        ModelError: `target_modules` or `max_length` that this model does not have.
    """
    _require_fit(shape, model, sft)
    per_step = sft.batch_size * sft.gradient_accumulation
    trainable = trainable_in(shape, sft)
    possible, because = servable(shape.served_as, sft)
    return TrainingPlan(
        parameters=shape.parameters(),
        trainable_parameters=trainable,
        rows_per_step=per_step,
        steps=steps_for(rows, per_step, sft.epochs),
        preference_steps=steps_for(pairs, preference.batch_size * preference.gradient_accumulation, preference.epochs)
        if preference
        else None,
        tokens=None if rows is None or tokens_per_row is None else int(rows * tokens_per_row * sft.epochs),
        memory_bytes=memory_parts(shape, model, sft, gpu=gpu, sharing=sharing),
        disk_bytes=3 * _BF16 * shape.parameters() + 3 * 12 * trainable,
        servable=possible,
        servable_because=because,
    )


def steps_for(rows: int | None, rows_per_step: int, epochs: float) -> int | None:
    """Optimizer steps, as the trainer counts them: the last, smaller step of each epoch is made too."""
    if rows is None:
        return None
    per_epoch = -(-rows // rows_per_step)
    return max(1, -int(-(per_epoch * epochs) // 1))


def memory_parts(shape: ModelShape, model: ModelSection, sft: SftSection, *, gpu: bool, sharing: int = 1) -> dict[str, int]:
    """Bytes by part at full-length rows: of a GPU, where training uses gradient checkpointing, or of this machine's memory."""
    if not gpu:
        return cpu_memory_parts(shape, sft, model.max_length, sharing)
    trainable = trainable_in(shape, sft)
    tokens = sft.batch_size * model.max_length
    # Checkpointing keeps each block's input, and rebuilds one block at a time: about 14 hidden and 3 inner tensors of it.
    block = tokens * (14 * shape.hidden + 3 * shape.intermediate) * _BF16
    whole = trainable if sft.tuning.family == "weights" else 0
    return {
        **_base_weights(shape, sft, whole, sharing),
        "trained weights and gradients": 2 * trainable * _FP32,
        "optimizer": optimizer_bytes(shape, sft, trainable, moment_bytes=_FP32 if sft.optimizer == "adamw_torch" else 1),
        "block inputs": shape.layers * tokens * shape.hidden * _BF16,
        "one block rebuilt": block,
        "overhead": int(_OVERHEAD),
    }


def _base_weights(shape: ModelShape, sft: SftSection, whole: int, sharing: int) -> dict[str, int]:
    weight, constants = _bytes_per_weight(sft)
    stacked = shape.expert_parameters()
    rounded, bf16 = shape.linear_parameters() - stacked, shape.other_parameters() + stacked / sharing
    parts = {"base weights": int(rounded * (weight / sharing + constants) + bf16 * _BF16) - whole * _BF16}
    if sharing > 1:  # the block at work, and the one after it
        parts["blocks fetched whole"] = int(2 * (rounded * weight + stacked * _BF16) / shape.layers)
    return parts


def _bytes_per_weight(sft: SftSection) -> tuple[float, float]:
    """Of a weight, and of the constants it is rounded by, which each process holds for the whole model."""
    if sft.quantization is None:
        return _BF16, 0.0
    if sft.quantization.type == "int8":
        return 1.0, 0.0  # and 4 bytes per row, which is nothing
    return 0.5, (_NF4_DOUBLE_BYTES if sft.quantization.double_quant else _NF4_BYTES) - 0.5


def _require_fit(shape: ModelShape, model: ModelSection, sft: SftSection) -> None:
    known = dict.fromkeys(layer.name for layer in shape.linears() if not layer.stacked or sft.experts)
    faults = [
        f"`target_modules` names {name}, the model has {', '.join(known)}"
        for name in sft.target_modules
        if name.rsplit(".", 1)[-1] not in known
    ]
    reads = int(shape.context * (model.rope_scaling.factor if model.rope_scaling else 1))
    if model.max_length > reads:
        faults.append(f"`max_length` is {model.max_length}, the model reads at most {reads} tokens; see `model.rope_scaling`")
    if faults:
        raise ModelError(f"{shape.name}: " + "; ".join(faults), do="correct these values in the recipe")
