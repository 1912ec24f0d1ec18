"""Writes a merged model with 8-bit weights (FP8, E4M3) in the form of compressed-tensors, which vLLM and transformers read.

Each row of a matrix in the blocks gets a scale of its own, and inputs are rounded token by token while the model answers: no data is
needed to calibrate. Embedding, head, norms and routers stay bf16. The library says how numbers are rounded and what config.json tells
of it. A shard at a time. Knows nothing of releases. Next: `merge.py`, which made the model.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus, preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.errors import InputError

_INDEX = "model.safetensors.index.json"
_IN_BLOCKS = re.compile(r".*\.layers\.\d+\..*\.weight")
_ROUTERS = ("gate", "shared_expert_gate")  # which expert answers hangs on small differences
_IGNORED = ["lm_head", *(rf"re:.*\.{name}$" for name in _ROUTERS)]
_OURS = ("record.json", _INDEX)
_SCHEME = preset_name_to_scheme("FP8_DYNAMIC", ["Linear"])


def write_fp8(model: Path, out: Path) -> None:
    """Write the model in the folder `model` to the folder `out`, with all that serving needs but the record: it is another model.

    Raises:
        InputError: it holds rounded weights already, or no matrix that could be rounded.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in config:
        raise InputError(f"{model} holds rounded weights already", do="export a merged release, whose weights are bf16")
    weight_map: dict[str, str] = {}
    for shard in sorted(model.glob("*.safetensors")):
        tensors = {name: part for key, tensor in load_file(shard).items() for name, part in _rounded(key, tensor).items()}
        save_file(tensors, out / shard.name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, shard.name)
    if not any(name.endswith("_scale") for name in weight_map):
        raise InputError(
            f"{model} has no matrices in blocks named `layers`", do="export safetensors, and round that folder by another tool"
        )
    for path in model.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name not in _OURS and not path.name.endswith(".sig"):
            shutil.copyfile(path, out / path.name)
    if (model / _INDEX).is_file():
        total = {"total_size": sum((out / name).stat().st_size for name in set(weight_map.values()))}
        (out / _INDEX).write_text(json.dumps({"metadata": total, "weight_map": weight_map}, indent=2), encoding="utf-8")
    (out / "config.json").write_text(json.dumps(config | {"quantization_config": _described()}, indent=2) + "\n", encoding="utf-8")


def _rounded(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """The tensor as it is, or in 8 bits with its scales `(rows, 1)`."""
    if tensor.dim() != 2 or not _IN_BLOCKS.fullmatch(name) or name.split(".")[-2] in _ROUTERS:
        return {name: tensor}
    assert _SCHEME.weights is not None
    low, high = tensor.amin(1, keepdim=True), tensor.amax(1, keepdim=True)
    scale, zero = calculate_qparams(low, high, _SCHEME.weights)
    eighths = quantize(tensor, scale, zero, _SCHEME.weights, dtype=torch.float8_e4m3fn)
    return {name: eighths, f"{name}_scale": scale}


def _described() -> dict[str, object]:
    said = QuantizationConfig(
        config_groups={"group_0": _SCHEME}, format="float-quantized", quantization_status=QuantizationStatus.COMPRESSED, ignore=_IGNORED
    )
    described: dict[str, object] = json.loads(said.model_dump_json())
    return described
