import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.fakes_training import TinyLine, sft_section
from training.environment import stage_environment
from training.errors import InputError
from training.practice.course import TENSORBOARD_SUFFIX
from training.practice.trackers import require_trackers
from training.progress import silent
from training.records import AdapterArtifact
from training.sft import train_sft


def test_a_package_that_is_not_installed_is_named_before_anything_runs(tiny: TinyLine, tmp_path: Path) -> None:
    missing = [name for name in ("mlflow", "wandb") if util.find_spec(name) is None]
    if not missing:
        require_trackers(["mlflow", "wandb"])
        return
    with pytest.raises(InputError, match=f"names {', '.join(missing)}, which is not installed here"):
        train_sft(tiny.model, sft_section(report_to=missing), tiny.base, tiny.dataset_dir, tiny.dataset, tmp_path / "out", silent)
    assert not (tmp_path / "out").exists()


def test_tensorboard_gets_every_figure_of_the_run_and_the_artefact_holds_none_of_it(tiny: TinyLine, tmp_path: Path) -> None:
    section = sft_section(epochs=1, report_to=["tensorboard"])

    artifact = train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, tmp_path / "out", silent)

    events = EventAccumulator(str(tmp_path / f"out{TENSORBOARD_SUFFIX}"))
    events.Reload()
    logged = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    for name in ("train/loss", "train/learning_rate", "train/tokens_per_s", "train/memory_bytes"):
        assert [event.step for event in logged[name]] == list(range(1, artifact.steps + 1))
    assert logged["eval/loss"][-1].value == pytest.approx(artifact.validation_loss)
    assert [file.path for file in artifact.files] == ["adapter_config.json", "adapter_model.safetensors"]


def without(package: str) -> pytest.MarkDecorator:
    """Skips, and says so, where an optional package is not installed."""
    return pytest.mark.skipif(util.find_spec(package) is None, reason=f"{package} is not installed: what it gets goes UNCHECKED")


FIGURES = ("loss", "learning_rate", "tokens_per_s", "memory_bytes")
# Ends as a stage's process does: what a package still has on its way when the training ends would be lost.
STAGE = """
import os, sys
from pathlib import Path
from tests.fakes_training import TinyLine, sft_section
from training.progress import silent
from training.sft import train_sft
tiny, section = TinyLine.of(Path(sys.argv[1])), sft_section(epochs=1, report_to=[sys.argv[3]])
train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, Path(sys.argv[2]), silent)
sys.stderr.flush()
os._exit(0)
"""


def trained(tiny: TinyLine, out: Path, tracker: str, **settings: str) -> AdapterArtifact:
    """What a stage in a process of its own leaves behind."""
    environment = {**os.environ, **stage_environment(1), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **settings}
    command = [sys.executable, "-c", STAGE, str(tiny.root), str(out), tracker]
    done = subprocess.run(command, env=environment, cwd=out.parent, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return AdapterArtifact.read(out)


@pytest.mark.slow
@without("mlflow")
def test_mlflow_has_every_figure_when_the_stages_process_has_ended(tiny: TinyLine, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path / 'runs.db'}"
    artifact = trained(tiny, tmp_path / "out", "mlflow", MLFLOW_TRACKING_URI=store, MLFLOW_EXPERIMENT_NAME="tiny")

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for name in FIGURES:
        points = sorted(client.get_metric_history(run.info.run_id, name), key=lambda point: point.step)
        assert [point.step for point in points] == list(range(1, artifact.steps + 1))
    assert client.get_metric_history(run.info.run_id, "eval_loss")[-1].value == pytest.approx(artifact.validation_loss)


@pytest.mark.slow
@without("wandb")
def test_weights_and_biases_has_every_figure_when_the_stages_process_has_ended(tiny: TinyLine, tmp_path: Path) -> None:
    """Offline: its own file, which `wandb sync` would send later, is read back."""
    artifact = trained(tiny, tmp_path / "out", "wandb", WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_PROJECT="tiny")

    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(file))
    logged = [{item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json) for item in each.history.item}
              for each in records if each.HasField("history")]  # fmt: skip
    for name in FIGURES:
        steps = [each["train/global_step"] for each in logged if f"train/{name}" in each]
        assert steps == list(range(1, artifact.steps + 1))
    (held_out,) = [each["eval/loss"] for each in logged if "eval/loss" in each]
    assert held_out == pytest.approx(artifact.validation_loss)
    assert [each.exit.exit_code for each in records if each.HasField("exit")] == [0]


def wandb_records(path: Path) -> Iterator[Any]:
    """Records of its log, in LevelDB's format: blocks of 32 KiB; a piece has a checksum, a length and whether more of it follows."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, block, record = path.read_bytes(), 7, 32768, b""  # 7 bytes name the file's kind and version
    while place + 7 <= len(data):
        left = block - place % block
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record = (b"" if kind in (1, 2) else record) + data[place + 7 : place + 7 + length]
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
        place += 7 + length
