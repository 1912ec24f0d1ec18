from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.fakes_training import TinyLine, sft_section
from training.adapters import load_adapter, new_adapter, save_adapter, trainable_parameters
from training.builders import load_base, optimizer_name, rounding, settle
from training.config import QuantizationSection
from training.errors import ModelError

NF4 = QuantizationSection()


def bitsandbytes_model(folder: str) -> Any:
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=config, attn_implementation="sdpa")


@pytest.mark.parametrize(("shard", "storage"), [(False, torch.uint8), (True, torch.bfloat16)])
def test_weights_to_be_shared_out_are_kept_in_the_type_they_are_computed_in(shard: bool, storage: torch.dtype) -> None:
    config = rounding(NF4, shard=shard)

    assert config.bnb_4bit_quant_storage == storage
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


def test_unpacking_once_gives_the_very_numbers_bitsandbytes_computes_with(tiny: TinyLine) -> None:
    """With gradients on, as in training; without, bitsandbytes would repack its weights and take another path."""
    ids = torch.arange(3, 40)[None]
    packed, unpacked = bitsandbytes_model(tiny.base.folder), load_base(Path(tiny.base.folder), NF4)
    unpacked.set_attn_implementation("sdpa")
    packed.model.embed_tokens.weight.requires_grad_(True)

    assert torch.equal(packed(ids).logits, unpacked(ids).logits)


def test_nf4_weights_are_not_the_original_ones(tiny: TinyLine) -> None:
    original, rounded = (load_base(Path(tiny.base.folder), each).model.layers[0].mlp.up_proj.weight for each in (None, NF4))

    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded != original).float().mean() <= 1


def test_a_fresh_adapter_changes_nothing_and_only_it_is_trained(tiny: TinyLine) -> None:
    ids = torch.arange(3, 40)[None]
    model = load_base(Path(tiny.base.folder), NF4)
    before = model(ids).logits

    adapted = new_adapter(model, sft_section()).eval()

    assert torch.equal(adapted(ids).logits, before)
    assert {name.rsplit(".", 3)[-3] for name, weight in adapted.named_parameters() if weight.requires_grad} == {"lora_A", "lora_B"}


def test_an_adapter_is_saved_as_the_same_bytes_and_read_back(tiny: TinyLine, tmp_path: Path) -> None:
    for name in ("one", "two"):
        settle(3)
        adapted = new_adapter(load_base(Path(tiny.base.folder), None), sft_section())
        save_adapter(adapted, tmp_path / name, "tiny")

    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    again = load_adapter(load_base(Path(tiny.base.folder), None), tmp_path / "one", trainable=True)
    assert trainable_parameters(again) == trainable_parameters(adapted)


def test_a_target_module_that_the_model_lacks_names_those_it_has(tiny: TinyLine) -> None:
    with pytest.raises(ModelError, match="no layers called c_attn") as caught:
        new_adapter(load_base(Path(tiny.base.folder), None), sft_section(target_modules=["q_proj", "c_attn"]))

    assert "gate_proj" in caught.value.do


@pytest.mark.parametrize(
    ("choice", "gpu", "name"),
    [
        ("auto", True, "paged_adamw_8bit"),
        ("auto", False, "adamw_torch_fused"),
        ("adamw_8bit", False, "adamw_8bit"),
        ("adamw_torch", True, "adamw_torch"),
    ],
)
def test_the_optimizer_follows_the_machine_only_when_asked_to(choice: str, gpu: bool, name: str) -> None:
    assert optimizer_name(choice, gpu=gpu) == name
