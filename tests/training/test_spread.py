"""Two processes under gloo train what one trains: ranks and trainers are the real ones, and each is a fork that imports nothing anew."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.fakes_training import TinyLine, sft_section
from training.environment import stage_environment
from training.preference import train_preference
from training.preference_section import PreferenceSection
from training.progress import silent
from training.records import AdapterArtifact
from training.sft import train_sft

PROGRAM = Path(__file__).parents[1] / "fakes_spread.py"
SECTION = {"dropout": 0.0, "epochs": 1, "batch_size": 8, "r": 8}
PAIRS = PreferenceSection(learning_rate=1e-2, epochs=1, batch_size=8)
CLOSE = 2e-3  # the same sums in bf16, rounded in another order


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
    together(tiny, root, json.dumps(SECTION), PAIRS.model_dump_json())
    return {"sft": (root / "sft", root / "sft-two"), "dpo": (root / "dpo", root / "dpo-two")}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_two_processes_make_the_steps_of_one(pairs: dict[str, tuple[Path, Path]], stage: str) -> None:
    one, two = (AdapterArtifact.read(folder) for folder in pairs[stage])

    assert (one.processes, two.processes) == (1, 2)
    assert two.steps == one.steps
    assert two.first_loss == pytest.approx(one.first_loss, rel=CLOSE)
    assert two.last_loss == pytest.approx(one.last_loss, rel=CLOSE)
    if stage == "sft":
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
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
