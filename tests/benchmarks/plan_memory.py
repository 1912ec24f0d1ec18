"""The plan's memory against what training takes: estimate, measured peak, and their ratio, for several methods and sizes on a CPU.

    python -m tests.benchmarks.plan_memory [--only NAME…]

Each row is a process of its own with the environment of a training stage. It loads a model of random weights, and makes three steps over
rows of exactly `max_length` tokens, half of them answers. Measured is the process's anonymous memory (RssAnon, read every 5 ms) at its
highest, less what it was after the imports, and what the weights still take that are read where they lie in their file: every step needs
them. Other pages of files, which the kernel may drop, are not in it. The estimate is `tunegate plan`'s, for the same sections and for
a machine without a GPU, parts and sum.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from training.config import ModelSection, SftSection
from training.environment import stage_environment
from training.memory import memory_parts
from training.shapes import KNOWN_SHAPES, ModelShape

SMALL = KNOWN_SHAPES["embedded:smollm2-135m-instruct"]
WIDE = SMALL.model_copy(
    update={"name": "wide", "layers": 6, "hidden": 1024, "intermediate": 2816, "heads": 16, "key_heads": 16, "vocabulary": 32_000}
)
THIN = SMALL.model_copy(update={"name": "thin", "layers": 12, "hidden": 384, "intermediate": 1024, "heads": 6, "key_heads": 2})
LORA = {"method": "lora", "r": 16, "dropout": 0.0}

# name -> shape, rows per pass, tokens per row, section
ROWS: dict[str, tuple[ModelShape, int, int, dict[str, Any]]] = {
    "135M lora": (SMALL, 4, 256, LORA),
    "135M lora, short": (SMALL, 8, 64, LORA),
    "135M lora, 512 tokens": (SMALL, 1, 512, LORA),
    "135M lora, 768 tokens": (SMALL, 1, 768, LORA),
    "135M lora, r 64": (SMALL, 2, 256, LORA | {"r": 64}),
    "135M lora, dropout": (SMALL, 2, 256, LORA | {"dropout": 0.05}),
    "135M qlora nf4": (SMALL, 4, 256, {"method": "qlora", "r": 16, "dropout": 0.0}),
    "135M dora": (SMALL, 2, 256, {"method": "dora", "r": 16, "dropout": 0.0}),
    "135M freeze 2": (SMALL, 4, 256, {"method": "freeze", "last_layers": 2}),
    "135M full": (SMALL, 1, 128, {"method": "full", "learning_rate": 1e-5}),
    "wide lora": (WIDE, 4, 128, LORA),
    "thin lora": (THIN, 8, 256, LORA),
    "thin full": (THIN, 2, 128, {"method": "full", "learning_rate": 1e-5}),
}  # fmt: skip


def anonymous_bytes() -> int:
    """Memory of this process that no file is behind."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found
    return int(found[1]) * 1024


def mapped_bytes(model: Any, folder: Path) -> int:
    """Weights of a model that lie in files of a folder, where they are read from."""
    lines = (line.split() for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines() if f" {folder}/" in line)
    spans = [tuple(int(end, 16) for end in words[0].split("-")) for words in lines]
    there = {each.data_ptr(): each.nbytes for each in model.parameters()}
    return sum(size for place, size in there.items() if any(start <= place < end for start, end in spans))


class Peak(threading.Thread):
    """Keeps the highest of many readings."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.done = 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.005):
            self.highest = max(self.highest, anonymous_bytes())


def measure(name: str, folder: Path) -> int:
    """Train three steps of a row in this process; returns what it took beyond its imports, in bytes."""
    import torch
    from transformers import AutoTokenizer

    from training.adapters import new_adapter
    from training.builders import load_base, settle
    from training.checkpoints import CheckpointFolder
    from training.devices import Ranks
    from training.progress import silent
    from training.sft import AnswerTrainer
    from training.watch import Watch

    _, rows_per_pass, length, values = ROWS[name]
    sft = SftSection.model_validate({**values, "batch_size": rows_per_pass, "epochs": 1})
    settle(sft.seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.randint(3, tokenizer.vocab_size, (3 * rows_per_pass, length)).tolist()
    rows = [{"input_ids": row, "labels": [-100] * (length // 2) + row[length // 2 :]} for row in ids]
    before, peak = anonymous_bytes(), Peak()
    peak.start()
    adapted = new_adapter(load_base(folder, sft.quantization), sft)
    with tempfile.TemporaryDirectory() as scratch:
        watch = Watch(silent, CheckpointFolder(Path(scratch), ""))
        AnswerTrainer(adapted, sft, tokenizer, rows, watch, Ranks()).train()
    peak.done.set()
    peak.join()
    return peak.highest - before + mapped_bytes(adapted, folder.resolve())


def make_model(shape: ModelShape, folder: Path) -> None:
    """A Llama of this shape with random bf16 weights, beside the tests' tiny tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tests.fakes_training import write_tiny_model

    write_tiny_model(folder)
    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads, head_dim=shape.head_dim, tie_word_embeddings=shape.tied,
        max_position_embeddings=2048,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def in_own_process(*arguments: str) -> str:
    """Run this file so; the last line it prints."""
    environment = {**os.environ, **stage_environment(len(os.sched_getaffinity(0)))}
    command = [sys.executable, "-m", "tests.benchmarks.plan_memory", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout.splitlines()[-1]


def main() -> int:
    """Print the table; 0 when every estimate is within 15 % of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make:
        make_model(ModelShape.model_validate_json(asked.make[0]), Path(asked.make[1]))
        return 0
    if asked.measure:
        print(measure(asked.measure[0], Path(asked.measure[1])))
        return 0
    print(f"{'row':<24} {'rows × tokens':>13} {'estimate MB':>11} {'measured MB':>11} {'ratio':>6}  parts of the estimate, MB")
    ratios = []
    with tempfile.TemporaryDirectory(prefix="plan-memory-") as scratch:
        for name in asked.only:
            shape, rows_per_pass, length, values = ROWS[name]
            folder = Path(scratch) / shape.name.replace(":", "-")
            if not folder.exists():
                in_own_process("--make", shape.model_dump_json(), str(folder))
            sft = SftSection.model_validate({**values, "batch_size": rows_per_pass})
            parts = memory_parts(shape, ModelSection(base="x", max_length=length), sft, gpu=False)
            measured, estimate = int(in_own_process("--measure", name, str(folder))), sum(parts.values())
            ratios.append(estimate / measured)
            said = json.dumps({part: round(size / 1e6) for part, size in parts.items()})
            print(
                f"{name:<24} {rows_per_pass:>5} × {length:<5} {estimate / 1e6:>11.0f} {measured / 1e6:>11.0f} {ratios[-1]:>6.2f}  {said}",
                flush=True,
            )
    return 0 if all(0.85 <= ratio <= 1.15 for ratio in ratios) else 1


if __name__ == "__main__":
    sys.exit(main())
