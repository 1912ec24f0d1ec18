import json
import shutil
from fractions import Fraction
from operator import mul
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.fakes_training import TinyLine, sft_section, write_tiny_model
from training.adapters import load_adapter, new_adapter, save_adapter
from training.builders import load_base, settle
from training.errors import MergeError
from training.fold import fold
from training.updates import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_updates


@pytest.fixture
def adapter(tiny: TinyLine, tmp_path: Path) -> Path:
    """An adapter whose every tensor is random, so that each one left out would show."""
    settle(5)
    adapted = new_adapter(load_base(Path(tiny.base.folder), None), sft_section())
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    save_adapter(adapted, tmp_path / "adapter", "tiny")
    return tmp_path / "adapter"


def merged(base: Path, adapter: Path, out: Path) -> Path:
    out.mkdir()
    fold(base, read_updates(adapter), out, lambda name, tensor: tensor, lambda done, total: None)
    return out


def harm(adapter: Path, change: dict[str, torch.Tensor | None]) -> None:
    tensors = {**load_file(adapter / ADAPTER_WEIGHTS), **change}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, adapter / ADAPTER_WEIGHTS)


def test_the_merged_weights_are_those_peft_merges_in_fp64(tiny: TinyLine, adapter: Path, tmp_path: Path) -> None:
    base = Path(tiny.base.folder)
    full = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    expected = load_adapter(full, adapter, trainable=True).double().merge_and_unload().to(torch.bfloat16).state_dict()

    ours = AutoModelForCausalLM.from_pretrained(merged(base, adapter, tmp_path / "out"), dtype=torch.bfloat16).state_dict()

    assert ours.keys() == expected.keys()
    assert all(ours[name].equal(expected[name]) for name in ours)


def test_where_the_parts_of_a_sum_cancel_what_is_left_is_right_to_a_step_of_bf16(tiny: TinyLine, adapter: Path, tmp_path: Path) -> None:
    """Half of the update takes a whole weight away, the other half adds some 2⁻²², which is all that is left of the sum.

    The reference is rational arithmetic. In fp32 the same sums are more than a hundred steps off.
    """
    generator = torch.Generator().manual_seed(3)
    up, down = (torch.randint(-3, 4, shape, generator=generator).float() for shape in ((64, 2), (2, 64)))
    left, right = (torch.randn(shape, generator=generator) for shape in ((64, 2), (2, 64)))
    weight, b, a = (up @ down * 2).to(torch.bfloat16), torch.cat([-up, left * 2**-22], 1), torch.cat([down, right])
    layer = "model.layers.0.self_attn.q_proj"
    harm(adapter, {f"base_model.model.{layer}.lora_{part}.weight": tensor for part, tensor in (("A", a), ("B", b))})
    base = tmp_path / "base"
    shutil.copytree(tiny.base.folder, base)
    tensors = load_file(base / "model.safetensors") | {f"{layer}.weight": weight}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})

    ours = load_file(merged(base, adapter, tmp_path / "out") / "model.safetensors")[f"{layer}.weight"]

    exact = in_steps(exactly(weight, b, a, scale=2))
    assert (in_steps(ours) - exact).abs().max() <= 1
    assert (in_steps((b @ a) * 2 + weight) - exact).abs().max() > 100


def in_steps(values: torch.Tensor) -> torch.Tensor:
    """bf16 numbers as integers that count their steps, in the order of the numbers."""
    bits = values.to(torch.bfloat16).view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def exactly(weight: torch.Tensor, b: torch.Tensor, a: torch.Tensor, scale: int) -> torch.Tensor:
    """`weight + b @ a * scale`, rounded once, to fp64."""
    rows, columns = ([[Fraction(value) for value in line] for line in matrix.tolist()] for matrix in (b, a.T))
    sums = [[sum(map(mul, row, column)) * scale for column in columns] for row in rows]
    lines = zip(weight.tolist(), sums, strict=True)
    return torch.tensor([[float(Fraction(old) + new) for old, new in zip(*line, strict=True)] for line in lines], dtype=torch.float64)


PATTERNS = {"rank_pattern": {"q_proj": 8, r"layers\.1\.mlp\.up_proj": 2}, "alpha_pattern": {"q_proj": 32, r"layers\.0\..*v_proj": 3}}


