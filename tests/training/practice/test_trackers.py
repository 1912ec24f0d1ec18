from importlib import util
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.fakes_training import TinyLine, sft_section
from training.errors import InputError
from training.practice.course import TENSORBOARD_SUFFIX
from training.practice.trackers import require_trackers
from training.progress import silent
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
