from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.fakes_training import TinyLine, sft_section
from training.config import PreferenceSection
from training.errors import InputError
from training.preference import train_preference
from training.progress import Progress, Report, silent
from training.records import AdapterArtifact
from training.sft import train_sft

PREFERENCE = PreferenceSection(learning_rate=1e-2, epochs=4, batch_size=4)
NEAR_LN2 = 0.01  # before the first step both answers are as likely as under the reference: the loss is -ln sigmoid(0)


@pytest.fixture(scope="module")
def parent(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdapterArtifact]:
    folder = tmp_path_factory.mktemp("parent")
    return folder, train_sft(tiny.model, sft_section(), tiny.base, tiny.dataset_dir, tiny.dataset, folder, silent)


def tune(tiny: TinyLine, parent: tuple[Path, AdapterArtifact], out: Path, report: Report = silent) -> AdapterArtifact:
    return train_preference(tiny.model, sft_section(), PREFERENCE, tiny.base, tiny.dataset_dir, tiny.dataset, *parent, out, report)


def test_it_starts_at_the_sft_adapter_and_learns_the_preference(
    tiny: TinyLine, parent: tuple[Path, AdapterArtifact], tmp_path: Path
) -> None:
    artifact = tune(tiny, parent, tmp_path)

    assert artifact.first_loss == pytest.approx(0.6931, abs=NEAR_LN2)
    assert artifact.last_loss < 0.5
    assert (artifact.stage, artifact.parent_digest) == ("dpo", parent[1].digest)


def test_only_the_tuned_adapter_is_written_and_it_differs_from_its_parent(
    tiny: TinyLine, parent: tuple[Path, AdapterArtifact], tmp_path: Path
) -> None:
    artifact = tune(tiny, parent, tmp_path)

    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (parent[0], tmp_path))
    assert [file.path for file in artifact.files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert before.keys() == after.keys()
    assert all(not before[name].equal(after[name]) for name in before)


def test_a_parent_of_another_base_model_is_refused(tiny: TinyLine, parent: tuple[Path, AdapterArtifact], tmp_path: Path) -> None:
    other = parent[1].model_copy(update={"base_digest": "0" * 64})

    with pytest.raises(InputError, match="was trained on base model 000000000000"):
        tune(tiny, (parent[0], other), tmp_path)


def test_a_stopped_run_goes_on_and_ends_with_the_very_same_adapter(
    tiny: TinyLine, parent: tuple[Path, AdapterArtifact], tmp_path: Path
) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == 8:
            raise KeyboardInterrupt

    whole = tune(tiny, parent, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        tune(tiny, parent, tmp_path / "stopped", press_ctrl_c)
    heard: list[Progress] = []

    resumed = tune(tiny, parent, tmp_path / "stopped", heard.append)

    assert heard[0].done == 6
    assert resumed.digest == whole.digest
