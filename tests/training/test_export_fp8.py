"""A model in 8-bit floats is read back by transformers, by the library that vLLM reads it with, and answers nearly as before."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.fakes_training import TinyLine, write_tiny_model
from training.errors import InputError
from training.export import export_model

LARGEST = 448.0  # of E4M3: four bits of exponent, three of mantissa
STEP = 2**-4  # half a step of three bits of mantissa, as a share of the number


@pytest.fixture(scope="module")
def exported(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(Path(tiny.base.folder), "fp8", tmp_path_factory.mktemp("fp8") / "out")


def test_matrices_of_the_blocks_have_8_bits_and_a_scale_for_each_row_and_the_rest_is_as_it_was(tiny: TinyLine, exported: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (Path(tiny.base.folder), exported))

    rounded = {name for name, tensor in after.items() if tensor.dtype == torch.float8_e4m3fn}
    assert rounded == {name for name in before if "_proj.weight" in name}
    assert after.keys() - before.keys() == {f"{name}_scale" for name in rounded}
    for name, tensor in before.items():
        if name not in rounded:
            assert tensor.equal(after[name])
            continue
        scale, found = after[f"{name}_scale"].float(), after[name].float()
        assert scale.shape == (len(tensor), 1)
        assert torch.allclose(found.abs().amax(1), torch.tensor(LARGEST))
        assert bool(((found * scale - tensor.float()).abs() <= STEP * tensor.float().abs() + scale * 2**-9).float().mean() > 0.99)


def test_transformers_reads_it_and_it_answers_nearly_as_before(tiny: TinyLine, exported: Path) -> None:
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        plain, rounded = (AutoModelForCausalLM.from_pretrained(folder)(ids).logits.float() for folder in (tiny.base.folder, exported))

    apart = float((plain - rounded).norm() / plain.norm())
    assert 0 < apart < 0.1


def test_config_says_how_it_is_rounded_and_the_record_of_the_other_model_stays_behind(tiny: TinyLine, exported: Path) -> None:
    said = json.loads((exported / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    group = said["config_groups"]["group_0"]

    assert (said["quant_method"], said["format"], "lm_head" in said["ignore"]) == ("compressed-tensors", "float-quantized", True)
    assert (group["weights"]["strategy"], group["input_activations"]["dynamic"]) == ("channel", True)
    assert {path.name for path in Path(tiny.base.folder).iterdir()} - {path.name for path in exported.iterdir()} == {"record.json"}


def test_routers_and_rounded_models_are_left_alone(exported: Path, tmp_path: Path) -> None:
    out = export_model(write_tiny_model(tmp_path / "mixture", architecture="qwen3_moe"), "fp8", tmp_path / "out")

    kinds = {name: tensor.dtype for name, tensor in load_file(out / "model.safetensors").items()}
    assert kinds["model.layers.0.mlp.gate.weight"] == torch.bfloat16
    assert kinds["model.layers.0.mlp.experts.3.up_proj.weight"] == torch.float8_e4m3fn
    with pytest.raises(InputError, match="holds rounded weights already"):
        export_model(exported, "fp8", tmp_path / "again")
