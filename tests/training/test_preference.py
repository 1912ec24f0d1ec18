"""Every way to learn from preferences, trained for a few steps on a real, tiny model."""

from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fakes_training import QUESTIONS, TinyLine, sft_section, write_jsonl
from training.adapters import load_adapter
from training.builders import load_base
from training.checkpoints import CheckpointFolder
from training.data.config import DataSection
from training.errors import DataError, InputError, TrainingError
from training.preference import train_preference
from training.preference_methods import PREFERENCES
from training.preference_section import PreferenceSection
from training.preference_trainers import LabelledTrainer, PairTrainer
from training.prepare import PREFERENCES as PREFERENCE_ROWS
from training.prepare import prepare_dataset, read_prepared
from training.progress import Progress, Report, silent
from training.records import AdapterArtifact, DatasetManifest
from training.sft import train_sft
from training.tokenizer import load_tokenizer
from training.watch import Watch

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


# At first no answer has moved from the reference: every log-ratio is 0. β is 0.1, label smoothing ε is 0.1, of exo_pair 0.001.
FIRST_LOSSES: Mapping[str, float] = {
    "sigmoid": log(2),
    "sigmoid_norm": log(2),
    "hinge": 1.0,
    "ipo": (1 / (2 * 0.1)) ** 2,
    "robust": ((1 - 0.1) * log(2) - 0.1 * log(2)) / (1 - 2 * 0.1),
    "exo_pair": 0.5 * (log(0.5) - log(1 - 1e-3)) + 0.5 * (log(0.5) - log(1e-3)),
    "nca_pair": 2 * log(2),
    "bco_pair": 2 * log(2),
    "sppo_hard": 2 * (0.5 / 0.1) ** 2,
    "aot": log(2),
    "aot_unpaired": log(2),
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": 0.5 * log(2) + 0.5,
}


@pytest.fixture(scope="module")
def adapted(tiny: TinyLine, parent: Parent) -> Any:
    return load_adapter(load_base(Path(tiny.base.folder), sft_section().quantization), parent[0], trainable=True).train()


@pytest.mark.parametrize("loss", PREFERENCES["dpo"].losses)
def test_each_loss_of_dpo_starts_where_its_formula_says_and_falls_towards_a_wider_margin(
    tiny: TinyLine, adapted: Any, tmp_path: Path, loss: str
) -> None:
    """DiscoPOP was found by a search and is not monotonous: at a margin of 0 its slope is 1/4τ (1 - ln 2) - 3/4, which is above 0."""
    tuned = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in tuned.items()}
    watch = Watch(silent, CheckpointFolder(tmp_path / "checkpoints", "inputs"))
    tokenizer, rows = load_tokenizer(Path(tiny.base.folder)), read_prepared(tiny.dataset_dir / PREFERENCE_ROWS)
    trainer = PairTrainer(adapted, sft_section(), section(loss=loss), tokenizer, rows, watch)
    batch = next(iter(trainer.get_train_dataloader()))

    first = trainer.compute_loss(adapted, batch)
    first.backward()
    slopes = {name: parameter.grad for name, parameter in tuned.items() if parameter.grad is not None}
    length = sum(float(slope.square().sum()) for slope in slopes.values()) ** 0.5
    with torch.no_grad():
        for name, slope in slopes.items():
            tuned[name] -= 0.01 * slope / length
        trainer.compute_loss(adapted, batch)
    margins = trainer._metrics["train"]["rewards/margins"]
    adapted.delete_adapter("ref")
    adapted.zero_grad()
    for name, values in before.items():
        tuned[name].data.copy_(values)

    assert float(first) == pytest.approx(FIRST_LOSSES[loss], rel=NEAR)
    assert abs(margins[1] - margins[0]) > 1e-3
    assert (margins[1] > margins[0]) == (loss != "discopop")


def test_with_the_base_model_as_reference_no_copy_of_the_adapter_is_kept(tiny: TinyLine, adapted: Any, tmp_path: Path) -> None:
    watch = Watch(silent, CheckpointFolder(tmp_path / "checkpoints", "inputs"))
    tokenizer, rows = load_tokenizer(Path(tiny.base.folder)), read_prepared(tiny.dataset_dir / PREFERENCE_ROWS)

    PairTrainer(adapted, sft_section(), section(reference="base"), tokenizer, rows, watch)

    assert list(adapted.peft_config) == ["default"]
    assert adapted.active_adapter == "default"


