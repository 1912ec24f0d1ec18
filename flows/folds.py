"""`tunegate folds`: trains once for each part of the data that `data.folds` makes, and says what the held-out loss is, and how far apart.

Each row is held back once. Every fold is a run of the recipe up to its adapter, in folders of its own that are found by digest: folds
that are finished are not trained again, one that was killed goes on, and `tunegate run` finds the one it names. Nothing is merged or
served. Next: `stages.py`, whose stages these are.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from flows.display import make_console
from flows.errors import RecipeError

if TYPE_CHECKING:
    from flows.stages import Line


class Fold(BaseModel):
    """One part held back."""

    model_config = ConfigDict(frozen=True)

    fold: int
    train_rows: int
    held_out_rows: int
    loss: float = Field(description="on the rows held back, nats per answer token")
    perplexity: float
    steps: int
    adapter: Path = Field(description="folder of the adapter and its record")


class Folds(BaseModel):
    """All of them together; each fold counts the same."""

    model_config = ConfigDict(frozen=True)

    recipe: str
    folds: tuple[Fold, ...]
    mean_loss: float
    standard_deviation: float = Field(description="between folds; how much a single held-out loss says")


def add_to(app: typer.Typer) -> None:
    """Add this command to the `tunegate` command."""
    app.command()(folds)


def folds(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="a YAML file with data.folds")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON for scripts")] = False,
) -> None:
    """Train once for each fold of `data.folds`, and print mean and spread of the held-out loss. Goes on where it stopped."""
    import getpass

    found = train_folds(recipe, getpass.getuser())
    typer.echo(found.model_dump_json(indent=2)) if as_json else make_console().print(_table(found))


def train_folds(recipe: Path, requester: str) -> Folds:
    """Train every fold of a recipe that is not trained yet.

    Raises:
        RecipeError: the recipe makes no folds.
    """
    from flows.recipe import load_recipe
    from flows.stages import open_line

    if load_recipe(recipe).data.folds is None:
        raise RecipeError([f"{recipe}: data.folds is not set, so there is but one split; set data.folds: 5, and no validation_fraction"])
    with open_line(recipe, requester) as line:
        return folds_of(line)


def folds_of(line: "Line") -> Folds:
    """The same on a line that is open."""
    from flows import stages

    data = line.recipe.data
    assert data.folds is not None
    base, found = stages.fetch_base(line), []
    for number in range(data.folds):
        line.display.say(f"fold {number} of 0 to {data.folds - 1}")
        held_back = data.model_copy(update={"fold": number})
        each = replace(line, recipe=line.recipe.model_copy(update={"data": held_back}))
        dataset = stages.prepare(each, base)
        adapter = stages.sft(each, base, dataset)
        loss = adapter.record.validation_loss
        assert loss is not None
        rows = {"train_rows": dataset.record.train_rows, "held_out_rows": dataset.record.validation_rows}
        found.append(Fold(fold=number, **rows, loss=loss, perplexity=math.exp(loss), steps=adapter.record.steps, adapter=adapter.folder))
    return _together(line.recipe.name, found)


def _together(recipe: str, found: Sequence[Fold]) -> Folds:
    losses = [each.loss for each in found]
    return Folds(recipe=recipe, folds=tuple(found), mean_loss=statistics.mean(losses), standard_deviation=statistics.stdev(losses))


def _table(found: Folds) -> Table:
    table = Table("fold", "rows trained on", "rows held back", "held-out loss", "perplexity", "steps", box=None, pad_edge=False)
    for each in found.folds:
        figures = (f"{each.loss:.4f}", f"{each.perplexity:.2f}", str(each.steps))
        table.add_row(str(each.fold), f"{each.train_rows:,}", f"{each.held_out_rows:,}", *figures)
    table.add_row("mean ± sd", "", "", f"{found.mean_loss:.4f} ± {found.standard_deviation:.4f}", "", "")
    return table
