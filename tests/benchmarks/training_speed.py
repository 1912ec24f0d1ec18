"""Useful tokens per second of LoRA training on this CPU: TRL as it comes and at its best, LLaMA-Factory, and ours over bf16 and NF4.

    python -m tests.benchmarks.training_speed --base FOLDER --data QUESTIONS.jsonl [--rows 48] [--rounds 3] [--results FILE.jsonl]
                                              [--llamafactory ENVIRONMENT]

Every way gets the same rows (question, answer; at most 512 tokens; loss on the answer), 4 rows a batch, LoRA of rank 16 on all linear
layers, one pass, the same learning rate, and a process of its own. In every round each way has its turn. A token is useful when it
is no padding. Afterwards every adapter is judged on the same held-out rows. With --results, turns are added to a file and the medians
are of all turns in it, so that rounds may be taken at different times.

    trl           SFTTrainer with SFTConfig's own defaults: fp32 weights under bf16 autocast, gradient checkpointing
    trl grouped   the same, rows of like length together
    trl best      grouped, bf16 weights, no gradient checkpointing
    factory       LLaMA-Factory with bf16 autocast, else its defaults; left out without --llamafactory (see `training_factory.py`)
    factory best  the same grouped, no gradient checkpointing
    ours padded   as ours, with the rows of a pass padded to the longest instead of one behind the other
    ours          the recipe's defaults, method lora
    ours nf4      the recipe's defaults, method qlora

The ceiling is the fastest bf16 matrix product of this machine at 2048 x 2048 x 2048, taken before each turn. The share of it counts what
the mathematics needs: 4 operations per frozen weight and token (forward, gradient of the input), 6 per adapter weight, and
the head for answer tokens alone; attention is left out. `padding` is the share of padded tokens in the batches.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.training_factory import train_there

WAYS = ("trl", "trl grouped", "trl best", "factory", "factory best", "ours padded", "ours", "ours nf4")
BATCH, LONGEST, RATE, RANK, HELD_OUT = 4, 512, 2e-4, 16, 16
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CHECKPOINT_STEPS = 100  # sft.checkpoint_every_steps, unless a recipe says otherwise
Row = dict[str, list[int]]


def main() -> int:
    """Print every turn, the medians, and which goals were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with question and answer")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--llamafactory", type=Path, metavar="ENVIRONMENT", help="a virtual environment that has it")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps({"way": asked.one, **one(asked)}))
        return 0
    turns = [json.loads(line) for line in asked.results.read_text().splitlines()] if asked.results and asked.results.exists() else []
    for _ in range(asked.rounds):
        for way in [way for way in asked.ways if asked.llamafactory or not way.startswith("factory")]:
            turns.append(turn(way, asked))
            print(json.dumps(turns[-1]), flush=True)
            if asked.results:
                with asked.results.open("a") as file:
                    file.write(json.dumps(turns[-1]) + "\n")
    return 0 if show(turns) else 1


def turn(way: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One way in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.training_speed", "--one", way, "--rows", str(asked.rows)]
    command += ["--base", str(asked.base), "--data", str(asked.data)]
    command += ["--llamafactory", str(asked.llamafactory)] if asked.llamafactory else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"TOKENIZERS_PARALLELISM": "false"})
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**said, "load": round(os.getloadavg()[0], 1)}


