"""The streaming merge against copying the files, and against peft: time, memory of its own, and how exact the numbers are.

    python -m tests.benchmarks.merge_speed [--gigabytes 1 2] [--rounds 3] [--folder DIR]

Makes Llama models of random bf16 weights with tied embeddings in shards of a quarter of a gigabyte, and a LoRA adapter (rank 16, all
linear layers) for each. In every round each way has its turn in a process of its own, with the base in the page cache and nothing
waiting for the disk:

    copy            cp of all files, and fsync
    copy + sha256   the same, then sha256sum of the copies: what a merge with sha256 can at best be as fast as
    merge           ours: merged, hashed and on the disk
    merge unhashed  the same with the sha256 left out, to see what it costs
    peft            from_pretrained, merge_and_unload, save_pretrained; `saved` is before fsync, `on the disk` after

Imports are not counted. Memory is the highest RssAnon a process had: what it holds itself, without the page cache; its imports' share
is printed beside it. Then every merged tensor of some layers is held against an fp64 merge, in steps of bf16, and every other tensor
against the base's bytes.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

RANK, ALPHA = 16, 32
WIDTH, INNER, VOCABULARY, HEADS, KEY_HEADS = 2048, 5632, 32_000, 32, 4
LAYER_PARAMETERS = 2 * WIDTH * WIDTH + 2 * WIDTH * WIDTH * KEY_HEADS // HEADS + 3 * WIDTH * INNER + 2 * WIDTH
SHARD_BYTES = 256 << 20
LAYERS = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH * KEY_HEADS // HEADS, WIDTH),
    "self_attn.v_proj": (WIDTH * KEY_HEADS // HEADS, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
WAYS = ("copy", "copy + sha256", "merge", "merge unhashed", "peft")


def main() -> int:
    """Print a table for each size, and say which goals were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the models are made, on the disk that is to be measured")
    parser.add_argument("--one", nargs=4, metavar=("WAY", "BASE", "ADAPTER", "OUT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(asked.one[0], *map(Path, asked.one[1:]))))
        return 0
    met = True
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    for gigabytes in asked.gigabytes:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            met = measure(gigabytes, asked.rounds, Path(folder)) and met
    return 0 if met else 1


def measure(gigabytes: float, rounds: int, folder: Path) -> bool:
    """Make a model of this size, let every way have its turn `rounds` times, and print the outcome."""
    base, adapter = make_base(folder / "base", gigabytes), folder / "adapter"
    layers = json.loads((base / "config.json").read_text())["num_hidden_layers"]
    make_adapter(adapter, layers)
    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            results[way].append(turn(way, base, adapter, folder / way.replace(" ", "")))
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    print(f"\n{size / 1e9:.2f} GB in {len(list(base.glob('*.safetensors')))} shards, {layers} layers, medians of {rounds} rounds")
    middle = {way: {key: statistics.median(each[key] for each in runs) for key in runs[0]} for way, runs in results.items()}
    for way, figures in middle.items():
        print(f"  {way:<14}", "  ".join(f"{key} {value:8.2f}" for key, value in figures.items()))
    return show_goals(middle) & show_exactness(base, adapter, folder)


def show_goals(middle: dict[str, dict[str, float]]) -> bool:
    """Print each ratio beside its goal."""
    ours, peft, copied = middle["merge"], middle["peft"], middle["copy"]["on the disk s"]
    goals = [
        ("merge with sha256, against copy + fsync", ours["on the disk s"] / copied, 2.0),
        ("merge without it, against copy + fsync", middle["merge unhashed"]["on the disk s"] / copied, 1.5),
        ("merge against peft, both on the disk", ours["on the disk s"] / peft["on the disk s"], 0.5),
        ("merge on the disk against peft merely saved", ours["on the disk s"] / peft["saved s"], 0.5),
        ("anonymous memory against peft", ours["anonymous MB"] / peft["anonymous MB"], 0.15),
    ]
    for name, ratio, goal in goals:
        print(f"  {name:<50} {ratio:6.3f}  (goal {goal}) {'met' if ratio <= goal else 'MISSED'}")
    floor = ours["on the disk s"] / middle["copy + sha256"]["on the disk s"]
    print(f"  {'merge with sha256, against copy + fsync + sha256':<50} {floor:6.3f}  (no goal: both do the same to the bytes)")
    return all(ratio <= goal for _, ratio, goal in goals)


def show_exactness(base: Path, adapter: Path, folder: Path) -> bool:
    """Print how far merges are from an fp64 one, and whether untouched tensors kept their bytes."""
    ours = exactness(base, adapter, folder / "merge")
    theirs = exactness(base, adapter, folder / "peft")
    print(f"  bf16 steps from fp64: merge {ours[0]}, peft {theirs[0]}; {ours[2]} values compared")
    print(f"  untouched tensors: {ours[1]} of {ours[3]} byte-identical")
    return ours[0] <= 1 and ours[1] == ours[3] > 0


def turn(way: str, base: Path, adapter: Path, out: Path) -> dict[str, float]:
    """One way in a process of its own; its output stays for the comparison."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    command = [sys.executable, "-m", "tests.benchmarks.merge_speed", "--one", way, str(base), str(adapter), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def one(way: str, base: Path, adapter: Path, out: Path) -> dict[str, float]:
    """Run a way once and say what it took."""
    run = {"copy": copy, "merge": merge, "peft": merge_with_peft}[way.split(" ")[0]]()
    if way == "merge unhashed":
        leave_out_hashing()
    imported_mb = anonymous_mb()
    with Highest() as highest:
        started = time.perf_counter()
        run(base, adapter, out)
        saved_s = time.perf_counter() - started
        if not way.startswith("merge"):
            sync(out)
        if way == "copy + sha256":
            subprocess.run(["sha256sum", *map(str, sorted(out.glob("*.safetensors")))], check=True, stdout=subprocess.DEVNULL)
        on_disk_s = time.perf_counter() - started
    if way.startswith("copy"):
        return {"on the disk s": on_disk_s}
    return {"saved s": saved_s, "on the disk s": on_disk_s, "anonymous MB": highest.mb, "imports MB": imported_mb}


Way = Callable[[Path, Path, Path], None]


def copy() -> Way:
    """What no merge can be faster than."""

    def run(base: Path, adapter: Path, out: Path) -> None:
        subprocess.run(["cp", "-r", str(base), str(out)], check=True)

    return run


def merge() -> Way:
    """Ours, imported."""
    from training.fold import fold
    from training.updates import read_updates

    def run(base: Path, adapter: Path, out: Path) -> None:
        fold(base, read_updates(adapter), out, lambda name, tensor: tensor, lambda done, total: None)

    return run


class Unhashed:
    """Takes a hash's place."""

    def update(self, content: object) -> None:
        """Costs nothing."""

    def hexdigest(self) -> str:
        """No digest."""
        return ""


def leave_out_hashing() -> None:
    """From here on this process writes shards without their sha256."""
    from training import shard_writer

    vars(shard_writer)["hashlib"] = SimpleNamespace(sha256=Unhashed)


def merge_with_peft() -> Way:
    """As its documentation has it, imported."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def run(base: Path, adapter: Path, out: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out, max_shard_size=SHARD_BYTES)

    return run


def sync(folder: Path) -> None:
    """Wait until the files are on the disk."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


class Highest:
    """Looks at this process's anonymous memory every few milliseconds."""

    def __init__(self) -> None:
        self.mb, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Highest":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.mb = max(self.mb, anonymous_mb())


def anonymous_mb() -> float:
    """Memory of this process that no file stands behind, as the kernel counts it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def make_base(folder: Path, gigabytes: float) -> Path:
    """A Llama of random weights with tied embeddings, in shards."""
    from transformers import LlamaConfig

    folder.mkdir(parents=True)
    layers = max(1, round((gigabytes * 1e9 / 2 - VOCABULARY * WIDTH) / LAYER_PARAMETERS))
    LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=layers, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, tie_word_embeddings=True, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    shards: list[dict[str, torch.Tensor]] = [{}]
    where: dict[str, int] = {}
    for name, tensor in random_weights(layers):
        if sum(each.nbytes for each in shards[-1].values()) + tensor.nbytes > SHARD_BYTES:
            save_shard(folder, len(shards), shards[-1])
            shards[-1].clear()
            shards.append({})
        shards[-1][name], where[name] = tensor, len(shards)
    save_shard(folder, len(shards), shards[-1])
    index = {"metadata": {}, "weight_map": {name: shard_name(number) for name, number in where.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def random_weights(layers: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the model."""
    pool = torch.randn(VOCABULARY * WIDTH // 4, generator=torch.Generator().manual_seed(11)).mul_(0.02).to(torch.bfloat16)
    yield "model.embed_tokens.weight", pool.repeat(4).view(VOCABULARY, WIDTH)
    yield "model.norm.weight", drawn(pool, 0, (WIDTH,))
    for number in range(layers):
        for place, (name, shape) in enumerate(LAYERS.items()):
            yield f"model.layers.{number}.{name}.weight", drawn(pool, 1000 * number + place, shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{number}.{name}.weight", drawn(pool, number, (WIDTH,))


def drawn(pool: torch.Tensor, seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights of a usual size, from a place of the pool that differs with the seed: drawing each one anew takes a minute."""
    size = math.prod(shape)
    start = seed * 7919 % (len(pool) - size)
    return pool[start : start + size].clone().view(shape)


def save_shard(folder: Path, number: int, tensors: dict[str, torch.Tensor]) -> None:
    """Write one shard."""
    save_file(tensors, folder / shard_name(number), metadata={"format": "pt"})


def shard_name(number: int) -> str:
    """The name of a shard; the number of all is not known yet."""
    return f"model-{number:05d}.safetensors"


def make_adapter(folder: Path, layers: int) -> None:
    """A LoRA adapter with random A and B."""
    from peft import LoraConfig

    LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=[name.split(".")[1] for name in LAYERS], task_type="CAUSAL_LM").save_pretrained(
        folder
    )
    generator, tensors = torch.Generator().manual_seed(12), {}
    for number in range(layers):
        for name, (rows, columns) in LAYERS.items():
            place = f"base_model.model.model.layers.{number}.{name}"
            tensors[f"{place}.lora_A.weight"] = torch.randn(RANK, columns, generator=generator) * columns**-0.5
            tensors[f"{place}.lora_B.weight"] = torch.randn(rows, RANK, generator=generator) * 0.02
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def exactness(base: Path, adapter: Path, merged: Path) -> tuple[int, int, int, int]:
    """The most bf16 steps from fp64, untouched tensors with the same bytes, how many values were compared, and untouched tensors."""
    update, most, same, compared, untouched = load_file(adapter / "adapter_model.safetensors"), 0, 0, 0, 0
    for name, old in tensors_in(base):
        new = find(merged, name)
        place = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{place}.lora_A.weight" not in update:
            untouched += 1
            same += bool(new.view(torch.int16).equal(old.view(torch.int16)))
        elif int(name.split(".")[2]) % 4 == 0:
            a, b = (update[f"{place}.lora_{part}.weight"].double() for part in "AB")
            wanted = (old.double() + b @ a * (ALPHA / RANK)).to(torch.bfloat16)
            most, compared = max(most, int((ordered(new) - ordered(wanted)).abs().max())), compared + new.numel()
    return most, same, compared, untouched


def tensors_in(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model, one at a time."""
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                yield name, tensors.get_tensor(name)


def find(folder: Path, name: str) -> torch.Tensor:
    """One tensor of a model in shards."""
    shard = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name]
    with safe_open(folder / shard, framework="pt") as tensors:
        tensor: Any = tensors.get_tensor(name)
    assert isinstance(tensor, torch.Tensor)
    return tensor


def ordered(values: torch.Tensor) -> torch.Tensor:
    """bf16 numbers as integers that count their steps, the same order as the numbers."""
    bits = values.view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


if __name__ == "__main__":
    sys.exit(main())
