"""A recipe that asks for two processes: the real stage starts them, and however it ends, none of them is left."""

import os
import signal
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
from training.records import AdapterArtifact


def request(line: TinyLine, folder: Path) -> StageRequest:
    values = recipe_values() | {"devices": {"processes": 2}}
    values["model"] |= {"base": line.model.base, "max_length": 128}
    values["sft"] |= {"batch_size": 4, "dropout": 0.0, "epochs": 2, "checkpoint_every_steps": 2}
    recipe = load_recipe(write_recipe(folder / "recipe", values))
    return StageRequest(
        stage="sft", recipe=recipe, home=folder / "home", out=folder / "home" / "sft", base=Path(line.base.folder), dataset=line.dataset_dir
    )


@pytest.mark.slow
def test_a_killed_spread_stage_leaves_no_process_and_goes_on_in_two(tmp_path: Path) -> None:
    """Told of step 5, the stage is killed: its launcher dies with it, its ranks with the launcher."""
    asked = request(TinyLine(tmp_path / "line"), tmp_path)
    family: list[psutil.Process] = []

    def kill(progress: Progress) -> None:
        if progress.done == 5:
            (host,) = psutil.Process().children()
            family.extend(host.children(recursive=True))
            ranks = [each for each in family if "flows.stage_process" in " ".join(each.cmdline())]
            assert len(ranks) == 2
            os.kill(ranks[0].ppid(), signal.SIGKILL)

    with StageRunner(()) as runner, pytest.raises(StageFailed, match="status 137"):
        runner.run(asked, kill)
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family), 10)
    heard: list[Progress] = []
    with StageRunner(()) as runner:
        runner.run(asked, heard.append)

    assert (heard[0].done, heard[0].note) == (4, "resumed")
    assert [each.done for each in heard] == list(range(4, heard[-1].total + 1))
    assert AdapterArtifact.read(asked.out).processes == 2
