from pathlib import Path

import pytest

from training.checkpoints import CheckpointFolder


def sealed(root: Path, *steps: int, inputs: str = "recipe") -> CheckpointFolder:
    checkpoints = CheckpointFolder(root, inputs)
    checkpoints.open()
    for step in steps:
        written = checkpoints.staging / f"checkpoint-{step}"
        written.mkdir()
        (written / "adapter_model.safetensors").write_bytes(b"weights" * step)
        (written / "trainer_state.json").write_text("{}")
        checkpoints.seal(step)
    return checkpoints


def test_the_newest_sealed_checkpoint_is_resumed(tmp_path: Path) -> None:
    newest = sealed(tmp_path, 5, 100).newest_valid()

    assert newest is not None
    assert newest.name == "step-00000100"


def test_only_two_are_kept(tmp_path: Path) -> None:
    sealed(tmp_path, 5, 10, 15)

    assert sorted(folder.name for folder in tmp_path.glob("step-*")) == ["step-00000010", "step-00000015"]


@pytest.mark.parametrize("harm", ["truncate", "flip", "delete", "add", "no manifest", "torn manifest"])
def test_a_damaged_newest_one_is_passed_over(tmp_path: Path, harm: str) -> None:
    checkpoints = sealed(tmp_path, 5, 10)
    newest = tmp_path / "step-00000010"
    weights, manifest = newest / "adapter_model.safetensors", newest / "manifest.json"
    match harm:
        case "truncate":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "flip":
            weights.write_bytes(weights.read_bytes()[:-1] + b"X")
        case "delete":
            weights.unlink()
        case "add":
            (newest / "extra").touch()
        case "no manifest":
            manifest.unlink()
        case "torn manifest":
            manifest.write_text(manifest.read_text()[:30])

    valid = checkpoints.newest_valid()

    assert valid is not None
    assert valid.name == "step-00000005"


def test_a_checkpoint_of_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    sealed(tmp_path, 5, inputs="one recipe")

    assert CheckpointFolder(tmp_path, "another recipe").newest_valid() is None


def test_what_a_killed_run_was_writing_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = sealed(tmp_path)
    (checkpoints.staging / "checkpoint-5").mkdir()

    assert checkpoints.newest_valid() is None
    checkpoints.open()
    assert not any(checkpoints.staging.iterdir())
