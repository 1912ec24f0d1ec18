"""Folds an adapter into base weights, tensor by tensor: read one, add its update in fp32, round once to bf16, write.

Memory is one shard, not two models. Every adapter tensor must find its weight, and no number may be infinite or NaN.
Knows nothing of how good the result is. Next: `measure.py`.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from training.errors import MergeError

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_TEXT_FILES = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
_NOT_COPIED = ("config.json", "record.json")
# Settings of peft that change the formula W + alpha / r * B A; folding such an adapter in by that formula would be wrong.
_UNKNOWN_FORMULAS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias")

Weight = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Update:
    """One layer's low-rank update: `up (out, r) @ down (r, in) * scale`."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def delta(self) -> torch.Tensor:
        """The update `(out, in)` in fp32."""
        return (self.up.float() @ self.down.float()) * self.scale


def read_updates(folder: Path) -> dict[str, Update]:
    """The adapter's updates, by the name of the weight they belong to, such as `model.layers.0.mlp.up_proj.weight`.

    Raises:
        MergeError: an adapter of another kind than plain LoRA, half a pair, or a number that is not finite.
    """
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    odd = [f"{key}={settings[key]!r}" for key in _UNKNOWN_FORMULAS if settings.get(key)]
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none" or odd:
        raise MergeError(
            f"{folder} is not a plain LoRA adapter: {', '.join(odd) or settings.get('peft_type')}", do="train it with this recipe"
        )
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    if broken := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise MergeError(
            f"{len(broken)} adapter tensors hold NaN or infinity, the first is {broken[0]}", do="train again with a lower learning rate"
        )
    scale = settings["lora_alpha"] / settings["r"]
    updates = {}
    for name in [name for name in tensors if name.endswith(".lora_A.weight")]:
        layer = name.removesuffix(".lora_A.weight")
        up = tensors.pop(f"{layer}.lora_B.weight", None)
        if up is None:
            raise MergeError(f"the adapter has {name} but not its lora_B", do="train the adapter again: its file is not whole")
        updates[f"{layer.removeprefix(_PREFIX)}.weight"] = Update(tensors.pop(name), up, scale)
    if tensors or not updates:
        raise MergeError(f"the adapter has tensors that are no LoRA pair: {', '.join(sorted(tensors)) or 'it is empty'}")
    return updates


def fold(base: Path, updates: dict[str, Update], folder: Path, weight: Weight, advance: Callable[[int, int], None]) -> None:
    """Write `weight(name, base tensor) + update` for every tensor of `base` to `folder`, with all that serving needs.

    `weight` gives the tensor to add to: the base's own, or the values it is rounded to in NF4. `advance` is told
    (tensors done, tensors in all) after each shard.

    Raises:
        MergeError: an update without its weight, shapes that do not fit, or a result that is not finite.
    """
    shards = sorted(base.glob("*.safetensors"))
    left, done, total = dict(updates), 0, sum(len(_names(shard)) for shard in shards)
    for shard in shards:
        merged = {}
        with safe_open(shard, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                merged[name] = _folded(name, weight(name, tensors.get_tensor(name)), left.pop(name, None))
        save_file(merged, folder / shard.name, metadata={"format": "pt"})
        done += len(merged)
        advance(done, total)
    if left:
        raise MergeError(
            f"{len(left)} of {len(updates)} adapter updates found no weight in the base, the first is {min(left)}",
            why="the merged model would lack what those layers learned",
            do="merge with the base model that the adapter was trained on; tied or renamed weights cannot carry an adapter",
        )
    copy_text_files(base, folder)


def copy_text_files(base: Path, folder: Path) -> None:
    """Tokenizer, chat template, generation defaults and the shard index as they are; the configuration as plain bf16."""
    for pattern in _TEXT_FILES:
        for path in base.glob(pattern):
            if path.name not in _NOT_COPIED:
                shutil.copyfile(path, folder / path.name)
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    config["dtype"] = "bfloat16"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _names(shard: Path) -> list[str]:
    with safe_open(shard, framework="pt") as tensors:
        return list(tensors.keys())


def _folded(name: str, weight: torch.Tensor, update: Update | None) -> torch.Tensor:
    if update is None:
        return weight.to(torch.bfloat16) if weight.is_floating_point() else weight
    if update.up.shape[0] != weight.shape[0] or update.down.shape[1] != weight.shape[1]:
        raise MergeError(
            f"{name} is {tuple(weight.shape)}, its update is {(update.up.shape[0], update.down.shape[1])}: another base model?"
        )
    merged = (weight.float() + update.delta().to(weight.device)).to(torch.bfloat16)
    if not bool(torch.isfinite(merged).all()):
        raise MergeError(
            f"{name} is not finite after the merge", why="the model would answer with noise", do="train again with a lower learning rate"
        )
    return merged.contiguous().cpu()
