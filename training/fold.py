"""Folds an artefact into base weights: reads a block of rows, applies its update in fp64, rounds once to bf16, writes and hashes it.

Memory is a few blocks, however large the model, a shard or a tensor is; what no update touches keeps its bytes. A journal beside the
folder names each finished shard, so a fold that was killed goes on behind the last one. Every update must find its weight, and no
number may be infinite or NaN. Knows nothing of how good the result is. Next: `shard_writer.py`; `measure.py`.
"""

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from training.atomic import sync_tree
from training.errors import MergeError
from training.fold_journal import FoldJournal
from training.records import FileDigest
from training.shard_writer import PARTIAL, Entry, ShardWriter, read_entries
from training.updates import Update, on_disk

_TEXT_FILES = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
_NOT_COPIED = ("config.json", "record.json")
_BLOCK_BYTES = 8 << 20
_COMPUTED_NUMBERS = 1 << 20  # at once: smaller works spend their time on being handed from thread to thread
_CORES = len(os.sched_getaffinity(0))
_ROUNDED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
Weight = Callable[[str, torch.Tensor], torch.Tensor]


def fold(
    base: Path,
    updates: Mapping[str, Update],
    folder: Path,
    weight: Weight,
    advance: Callable[[int, int], None],
    config_changes: Mapping[str, Any] | None = None,
    inputs: str = "",
) -> tuple[FileDigest, ...]:
    """Write `weight(name, base tensor)` with its update for every tensor of `base` to `folder`, with all that serving needs.

    `weight` gives the tensor to change: the base's own, or the values it is rounded to in training. `advance` is told
    (tensors done, tensors in all) after each shard. `config_changes` go into config.json. `inputs` is the digest of all that the
    outcome depends on: shards that a killed fold of the same inputs had finished are checked and kept, all else in `folder` goes.
    Returns every file's digest.

    Raises:
        MergeError: an update without its weight, shapes that do not fit, or a result that is not finite.
    """
    shards = {shard: read_entries(shard) for shard in sorted(base.glob("*.safetensors"))}
    total, done = sum(len(entries) for entries in shards.values()), 0
    found = _found_on_disk(updates, {entry.name for entries in shards.values() for entry in entries})
    with FoldJournal(folder, inputs) as journal, _workers() as pool:
        for leftover in folder.glob(f"*{PARTIAL}"):
            leftover.unlink()
        for shard, entries in shards.items():
            if not journal.has(shard.name):
                journal.add(_fold_shard(shard, entries, found, folder / shard.name, weight, pool))
            done += len(entries)
            advance(done, total)
        copy_text_files(base, folder, config_changes or {})
        sync_tree(folder)
        return tuple(journal.digest_of(path) for path in sorted(folder.iterdir()))


def _found_on_disk(updates: Mapping[str, Update], names: set[str]) -> dict[str, Update]:
    found = on_disk(updates, names)
    if strangers := found.keys() - names:
        raise MergeError(
            f"{len(strangers)} of {len(updates)} adapter updates found no weight in the base, the first is {min(strangers)}",
            why="the merged model would lack what those layers learned",
            do="merge with the base model that the adapter was trained on; tied or renamed weights cannot carry an adapter",
        )
    return found


def _workers() -> ThreadPoolExecutor:
    """Each core computes a block of its own: sharing one, they would wait for each other as long as it takes."""
    return ThreadPoolExecutor(_CORES, initializer=partial(torch.set_num_threads, 1))


def _fold_shard(
    shard: Path, entries: list[Entry], updates: Mapping[str, Update], path: Path, weight: Weight, pool: ThreadPoolExecutor
) -> FileDigest:
    announced = [Entry(entry.name, "BF16" if entry.dtype in _ROUNDED else entry.dtype, entry.shape) for entry in entries]
    with ShardWriter(path, announced) as writer, safe_open(shard, framework="pt") as tensors:
        works = (
            work
            for entry in entries
            for work in _blocks(entry.name, weight(entry.name, tensors.get_tensor(entry.name)), updates.get(entry.name))
        )
        for block in _in_order(pool, works):
            writer.put(block.contiguous().view(-1).view(torch.uint8).numpy())
        return writer.finish()


def _in_order(pool: ThreadPoolExecutor, works: Iterable[Callable[[], torch.Tensor]]) -> Iterator[torch.Tensor]:
    """What each work gives, one after the other; a few are computed ahead."""
    ahead = deque[Future[torch.Tensor]]()
    for work in works:
        ahead.append(pool.submit(work))
        if len(ahead) > 2 * _CORES:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _blocks(name: str, weight: torch.Tensor, update: Update | None) -> Iterator[Callable[[], torch.Tensor]]:
    """The work that gives the new tensor, some rows at a time."""
    if update is not None:
        _require_foldable(name, weight)
        update.check(name, weight)
    if weight.numel() == 0:
        return
    whole = weight.reshape(1) if weight.dim() == 0 else weight
    row_numbers = max(whole[0].numel(), 1)
    rows_at_once = max(1, (_BLOCK_BYTES // whole.element_size() if update is None else _COMPUTED_NUMBERS) // row_numbers)
    for start in range(0, len(whole), rows_at_once):
        rows = slice(start, start + rows_at_once)
        yield partial(_rounded, whole[rows]) if update is None else partial(_updated, name, whole[rows], update, rows)


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    return weight.to(torch.bfloat16) if weight.dtype in _ROUNDED.values() else weight


def _require_foldable(name: str, weight: torch.Tensor) -> None:
    if weight.dtype not in _ROUNDED.values():
        raise MergeError(
            f"{name} is stored as {weight.dtype}, and an update is added to plain floating-point weights only",
            do="choose a base model that is not quantised; `sft.quantization` rounds it while it is trained",
        )


def _updated(name: str, weight: torch.Tensor, update: Update, rows: slice) -> torch.Tensor:
    merged = update.apply(weight.to(torch.float64, copy=True), rows).to(torch.bfloat16)
    low, high = torch.aminmax(merged)  # both are NaN when one number is
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise MergeError(
            f"{name} is not finite after the merge", why="the model would answer with noise", do="train again with a lower learning rate"
        )
    return merged


def copy_text_files(base: Path, folder: Path, config_changes: Mapping[str, Any]) -> None:
    """Tokenizer, chat template, generation defaults and the shard index as they are; the configuration as plain bf16, changed."""
    for pattern in _TEXT_FILES:
        for path in base.glob(pattern):
            if path.name not in _NOT_COPIED:
                shutil.copyfile(path, folder / path.name)
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    config |= {"dtype": "bfloat16", **config_changes}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
