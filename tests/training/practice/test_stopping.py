import math
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from tests.fakes_training import QUESTIONS, TinyLine, sft_section, write_jsonl
from training.adapters import load_adapter
from training.builders import load_base
from training.config import DataSection, SftSection
from training.errors import InputError
from training.measure import ValidationPrompt, read_answers
from training.practice.history import HELD_OUT, HELD_OUT_ACCURACY, PASS_RATE
from training.practice.sections import EarlyStoppingSection, PreferenceStoppingSection
from training.practice.stopping import HeldOut, Standing, Validation, standing
from training.prepare import VALIDATION, prepare_dataset, read_prepared
from training.progress import Progress, silent
from training.records import AdapterArtifact
from training.sft import train_sft

# Every weight is trained, so the rows are soon known by heart.
BY_HEART = {
    "method": "full",
    "learning_rate": 5e-3,
    "epochs": 14,
    "scheduler": "constant_with_warmup",
    "held_out_every_steps": 6,
    "batch_size": 4,
    "checkpoint_every_steps": 3,
}
PATIENT = BY_HEART | {"early_stopping": {"patience": 2}}
OTHER_ROUNDING = 0.02  # the adapter in bf16 instead of fp32


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("held_out_loss", [], None),
        ("held_out_loss", [2.0], Standing(1, 2.0, 0)),
        ("held_out_loss", [2.0, 1.5, 1.6, 1.7], Standing(2, 1.5, 2)),
        ("held_out_loss", [2.0, 2.0], Standing(1, 2.0, 1)),
        ("held_out_loss", [2.0, 1.95, 1.8], Standing(3, 1.8, 0)),
        ("rule_pass_rate", [0.5, 0.75, 0.5], Standing(2, 0.75, 1)),
        ("held_out_accuracy", [0.5, 0.75, 0.75], Standing(2, 0.75, 1)),
    ],
)
def test_where_a_run_stands_by_its_log(metric: Any, values: list[float], expected: Standing | None) -> None:
    key = {"held_out_loss": HELD_OUT, "rule_pass_rate": PASS_RATE, "held_out_accuracy": HELD_OUT_ACCURACY}[metric]
    log = [{key: value, "step": step} for step, value in enumerate(values, start=1)]

    section = PreferenceStoppingSection if metric == "held_out_accuracy" else EarlyStoppingSection
    assert standing(section(metric=metric), log) == expected


def test_a_gain_that_is_too_small_does_not_count() -> None:
    log = [{HELD_OUT: value, "step": step} for step, value in enumerate([2.0, 1.95, 1.8], start=1)]

    assert standing(EarlyStoppingSection(min_gain=0.1), log) == Standing(3, 1.8, 0)
    assert standing(EarlyStoppingSection(min_gain=0.3), log) == Standing(1, 2.0, 2)


class Unguessable(TinyLine):
    """Answers drawn by lot: nothing learned from one row helps with another, beyond which words there are."""

    def __init__(self, tiny: TinyLine, root: Path) -> None:
        lot, words = random.Random(3), ["rest", "drink", "water", "call", "sleep", "wait", "walk", "eat", "breathe", "see", "ask", "stay"]
        rows = [{"instruction": question, "output": " ".join(lot.choices(words, k=8)) + "."} for question in QUESTIONS]
        self.model, self.base, self.dataset_dir = tiny.model, tiny.base, root / "dataset"
        self.data = DataSection.model_validate({"sft": [{"path": write_jsonl(root / "rows.jsonl", rows)}], "validation_fraction": 0.2})
        self.dataset = prepare_dataset(self.model, self.data, self.base, self.dataset_dir, silent)


