"""What an artefact changes in each weight of its base model, read from its files: one formula for each method that can be merged.

Sources: LoRA W + s·BA, with s = alpha / r, or alpha / sqrt(r) for rsLoRA; DoRA m·(W + s·BA) / ‖W + s·BA‖ by row; AdaLoRA W + s·B(A∘E);
IA³ W scaled by row, or by column in the feed-forward block; weights that were trained whole take the base's place. All of it in fp64:
where an update takes away almost all of a weight, fp32's rounding is many steps of the small number that is left.
Knows nothing of shards or of how good a merge is. Next: `fold.py`, which applies them.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from training.bottleneck import WEIGHTS as BOTTLENECK_WEIGHTS
from training.errors import MergeError

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # as peft names them
WHOLE_WEIGHTS = "weights.safetensors"
_PREFIX = "base_model.model."
# Settings of peft that change the formulas above; folding such an adapter in by them would be wrong.
_UNKNOWN_FORMULAS = ("modules_to_save", "fan_in_fan_out", "lora_bias", "layer_replication", "use_qalora", "alora_invocation_tokens")
_NO_WEIGHTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")


class Update(Protocol):
    """How one weight changes."""

    def check(self, name: str, weight: Tensor) -> None:
        """Raises: MergeError when it does not fit this weight."""

    def apply(self, weight: Tensor, rows: slice) -> Tensor:
        """These rows of the new weight in fp64, from the old ones in fp64, which may be written over."""


@dataclass(frozen=True)
class LowRank:
    """`up (out, r) @ down (r, in) * scale` is added; with `lengths (out,)`, each row then gets that length (DoRA)."""

    down: Tensor
    up: Tensor
    scale: float
    lengths: Tensor | None = None

    def check(self, name: str, weight: Tensor) -> None:
        _require_shape(name, weight, (self.up.shape[0], self.down.shape[1]))

    def apply(self, weight: Tensor, rows: slice) -> Tensor:
        new = weight.addmm_(self.up[rows].double(), self.down.double(), alpha=self.scale)
        if self.lengths is None:
            return new
        factors: Tensor = self.lengths[rows].double() / torch.linalg.vector_norm(new, dim=1)
        return new.mul_(factors[:, None])


@dataclass(frozen=True)
class Scaled:
    """Rows or columns are multiplied: `factors` is `(out, 1)` or `(1, in)`."""

    factors: Tensor

    def check(self, name: str, weight: Tensor) -> None:
        rows, columns = self.factors.shape
        _require_shape(name, weight, (rows if columns == 1 else weight.shape[0], columns if rows == 1 else weight.shape[1]))

    def apply(self, weight: Tensor, rows: slice) -> Tensor:
        return weight.mul_((self.factors if len(self.factors) == 1 else self.factors[rows]).double())


@dataclass(frozen=True)
class Replaced:
    """The weight was trained whole."""

    tensor: Tensor

    def check(self, name: str, weight: Tensor) -> None:
        _require_shape(name, weight, tuple(self.tensor.shape))

    def apply(self, weight: Tensor, rows: slice) -> Tensor:
        return self.tensor[rows].double()


def read_updates(folder: Path) -> dict[str, Update]:
    """Every update of the artefact in `folder`, by the name of its weight, such as `model.layers.0.mlp.up_proj.weight`.

    Raises:
        MergeError: a kind of adapter that has no weights to fold into, half a pair, or a number that is not finite.
    """
    if (folder / BOTTLENECK_WEIGHTS).is_file():
        raise _not_foldable(folder, "bottleneck adapters")
    updates: dict[str, Update] = {}
    if (folder / WHOLE_WEIGHTS).is_file():
        updates |= {name: Replaced(tensor) for name, tensor in _finite(folder / WHOLE_WEIGHTS).items()}
    if (folder / ADAPTER_CONFIG).is_file():
        updates |= _peft_updates(folder)
    if not updates:
        raise MergeError(f"{folder} holds nothing that was trained", do="train the adapter again: its files are not whole")
    return updates


def on_disk(updates: Mapping[str, Update], names: set[str]) -> dict[str, Update]:
    """Updates by the names under which the base model's files keep their weights.

    transformers stacks the experts of a mixture in memory, `mlp.experts.gate_up_proj (experts, 2·inner, width)`, and
    keeps each one by itself on the disk; Mixtral's block has another name there too.
    """
    result: dict[str, Update] = {}
    for name, update in updates.items():
        other = name.replace(".mlp.gate.", ".block_sparse_moe.gate.")
        stacked = re.fullmatch(r"(.*)\.mlp\.experts\.(gate_up_proj|down_proj)", name)
        if name in names or (stacked is None and other not in names):
            result[name] = update
        elif stacked is None:
            result[other] = update
        else:
            result |= _each_expert(stacked[1], stacked[2], update, names)
    return result


def _each_expert(block: str, kind: str, update: Update, names: set[str]) -> dict[str, Update]:
    assert isinstance(update, _Stacked)
    mixtral = any(name.startswith(f"{block}.block_sparse_moe.experts.") for name in names)
    inside, kinds = ("block_sparse_moe", ("w1", "w3", "w2")) if mixtral else ("mlp", ("gate_proj", "up_proj", "down_proj"))
    result: dict[str, Update] = {}
    for number, one in enumerate(update.each):
        place = f"{block}.{inside}.experts.{number}"
        if kind == "down_proj":
            result[f"{place}.{kinds[2]}.weight"] = one
            continue
        gate, up = one.up.chunk(2)
        result[f"{place}.{kinds[0]}.weight"] = replace(one, up=gate)
        result[f"{place}.{kinds[1]}.weight"] = replace(one, up=up)
    return result


@dataclass(frozen=True)
class _Stacked:
    """The updates of one stacked weight, expert by expert."""

    each: tuple[LowRank, ...]

    def check(self, name: str, weight: Tensor) -> None:
        _require_shape(name, weight[0], (self.each[0].up.shape[0], self.each[0].down.shape[1]))

    def apply(self, weight: Tensor, rows: slice) -> Tensor:
        return torch.stack([one.apply(part, slice(None)) for one, part in zip(self.each[rows], weight, strict=True)])


def _peft_updates(folder: Path) -> dict[str, Update]:
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    kind, odd = settings.get("peft_type"), [f"{key}={settings[key]!r}" for key in _UNKNOWN_FORMULAS if settings.get(key)]
    if kind in _NO_WEIGHTS:
        raise _not_foldable(folder, f"an adapter of type {kind}")
    if kind not in ("LORA", "ADALORA", "IA3") or settings.get("bias", "none") != "none" or odd:
        raise MergeError(f"{folder} is not an adapter that can be folded in: {', '.join(odd) or kind}", do="train it with this recipe")
    tensors = _finite(folder / ADAPTER_WEIGHTS)
    updates = _factors(tensors) if kind == "IA3" else _low_ranks(tensors, settings)
    if tensors or not updates:
        raise MergeError(f"the adapter has tensors that belong to no pair: {', '.join(sorted(tensors)) or 'it is empty'}")
    return updates


def _factors(tensors: dict[str, Tensor]) -> dict[str, Update]:
    names = [name for name in tensors if name.endswith(".ia3_l")]
    return {f"{name.removesuffix('.ia3_l').removeprefix(_PREFIX)}.weight": Scaled(tensors.pop(name)) for name in names}


def _low_ranks(tensors: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Update]:
    updates: dict[str, Update] = {}
    for name in [name for name in tensors if re.search(r"\.lora_A(\.weight)?$", name)]:
        layer, tail = name.rsplit(".lora_A", 1)
        up = tensors.pop(f"{layer}.lora_B{tail}", None)
        if up is None:
            raise MergeError(f"the adapter has {name} but not its lora_B", do="train the adapter again: its file is not whole")
        down, values = tensors.pop(name), tensors.pop(f"{layer}.lora_E", None)
        scale = _scale(settings, layer.removeprefix(_PREFIX), up.shape[1])
        if values is not None:
            down, scale = down * values, settings["lora_alpha"] / (settings["init_r"] + 1e-5)
        if ".experts" in layer:
            updates |= _stacked(layer.removeprefix(_PREFIX), down, up, settings)
        else:
            lengths = tensors.pop(f"{layer}.lora_magnitude_vector", None)
            if settings.get("use_dora") and lengths is None:
                raise MergeError(f"{layer} is DoRA's, and its lora_magnitude_vector is missing", do="train the adapter again")
            updates[f"{layer.removeprefix(_PREFIX)}.weight"] = LowRank(down, up, scale, lengths)
    return updates


def _stacked(layer: str, down: Tensor, up: Tensor, settings: dict[str, Any]) -> dict[str, Update]:
    """peft nests its wrappers: the inner one, `base_layer`, holds the first named weight, the outer one the second."""
    kind = "gate_up_proj" if layer.endswith(".base_layer") else "down_proj"
    name = f"{layer.removesuffix('.base_layer')}.{kind}"
    rank = int(_of_layer(settings, "rank_pattern", name, settings["r"]))  # the tensors hold it times the experts
    count, rest = divmod(down.shape[0], rank)
    if rest:
        raise MergeError(f"{name}: its update has {down.shape[0]} rows, which is no multiple of rank {rank}", do="train the adapter again")
    downs, ups = down.reshape(count, rank, -1), up.reshape(up.shape[0], rank, count)
    scale = _scale(settings, name, rank)
    each = tuple(LowRank(downs[number], ups[:, :, number], scale) for number in range(count))
    return {name: _Stacked(each)}


def _scale(settings: dict[str, Any], layer: str, rank: int) -> float:
    """alpha over the layer's rank."""
    alpha = _of_layer(settings, "alpha_pattern", layer, settings["lora_alpha"])
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _of_layer(settings: dict[str, Any], key: str, layer: str, usual: float) -> float:
    """A layer's own number; a pattern is the end of a layer's name, or a regular expression of peft's that ends there."""
    patterns = (settings.get(key) or {}).items()
    return float(next((value for pattern, value in patterns if re.fullmatch(rf"(.*\.)?({pattern})", layer)), usual))


def _finite(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(path)
    if broken := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise MergeError(
            f"{len(broken)} adapter tensors hold NaN or infinity, the first is {broken[0]}", do="train again with a lower learning rate"
        )
    return tensors


def _not_foldable(folder: Path, what: str) -> MergeError:
    return MergeError(
        f"{folder} holds {what}, which cannot be folded into weights",
        why="vLLM serves weights, and these methods put something beside them",
        do="set `purpose: experiment` to train without serving, or choose another method: tunegate plan says which can be served",
    )


def _require_shape(name: str, weight: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(weight.shape) != shape:
        raise MergeError(f"{name} is {tuple(weight.shape)}, its update is {shape}: another base model?")
