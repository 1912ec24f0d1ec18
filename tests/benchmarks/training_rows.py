"""Seconds of a training pass over padded rows and over the same rows behind each other, for a recipe's rows and for rows of given shapes.

    python -m tests.benchmarks.training_rows --base FOLDER [--data ROWS.jsonl] [--system TEXT] [--passes 16] [--batch 8]

One process, one model (QLoRA of rank 16 over NF4, as the demo has it): every pass is made both ways, forward and backward, which way first
taking turns, so that whatever else the machine does falls on both. Shapes are passes of `rows x tokens`, all of one length, where
padding costs nothing and only the way matters. Above 1.00 flat rows are faster. Prints the padding too: what flat rows save.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES = ((8, 32), (8, 64), (8, 128), (4, 128), (4, 256), (2, 512), (4, 512), (1, 512))


def main() -> int:
    """Print a line for the recipe's rows and one for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, default=Path("flows/recipes/clinic_en/sft.jsonl"), help="rows with messages, or instruction and output"
    )
    parser.add_argument("--system", default="You are a careful clinic assistant.")
    parser.add_argument("--passes", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, help="of the base model's, the first so many: less work for the same question")
    parser.add_argument("--shapes", action=argparse.BooleanOptionalAction, default=True, help="measure shapes besides the recipe's rows")
    parser.add_argument("--cpu-time", action="store_true", help="count seconds of CPU instead of seconds: for one thread on a busy machine")
    asked = parser.parse_args()
    import torch

    from training.builders import settle

    settle(7)
    clock = time.process_time if asked.cpu_time else time.perf_counter
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    rows = recipe_rows(asked)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(asked, rows, Path(folder))
        print(f"{'rows':<24}{'padding':>8}{'padded s':>10}{'flat s':>10}{'ratio':>8}{'tokens/s':>18}")
        batches = [[rows[number] for number in batch] for batch in order_of(rows, asked.batch)][: asked.passes]
        show(f"{asked.data.parent.name} x {asked.batch}", batches, compared(trainer, batches, clock))
        for count, length in SHAPES if asked.shapes else ():
            batches = [shaped(rows, count, length)] * max(4, asked.passes // 2)
            show(f"{count} x {length}", batches, compared(trainer, batches, clock))
    return 0


def recipe_rows(asked: argparse.Namespace) -> list[dict[str, list[int]]]:
    """The file's rows as the prepare stage renders them."""
    from training.chat import render
    from training.tokenizer import load_tokenizer

    tokenizer, rows = load_tokenizer(asked.base), []
    for line in asked.data.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        turns = row.get("messages") or [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
        said = render(tokenizer, [{"role": "system", "content": asked.system}, *turns])
        rows.append({"input_ids": said.input_ids, "labels": said.labels})
    return rows


def order_of(rows: list[dict[str, list[int]]], batch: int) -> list[list[int]]:
    """Row numbers of the passes of an epoch."""
    from training.devices import Ranks
    from training.step_batches import StepBatches

    return list(StepBatches([len(row["input_ids"]) for row in rows], batch, 1, 7, Ranks()))


def shaped(rows: list[dict[str, list[int]]], count: int, length: int) -> list[dict[str, list[int]]]:
    """`count` rows of `length` tokens, a third of them prompt, cut from real ones."""
    ids = [token for row in rows for token in row["input_ids"]]
    cut = [(ids * (1 + count * length // len(ids)))[number * length : (number + 1) * length] for number in range(count)]
    return [{"input_ids": each, "labels": [-100] * (length // 3) + each[length // 3 :]} for each in cut]


def trainer_of(asked: argparse.Namespace, rows: list[dict[str, list[int]]], folder: Path) -> Any:
    """As the sft stage builds it."""
    from training.adapters import new_adapter
    from training.builders import load_base
    from training.checkpoints import CheckpointFolder
    from training.config import SftSection
    from training.devices import Ranks
    from training.progress import silent
    from training.sft import AnswerTrainer
    from training.tokenizer import load_tokenizer
    from training.watch import Watch

    section = SftSection(r=16, dropout=0.0, batch_size=asked.batch)
    changes = {"num_hidden_layers": asked.layers} if asked.layers else None
    adapted = new_adapter(load_base(asked.base, section.quantization, config_changes=changes), section)
    return AnswerTrainer(adapted, section, load_tokenizer(asked.base), rows, Watch(silent, CheckpointFolder(folder, "benchmark")), Ranks())


def compared(trainer: Any, batches: list[list[dict[str, list[int]]]], clock: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Seconds of each pass, padded and flat."""
    from training.flat_rows import collator

    pad = trainer.processing_class.pad_token_id
    ways = [collator(pad, flat=False), collator(pad, flat=True)]
    seconds: tuple[list[float], list[float]] = ([], [])
    trainer.model.train()
    for way in (0, 1):  # once for nothing: the libraries choose their kernels
        one(trainer, ways[way](batches[0]), clock)
    for number, batch in enumerate(batches):
        for way in (0, 1) if number % 2 else (1, 0):
            seconds[way].append(one(trainer, ways[way](batch), clock))
    return seconds


def one(trainer: Any, inputs: dict[str, Any], clock: Callable[[], float]) -> float:
    """Seconds of the forward and backward pass."""
    started = clock()
    trainer.compute_loss(trainer.model, inputs).backward()
    seconds = clock() - started
    trainer.model.zero_grad()
    return seconds


def show(name: str, batches: list[list[dict[str, list[int]]]], seconds: tuple[list[float], list[float]]) -> None:
    """One line: the sums of all passes' medians."""
    lengths = [[len(row["input_ids"]) for row in batch] for batch in batches]
    tokens, places = sum(map(sum, lengths)), sum(len(each) * max(each) for each in lengths)
    padded, flat = map(sum, seconds)
    ratio = statistics.median(one / other for one, other in zip(*seconds, strict=True))
    print(
        f"{name:<24}{1 - tokens / places:8.3f}{padded / len(batches):10.4f}{flat / len(batches):10.4f}{ratio:8.2f}"
        f"{tokens / padded:9.0f}{tokens / flat:9.0f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
