"""Two trainings never share a GPU, and one that was killed holds none. The devices are names; the locks are real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.gpu_leases import VISIBLE, devices_of_this_machine, gpus
from flows.recipe import load_recipe
from flows.stage_process import StageName, StageRequest
from flows.stage_runner import StageRunner
from tests.fakes_flows import recipe_values, write_recipe
from training.errors import InputError
from training.progress import silent

TWO = ("0", "GPU-8f/1")
HOLDS = """
import sys
from pathlib import Path
from flows.gpu_leases import gpus
with gpus(Path(sys.argv[1]), 1, ("0",)):
    print("held", flush=True)
    sys.stdin.read()
"""


class Waiting(Exception):
    """Raised in the place of a pause."""


def gives_up(seconds: float) -> None:
    raise Waiting


def test_each_gets_a_device_of_its_own_and_who_finds_none_waits_until_one_is_free(tmp_path: Path) -> None:
    with gpus(tmp_path, 1, TWO) as first:
        with gpus(tmp_path, 1, TWO) as second:
            assert {*first, *second} == set(TWO)
            with pytest.raises(Waiting), gpus(tmp_path, 1, TWO, pause=gives_up):
                pass
        with gpus(tmp_path, 1, TWO, pause=gives_up) as third:
            assert third == second


def test_who_needs_two_takes_none_while_there_is_one(tmp_path: Path) -> None:
    with gpus(tmp_path, 1, TWO):
        with pytest.raises(Waiting), gpus(tmp_path, 2, TWO, pause=gives_up):
            pass
        with gpus(tmp_path, 1, TWO, pause=gives_up) as other:
            assert other == TWO[1:]
    with gpus(tmp_path, 2, TWO, pause=gives_up) as both:
        assert both == TWO


def test_more_than_there_are_is_an_error_and_no_wait(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wants 3 GPUs, and there are 2"), gpus(tmp_path, 3, TWO, pause=gives_up):
        pass


def test_a_killed_training_holds_nothing(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
        cwd=root,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Waiting), gpus(tmp_path, 1, ("0",), pause=gives_up):
        pass
    holder.kill()
    holder.communicate()
    with gpus(tmp_path, 1, ("0",), pause=gives_up) as freed:
        assert freed == ("0",)


@pytest.mark.parametrize(("told", "devices"), [("", ()), ("1, GPU-a", ("1", "GPU-a"))])
def test_what_this_process_may_use_is_what_is_handed_out(monkeypatch: pytest.MonkeyPatch, told: str, devices: tuple[str, ...]) -> None:
    monkeypatch.setenv(VISIBLE, told)
    assert devices_of_this_machine() == devices


def nodes(folder: Path, *numbers: int) -> Path:
    """A folder like /dev with these GPUs in it."""
    folder.mkdir()
    for name in (*(f"nvidia{number}" for number in numbers), "nvidiactl", "nvidia-uvm"):
        (folder / name).touch()
    return folder


def test_containers_count_from_0_and_share_no_lock_unless_they_share_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers with the machine's GPUs 1 and 2, a third with GPU 1 again, and the machine itself; one home."""
    monkeypatch.delenv(VISIBLE, raising=False)
    one, two, again = nodes(tmp_path / "a", 1), nodes(tmp_path / "b", 2), nodes(tmp_path / "c", 1)
    machine = nodes(tmp_path / "m", 0, 1, 2)
    assert [devices_of_this_machine(each) for each in (one, two, machine)] == [("0",), ("0",), ("0", "1", "2")]
    with gpus(tmp_path, 1, ("0",), nodes=one), gpus(tmp_path, 1, ("0",), pause=gives_up, nodes=two) as second:
        assert second == ("0",)
        with pytest.raises(Waiting), gpus(tmp_path, 1, ("0",), pause=gives_up, nodes=again):
            pass
        with gpus(tmp_path, 1, ("0", "1", "2"), pause=gives_up, nodes=machine) as left:
            assert left == ("0",)


@pytest.mark.parametrize(
    ("stage", "processes", "seen"), [("sft", 1, "0"), ("sft", 2, "0,GPU-8f/1"), ("merge", 2, "0"), ("prepare", 2, None)]
)
def test_a_stage_finds_its_devices_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: StageName, processes: int, seen: str | None
) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    values = recipe_values()
    values |= {"sft": values["sft"] | {"batch_size": 2}, "devices": {"processes": processes}}
    recipe = load_recipe(write_recipe(tmp_path / "recipe", values))
    out = tmp_path / "out" / stage
    script = f"import json, os, sys; open(sys.argv[1] + '.seen', 'w').write(json.dumps(os.environ.get('{VISIBLE}')))"
    with StageRunner((sys.executable, "-I", "-c", script), TWO) as runner:
        runner.run(StageRequest(stage=stage, recipe=recipe, home=tmp_path, out=out), silent)
    assert json.loads((out.parent / f"{stage}.request.json.seen").read_text(encoding="utf-8")) == seen