@pytest.fixture(scope="module")
def unguessable(tiny: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> TinyLine:
    return Unguessable(tiny, tmp_path_factory.mktemp("unguessable"))


def train(line: TinyLine, out: Path, report: Any = silent, validation: Validation | None = None, **changes: Any) -> AdapterArtifact:
    section = SftSection.model_validate(changes) if "method" in changes else sft_section(dropout=0.0, **changes)
    return train_sft(line.model, section, line.base, line.dataset_dir, line.dataset, out, report, validation)


@pytest.fixture(scope="module")
def stopped(unguessable: TinyLine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdapterArtifact]:
    folder = tmp_path_factory.mktemp("stopped")
    return folder, train(unguessable, folder, **PATIENT)


def test_a_run_that_gets_worse_is_stopped_and_its_best_weights_are_the_outcome(
    unguessable: TinyLine, stopped: tuple[Path, AdapterArtifact]
) -> None:
    """Rows learned by heart; what was written is loaded and measured once more, by other code."""
    folder, artifact = stopped
    course, losses = artifact.course, dict(artifact.course.held_out)

    assert artifact.steps == course.kept_step + 2 * 6
    assert losses[course.kept_step] == min(losses.values()) == artifact.validation_loss
    assert course.stopped.startswith(f"stopped at step {artifact.steps} of ")
    assert f"held_out_loss was best at step {course.kept_step}" in course.stopped
    assert measured(unguessable, folder) == pytest.approx(artifact.validation_loss, rel=OTHER_ROUNDING)
    assert course.held_out[-1][1] > losses[course.kept_step] * (1 + OTHER_ROUNDING)
    assert not (folder / "checkpoints").exists()


def test_over_fitting_is_named_in_the_record_with_the_step_since_which_it_goes_on(stopped: tuple[Path, AdapterArtifact]) -> None:
    course = stopped[1].course

    rate, warning = course.warnings
    assert rate.startswith("sft.learning_rate")
    assert warning.startswith(f"over-fitting since step {course.kept_step}: the held-out loss rose from ")
    assert warning.endswith(f"; the weights of step {course.kept_step} are kept")


def measured(line: TinyLine, adapter: Path) -> float:
    """Loss of a written artefact on the held-back rows, in nats per answer token."""
    model = load_adapter(load_base(Path(line.base.folder), None), adapter, trainable=False)
    return math.log(read_answers(model, read_prepared(line.dataset_dir / VALIDATION), 0).perplexity())


def test_a_killed_run_ends_with_the_very_same_best_weights(
    unguessable: TinyLine, stopped: tuple[Path, AdapterArtifact], tmp_path: Path
) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.done == stopped[1].steps - 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(unguessable, tmp_path, press_ctrl_c, **PATIENT)

    assert train(unguessable, tmp_path, **PATIENT).digest == stopped[1].digest


def test_the_share_of_answers_that_keep_the_rules_may_decide(tiny: TinyLine, tmp_path: Path) -> None:
    """The judge is content with every answer, so the first measurement is never beaten."""
    asked: list[str] = []

    def content(prompt: str, answer: str) -> bool:
        asked.append(prompt)
        return True

    validation = Validation([ValidationPrompt("p1", [{"role": "user", "content": "What now?"}])], content, 4)
    stopping = {"metric": "rule_pass_rate", "patience": 1}
    artifact = train(tiny, tmp_path, validation=validation, early_stopping=stopping, epochs=3, learning_rate=1e-3)

    steps_per_epoch = -(-tiny.dataset.train_rows // 4)
    assert artifact.course.pass_rates == ((steps_per_epoch, 1.0), (2 * steps_per_epoch, 1.0))
    assert (artifact.course.kept_step, asked) == (steps_per_epoch, ["p1", "p1"])


def test_a_recipe_that_stops_by_rules_needs_prompts_and_a_judge(tiny: TinyLine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no prompts to answer"):
        train(tiny, tmp_path, early_stopping={"metric": "rule_pass_rate"})


def test_a_run_is_measured_after_each_epoch_without_being_asked(tiny: TinyLine, tmp_path: Path) -> None:
    artifact = train(tiny, tmp_path, epochs=3)

    steps_per_epoch = -(-tiny.dataset.train_rows // 4)
    assert [step for step, _ in artifact.course.held_out] == [steps_per_epoch * epoch for epoch in (1, 2, 3)]
    assert artifact.course.held_out[-1][1] == artifact.validation_loss
    assert artifact.course.kept_step == artifact.steps


def test_the_best_weights_and_those_before_them_are_kept_and_a_later_step_of_another_run_is_not(tmp_path: Path) -> None:
    held_out = HeldOut(None, EarlyStoppingSection(), tmp_path)
    held_out.save = lambda folder: Path(folder, "weights").write_text(folder)
    (tmp_path / "best-00000090").mkdir()
    state, control = TrainerState(max_steps=99), TrainerControl()
    for step, loss in ((10, 3.0), (20, 2.0), (30, 1.0), (40, 1.5)):
        state.global_step = step
        state.log_history.append({HELD_OUT: loss, "step": step})
        held_out.on_evaluate(TrainingArguments(output_dir=str(tmp_path), use_cpu=True), state, control)

    assert sorted(path.name for path in tmp_path.glob("best-*")) == ["best-00000020", "best-00000030"]
    loaded: list[str] = []
    held_out.restore(state, loaded.append)
    assert loaded == [str(tmp_path / "best-00000030")]
