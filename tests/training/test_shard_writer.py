import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.shard_writer import Entry, ShardWriter, read_entries


def test_what_is_written_block_by_block_is_read_by_safetensors_and_hashed_as_it_lies_there(tmp_path: Path) -> None:
    entries = [Entry("größe", "F32", (2, 3)), Entry("count", "I64", ()), Entry("none", "BF16", (0, 4)), Entry("last", "U8", (5,))]
    values = torch.arange(6, dtype=torch.float32)

    with ShardWriter(tmp_path / "one.safetensors", entries) as writer:
        writer.put(values[:2].numpy())
        writer.put(values[2:].numpy())
        writer.put(torch.tensor([7]).numpy())
        writer.put(bytes(range(5)))
        digest = writer.finish()

    read = load_file(tmp_path / "one.safetensors")
    assert read["größe"].equal(values.view(2, 3))
    assert (int(read["count"]), read["none"].shape, read["last"].tolist()) == (7, (0, 4), [0, 1, 2, 3, 4])
    content = (tmp_path / "one.safetensors").read_bytes()
    assert (digest.sha256, digest.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))


def test_the_entries_of_a_file_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    save_file({"b": torch.zeros(2), "a": torch.zeros(3, dtype=torch.int8), "c": torch.zeros(4)}, tmp_path / "x.safetensors")

    entries = read_entries(tmp_path / "x.safetensors")

    assert {(entry.name, entry.dtype, entry.shape) for entry in entries} == {("a", "I8", (3,)), ("b", "F32", (2,)), ("c", "F32", (4,))}
    assert entries[-1].name == "a"  # safetensors puts the widest types first


def write(path: Path, content: bytes, *, size: int) -> None:
    with ShardWriter(path, [Entry("a", "U8", (size,))]) as writer:
        writer.put(content)
        writer.finish()


def test_fewer_bytes_than_announced_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 bytes of tensors, not 4"):
        write(tmp_path / "x", b"123", size=4)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_to_the_caller_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.partial").symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x", b"1234", size=4)

    assert list(tmp_path.iterdir()) == []
