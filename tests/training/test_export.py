"""Each export is the model, read back by its format's own reader; what cannot be made is refused by name."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from training.errors import InputError
from training.export import FORMS, export_model, require_form
from training.export_gguf_tokenizer import _SPLITS, name_of_rule
from training.records import digest_files

WIDTH, HEADS, KEY_HEADS, INNER, TOKENS = 32, 4, 2, 24, 260
SHAPES = {
    "model.embed_tokens.weight": (TOKENS, WIDTH),
    "model.norm.weight": (WIDTH,),
    "model.layers.0.self_attn.q_proj.weight": (WIDTH, WIDTH),
    "model.layers.0.self_attn.k_proj.weight": (WIDTH // 2, WIDTH),
    "model.layers.0.self_attn.v_proj.weight": (WIDTH // 2, WIDTH),
    "model.layers.0.self_attn.o_proj.weight": (WIDTH, WIDTH),
    "model.layers.0.mlp.down_proj.weight": (WIDTH, INNER),
}
BIASES = {"model.layers.0.self_attn.q_proj.bias": (WIDTH,)}
BYTE_LEVEL = {"type": "ByteLevel", "use_regex": False}


def write_model(folder: Path, kind: str, **changes: Any) -> dict[str, np.ndarray[Any, Any]]:
    """A model in two shards with a tokenizer; returns its weights as bf16 bits."""
    folder.mkdir()
    chance = np.random.default_rng(5)
    shapes = SHAPES | (BIASES if kind == "qwen2" else {})
    values = {name: chance.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    bits = {name: (value.view(np.uint32) >> 16).astype(np.uint16) for name, value in values.items()}
    for number, names in enumerate((list(bits)[::2], list(bits)[1::2])):
        header, start = {}, 0
        for name in names:
            header[name] = {"dtype": "BF16", "shape": list(bits[name].shape), "data_offsets": [start, start + bits[name].nbytes]}
            start += bits[name].nbytes
        text = json.dumps(header).encode()
        body = b"".join(bits[name].tobytes() for name in names)
        (folder / f"model-{number}.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    config = {
        "model_type": kind, "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS, "hidden_size": WIDTH,
        "intermediate_size": INNER, "vocab_size": TOKENS, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "bos_token_id": 1,
        "eos_token_id": [2, 1], "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | changes))
    vocabulary = {f"t{number}": number for number in range(TOKENS - 2)}
    added = [{"id": 2, "content": "<|im_end|>", "special": True}, {"id": 3, "content": "<tool>", "special": False}]
    tokenizer = {
        "pre_tokenizer": BYTE_LEVEL | {"use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["t", "1"], ["t", "2"]]},
        "added_tokens": added,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return bits


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_gguf_holds_the_very_weights_under_its_own_names(tmp_path: Path, kind: str) -> None:
    """The rotary pairs of llama lie side by side in GGUF: row i of a head's first half goes to 2i, row i of its second to 2i + 1."""
    bits = write_model(tmp_path / "model", kind)

    out = export_model(tmp_path / "model", "gguf", tmp_path / "out")

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA if kind == "llama" else gguf.MODEL_ARCH.QWEN2, 1)
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(out / "model.gguf").tensors}
    assert len(read) == len(bits)
    for name, wanted in bits.items():
        tensor = read[names.get_name(name, try_suffixes=(".weight", ".bias"))]
        assert tensor.tensor_type.name == ("F32" if wanted.ndim == 1 else "BF16")
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if kind == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads, half = (HEADS if ".q_proj." in name else KEY_HEADS), WIDTH // HEADS // 2
            pairs = values.reshape(heads, half, 2, WIDTH)
            values = np.concatenate([pairs[:, :, 0], pairs[:, :, 1]], axis=1).reshape(values.shape)
        assert np.array_equal(values, (wanted.astype(np.uint32) << 16).view(np.float32))


def test_q8_0_rounds_matrices_to_half_a_step_of_each_32_numbers_and_leaves_what_is_not_whole_blocks(tmp_path: Path) -> None:
    """A block's step is its largest number over 127, itself kept in 16 bits; rows of down_proj are 24 wide, which is no block of 32."""
    bits = write_model(tmp_path / "model", "qwen2")

    reader = gguf.GGUFReader(export_model(tmp_path / "model", "gguf-q8_0", tmp_path / "out") / "model.gguf")

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 1)
    read = {tensor.name: tensor for tensor in reader.tensors}
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q8_0
    for name, wanted in bits.items():
        tensor = read[names.get_name(name, try_suffixes=(".weight", ".bias"))]
        assert tensor.tensor_type.name == ("F32" if wanted.ndim == 1 else "BF16" if "down_proj" in name else "Q8_0")
        before = (wanted.astype(np.uint32) << 16).view(np.float32)
        apart = np.abs(gguf.dequantize(tensor.data, tensor.tensor_type) - before)
        if tensor.tensor_type.name != "Q8_0":
            assert not apart.any()
            continue
        largest = np.abs(before).reshape(-1, 32).max(axis=1, keepdims=True)
        assert bool((apart.reshape(-1, 32) <= largest / 127 / 2 + largest * 2**-11).all())


