"""Unpacks a GGUF file into bf16 safetensors with tokenizer and chat template. Knows nothing of wheels or caches. Next: `base_model.py`."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def save_as_safetensors(gguf: Path, folder: Path) -> None:
    """Write the model in `gguf` to `folder`, the same bytes on every machine."""
    with _quiet_bars():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
        # The loader leaves the marks of a quantised model on plain weights; with them, saving is refused.
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    _forget_machine(folder)


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
