"""Folds an artefact into base weights, tensor by tensor: read one, apply its update in fp32, round once to bf16, write.

Memory is one shard, not two models. Every adapter tensor must find its weight, and no number may be infinite or NaN.
Knows nothing of how good the result is. Next: `measure.py`.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from training.errors import MergeError
from training.updates import Update, on_disk

_TEXT_FILES = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
_NOT_COPIED = ("config.json", "record.json")
Weight = Callable[[str, torch.Tensor], torch.Tensor]


def fold(
    base: Path,
    updates: Mapping[str, Update],
    folder: Path,
    weight: Weight,
    advance: Callable[[int, int], None],
    config_changes: Mapping[str, Any] | None = None,
) -> None:
    """Write `weight(name, base tensor)` with its update for every tensor of `base` to `folder`, with all that serving needs.

    `weight` gives the tensor to change: the base's own, or the values it is rounded to in training. `advance` is told
    (tensors done, tensors in all) after each shard. `config_changes` go into config.json.

    Raises:
        MergeError: an update without its weight, shapes that do not fit, or a result that is not finite.
    """
    shards = sorted(base.glob("*.safetensors"))
    names = {name for shard in shards for name in _names(shard)}
    left, done, total = on_disk(updates, names), 0, len(names)
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
    copy_text_files(base, folder, config_changes or {})


def copy_text_files(base: Path, folder: Path, config_changes: Mapping[str, Any]) -> None:
    """Tokenizer, chat template, generation defaults and the shard index as they are; the configuration as plain bf16, changed."""
    for pattern in _TEXT_FILES:
        for path in base.glob(pattern):
            if path.name not in _NOT_COPIED:
                shutil.copyfile(path, folder / path.name)
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    config |= {"dtype": "bfloat16", **config_changes}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _names(shard: Path) -> list[str]:
    with safe_open(shard, framework="pt") as tensors:
        return list(tensors.keys())


def _folded(name: str, weight: torch.Tensor, update: Update | None) -> torch.Tensor:
    if update is None:
        return weight.to(torch.bfloat16) if weight.is_floating_point() else weight
    update.check(name, weight)
    merged = update.apply(weight.float()).to(torch.bfloat16)
    if not bool(torch.isfinite(merged).all()):
        raise MergeError(
            f"{name} is not finite after the merge", why="the model would answer with noise", do="train again with a lower learning rate"
        )
    return merged.contiguous().cpu()