@pytest.mark.parametrize("kind", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
def test_ranks_and_alphas_of_single_layers_are_those_of_peft(tiny: TinyLine, tmp_path: Path, kind: dict[str, bool]) -> None:
    base = Path(tiny.base.folder)
    settle(6)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM", **PATTERNS, **kind)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.double().merge_and_unload().to(torch.bfloat16).state_dict()

    ours = AutoModelForCausalLM.from_pretrained(merged(base, tmp_path / "adapter", tmp_path / "out"), dtype=torch.bfloat16).state_dict()

    # peft computes DoRA's lengths in fp32: the last bit of bf16 may differ.
    limit = 2**-7 if kind.get("use_dora") else 0.0
    assert all((ours[name] - expected[name]).abs().max() <= limit * expected[name].abs().max() for name in expected)


EXPERT_PATTERNS = {
    "rank_pattern": {"experts.gate_up_proj": 2, "q_proj": 3},
    "alpha_pattern": {r"layers\.1\.mlp\.experts\.down_proj": 5, "gate_up_proj": 7},
}


@pytest.mark.parametrize("architecture", ["mixtral", "qwen3_moe"])
def test_ranks_and_alphas_of_experts_are_those_of_peft(tmp_path: Path, architecture: str) -> None:
    base = write_tiny_model(tmp_path / "base", architecture=architecture)
    settle(6)
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    kinds = {"target_modules": ["q_proj"], "target_parameters": experts, "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(r=4, **kinds, **EXPERT_PATTERNS))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.double().merge_and_unload().to(torch.bfloat16).state_dict()

    ours = AutoModelForCausalLM.from_pretrained(merged(base, tmp_path / "adapter", tmp_path / "out"), dtype=torch.bfloat16).state_dict()

    assert all((ours[name] - expected[name]).abs().max() <= 2**-7 * expected[name].abs().max() for name in expected)


def test_the_output_is_served_as_it_is(tiny: TinyLine, adapter: Path, tmp_path: Path) -> None:
    out = merged(Path(tiny.base.folder), adapter, tmp_path / "out")

    assert {path.name for path in out.iterdir()} >= {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip
    assert AutoTokenizer.from_pretrained(out).chat_template == AutoTokenizer.from_pretrained(tiny.base.folder).chat_template
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert not (out / "record.json").exists()


def test_a_base_in_several_shards_is_merged_shard_by_shard(tiny: TinyLine, adapter: Path, tmp_path: Path) -> None:
    one = merged(Path(tiny.base.folder), adapter, tmp_path / "one")
    model = AutoModelForCausalLM.from_pretrained(tiny.base.folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")

    many = merged(tmp_path / "sharded", adapter, tmp_path / "many")

    assert len(list(many.glob("*.safetensors"))) > 1
    left, right = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (one, many))
    assert all(left[name].equal(right[name]) for name in left)


def test_untied_weights_are_kept_apart(tmp_path: Path) -> None:
    line = TinyLine(tmp_path / "untied", tied=False)
    adapted = new_adapter(load_base(Path(line.base.folder), None), sft_section())
    save_adapter(adapted, tmp_path / "adapter", "tiny")

    tensors = load_file(merged(Path(line.base.folder), tmp_path / "adapter", tmp_path / "out") / "model.safetensors")

    assert not tensors["lm_head.weight"].equal(tensors["model.embed_tokens.weight"])


def test_merging_twice_gives_the_same_bytes(tiny: TinyLine, adapter: Path, tmp_path: Path) -> None:
    first, second = (merged(Path(tiny.base.folder), adapter, tmp_path / name) for name in ("one", "two"))

    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_an_update_without_its_weight_is_refused(tiny: TinyLine, adapter: Path, tmp_path: Path) -> None:
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    stray = {name.replace("layers.1", "layers.7"): tensor.clone() for name, tensor in tensors.items() if "layers.1.mlp.up_proj" in name}
    harm(adapter, dict(stray))

    with pytest.raises(MergeError, match=r"1 of 15 adapter updates .* model\.layers\.7\.mlp\.up_proj\.weight"):
        merged(Path(tiny.base.folder), adapter, tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite_is_refused(adapter: Path, value: float) -> None:
    name = next(name for name in load_file(adapter / ADAPTER_WEIGHTS) if "lora_B" in name)
    broken = load_file(adapter / ADAPTER_WEIGHTS)[name].clone()
    broken[0, 0] = value
    harm(adapter, {name: broken})

    with pytest.raises(MergeError, match="1 adapter tensors hold NaN or infinity"):
        read_updates(adapter)


def test_an_update_too_large_for_bf16_is_refused(tiny: TinyLine, adapter: Path, tmp_path: Path) -> None:
    harm(
        adapter, {name: torch.full_like(tensor, 1e20) for name, tensor in load_file(adapter / ADAPTER_WEIGHTS).items() if "q_proj" in name}
    )

    with pytest.raises(MergeError, match=r"q_proj\.weight is not finite after the merge"):
        merged(Path(tiny.base.folder), adapter, tmp_path / "out")


def test_half_a_pair_is_refused(adapter: Path) -> None:
    harm(adapter, {next(name for name in load_file(adapter / ADAPTER_WEIGHTS) if "lora_B" in name): None})

    with pytest.raises(MergeError, match="not its lora_B"):
        read_updates(adapter)


def test_a_dora_adapter_without_its_lengths_is_refused(adapter: Path) -> None:
    settings = json.loads((adapter / ADAPTER_CONFIG).read_text())
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(settings | {"use_dora": True}))

    with pytest.raises(MergeError, match="lora_magnitude_vector is missing"):
        read_updates(adapter)


@pytest.mark.parametrize("setting", [{"lora_bias": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}, {"peft_type": "LOHA"}])
def test_an_adapter_with_another_formula_is_refused(adapter: Path, setting: dict[str, object]) -> None:
    settings = json.loads((adapter / ADAPTER_CONFIG).read_text())
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(settings | setting))

    with pytest.raises(MergeError, match="is not an adapter that can be folded in"):
        read_updates(adapter)


def test_an_adapter_for_a_wider_model_is_refused(tiny: TinyLine, adapter: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny.base.folder, base)
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({**tensors, name: torch.zeros(32, 64, dtype=torch.bfloat16)}, base / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(MergeError, match=r"q_proj\.weight is \(32, 64\), its update is \(64, 64\)"):
        merged(base, adapter, tmp_path / "out")
