"""LLaMA-Factory trained by its own command line, in an environment of its own, on the rows of `training_speed.py`.

    uv venv OTHER && uv pip install --python OTHER llamafactory==0.9.5
    python -m tests.benchmarks.training_speed … --llamafactory OTHER

It is given raw questions and answers and its own template for the base model. Its defaults under bf16, and its best settings on a CPU
(where it refuses `pure_bf16`): rows of like length together and no gradient checkpointing. Its own clock (`train_runtime`) is believed;
the adapter it leaves is judged like all others.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The embedded model's own system prompt is part of its template there as here.
_TEMPLATE = "smollm2"
_DEFAULTS = {"bf16": True}
_BEST = {**_DEFAULTS, "train_sampling_strategy": "group_by_length", "disable_gradient_checkpointing": True, "flash_attn": "sdpa"}


def train_there(
    environment: Path, base: Path, rows: Sequence[Mapping[str, str]], *, best: bool, settings: Mapping[str, Any], out: Path
) -> float:
    """Train; the adapter is in `out` afterwards. Returns the seconds of training.

    Args:
        rows: with `question` and `answer`.
        settings: what all ways have in common, in the names of its own command line.

    Raises:
        SystemExit: it failed; its last words are told.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = [{"instruction": row["question"], "input": "", "output": row["answer"]} for row in rows]
        (folder / "rows.json").write_text(json.dumps(data), encoding="utf-8")
        (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}), encoding="utf-8")
        asked = {
            "stage": "sft", "do_train": True, "model_name_or_path": str(base), "finetuning_type": "lora", "lora_target": "all",
            "dataset": "rows", "dataset_dir": str(folder), "template": _TEMPLATE, "output_dir": str(out), "use_cpu": True,
            "report_to": "none", "save_strategy": "no", "overwrite_output_dir": True, "preprocessing_num_workers": 1,
            **settings, **(_BEST if best else _DEFAULTS),
        }  # fmt: skip
        arguments = folder / "train.yaml"  # JSON is YAML; its own reader of .json files fails
        arguments.write_text(json.dumps(asked), encoding="utf-8")
        done = subprocess.run([environment / "bin" / "llamafactory-cli", "train", str(arguments)], capture_output=True, text=True)
    results = out / "train_results.json"
    if done.returncode or not results.exists():
        raise SystemExit(f"llamafactory-cli ended with {done.returncode}:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")
    return float(json.loads(results.read_text(encoding="utf-8"))["train_runtime"])