def test_the_preferred_answers_cross_entropy_is_added_by_its_weight(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    plain, added = (tune(tiny, parent, tmp_path / str(weight), section(sft_weight=weight, epochs=0.3)).first_loss for weight in (0.0, 2.0))

    assert plain == pytest.approx(log(2), rel=NEAR)
    assert added > plain + 0.05


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_stopped_run_goes_on_and_ends_with_the_very_same_adapter(tiny: TinyLine, parent: Parent, tmp_path: Path, method: str) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    chosen = section(method=method, epochs=2)
    whole = tune(tiny, parent, tmp_path / "whole", chosen)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny, parent, tmp_path / "stopped", chosen, press_ctrl_c)
    assert not list(tmp_path.rglob("README.md"))  # a checkpoint is not published
    heard: list[Progress] = []

    resumed = tune(tiny, parent, tmp_path / "stopped", chosen, heard.append)

    assert heard[0].done == 3
    assert resumed.digest == whole.digest


def test_a_parent_of_another_base_model_is_refused(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    other = parent[1].model_copy(update={"base_digest": "0" * 64})

    with pytest.raises(InputError, match="was trained on base model 000000000000"):
        tune(tiny, (parent[0], other), tmp_path, section())


def test_kto_learns_from_labelled_answers(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    rows = [
        {"prompt": question, "completion": answer, "label": wanted}
        for question in QUESTIONS[:6]
        for answer, wanted in (("See a doctor today.", True), ("Wait and see.", False))
    ]
    data = _data(tiny, tmp_path, rows)
    dataset = prepare_dataset(tiny.model, data, tiny.base, tmp_path / "rows", silent, preferred="kto")

    artifact = tune(tiny, parent, tmp_path / "out", section(method="kto"), dataset=(tmp_path / "rows", dataset))

    assert dataset.preference_rows == 12
    assert artifact.last_margin is not None
    assert artifact.last_margin > 0.01


def test_labelled_answers_are_no_pairs_and_the_row_is_named(tiny: TinyLine, tmp_path: Path) -> None:
    data = _data(tiny, tmp_path, [{"prompt": QUESTIONS[0], "completion": "See a doctor today.", "label": True}])

    with pytest.raises(DataError, match=r"preferences\.jsonl, line 1: .* labelled rows need `preference.method: kto`"):
        prepare_dataset(tiny.model, data, tiny.base, tmp_path / "rows", silent)


def _data(tiny: TinyLine, folder: Path, rows: list[dict[str, Any]]) -> DataSection:
    path = write_jsonl(folder / "preferences.jsonl", rows)
    return DataSection.model_validate({**tiny.data.model_dump(), "preferences": [{"path": path}], "duplicates": {"near": False}})


def test_pairs_that_do_not_fit_are_tuned_on_in_smaller_passes_and_the_same_steps(
    tiny: TinyLine, parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve pairs, four a step: memory runs out in the third step, whose checkpoint is that of the second."""
    run_of = section(epochs=1, learning_rate=1e-3)
    whole, honest = tune(tiny, parent, tmp_path / "whole", run_of), PairTrainer.compute_loss

    def compute_loss(self: PairTrainer, model: Any, inputs: dict[str, Any], *others: Any, **named: Any) -> Any:
        if len(inputs["input_ids"]) > 4 and self.state.global_step >= 2:
            raise MemoryError
        return honest(self, model, inputs, *others, **named)

    monkeypatch.setattr(PairTrainer, "compute_loss", compute_loss)
    halved = tune(tiny, parent, tmp_path / "halved", run_of)

    assert halved.steps == whole.steps == 3
    assert halved.last_loss == pytest.approx(whole.last_loss, rel=NEAR)
    assert halved.course.out_of_memory == ("memory ran out with 4 rows in a pass: went on with 2 rows and 2 passes in a step",)


def test_a_loss_that_compares_the_rows_of_a_pass_ends_instead(
    tiny: TinyLine, parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute_loss(self: LabelledTrainer, *others: Any, **named: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(LabelledTrainer, "compute_loss", compute_loss)
    with pytest.raises(TrainingError, match="4 rows in a pass: loss kto compares the rows of a pass with each other"):
        tune(tiny, parent, tmp_path, section(method="kto"))