def show(turns: list[dict[str, Any]]) -> bool:
    """Print the medians and the goals that can be judged by these turns."""
    keys = ("tokens/s", "ceiling share", "held-out loss", "padding", "seconds")
    middle = {
        way: {key: statistics.median(turn[key] for turn in turns if turn["way"] == way) for key in keys}
        for way in WAYS
        if any(turn["way"] == way for turn in turns)
    }
    for way, figures in middle.items():
        count = sum(turn["way"] == way for turn in turns)
        print(f"{way:<12}", "  ".join(f"{key} {value:8.3f}" for key, value in figures.items()), f" ({count} turns)")
    goals: list[tuple[str, float, float, bool]] = []
    if "ours" in middle and "trl" in middle:
        goals.append(("ours against TRL's defaults", middle["ours"]["tokens/s"] / middle["trl"]["tokens/s"], 2.0, True))
        goals.append(("held-out loss, ours less TRL's", middle["ours"]["held-out loss"] - middle["trl"]["held-out loss"], 0.02, False))
    if "ours" in middle and "factory best" in middle:
        theirs = max((middle[way] for way in ("factory", "factory best") if way in middle), key=lambda figures: figures["tokens/s"])
        goals.append(("ours against LLaMA-Factory's best", middle["ours"]["tokens/s"] / theirs["tokens/s"], 1.3, True))
        goals.append(("held-out loss, ours less its", middle["ours"]["held-out loss"] - theirs["held-out loss"], 0.02, False))
    if "ours" in middle:
        goals.append(("share of the machine's bf16 ceiling", middle["ours"]["ceiling share"], 0.45, True))
        share = statistics.median(turn["checkpoint share"] for turn in turns if turn["way"] == "ours")
        goals.append((f"checkpoint every {CHECKPOINT_STEPS} steps, share of step time", share, 0.03, False))
    if "ours" in middle and "ours padded" in middle:
        goals.append(("flat rows against padded ones", middle["ours"]["tokens/s"] / middle["ours padded"]["tokens/s"], 1.0, True))
    if "ours" in middle and "ours nf4" in middle:
        goals.append(("NF4 against bf16", middle["ours nf4"]["tokens/s"] / middle["ours"]["tokens/s"], 0.9, True))
    met = [(value >= goal) if more else (value <= goal) for _, value, goal, more in goals]
    for (name, value, goal, more), fine in zip(goals, met, strict=True):
        print(f"{name:<48} {value:7.3f}  (goal {'≥' if more else '≤'} {goal}) {'met' if fine else 'MISSED'}")
    return all(met)


