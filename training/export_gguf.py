"""Writes a merged model as one GGUF file, which llama.cpp and what builds on it read, by the format's own library.

Weights stay bf16, norms become fp32, so nothing is lost; or weights become Q8_0, 8 bits and a scale for each 32 of them, by the library's
own code, which gives the very bits of llama.cpp's. Whoever wants fewer quantises the file with llama.cpp. Known are the architectures
llama and qwen2 and the tokenizers that llama.cpp reads in the same way; others are refused, for a tokenizer that cuts text differently is
an error that nobody sees. A tensor at a time. Next: `gguf_model.py`, the way back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import quant_shape_to_byte_shape, quantize

from training.errors import InputError
from training.export_gguf_tokenizer import add_tokenizer

_ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}
_BF16, Q8_0 = GGMLQuantizationType.BF16, GGMLQuantizationType.Q8_0
_FILE_TYPES = {_BF16: gguf.LlamaFileType.MOSTLY_BF16, Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0}
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Tensor:
    """A bf16 tensor of a safetensors file; its values lie `start` bytes into the file."""

    file: Path
    name: str
    shape: tuple[int, ...]
    start: int

    def bits(self) -> Array:
        """Its values as 16-bit integers, read from the disk as they are touched."""
        return np.memmap(self.file, dtype=np.uint16, mode="r", offset=self.start, shape=self.shape or (1,))


def write_gguf(model: Path, path: Path, weights: GGMLQuantizationType = _BF16) -> None:
    """Write the model in the folder `model` to `path`, its matrices as `weights` where their rows can be cut into blocks of those.

    Raises:
        InputError: an architecture, a tokenizer or a setting of it that is not known to mean the same there.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    _require_known(config)
    kind = _ARCHITECTURES[config["model_type"]]
    names = gguf.get_tensor_name_map(kind, config["num_hidden_layers"])
    tensors = [tensor for shard in sorted(model.glob("*.safetensors")) for tensor in _tensors(shard)]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[kind])
    _add_settings(writer, config, weights)
    add_tokenizer(writer, model, config)
    for tensor in tensors:
        _announce(writer, _name(names, tensor.name), tensor.shape, _kind(tensor.shape, weights))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(_array(tensor, config, _kind(tensor.shape, weights)))
    writer.close()


def _tensors(shard: Path) -> list[_Tensor]:
    with shard.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        described = json.loads(file.read(length))
    described.pop("__metadata__", None)
    if odd := [name for name, each in described.items() if each["dtype"] != "BF16"]:
        raise InputError(
            f"{shard.name}: {odd[0]} is {described[odd[0]]['dtype']}, and a merged model is BF16", do="export a merged release"
        )
    return [_Tensor(shard, name, tuple(each["shape"]), 8 + length + each["data_offsets"][0]) for name, each in described.items()]


def _require_known(config: Mapping[str, Any]) -> None:
    faults = []
    if config.get("model_type") not in _ARCHITECTURES:
        faults.append(f"the architecture {config.get('model_type')} (known: {', '.join(_ARCHITECTURES)})")
    if (kind := (config.get("rope_parameters") or {}).get("rope_type", "default")) != "default":
        faults.append(f"stretched positions of type {kind}")
    if config.get("use_sliding_window"):
        faults.append("a sliding window")
    if faults:
        raise InputError(
            f"this model cannot be written as GGUF here: {'; '.join(faults)}",
            why="a file that llama.cpp reads as another model would answer, and answer wrongly",
            do="export safetensors, and run llama.cpp's convert_hf_to_gguf.py on that folder",
        )


def _kind(shape: tuple[int, ...], weights: GGMLQuantizationType) -> GGMLQuantizationType:
    """What a tensor becomes; as llama.cpp does, one whose rows are not whole blocks keeps 16 bits."""
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    return weights if shape[-1] % gguf.GGML_QUANT_SIZES[weights][0] == 0 else _BF16


def _add_settings(writer: Any, config: Mapping[str, Any], weights: GGMLQuantizationType) -> None:
    heads = config["num_attention_heads"]
    writer.add_name(config["model_type"])
    writer.add_file_type(_FILE_TYPES[weights])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)


def _name(names: Any, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise InputError(f"GGUF has no name for the weight {name}", do="export safetensors, and convert that folder with llama.cpp")
    return str(found)


def _announce(writer: Any, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> None:
    if kind is GGMLQuantizationType.F32:
        writer.add_tensor_info(name, shape, np.dtype(np.float32), int(np.prod(shape)) * 4)
    else:
        in_bytes = quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(name, in_bytes, np.dtype(np.uint8), int(np.prod(in_bytes)), raw_dtype=kind)


def _array(tensor: _Tensor, config: Mapping[str, Any], kind: GGMLQuantizationType) -> Array:
    """The tensor as the file holds it; bf16 is the upper half of fp32."""
    bits, heads = tensor.bits(), _heads_turned(tensor.name, config)
    bits = turned(bits, heads) if heads else bits
    if kind is _BF16:
        return np.ascontiguousarray(bits).view(np.uint8)
    values: Array = (bits.astype(np.uint32) << 16).view(np.float32)
    return values if kind is GGMLQuantizationType.F32 else np.asarray(quantize(values, kind))


def _heads_turned(name: str, config: Mapping[str, Any]) -> int:
    """For llama, GGUF keeps the two halves of each rotary pair side by side: how many heads' rows change places, 0 for none."""
    if config["model_type"] != "llama":
        return 0
    heads: int = config["num_attention_heads"]
    if ".q_proj." in name:
        return heads
    return (config.get("num_key_value_heads") or heads) if ".k_proj." in name else 0


def turned(rows: Array, heads: int) -> Array:
    """Rows of each head from halves one behind the other to pairs side by side: 0, d/2, 1, d/2 + 1, …"""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
