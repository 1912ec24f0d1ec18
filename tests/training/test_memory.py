import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from tests.fakes_training import TinyLine, sft_section
from training.adapters import new_adapter, trainable_parameters
from training.attention import register
from training.builders import load_base
from training.config import ModelSection, SftSection
from training.errors import ModelError
from training.layouts import LAYOUTS
from training.memory import memory_parts, plan_training, steps_for
from training.preference_section import PreferenceSection
from training.served import require_servable, servable, served_architectures
from training.shapes import KNOWN_SHAPES, _shape, shape_from_config, shape_of, trainable_in
from training.step_memory import kept_per_block

QWEN = "Qwen/Qwen2.5-7B-Instruct"
MODEL = ModelSection(base=QWEN, max_length=1024)
MEDICAL = SftSection(r=64, alpha=128, learning_rate=2e-4, batch_size=1, gradient_accumulation=32, epochs=3)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("embedded:smollm2-135m-instruct", 0.1345),
        (QWEN, 7.616),
        ("meta-llama/Llama-2-13b-chat-hf", 13.016),
        ("codellama/CodeLlama-34b-Instruct-hf", 33.744),
    ],
)
def test_a_known_shape_has_the_published_number_of_parameters(name: str, billions: float) -> None:
    assert shape_of(name).parameters() / 1e9 == pytest.approx(billions, rel=2e-3)


def test_a_shape_read_from_a_folder_counts_what_the_model_has(tiny: TinyLine) -> None:
    shape = shape_of(tiny.base.folder)

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny.base.folder), dtype=torch.bfloat16)
    assert shape.parameters() == sum(weight.numel() for weight in model.parameters())


def test_trainable_parameters_are_those_peft_makes(tiny: TinyLine) -> None:
    section = sft_section(r=8, target_modules=["q_proj", "v_proj", "down_proj"])

    assert trainable_in(shape_of(tiny.base.folder), section) == trainable_parameters(
        new_adapter(load_base(Path(tiny.base.folder), None), section)
    )


SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
# architecture, what its config says besides, layers to tune
BLOCKS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("llama", {"attention_bias": True, "mlp_bias": True}, ALL),
    ("granite", {}, ALL),
    ("mistral", {"head_dim": 24}, ALL),
    ("mixtral", {"num_local_experts": 4}, ATTENTION),
    ("qwen2", {}, ALL),
    ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 40, "mlp_only_layers": [1]}, ALL),
    ("qwen3", {"head_dim": 24}, ALL),
    ("qwen3_moe", {**EXPERTS, "decoder_sparse_step": 2}, ATTENTION),
    ("gemma2", {"head_dim": 24}, ALL),
    ("gemma3_text", {"head_dim": 24, "attention_bias": True}, ALL),
    ("olmo2", {}, ALL),
    ("phi3", {}, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    ("starcoder2", {}, [*ATTENTION, "c_fc", "c_proj"]),
]


def test_every_architecture_that_can_be_planned_is_built_below() -> None:
    assert [architecture for architecture, *_ in BLOCKS] == list(LAYOUTS)


@pytest.mark.parametrize(("architecture", "more", "targets"), BLOCKS, ids=[name for name, *_ in BLOCKS])
def test_a_plan_counts_what_a_model_of_each_architecture_has(architecture: str, more: dict[str, Any], targets: list[str]) -> None:
    config = AutoConfig.for_model(architecture, **SMALL | more)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    shape = shape_from_config("small", json.loads(config.to_json_string()) | {"architectures": [type(model).__name__]})
    also = ["norms", "router"] if shape.experts else ["norms"]
    section = sft_section(method="lora", dropout=0.0, target_modules=targets, also_train=also, experts=bool(shape.experts))
    last = sft_section(method="freeze", last_layers=3, r=16, alpha=32.0, dropout=0.05)

    assert shape.parameters() == model.num_parameters()
    assert shape.bias_parameters() == sum(each.numel() for name, each in model.named_parameters() if name.endswith(".bias"))
    blocks = sum(each.numel() for name, each in model.named_parameters() if ".layers." in name)
    assert trainable_in(shape, last) == blocks
    with torch.device("meta"):
        assert trainable_in(shape, section) == trainable_parameters(new_adapter(model, section))
    assert servable(shape.served_as, section)[0]


def test_what_vllm_has_not_in_its_registry_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["T5ForConditionalGeneration"]}', encoding="utf-8")

    with pytest.raises(ModelError, match=r"'T5ForConditionalGeneration' is not among the \d+ of the installed vLLM"):
        require_servable(tmp_path, sft_section())


def test_vllms_registry_is_read_as_text_with_those_that_answer_and_no_others() -> None:
    """vLLM's own code, and what it runs by transformers' code; but no model that gives vectors or scores."""
    served = served_architectures()

    assert len(served) > 150
    assert {"LlamaForCausalLM", "Olmo2ForCausalLM", "Gemma3ForConditionalGeneration"} <= served
    assert not {"BertModel", "Qwen2ForRewardModel"} & served
    assert {"torch", "vllm"}.isdisjoint(modules_after("training.served"))


def modules_after(module: str) -> set[str]:
    """What a process of its own has imported once it knows what is served."""
    ask = f"import sys, {module}; {module}.served_architectures(); print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split())


