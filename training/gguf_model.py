"""Unpacks a GGUF file into bf16 safetensors with tokenizer and chat template. Knows nothing of wheels or caches. Next: `base_model.py`."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from training.errors import ModelError

# How text is cut before merging, by the name GGUF has for it; the file holds the name alone.
_RULES: dict[str, Any] = {
    "gpt-2": ByteLevel(add_prefix_space=False),
    "smollm": Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
}


def save_as_safetensors(gguf: Path, folder: Path) -> None:
    """Write the model in `gguf` to `folder`, the same bytes on every machine."""
    with _quiet_bars():
        tokenizer = _tokenizer(gguf)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
        # The loader leaves the marks of a quantised model on plain weights; with them, saving is refused.
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    _forget_machine(folder)


def _tokenizer(gguf: Path) -> PreTrainedTokenizerFast:
    """The file's tokenizer with the rule it was trained with: the loader takes GPT-2's for every file (transformers 5.19)."""
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    reader: Any = GGUFReader(gguf)
    named = reader.fields["tokenizer.ggml.pre"].contents()
    if named not in _RULES:
        raise ModelError(
            f"{gguf.name} cuts text by the rule {named!r}, which is not known here",
            why="GGUF names the rule and does not hold it; under another rule the same text becomes other tokens",
            do=f"take the model's safetensors; known rules are {', '.join(sorted(_RULES))}",
        )
    tokenizer.backend_tokenizer.pre_tokenizer = _RULES[named]
    return tokenizer


def _forget_machine(folder: Path) -> None:
    """Drop what depends on where the file was read from, so that two machines record the same digests."""
    path = folder / "tokenizer_config.json"
    settings = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("is_local", "local_files_only")}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