def read_rows(base: Path, data: Path, count: int) -> tuple[list[Row], list[Row], list[dict[str, str]]]:
    """Training rows and held-out rows, taken evenly from the file's rows that are short enough; and the training rows as they were."""
    from training.chat import render
    from training.tokenizer import load_tokenizer

    tokenizer, short, raw = load_tokenizer(base), list[Row](), list[dict[str, str]]()
    for line in data.read_text(encoding="utf-8").splitlines()[:: max(1, 5000 // (4 * (count + HELD_OUT)))]:
        row = json.loads(line)
        said = render(tokenizer, [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}])
        if len(said.input_ids) <= LONGEST:
            short.append({"input_ids": said.input_ids, "labels": said.labels})
            raw.append(row)
    if len(short) < count + HELD_OUT:
        raise SystemExit(f"{data} has only {len(short)} rows of at most {LONGEST} tokens")
    return short[:count], short[count : count + HELD_OUT], raw[:count]


def one(asked: argparse.Namespace) -> dict[str, float]:
    """Train once and say how fast, how near to the ceiling, and how good."""
    from training.builders import settle
    from training.measure import read_answers
    from training.tokenizer import load_tokenizer

    settle(7)
    train, held_out, raw = read_rows(asked.base, asked.data, asked.rows)
    ceiling = ceiling_flops()
    tokens = sum(len(row["input_ids"]) for row in train)
    with tempfile.TemporaryDirectory() as folder:
        model, figures = trained_there(asked, raw, Path(folder)) if asked.one.startswith("factory") else trained(asked, train, Path(folder))
    answers = sum(label != -100 for row in train for label in row["labels"][1:])
    held = read_answers(model.eval(), held_out, load_tokenizer(asked.base).pad_token_id)
    figures["padding"] = 1 - tokens / figures.pop("padded tokens", math.nan)
    return figures | {
        "tokens/s": tokens / figures["seconds"],
        "ceiling share": needed_flops(model, tokens, answers) / figures["seconds"] / ceiling,
        "held-out loss": math.log(held.perplexity()),
        "tokens": tokens,
        "ceiling GFLOPS": ceiling / 1e9,
    }


def trained(asked: argparse.Namespace, rows: list[Row], folder: Path) -> tuple[Any, dict[str, float]]:
    """The model that TRL or we trained, and what the clock says."""
    trainer = (our_trainer if asked.one.startswith("ours") else trl_trainer)(asked.one, asked.base, rows, folder)
    clock = clock_of(trainer)
    trainer.train()
    step_s = clock.training_s / trainer.state.global_step
    return trainer.model, {
        "seconds": clock.training_s,
        "padded tokens": clock.padded_tokens,
        "checkpoint share": clock.saving_s / max(clock.checkpoints, 1) / (CHECKPOINT_STEPS * step_s),
    }


def trained_there(asked: argparse.Namespace, rows: list[dict[str, str]], folder: Path) -> tuple[Any, dict[str, float]]:
    """The model that LLaMA-Factory trained, and the seconds it tells; its padding is not told."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    settings = {
        "lora_rank": RANK, "lora_alpha": 32, "cutoff_len": LONGEST + 32, "per_device_train_batch_size": BATCH, "num_train_epochs": 1,
        "learning_rate": RATE, "lr_scheduler_type": "cosine", "warmup_ratio": 0.03, "seed": 7,
    }  # fmt: skip
    seconds = train_there(asked.llamafactory, asked.base, rows, best=asked.one == "factory best", settings=settings, out=folder)
    model = AutoModelForCausalLM.from_pretrained(asked.base, dtype=torch.bfloat16)
    return PeftModel.from_pretrained(model, str(folder)), {"seconds": seconds}


def clock_of(trainer: Any) -> Any:
    """Times a trainer: its steps without its checkpoints, and one checkpoint; counts what the batches hold."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        training_s, saving_s, checkpoints, padded_tokens = 0.0, 0.0, 0, 0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.training_s = -time.perf_counter()

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            self.training_s += time.perf_counter() - self.saving_s

        def loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.padded_tokens += inputs["input_ids"].numel() if trainer.model.training else 0
            return compute_loss(model, inputs, *args, **kwargs)

        def save(self, *args: Any, **kwargs: Any) -> None:
            self.saving_s += timed(lambda: save(*args, **kwargs))
            self.checkpoints += 1

        def seal(self, step: int) -> None:
            self.saving_s += timed(lambda: seal(step))

    clock = Clock()
    compute_loss, save = trainer.compute_loss, trainer._save_checkpoint
    trainer.compute_loss, trainer._save_checkpoint = clock.loss, clock.save
    if hasattr(trainer, "watch"):  # ours are flushed, hashed and renamed beside that
        seal = trainer.watch.checkpoints.seal
        trainer.watch.checkpoints.seal = clock.seal
    trainer.add_callback(clock)
    return clock


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def our_trainer(way: str, base: Path, rows: list[Row], folder: Path) -> Any:
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

    section = SftSection(
        method="qlora" if way == "ours nf4" else "lora", r=RANK, dropout=0.0, learning_rate=RATE, epochs=1, batch_size=BATCH,
        checkpoint_every_steps=CHECKPOINT_STEPS,
    )  # fmt: skip
    adapted = new_adapter(load_base(base, section.quantization), section)
    checkpoints = CheckpointFolder(folder, "benchmark")
    checkpoints.open()
    trainer = AnswerTrainer(adapted, section, load_tokenizer(base), rows, Watch(silent, checkpoints), Ranks())
    if way == "ours padded":
        trainer.collate_passes = None
    return trainer


def trl_trainer(way: str, base: Path, rows: list[Row], folder: Path) -> Any:
    """TRL's own trainer with TRL's own loss, on the same tokens."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    grouped = {"train_sampling_strategy": "group_by_length", "length_column_name": "length"} if way != "trl" else {}
    best = {"gradient_checkpointing": False} if way == "trl best" else {}
    arguments = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE, lr_scheduler_type="cosine",
        warmup_steps=0.03, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, seed=7, data_seed=7, max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True}, **grouped, **best,
    )  # fmt: skip
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16) if way == "trl best" else str(base),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(r=RANK, lora_alpha=32, target_modules=list(LAYERS), task_type="CAUSAL_LM"),
    )


def ceiling_flops() -> float:
    """Operations per second of this machine's fastest bf16 matrix product of a usual size."""
    import torch

    size = 2048
    left, right = (torch.randn(size, size).to(torch.bfloat16) for _ in range(2))
    left @ right
    return 2 * size**3 / min(timed(lambda: left @ right) for _ in range(8))


def needed_flops(model: Any, tokens: int, answers: int) -> float:
    """What the training step's mathematics asks for, attention apart."""
    linear = [(name, weight.numel()) for name, weight in model.named_parameters() if weight.dim() == 2]
    adapters = sum(size for name, size in linear if "lora_" in name)
    frozen = sum(size for name, size in linear if any(f"{layer}." in name for layer in LAYERS) and "lora_" not in name)
    head = model.get_output_embeddings().weight.numel()
    return float(tokens * (4 * frozen + 6 * adapters) + answers * 4 * head)


if __name__ == "__main__":
    sys.exit(main())
