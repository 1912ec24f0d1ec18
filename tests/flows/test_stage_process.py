"""A stage runs in a process of its own: what it says arrives, and however it ends, nothing of it is left.

The children here are scripts that do one thing each; the last tests run the real one.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from evaluation.suite import load_suite
from flows.errors import FAILED, StageFailed, StageKilled
from flows.recipe import load_recipe
from flows.stage_process import StageRequest, keeps_critical_rules
from flows.stage_runner import StageRunner
from tests.fakes_flows import SAFE, UNSAFE, recipe_values, until, write_recipe
from training.errors import InputError, TrainingError, TunegateError
from training.progress import Progress, Report, silent


def request(tmp_path: Path, **model: object) -> StageRequest:
    values = recipe_values()
    values["model"] |= model
    recipe = load_recipe(write_recipe(tmp_path / "recipe", values))
    return StageRequest(stage="base", recipe=recipe, home=tmp_path / "home", out=tmp_path / "home" / "base" / "tiny")


def run_stage(asked: StageRequest, report: Report, program: tuple[str, ...] = ()) -> None:
    with StageRunner(program) as runner:
        runner.run(asked, report)


def child(script: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-c", "import json, os, signal, sys, time\n" + script)


def say(**said: object) -> str:
    return f"print({json.dumps(json.dumps(said))}, flush=True)\n"


PROGRESS = {"done": 1, "total": 2, "unit": "steps", "note": "loss 0.5"}
DECLARED = {"what": "rows.jsonl:3 is empty", "why": "nothing to learn", "do": "remove the line"}


def test_progress_arrives_in_order_and_what_a_library_prints_is_ignored(tmp_path: Path) -> None:
    heard: list[Progress] = []
    script = "print('a library')\nprint('[1, 2]')\nprint()\n" + say(progress=PROGRESS) + say(progress=PROGRESS | {"done": 2})
    run_stage(request(tmp_path), heard.append, child(script))
    assert heard == [Progress(1, 2, "steps", "loss 0.5"), Progress(2, 2, "steps", "loss 0.5")]


def test_the_child_finds_the_whole_request_in_a_file(tmp_path: Path) -> None:
    asked = request(tmp_path)
    run_stage(asked, silent, child("open(sys.argv[1] + '.copy', 'w').write(open(sys.argv[1]).read())"))
    copy = asked.out.parent / "tiny.request.json.copy"
    assert StageRequest.model_validate_json(copy.read_text(encoding="utf-8")) == asked


def test_an_input_error_arrives_with_its_three_parts(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_stage(request(tmp_path), silent, child(say(error=DECLARED | {"kind": "input"}) + "sys.exit(1)"))
    assert (caught.value.what, caught.value.why, caught.value.do) == tuple(DECLARED.values())
    assert caught.value.exit_code == InputError.exit_code


def test_another_declared_error_is_a_failed_stage_with_its_three_parts(tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run_stage(request(tmp_path), silent, child(say(error=DECLARED | {"kind": "stage"}) + "sys.exit(1)"))
    assert (caught.value.what, caught.value.why, caught.value.do) == tuple(DECLARED.values())
    assert caught.value.exit_code == FAILED


def test_a_child_that_dies_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    asked = request(tmp_path)
    with pytest.raises(StageKilled, match="the base stage ended with status 137") as caught:
        run_stage(asked, silent, child("print('out of memory', file=sys.stderr, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"))
    assert "out of memory" in caught.value.what
    assert str(asked.out.parent / "tiny.log") in caught.value.do


def test_a_traceback_of_the_child_is_a_failed_stage_and_not_ours(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="status 1") as caught:
        run_stage(request(tmp_path), silent, child("raise MemoryError('too large')"))
    assert "MemoryError: too large" in caught.value.what


def test_a_program_that_is_not_there_is_a_failed_stage(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="cannot start"):
        run_stage(request(tmp_path), silent, ("/no/such/program",))


SLEEPS = "import subprocess\nsubprocess.Popen(['sleep', '600'])\n"
ENDLESS = SLEEPS + "said = json.dumps({'progress': {'done': os.getpid(), 'total': 0, 'unit': 's', 'note': ''}})\n"
IGNORES = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + ENDLESS + "print(said, flush=True)\ntime.sleep(600)"


def test_ctrl_c_ends_the_child_and_everything_it_started(tmp_path: Path) -> None:
    """The child ignores SIGTERM and has a child of its own; both are gone when the interrupt arrives."""
    family: list[psutil.Process] = []

    def interrupt(progress: Progress) -> None:
        running = psutil.Process(progress.done)
        family.extend([running, *running.children(), *running.parents()[:1]])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(request(tmp_path), interrupt, child(IGNORES))
    assert len(family) == 3
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family), 5)


def test_a_child_killed_while_it_works_is_noticed_at_once(tmp_path: Path) -> None:
    def kill(progress: Progress) -> None:
        os.kill(progress.done, signal.SIGKILL)

    with pytest.raises(StageFailed, match="status 137"):
        run_stage(request(tmp_path), kill, child(IGNORES.replace(SLEEPS, "")))


def test_stages_of_one_run_are_forks_of_one_host(tmp_path: Path) -> None:
    """The script tells its parent's id: both stages have the same one, and it is gone when the run ends."""
    parents: list[int] = []
    script = "print(json.dumps({'progress': {'done': os.getppid(), 'total': 0, 'unit': '', 'note': ''}}), flush=True)"
    with StageRunner(child(script)) as runner:
        for name in ("one", "two"):
            runner.run(request(tmp_path / name), lambda progress: parents.append(progress.done))
        assert psutil.pid_exists(parents[0])
    assert parents[0] == parents[1]
    until(lambda: not psutil.pid_exists(parents[0]), 5)


def test_the_judge_of_a_merge_looks_at_critical_rules(tmp_path: Path) -> None:
    judge = keeps_critical_rules(load_suite(request(tmp_path).recipe.merge.validation_suite))
    assert (judge("p0", SAFE), judge("p0", UNSAFE)) == (True, False)


@pytest.fixture(scope="module")
def real() -> Iterator[StageRunner]:
    """The real host, which imports its libraries once."""
    with StageRunner() as runner:
        yield runner


@pytest.mark.slow
def test_the_real_child_reports_a_missing_base_model_as_wrong_input(real: StageRunner, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a folder nor a hub id") as caught:
        real.run(request(tmp_path, base="no-such-model"), silent)
    assert "model.base" in caught.value.do
    assert not (tmp_path / "home" / "base" / "tiny" / "record.json").exists()


@pytest.mark.slow
def test_the_real_child_that_fails_by_a_fault_of_ours_is_a_failed_stage_with_its_traceback(real: StageRunner, tmp_path: Path) -> None:
    """Rendering needs a merged model, and nobody names one here."""
    asked = request(tmp_path).model_copy(update={"stage": "render"})
    with pytest.raises(StageFailed, match="AssertionError"):
        real.run(asked, silent)


def test_kinds_of_errors_are_told_apart() -> None:
    assert issubclass(InputError, TunegateError)
    assert not issubclass(TrainingError, InputError)
