"""Planning and validating a recipe must not cost the import of torch."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["config", "data.refine", "records", "memory", "certificate", "environment", "progress", "errors", "atomic"]
)
def test_a_light_module_leaves_torch_out(module: str) -> None:
    program = f"import sys, training.{module}; print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"

    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert finished.stdout.strip() == "[]"
