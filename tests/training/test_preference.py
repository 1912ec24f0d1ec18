"""Every way to learn from preferences, trained for a few steps on a real, tiny model."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.fakes_training import QUESTIONS, TinyLine, sft_section, write_jsonl
from training.data.config import DataSection
from training.errors import DataError, InputError
from training.preference import train_preference
from training.preference_methods import PREFERENCES
from training.preference_section import PreferenceSection
from training.prepare import prepare_dataset
from training.progress import Progress, Report, silent
from training.records import AdapterArtifact, DatasetManifest
from training.sft import train_sft

NEAR = 0.02  # of the loss before the first step: both answers are as likely as under the reference, but for the rounding of bf16
Parent = tuple[Path, AdapterArtifact]


@pytest.fixture(scope="module")
def parent(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> Parent:
    folder = tmp_path_factory.mktemp("parent")
    return folder, train_sft(tiny.model, sft_section(), tiny.base, tiny.dataset_dir, tiny.dataset, folder, silent)


def section(**changes: Any) -> PreferenceSection:
    return PreferenceSection.model_validate({"learning_rate": 1e-2, "epochs": 3, "batch_size": 4, **changes})


def tune(
    tiny: TinyLine,
    parent: Parent,
    out: Path,
    preference: PreferenceSection,
    report: Report = silent,
    dataset: tuple[Path, DatasetManifest] | None = None,
) -> AdapterArtifact:
    rows = dataset or (tiny.dataset_dir, tiny.dataset)
    return train_preference(tiny.model, sft_section(), preference, tiny.base, *rows, *parent, out, report)


@pytest.mark.parametrize("method", PREFERENCES)
def test_each_method_moves_the_adapter_and_nothing_else_towards_the_preferred_answers(
    tiny: TinyLine, parent: Parent, tmp_path: Path, method: str
) -> None:
    artifact = tune(tiny, parent, tmp_path, section(method=method))

    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (parent[0], tmp_path))
    assert [file.path for file in artifact.files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert before.keys() == after.keys()
    assert all(not before[name].equal(after[name]) for name in before)
    assert (artifact.stage, artifact.parent_digest) == ("preference", parent[1].digest)
    assert artifact.last_loss < artifact.first_loss
    assert artifact.first_margin is not None
    assert artifact.last_margin is not None
    assert artifact.last_margin > artifact.first_margin


@pytest.mark.parametrize("method", ["dpo"])
def test_a_stopped_run_goes_on_and_ends_with_the_very_same_adapter(tiny: TinyLine, parent: Parent, tmp_path: Path, method: str) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    chosen = section(method=method, epochs=2)
    whole = tune(tiny, parent, tmp_path / "whole", chosen)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny, parent, tmp_path / "stopped", chosen, press_ctrl_c)
    heard: list[Progress] = []

    resumed = tune(tiny, parent, tmp_path / "stopped", chosen, heard.append)

    assert heard[0].done == 3
    assert resumed.digest == whole.digest


def test_a_parent_of_another_base_model_is_refused(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    other = parent[1].model_copy(update={"base_digest": "0" * 64})

    with pytest.raises(InputError, match="was trained on base model 000000000000"):
        tune(tiny, (parent[0], other), tmp_path, section())


def test_labelled_answers_are_no_pairs_and_the_row_is_named(tiny: TinyLine, tmp_path: Path) -> None:
    data = _data(tiny, tmp_path, [{"prompt": QUESTIONS[0], "completion": "See a doctor today.", "label": True}])

    with pytest.raises(DataError, match=r"preferences\.jsonl, line 1: .* labelled rows need `preference.method: kto`"):
        prepare_dataset(tiny.model, data, tiny.base, tmp_path / "rows", silent)


def _data(tiny: TinyLine, folder: Path, rows: list[dict[str, Any]]) -> DataSection:
    path = write_jsonl(folder / "preferences.jsonl", rows)
    return DataSection.model_validate({**tiny.data.model_dump(), "preferences": [{"path": path}], "duplicates": {"near": False}})
