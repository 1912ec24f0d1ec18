"""`tunegate folds` over stages that cost nothing: which folds are trained, what is kept, and the figures."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.errors import RecipeError
from flows.folds import folds_of
from flows.stage_process import StageRequest
from serving.registry import Registry
from serving.settings import Settings
from tests.fakes_flows import QuickStages, open_small_line, recipe_values, write_recipe
from training.progress import Report
from training.records import AdapterArtifact, DatasetManifest

LOSSES = (2.0, 1.0, 3.0)


class Folded(QuickStages):
    """Each fold has its own held-out loss; `killed` ends the run in that fold's training."""

    def __init__(self, killed: int | None = None) -> None:
        super().__init__()
        self.killed = killed
        self.trained: list[int] = []

    def __call__(self, request: StageRequest, report: Report) -> None:
        fold = request.recipe.data.fold
        if request.stage == "sft":
            if fold == self.killed:
                raise KeyboardInterrupt
            self.trained.append(fold)
        super().__call__(request, report)
        if request.stage == "prepare":
            DatasetManifest.read(request.out).model_copy(update={"section_digest": str(fold) * 64}).write(request.out)
        if request.stage == "sft":
            AdapterArtifact.read(request.out).model_copy(update={"validation_loss": LOSSES[fold]}).write(request.out)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(Settings(home=tmp_path).database_url) as made:
        yield made


def recipe(tmp_path: Path) -> Path:
    values = recipe_values()
    values["data"]["folds"] = 3
    return write_recipe(tmp_path / "recipe", values)


def test_every_fold_is_trained_once_and_their_losses_are_told_with_mean_and_spread(tmp_path: Path, registry: Registry) -> None:
    """The mean of 2, 1 and 3 is 2, and their standard deviation 1."""
    stages = Folded()

    found = folds_of(open_small_line(recipe(tmp_path), Settings(home=tmp_path), registry, stages))

    assert stages.trained == [0, 1, 2]
    assert [(each.fold, each.loss, each.train_rows, each.held_out_rows) for each in found.folds] == [
        (0, 2.0, 9, 1),
        (1, 1.0, 9, 1),
        (2, 3.0, 9, 1),
    ]
    assert (found.mean_loss, found.standard_deviation) == (2.0, 1.0)
    assert len({each.adapter for each in found.folds}) == 3


def test_folds_that_are_finished_are_kept_when_the_rest_was_killed(tmp_path: Path, registry: Registry) -> None:
    path = recipe(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        folds_of(open_small_line(path, Settings(home=tmp_path), registry, Folded(killed=1)))
    again = Folded()

    found = folds_of(open_small_line(path, Settings(home=tmp_path), registry, again))

    assert again.trained == [1, 2]
    assert found.mean_loss == 2.0


def test_a_recipe_without_folds_is_refused_with_what_to_set(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["folds", str(write_recipe(tmp_path))])

    assert isinstance(ran.exception, RecipeError)
    assert "data.folds is not set" in str(ran.exception)
