"""Imports point one way, and what is light stays light."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.checkout import ROOT

GPU_STACK = ("torch", "transformers", "peft", "trl", "bitsandbytes", "vllm")
# What judging imports is looked at in tests/evaluation/test_imports.py.
LIGHT = (
    "training.config",
    "training.records",
    "training.data.gather",
    "serving.server",
    "monitoring.provisioning",
    "flows.recipe",
    "flows.views",
)

# Each process that takes callers holds these for as long as it lives: whoever adds one, weighs it first (bound: 80 MB a worker under load).
IN_EVERY_WORKER = {
    "annotated_types", "cython_runtime", "dotenv", "greenlet", "httptools", "orjson", "prometheus_client", "pydantic", "pydantic_core",
    "pydantic_settings", "sqlalchemy", "typing_extensions", "typing_inspection", "uvloop",
}  # fmt: skip


def heavy_after_importing(modules: tuple[str, ...], heavy: tuple[str, ...]) -> list[str]:
    """The heavy packages that a fresh interpreter has loaded after importing these modules."""
    code = f"import sys, {', '.join(modules)}; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.split()


def test_the_import_contracts_hold() -> None:
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.search(r"Contracts: (\d+) kept, 0 broken", done.stdout)
    looked_at = re.search(r"Analyzed (\d+) files", done.stdout)
    assert counts is not None
    assert int(counts[1]) >= 3
    assert looked_at is not None
    assert int(looked_at[1]) > 80


@pytest.mark.parametrize("module", ["serving.gateway", "flows.cli"])
def test_what_answers_at_once_loads_neither_the_gpu_stack_nor_prefect(module: str) -> None:
    assert heavy_after_importing((module,), (*GPU_STACK, "prefect")) == []


def test_no_light_module_loads_them_either() -> None:
    assert heavy_after_importing(LIGHT, (*GPU_STACK, "prefect")) == []


def test_a_gateway_worker_loads_nothing_but_what_callers_need() -> None:
    code = "import sys, serving.gateway_worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = done.stdout.split()
    foreign = {name.partition(".")[0] for name in loaded if not name.startswith("_")} - sys.stdlib_module_names
    assert foreign - {"serving", "training", "evaluation"} == IN_EVERY_WORKER
    assert [name for name in loaded if name.startswith("evaluation.")] == ["evaluation.outcome"]


def test_the_check_itself_sees_a_heavy_import() -> None:
    assert heavy_after_importing(("json", "decimal"), ("decimal", "torch")) == ["decimal"]
