"""The command that starts vLLM for one release: every option and environment variable, with its reason. Pure.

The engine listens on loopback with a key of its own; the gateway is the only one that knows it.
Knows nothing of processes. Next: `slots.py`, which runs the command; `vllm_entry.py`, which it runs on a CPU.
"""

import json
import math
import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from serving.config import ServingSection

_GIB = 1 << 30
_ENTRY = {"cpu": "serving.vllm_entry", "gpu": "vllm.entrypoints.openai.api_server"}


@dataclass(frozen=True)
class EngineCommand:
    """`argv` to execute and `env` to add to the process's environment. Holds no secret: the key is the slot's to add."""

    argv: tuple[str, ...]
    env: dict[str, str]


def engine_command(
    model_dir: Path, release_id: str, port: int, serving: ServingSection, *, drain_s: float = 30.0, cpu_bind: str = "nobind"
) -> EngineCommand:
    """The vLLM server for one release, under the name of the release, on 127.0.0.1:`port`.

    Args:
        drain_s: seconds vLLM lets running requests finish after SIGTERM; its own default of 0 cuts live streams.
        cpu_bind: cores of an engine on a CPU, as vLLM writes them; see `Settings.cpu_bind`.

    Raises:
        ValueError: the recipe asks for what this machine's vLLM cannot do.
    """
    on_cpu = runs_on_cpu()
    argv = (
        *(sys.executable, "-m", _ENTRY["cpu" if on_cpu else "gpu"]),
        *arguments(model_dir, release_id, "127.0.0.1", port, serving, drain_s=drain_s, on_cpu=on_cpu),
    )
    return EngineCommand(argv, _environment(model_dir, serving, on_cpu, cpu_bind))


def arguments(
    model_dir: Path, release_id: str, host: str, port: int, serving: ServingSection, *, drain_s: float, on_cpu: bool
) -> tuple[str, ...]:
    """What vLLM's server is told, wherever it runs.

    Raises:
        ValueError: the recipe asks for what this kind of vLLM cannot do.
    """
    return (
        *("--model", str(model_dir), "--served-model-name", release_id),
        *("--host", host, "--port", str(port)),
        *("--dtype", serving.dtype, "--load-format", "safetensors"),
        *("--max-model-len", str(serving.max_model_len), "--max-num-seqs", str(serving.max_num_seqs)),
        *("--shutdown-timeout", str(math.ceil(drain_s)), "--disable-uvicorn-access-log"),
        *_options(serving, on_cpu),
        # Compiling costs about a minute at every start on a CPU, more than a small model wins back.
        *(("--enforce-eager",) if on_cpu else ("--gpu-memory-utilization", str(serving.gpu_memory_utilization))),
    )


def kv_cache_gib(model_dir: Path, serving: ServingSection) -> int:
    """Memory for the keys and values of `max_num_seqs` full-length requests, whole GiB, at least 1.

    Two 16-bit numbers (key and value) per layer, KV head and head dimension for every token.
    """
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    heads = int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    bytes_per_token = 2 * 2 * int(config["num_hidden_layers"]) * kv_heads * head_dim
    return max(1, math.ceil(bytes_per_token * serving.max_model_len * serving.max_num_seqs / _GIB))


def _options(serving: ServingSection, on_cpu: bool) -> tuple[str, ...]:
    """What the recipe asks for beyond vLLM's defaults, and prefix caching either way."""
    if on_cpu and serving.quantization != "none":
        raise ValueError(f"serving.quantization: {serving.quantization} needs a GPU; the CPU build of vLLM serves none")
    if serving.chat_template is not None and not serving.chat_template.is_file():
        raise ValueError(f"serving.chat_template: {serving.chat_template} is no file")
    asked = (
        *(("--quantization", serving.quantization) if serving.quantization != "none" else ()),
        *(("--tensor-parallel-size", str(serving.tensor_parallel)) if serving.tensor_parallel > 1 else ()),
        *(("--pipeline-parallel-size", str(serving.pipeline_parallel)) if serving.pipeline_parallel > 1 else ()),
        *(("--chat-template", str(serving.chat_template)) if serving.chat_template is not None else ()),
    )
    return (*asked, "--enable-prefix-caching" if serving.prefix_caching else "--no-enable-prefix-caching")


def _environment(model_dir: Path, serving: ServingSection, on_cpu: bool, cpu_bind: str) -> dict[str, str]:
    # The weights are on this disk: nothing is to be looked up elsewhere, and nothing reported.
    env = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if on_cpu:
        cpus = sorted(os.sched_getaffinity(0))
        env |= {
            "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib(model_dir, serving)),
            # vLLM's default (auto) leaves a core idle; and two slots must not be pinned to the same cores: nobind, unless somebody
            # who knows the machine says otherwise.
            "VLLM_CPU_OMP_THREADS_BIND": cpu_bind,
            "OMP_NUM_THREADS": str(len(cpus)),
            # Threads that spin for longer starve the other slot and the trainer; threads that sleep at once wake up too late
            # for operations this small.
            "GOMP_SPINCOUNT": "20000",
            # Or the first request for log-probabilities waits half a minute for a compiler.
            "TORCHDYNAMO_DISABLE": "1",
        }
    return env


def runs_on_cpu() -> bool:
    """True where the CPU build of vLLM is the one installed."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
