"""Two processes under gloo train what one trains, each with the whole model or a part of it: real trainers, in forks of one start."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fakes_spread_losses import SHARED_OUT, write_losses
from tests.fakes_training import TinyLine, sft_section
from training.environment import stage_environment
from training.preference import train_preference
from training.preference_section import PreferenceSection
from training.progress import Progress, silent
from training.records import CHECKPOINTS, AdapterArtifact
from training.sft import train_sft

PROGRAM = Path(__file__).parents[1] / "fakes_spread.py"
SECTION = {"dropout": 0.0, "epochs": 1, "batch_size": 8, "r": 8, "checkpoint_every_steps": 1}
PAIRS = PreferenceSection(learning_rate=1e-2, epochs=1, batch_size=8)
CLOSE = 2e-3  # the same sums in bf16, rounded in another order


STAGES = ["sft", "dpo", "sft, weights shared out, from the checkpoint of one", "dpo, weights shared out"]


class Killed(Exception):
    """Ends a training in the middle."""


def until_the_last_step(progress: Progress) -> None:
    if progress.total and progress.done == progress.total:
        raise Killed


def together(tiny: TinyLine, out: Path, *asked: str) -> None:
    """Run the program, which forks the two processes: libraries are imported once."""
    environment = {**os.environ, **stage_environment(1), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(PROGRAM), str(tiny.root), str(out), *asked]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def pairs(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Folder trained alone and folder trained by two, of each stage; the two stages of two processes share one start."""
    root = tmp_path_factory.mktemp("spread")
    alone = train_sft(tiny.model, sft_section(**SECTION), tiny.base, tiny.dataset_dir, tiny.dataset, root / "sft", silent)
    parent = (root / "sft", alone)
    train_preference(tiny.model, sft_section(**SECTION), PAIRS, tiny.base, tiny.dataset_dir, tiny.dataset, *parent, root / "dpo", silent)
    with pytest.raises(Killed):
        train_sft(tiny.model, sft_section(**SECTION), tiny.base, tiny.dataset_dir, tiny.dataset, root / "sft-shared", until_the_last_step)
    assert list((root / "sft-shared" / CHECKPOINTS).glob("step-*"))
    write_losses(tiny, root / "sft", root / "losses.safetensors")
    together(tiny, root, json.dumps(SECTION), PAIRS.model_dump_json())
    return {
        "sft": (root / "sft", root / "sft-two"),
        "dpo": (root / "dpo", root / "dpo-two"),
        "sft, weights shared out, from the checkpoint of one": (root / "sft", root / "sft-shared"),
        "dpo, weights shared out": (root / "dpo", root / "dpo-shared"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_make_the_steps_of_one(pairs: dict[str, tuple[Path, Path]], stage: str) -> None:
    one, two = (AdapterArtifact.read(folder) for folder in pairs[stage])

    assert (one.processes, two.processes) == (1, 2)
    assert two.steps == one.steps
    assert two.first_loss == pytest.approx(one.first_loss, rel=CLOSE)
    assert two.last_loss == pytest.approx(one.last_loss, rel=CLOSE)
    if stage.startswith("sft"):
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_end_with_the_adapter_of_one(pairs: dict[str, tuple[Path, Path]], stage: str) -> None:
    """How far the two lie apart, against how far training has moved: B starts at zero."""
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in pairs[stage])

    assert one.keys() == two.keys()
    apart = math.sqrt(sum(float((one[name] - two[name]).square().sum()) for name in one))
    length = math.sqrt(sum(float(one[name].square().sum()) for name in one if "lora_B" in name))
    assert apart < 0.05 * length


@pytest.mark.slow
def test_the_first_process_alone_writes(pairs: dict[str, tuple[Path, Path]]) -> None:
    for _, two in pairs.values():
        assert sorted(path.name for path in two.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", "record.json"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_two_processes_that_were_killed_end_with_the_very_same_adapter(pairs: dict[str, tuple[Path, Path]], stage: str) -> None:
    """SIGKILL in the last step; the next two go on from the checkpoint before it, and DPO from what SFT ended with."""
    whole = pairs[stage][1]
    killed = whole.with_name(f"{stage}-killed")

    assert not (killed / CHECKPOINTS).exists()
    assert AdapterArtifact.read(killed).digest == AdapterArtifact.read(whole).digest


@pytest.mark.slow
def test_weights_in_four_bits_are_shared_out_and_compute_as_whole_ones(pairs: dict[str, tuple[Path, Path]]) -> None:
    """bitsandbytes' own layers, which a GPU trains with; each of two processes keeps half of every weight."""
    told = json.loads((pairs["sft"][0].parent / "rounded.json").read_text(encoding="utf-8"))

    assert told["shared loss"] == pytest.approx(told["whole loss"], rel=1e-5)
    assert told["shared gradient"] == pytest.approx(told["whole gradient"], rel=1e-5)
    assert told["shared bytes"] == told["whole bytes"] / 2 > 0


@pytest.mark.slow
@pytest.mark.parametrize(("method", "loss"), SHARED_OUT)
def test_each_preference_loss_and_its_gradient_are_those_of_one_process(
    pairs: dict[str, tuple[Path, Path]], method: str, loss: str | None
) -> None:
    """Whole passes, one with some blank pairs, and one that holds nothing else; fp32, so that only the sums' order differs."""
    root = pairs["sft"][0].parent
    one, two = (load_file(root / name) for name in ("losses.safetensors", "losses-two.safetensors"))
    name = f"{method} {loss}"

    assert len(one[f"{name} losses"]) == 2
    torch.testing.assert_close(two[f"{name} losses"], one[f"{name} losses"], rtol=1e-4, atol=0)
    apart = (two[f"{name} gradient"] - one[f"{name} gradient"]).norm()
    assert apart < 1e-3 * one[f"{name} gradient"].norm()
    assert one[f"{name} gradient"].norm() > 0
