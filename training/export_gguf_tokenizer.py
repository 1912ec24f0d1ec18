"""Writes a byte-level BPE tokenizer and its chat template into a GGUF file.

GGUF keeps tokens and merges, and of the rule by which text is cut before them only a name, `tokenizer.ggml.pre`: llama.cpp has the
rule itself. So the name is chosen by the very rule that stands in tokenizer.json, and an unknown rule is refused. Next: `export_gguf.py`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from training.errors import InputError

_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {_SPLIT.replace("{DIGITS}", ""): "qwen2", _SPLIT.replace("{DIGITS}", "{1,3}"): "llama-bpe"}


def add_tokenizer(writer: Any, model: Path, config: Mapping[str, Any]) -> None:
    """Add the tokenizer that lies in the folder `model`.

    Raises:
        InputError: it is not a byte-level BPE, or cuts text by a rule that llama.cpp has no name for.
    """
    described = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name_of_rule(described))
    tokens, kinds = _tokens(described, config["vocab_size"])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in described["model"]["merges"]])
    for key, add in (
        ("bos_token_id", writer.add_bos_token_id),
        ("eos_token_id", writer.add_eos_token_id),
        ("pad_token_id", writer.add_pad_token_id),
    ):
        value = config.get(key)
        if value is not None:
            add(value[0] if isinstance(value, list) else value)
    writer.add_add_bos_token(False)  # the chat template writes it where the model wants it
    if (model / "chat_template.jinja").is_file():
        writer.add_chat_template((model / "chat_template.jinja").read_text(encoding="utf-8"))


def name_of_rule(described: Mapping[str, Any]) -> str:
    """What llama.cpp calls the rule of a tokenizer.json by which text is cut before merging."""
    if described["model"].get("type") != "BPE":
        raise _unknown(f"a tokenizer of type {described['model'].get('type')}")
    rule: Any = described.get("pre_tokenizer") or {}
    steps = rule.get("pretokenizers", [rule])
    match [step.get("type") for step in steps]:
        case ["ByteLevel"] if steps[0].get("use_regex", True):
            return "gpt-2"
        case ["Digits", "ByteLevel"] if steps[0]["individual_digits"] and steps[1].get("use_regex", True):
            return "smollm"
        case ["Split", "ByteLevel"] if not steps[1].get("use_regex", True) and not steps[0].get("invert"):
            pattern = steps[0]["pattern"].get("Regex", "")
            if pattern in _SPLITS and steps[0]["behavior"] == "Isolated":
                return _SPLITS[pattern]
    raise _unknown("a tokenizer that cuts text by a rule of its own")


def _unknown(what: str) -> InputError:
    return InputError(
        f"this model cannot be written as GGUF here: {what}",
        why="GGUF names the rule and does not hold it; under a wrong name the same text becomes other tokens",
        do="export safetensors, and run llama.cpp's convert_hf_to_gguf.py on that folder",
    )


def _tokens(described: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Token and kind by id; ids of the model's vocabulary that the tokenizer never gives are unused."""
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [int(gguf.TokenType.UNUSED)] * size
    for token, number in described["model"]["vocab"].items():
        tokens[number], kinds[number] = token, int(gguf.TokenType.NORMAL)
    for added in described.get("added_tokens", []):
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], int(kind)
    return tokens, kinds
