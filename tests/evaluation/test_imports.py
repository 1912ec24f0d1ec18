import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "lm_eval", "vllm", "prefect", "datasets")


def test_judging_does_not_load_the_gpu_stack() -> None:
    modules = ("scoring", "gate", "report", "report_markdown", "review_app", "review_close", "parity", "rules", "lm_eval_process")
    imports = ", ".join(f"evaluation.{name}" for name in modules)
    code = f"import sys; import {imports}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