def test_gguf_holds_the_settings_the_tokens_and_the_template(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "llama")

    fields = gguf.GGUFReader(export_model(tmp_path / "model", "gguf", tmp_path / "out") / "model.gguf").fields

    read = {name: field.contents() for name, field in fields.items()}
    assert read["general.architecture"] == "llama"
    assert (read["llama.attention.head_count"], read["llama.attention.head_count_kv"], read["llama.rope.freq_base"]) == (4, 2, 10_000.0)
    assert (read["tokenizer.ggml.model"], read["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    tokens, kinds = read["tokenizer.ggml.tokens"], read["tokenizer.ggml.token_type"]
    assert (tokens[0], tokens[2], tokens[3], tokens[TOKENS - 1]) == ("t0", "<|im_end|>", "<tool>", f"[PAD{TOKENS - 1}]")
    assert [gguf.TokenType(kinds[number]).name for number in (0, 2, 3, TOKENS - 1)] == ["NORMAL", "CONTROL", "USER_DEFINED", "UNUSED"]
    assert read["tokenizer.ggml.merges"] == ["t 1", "t 2"]
    assert (read["tokenizer.ggml.bos_token_id"], read["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert read["tokenizer.chat_template"] == "{{ messages }}"


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "mixtral"}, "the architecture mixtral"),
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "stretched positions of type yarn"),
    ({"use_sliding_window": True}, "a sliding window"),
]


@pytest.mark.parametrize(("changes", "says"), UNKNOWN)
def test_a_model_that_llama_cpp_would_read_as_another_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    write_model(tmp_path / "model", "llama", **changes)

    with pytest.raises(InputError, match=says):
        export_model(tmp_path / "model", "gguf", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


RULES = [
    ({"type": "ByteLevel", "use_regex": True}, "gpt-2"),
    ({"pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}]}, "smollm"),
    *(
        ({"pretokenizers": [{"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}, BYTE_LEVEL]}, name)
        for rule, name in _SPLITS.items()
    ),
    ({"pretokenizers": [{"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Isolated"}, BYTE_LEVEL]}, None),
    ({"type": "Whitespace"}, None),
    (None, None),
]


@pytest.mark.parametrize(("rule", "name"), RULES)
def test_the_rule_by_which_text_is_cut_has_llama_cpps_name_or_is_refused(rule: Any, name: str | None) -> None:
    described = {"model": {"type": "BPE"}, "pre_tokenizer": rule}
    if name is not None:
        assert name_of_rule(described) == name
        return
    with pytest.raises(InputError, match="cuts text by a rule of its own"):
        name_of_rule(described)


def test_safetensors_are_the_same_bytes_with_the_record(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "llama")
    (tmp_path / "model" / "record.json").write_text("{}")

    out = export_model(tmp_path / "model", "safetensors", tmp_path / "out")

    assert digest_files(out) == digest_files(tmp_path / "model")
    assert (out / "record.json").read_text() == "{}"


def test_an_adapter_comes_with_tokenizer_and_template_and_without_the_rest(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "llama")
    (tmp_path / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "record.json"):
        (tmp_path / "adapter" / name).write_text(name)

    out = export_model(tmp_path / "model", "adapter", tmp_path / "out", tmp_path / "adapter")

    assert {path.name for path in out.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja",
    }  # fmt: skip
    assert (out / "adapter_model.safetensors").read_text() == "adapter_model.safetensors"


@pytest.mark.parametrize("form", ["awq", "gptq"])
def test_what_needs_a_package_that_is_not_here_names_it(form: str) -> None:
    with pytest.raises(InputError, match=f"{form} cannot be made here: it needs the package llmcompressor"):
        require_form(form)


def test_an_unknown_form_lists_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        require_form("onnx")
    assert all(form in str(caught.value) for form in FORMS)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "llama")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")

    with pytest.raises(InputError, match="is there already"):
        export_model(tmp_path / "model", "safetensors", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_a_base_model_has_no_adapter_to_export(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "llama")

    with pytest.raises(InputError, match="no adapter of its own"):
        export_model(tmp_path / "model", "adapter", tmp_path / "out", None)