def test_an_architecture_that_is_not_known_can_be_run_but_not_planned() -> None:
    with pytest.raises(ModelError, match="'gpt_neox' are built is not known") as caught:
        shape_from_config("odd", {**SMALL, "model_type": "gpt_neox"})
    assert "starcoder2" in caught.value.do


def test_the_7b_preset_has_the_published_adapter_size_and_fits_a_24_gb_card() -> None:
    """r 64 on the seven projections of Qwen2.5-7B: 161 480 704 trainable parameters."""
    plan = plan_training(shape_of(QWEN), MODEL, MEDICAL, rows=10_000, tokens_per_row=300)

    assert plan.trainable_parameters == 161_480_704
    assert (plan.rows_per_step, plan.steps, plan.tokens) == (32, 939, 9_000_000)
    assert 6e9 < plan.total_memory_bytes < 24e9
    assert plan.servable


@pytest.mark.parametrize(("rows", "per_step", "epochs", "steps"), [(322, 4, 2, 162), (322, 4, 0.3, 25), (1, 32, 1, 1), (None, 4, 2, None)])
def test_steps_are_counted_as_the_trainer_counts_them(rows: int | None, per_step: int, epochs: float, steps: int | None) -> None:
    assert steps_for(rows, per_step, epochs) == steps


def test_double_quantisation_saves_close_to_0_4_bits_per_weight() -> None:
    shape = shape_of(QWEN)
    plain = SftSection.model_validate({"quantization": {"double_quant": False}})

    double, single = (plan_training(shape, MODEL, each).memory_bytes["base weights"] for each in (SftSection(), plain))

    assert (single - double) * 8 / shape.linear_parameters() == pytest.approx(0.373, abs=0.01)


def test_preference_steps_are_planned_when_there_are_pairs() -> None:
    plan = plan_training(shape_of(QWEN), MODEL, MEDICAL, PreferenceSection(), rows=100, pairs=120)

    assert plan.preference_steps == 60


def test_rows_longer_than_the_models_context_are_refused_before_training() -> None:
    with pytest.raises(ModelError, match="`max_length` is 8192, the model reads at most 4096"):
        plan_training(shape_of("meta-llama/Llama-2-13b-chat-hf"), ModelSection(base="x", max_length=8192), MEDICAL)


def test_an_unknown_model_names_those_that_can_be_planned() -> None:
    with pytest.raises(ModelError) as caught:
        shape_of("acme/secret-70b")

    assert all(shape.name in caught.value.do for shape in KNOWN_SHAPES.values())


def test_a_config_without_the_sizes_names_the_missing_keys() -> None:
    with pytest.raises(ModelError, match="hidden_size, intermediate_size"):
        shape_from_config("odd", json.loads('{"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 10}'))


def kept_bytes(section: SftSection, layers: int) -> int:
    """Bytes of the tensors that autograd keeps in a forward pass over 2 rows of 48 tokens; weights are not counted."""
    config = LlamaConfig(
        vocab_size=200, hidden_size=64, intermediate_size=160, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2
    )
    model = new_adapter(AutoModelForCausalLM.from_config(config, attn_implementation=register()).bfloat16().requires_grad_(False), section)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(3, 200, (2, 48))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=1, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    "values",
    [{"method": "lora", "dropout": 0.0}, {"method": "lora", "dropout": 0.1}, {"method": "dora", "dropout": 0.0}, {"method": "full"}],
)
def test_what_a_block_keeps_on_a_cpu_is_what_autograd_keeps(values: dict[str, Any]) -> None:
    """Four layers less three: one block, and the bf16 copies of what is trained in it."""
    section = SftSection.model_validate({"r": 8, **values} if values["method"] != "full" else values)
    shape = _shape("small", "llama", (1, 64, 160, 4, 2, 16), 200, 512, tied=True)
    trained = trainable_in(shape, section) - (shape.embedding_parameters() + 64 if values["method"] == "full" else 0)

    own = kept_per_block(shape, section, 2, 48) + 2 * trained

    assert own == pytest.approx(kept_bytes(section, 4) - kept_bytes(section, 3), rel=0.05)


def test_a_gpu_that_shares_4_bit_weights_holds_its_part_all_constants_and_two_whole_blocks() -> None:
    """Qwen2.5-7B on four: half a byte a weight shared out; embedding and head, and 0.0167 bytes a weight of constants, are not."""
    shape = shape_of(QWEN)
    blocks = shape.linear_parameters()
    parts = memory_parts(shape, MODEL, MEDICAL, gpu=True, sharing=4)

    constants = 1 / 64 + 4 / (64 * 256)
    assert parts["base weights"] == pytest.approx(blocks * (0.5 / 4 + constants) + 2 * shape.other_parameters(), rel=1e-6)
    assert parts["blocks fetched whole"] == pytest.approx(2 * blocks / 28 * 0.5, rel=1e-6)


def test_memory_on_a_cpu_is_told_by_part() -> None:
    """The demo's recipe: 134.5 M weights in bf16, and its adapter, gradients apart, in fp32 three times over."""
    section = SftSection(r=16, dropout=0.0, batch_size=8, quantization=None, method="lora")
    parts = memory_parts(shape_of("embedded:smollm2-135m-instruct"), ModelSection(base="x", max_length=512), section, gpu=False)

    assert parts["base weights"] == 2 * 134_515_008
    assert parts["trained weights"] + parts["optimizer"] == 12 * 4_884_480
    assert parts["activations"] > 3 * parts["base weights"]
