"""A stage that torch's launcher trains in two processes: when it is killed, none of them is left."""

import sys
from pathlib import Path

import psutil
import pytest

from flows.errors import StageFailed
from flows.recipe import load_recipe
from flows.stage_process import StageRequest
from flows.stage_runner import StageRunner
from tests.fakes_flows import recipe_values, until, write_recipe
from tests.fakes_training import TinyLine
from training.progress import Progress
from training.sft import train_sft

STAGE = (sys.executable, "-m", "flows.stage_process")  # started anew, as on a machine with a GPU


def request(line: TinyLine, folder: Path) -> StageRequest:
    values = recipe_values() | {"devices": {"processes": 2}}
    values["model"] |= {"base": line.model.base, "max_length": 128}
    values["sft"] |= {"batch_size": 4, "dropout": 0.0, "epochs": 6, "checkpoint_every_steps": 2}
    recipe = load_recipe(write_recipe(folder / "recipe", values))
    return StageRequest(
        stage="sft", recipe=recipe, home=folder / "home", out=folder / "home" / "sft", base=Path(line.base.folder), dataset=line.dataset_dir
    )


@pytest.mark.slow
def test_a_killed_spread_stage_leaves_no_process_and_one_process_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Told of step 3, torch's launcher is killed: its two processes die with it."""
    line = TinyLine(tmp_path / "line")
    asked = request(line, tmp_path)
    family: list[psutil.Process] = []

    def kill(progress: Progress) -> None:
        if progress.done == 3:
            children = psutil.Process().children(recursive=True)
            stages = [each for each in children if "flows.stage_process" in each.cmdline() and "flows.stage_host" not in each.cmdline()]
            (launcher,) = {each.parent() for each in stages} & set(stages)
            assert len(stages) == 3
            family.extend([launcher, *launcher.children(recursive=True)])
            launcher.kill()

    with StageRunner(STAGE) as runner, pytest.raises(StageFailed, match="status 137"):
        runner.run(asked, kill)
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family), 10)
    heard: list[Progress] = []
    alone = train_sft(line.model, asked.recipe.sft, line.base, line.dataset_dir, line.dataset, asked.out, heard.append)

    assert (heard[0].note, heard[0].done >= 2) == ("resumed", True)
    assert (alone.processes, alone.steps) == (1, heard[-1].total)
