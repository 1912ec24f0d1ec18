"""A fold that is killed goes on behind the last shard it finished."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.fold import fold
from training.records import FileDigest, digest_files
from training.updates import LowRank, Update

SHARDS, ROWS = 4, 96


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards with one weight each; nothing but their bytes matters."""
    folder = tmp_path_factory.mktemp("base")
    generator = torch.Generator().manual_seed(3)
    for number in range(SHARDS):
        tensors = {name_of(number): torch.randn(ROWS, 64, generator=generator).to(torch.bfloat16)}
        save_file(tensors, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def name_of(number: int) -> str:
    return f"layers.{number}.weight"


def updates() -> dict[str, Update]:
    generator = torch.Generator().manual_seed(4)
    return {
        name_of(number): LowRank(torch.randn(2, 64, generator=generator), torch.randn(ROWS, 2, generator=generator), 0.5)
        for number in range(SHARDS)
    }


def folded(base: Path, folder: Path, inputs: str = "same") -> tuple[list[str], tuple[FileDigest, ...]]:
    """The names of the tensors that this fold computed, and the digests of all files."""
    computed: list[str] = []

    def seen(name: str, tensor: torch.Tensor) -> torch.Tensor:
        computed.append(name)
        return tensor

    return computed, fold(base, updates(), folder, seen, lambda done, total: None, None, inputs)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.test_fold_resumed import fold, name_of, updates

def dies_in_the_third(name, tensor):
    if name == name_of(2):
        os.kill(os.getpid(), signal.SIGKILL)
    return tensor

fold(Path(sys.argv[1]), updates(), Path(sys.argv[2]), dies_in_the_third, lambda done, total: None, None, "same")
"""


def test_after_a_kill_only_the_shards_that_were_not_finished_are_made_and_the_bytes_are_those_of_an_undisturbed_fold(
    base: Path, tmp_path: Path
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(base), str(tmp_path / "out")], cwd=Path(__file__).parents[2], timeout=120)
    left = {path.name for path in (tmp_path / "out").iterdir()}

    computed, files = folded(base, tmp_path / "out")

    assert killed.returncode == -signal.SIGKILL
    assert left == {"model-0.safetensors", "model-1.safetensors", "model-2.safetensors.partial"}
    assert computed == [name_of(2), name_of(3)]
    assert files == folded(base, tmp_path / "undisturbed")[1] == digest_files(tmp_path / "out")


def test_a_finished_fold_is_made_of_nothing_but_checks(base: Path, tmp_path: Path) -> None:
    first, files = folded(base, tmp_path / "out")

    again, same = folded(base, tmp_path / "out")

    assert (len(first), again, same) == (SHARDS, [], files)


def test_a_finished_shard_with_other_bytes_is_made_again(base: Path, tmp_path: Path) -> None:
    _, files = folded(base, tmp_path / "out")
    shard = tmp_path / "out" / "model-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"X")

    computed, same = folded(base, tmp_path / "out")

    assert (computed, same) == ([name_of(1)], files)


def test_a_torn_line_of_the_journal_costs_one_shard(base: Path, tmp_path: Path) -> None:
    _, files = folded(base, tmp_path / "out")
    journal = tmp_path / "out.jsonl"
    os.truncate(journal, journal.stat().st_size - 20)

    computed, same = folded(base, tmp_path / "out")

    assert (computed, same) == ([name_of(3)], files)
    assert folded(base, tmp_path / "out") == ([], files)


@pytest.mark.parametrize("inputs", ["other", ""])
def test_of_other_or_unknown_inputs_nothing_is_kept(base: Path, tmp_path: Path, inputs: str) -> None:
    folded(base, tmp_path / "out", inputs)
    (tmp_path / "out" / "stray.txt").write_text("from before")

    computed, files = folded(base, tmp_path / "out", "same" if inputs else "")

    assert len(computed) == SHARDS
    assert "stray.txt" not in {file.path for file in files}


def test_tensors_larger_than_a_block_are_the_same_numbers_as_in_one_piece(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = folded(base, tmp_path / "whole")[1]
    monkeypatch.setattr("training.fold._BLOCK_BYTES", 64 * 2 * 7)  # seven rows: the last block is a shorter one
    monkeypatch.setattr("training.fold._COMPUTED_NUMBERS", 64 * 5)

    folded(base, tmp_path / "pieces")

    assert len(whole) == SHARDS + 1
    for number in range(SHARDS):
        one, other = (load_file(tmp_path / name / f"model-{number}.safetensors")[name_of(number)] for name in ("whole", "pieces"))
        assert (one.float() - other.float()).abs().max() <= one.float().abs().max() * 2**-8
