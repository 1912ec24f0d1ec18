"""What the metrics say of a training that goes on, and that they say nothing of one that does not."""

from pathlib import Path

import pytest

from flows.live_training import told_live
from serving.lifecycle import State
from serving.metrics import GatewayMetrics
from serving.records import Snapshot
from serving.training_now import FOLDER, FRESH_S, TrainingNow, forget, tell, trainings
from tests.fakes_serving import bare_release
from training.progress import Progress

NOW = TrainingNow(at=1000.0, public_name="clinic", stage="sft", step=3, steps=9, loss=1.5, tokens_per_s=250.0)


def shown(*running: TrainingNow) -> GatewayMetrics:
    metrics = GatewayMetrics()
    metrics.follow(Snapshot(generation=1, releases=(bare_release(1, State.LIVE),), slots=(), leases={}, steps={}))
    metrics.training.show(running)
    return metrics


def value(metrics: GatewayMetrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"tunegate_training_{name}", {"public_name": "clinic", "stage": "sft"})


def test_a_training_is_shown_with_the_figures_it_has() -> None:
    metrics = shown(NOW)

    assert [value(metrics, name) for name in ("step", "steps", "loss", "tokens_per_second")] == [3.0, 9.0, 1.5, 250.0]
    assert value(metrics, "held_out_loss") is None


def test_one_that_has_ended_is_shown_no_longer() -> None:
    metrics = shown(NOW)
    metrics.training.show(())

    assert value(metrics, "step") is None


def test_a_name_that_the_registry_does_not_know_makes_no_series() -> None:
    metrics = shown(NOW.model_copy(update={"public_name": "stranger"}))

    assert "stranger" not in metrics.render().decode()


@pytest.mark.parametrize(("later_s", "counts"), [(1.0, True), (FRESH_S - 1, True), (FRESH_S, False)])
def test_what_a_killed_run_left_behind_grows_old(tmp_path: Path, later_s: float, counts: bool) -> None:
    tell(tmp_path, NOW)

    assert trainings(tmp_path, NOW.at + later_s) == ([NOW] if counts else [])


def test_a_file_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    tell(tmp_path, NOW)
    (tmp_path / FOLDER / "other.json").write_text("{")

    assert trainings(tmp_path, NOW.at) == [NOW]


def test_a_folder_that_cannot_be_written_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tell(tmp_path / "absent", NOW)

    assert "the metrics do not show this training" in caplog.text
    forget(tmp_path / "absent", "clinic")


@pytest.mark.parametrize("stage", ["sft", "preference", "reward", "online"])
def test_a_stage_that_trains_tells_the_server_until_it_ends(tmp_path: Path, stage: str) -> None:
    heard: list[Progress] = []
    with told_live(tmp_path, "clinic", stage, heard.append) as report:
        report(Progress(2, 9, "steps", "loss 1.500", {"loss": 1.5, "memory_bytes": 2e9}))
        (told,) = trainings(tmp_path, 0.0)

    assert (told.public_name, told.stage, told.step, told.steps, told.loss, told.memory_bytes) == ("clinic", stage, 2, 9, 1.5, 2e9)
    assert [progress.note for progress in heard] == ["loss 1.500"]
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_stage_that_does_not_train_tells_nothing(tmp_path: Path) -> None:
    with told_live(tmp_path, "clinic", "merge", lambda progress: None) as report:
        report(Progress(1, 2, "files", "", {"loss": 1.0}))

    assert not (tmp_path / FOLDER).exists()
