"""Preference tuning that is measured on pairs it does not learn from, and stops when those get no better."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes_training import TinyLine, preference_rows, sft_section, write_jsonl
from training.adapters import load_adapter
from training.builders import load_base
from training.data.config import DataSection
from training.errors import InputError
from training.preference import held_apart, train_preference
from training.preference_section import PreferenceSection
from training.prepare import PREFERENCES, prepare_dataset, read_prepared
from training.progress import Progress, Report, silent
from training.records import AdapterArtifact
from training.sft import train_sft

Parent = tuple[Path, AdapterArtifact]
EACH_STEP = {"epochs": 8, "batch_size": 8, "held_out_fraction": 0.35, "held_out_every_steps": 1}
ROUNDING = 0.05  # the adapter in bf16 instead of fp32, rows alone instead of together
PATIENT = {**EACH_STEP, "method": "simpo", "learning_rate": 1e-2, "early_stopping": {"patience": 2}}


@pytest.fixture(scope="module")
def parent(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> Parent:
    folder = tmp_path_factory.mktemp("parent")
    section = sft_section(dropout=0.0, epochs=1)
    return folder, train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, folder, silent)


@pytest.fixture(scope="module")
def contrary(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> TinyLine:
    """A line whose held-back pairs prefer the other answer than those that are learned from."""
    root, taught = tmp_path_factory.mktemp("contrary"), preference_rows()
    _, held_back = held_apart(read_prepared(tiny.dataset_dir / PREFERENCES), EACH_STEP["held_out_fraction"], key="here")
    turned = [ids["prompt_ids"] for ids in held_back]
    order = [pair["prompt_ids"] in turned for pair in read_prepared(tiny.dataset_dir / PREFERENCES)]
    rows = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if other else row for row, other in zip(taught, order, strict=True)
    ]
    line = TinyLine.of(tiny.root)
    sources = {"sft": tiny.data.sft, "preferences": [{"path": write_jsonl(root / "pairs.jsonl", rows)}], "validation_fraction": 0.2}
    line.dataset_dir = root / "dataset"
    line.dataset = prepare_dataset(line.model, DataSection.model_validate(sources), line.base, line.dataset_dir, silent)
    return line


def tune(tiny: TinyLine, parent: Parent, out: Path, report: Report = silent, **values: Any) -> AdapterArtifact:
    preference, sft = PreferenceSection.model_validate(values), sft_section(dropout=0.0, checkpoint_every_steps=1)
    return train_preference(tiny.model, sft, preference, tiny.base, tiny.dataset_dir, tiny.dataset, *parent, out, report)


def held_back_margins(tiny: TinyLine, adapter: Path) -> torch.Tensor:
    """By how much the preferred answer of each held-back pair is ahead, in nats per token: by plain logits."""
    model = load_adapter(load_base(Path(tiny.base.folder), sft_section().quantization), adapter, trainable=False).eval()
    _, pairs = held_apart(read_prepared(tiny.dataset_dir / PREFERENCES), 0.35, key="here")
    means = [[mean_of(model, pair["prompt_ids"], pair[key]) for key in ("chosen_ids", "rejected_ids")] for pair in pairs]
    return torch.tensor([chosen - rejected for chosen, rejected in means])


def mean_of(model: Any, prompt: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()
    return float(-torch.nn.functional.cross_entropy(logits, torch.tensor(answer)))


@pytest.fixture(scope="module")
def stopped(contrary: TinyLine, parent: Parent, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdapterArtifact]:
    folder = tmp_path_factory.mktemp("stopped")
    return folder, tune(contrary, parent, folder, **PATIENT)


def test_a_run_that_gets_worse_is_stopped_and_its_best_weights_are_the_outcome(
    contrary: TinyLine, stopped: tuple[Path, AdapterArtifact]
) -> None:
    """What was written is measured once more, by other code; SimPO's loss is -log σ(β·margin - γ), with β 2 and γ 1."""
    folder, artifact = stopped
    course = artifact.course
    losses, shares = dict(course.held_out), dict(course.held_out_accuracies)

    assert artifact.steps == course.kept_step + 2 < 8
    assert losses[course.kept_step] == min(losses.values()) < losses[artifact.steps]
    assert f"held_out_loss was best at step {course.kept_step}" in course.stopped
    margins = held_back_margins(contrary, folder)
    simpo = -torch.nn.functional.logsigmoid(2 * margins - 1).mean()
    assert float(simpo) == pytest.approx(losses[course.kept_step], rel=ROUNDING)
    assert (margins > ROUNDING).float().mean() <= shares[course.kept_step] + 1e-6
    assert (margins > -ROUNDING).float().mean() >= shares[course.kept_step] - 1e-6
    assert not (folder / "checkpoints").exists()


def test_a_killed_run_ends_with_the_very_same_best_weights(
    contrary: TinyLine, parent: Parent, stopped: tuple[Path, AdapterArtifact], tmp_path: Path
) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == stopped[1].steps - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(contrary, parent, tmp_path, press_ctrl_c, **PATIENT)

    assert tune(contrary, parent, tmp_path, **PATIENT).digest == stopped[1].digest


def test_the_share_of_pairs_in_order_may_decide_and_pairs_held_back_are_not_learned_from(
    tiny: TinyLine, parent: Parent, tmp_path: Path
) -> None:
    """With a patience of 1 the run ends at the first measurement that is no better."""
    values = {**EACH_STEP, "learning_rate": 1e-2, "early_stopping": {"metric": "held_out_accuracy", "patience": 1}}
    artifact = tune(tiny, parent, tmp_path, **values)

    shares = [share for _, share in artifact.course.held_out_accuracies]
    assert artifact.course.kept_step == 1 + shares.index(max(shares))
    assert artifact.steps == artifact.course.kept_step + 1 < 8
    taught, measured = held_apart(read_prepared(tiny.dataset_dir / PREFERENCES), 0.35, key="here")
    assert len(taught) + len(measured) == tiny.dataset.preference_rows
    assert not {tuple(pair["prompt_ids"]) for pair in taught} & {tuple(pair["prompt_ids"]) for pair in measured}


def test_too_few_pairs_to_measure_on_are_an_error_that_names_the_key(tiny: TinyLine, parent: Parent, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="12 are left to learn from and 0 to measure on"):
        tune(tiny, parent, tmp_path, held_out_fraction=0.001)
