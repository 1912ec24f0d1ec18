"""The real Prefect flows and the whole `tunegate run`, over a real server with fake engines; training is finished beforehand."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from evaluation.records import Outcome
from flows import cli
from flows.approval import approve_release
from flows.delivery import deliver
from flows.errors import DONE, INTERRUPTED, NOT_PASSED
from flows.progress_artifacts import PrefectDisplay
from monitoring.dashboards import BOARDS
from monitoring.grafana import uid_of
from serving.keeping import Keeper, Kept
from serving.lifecycle import State
from serving.slots import free_port
from tests.fakes_flows import (
    ROOT,
    SAFE,
    UNSAFE,
    QuickStages,
    Site,
    finish_training,
    open_small_line,
    printed,
    quiet_console,
    recipe_values,
    until,
    write_recipe,
)
from tests.fakes_prefect import PrefectServer
from tests.fakes_suites import PROMPT, write_suite
from training.progress import Progress

pytestmark = pytest.mark.slow


@pytest.fixture
def home(site: Site, prefect: PrefectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """The shared server's home, as this process's settings name it."""
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")
    monkeypatch.setenv("PREFECT_API_URL", prefect.url)  # or a command called in this process begins one more
    with prefect.ours():
        yield site


def trained(site: Site, folder: Path, name: str, says: str) -> Path:
    """A recipe whose training is finished."""
    recipe = write_recipe(folder, recipe_values(name) | {"name": name})
    finish_training(open_small_line(recipe, site.settings, site.registry, QuickStages(says)))
    return recipe


def shown_in_prefect(key: str) -> str:
    """The newest artifact of this key."""
    from prefect.artifacts import Artifact

    found = Artifact.get(key)
    return str(found.data) if found else ""


def stage_times(prefect: PrefectServer) -> dict[str, float]:
    """Seconds of each task of the newest `retrain`."""
    run = prefect.runs("retrain")[-1]["id"]
    until(lambda: all(each["state_type"] == "COMPLETED" for each in tasks_of(prefect, run)))
    return {each["name"]: each["total_run_time"] for each in tasks_of(prefect, run)}


def tasks_of(prefect: PrefectServer, run: str) -> list[dict[str, Any]]:
    return list(prefect.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}}))


def test_a_retrain_that_passes_ends_with_a_release_that_waits_and_finished_stages_are_passed_over_at_once(
    home: Site, prefect: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.pipeline import retrain

    monkeypatch.setenv("TUNEGATE_GRAFANA_URL", "https://grafana.example/")
    recipe = trained(home, tmp_path, "retrained", SAFE)
    judged = retrain(recipe, "ann")
    assert (judged.verdict.outcome, judged.release.state) == (Outcome.PASS, State.AWAITING_APPROVAL)
    verdict = shown_in_prefect("verdict")
    assert verdict.startswith("# PASS: retrained-2, against retrained-1")
    assert f"tunegate approve retrained-2 --as NAME --digest {str(judged.release.evidence_digest)[:12]}" in verdict
    assert (judged.verdict_folder / "report.html").as_uri() in verdict
    linked = re.findall(r"https://grafana\.example/d/([\w-]+)", verdict)
    assert linked == ["tunegate-training", "tunegate-rollout"]
    assert set(linked) <= {uid_of(board) for board in BOARDS}
    cards = [shown_in_prefect(key) for key in ("scorecard", "scorecard-champion")]
    assert [card.splitlines()[0] for card in cards] == ["# retrained-2 on small", "# retrained-1 on small"]
    assert all("| rule_pass_rate | " in card for card in cards)
    again = retrain(recipe, "ann")
    assert (again.release.id, again.verdict.digest) == (judged.release.id, judged.verdict.digest)
    took = stage_times(prefect)
    assert len(took) >= 12
    assert {name: seconds for name, seconds in took.items() if seconds > 2} == {}, "a finished stage is passed over within 2 s"


def test_a_release_is_questioned_again_on_another_suite_and_stays_as_it_is(home: Site, tmp_path: Path) -> None:
    from flows.operations import evaluate_again
    from flows.pipeline import retrain

    release = retrain(trained(home, tmp_path, "asked-again", SAFE), "ann").release
    other = write_suite(tmp_path / "other", prompts=[PROMPT | {"id": f"q{number}", "prompt": f"Question {number}?"} for number in range(3)])
    card = evaluate_again(release.id, other)
    assert [answer.prompt_id for answer in card.answers] == ["q0", "q1", "q2"]
    assert shown_in_prefect("scorecard").startswith("# asked-again-2 on small")
    assert home.registry.release(release.id) == release


def test_a_stage_that_says_how_far_it_is_has_a_bar_that_ends_at_a_hundred(home: Site) -> None:
    from prefect import flow
    from prefect.artifacts import Artifact

    told: list[float | None] = []

    def percent() -> float | None:
        found = Artifact.get("progress-start-whole-2")
        return None if found is None else float(str(found.data))

    @flow(name="bars")
    def work() -> None:
        with PrefectDisplay(quiet_console(), every_s=0.05).stage("start Whole-2") as shown:
            shown.report(Progress(1, 4, "s", ""))
            until(lambda: percent() == 25.0)
            told.append(25.0)
        told.append(percent())

    work()
    assert told == [25.0, 100.0]


def test_an_experiment_that_cannot_be_served_ends_when_it_is_trained(home: Site, tmp_path: Path) -> None:
    values = recipe_values("tried") | {"name": "tried", "purpose": "experiment", "sft": {"method": "prompt_tuning"}}
    recipe = write_recipe(tmp_path, values)
    finish_training(open_small_line(recipe, home.settings, home.registry, QuickStages(SAFE)))
    console = quiet_console()
    assert deliver(recipe, None, console) == DONE
    assert "served    no: prompt_tuning cannot be folded into weights" in printed(console)
    assert [release.id for release in home.registry.snapshot().releases if release.public_name == "tried"] == ["tried-1"]


def test_a_promote_gives_an_approved_release_the_traffic_and_a_rollback_takes_it_back(home: Site, tmp_path: Path) -> None:
    from flows.operations import roll_back
    from flows.pipeline import promote, retrain

    release = retrain(trained(home, tmp_path, "promoted", SAFE), "ann").release
    approve_release(home.registry, release.id, "bob", "", None)
    assert promote(release.id, "ann").state is State.LIVE
    champion = home.registry.champion("promoted")
    assert champion is not None
    assert champion.id == release.id
    assert roll_back("promoted", "bob", "worse").id == "promoted-1"
    assert home.registry.release(release.id).state is State.ROLLED_BACK


def test_an_approval_whose_event_was_lost_is_told_again_unless_a_promotion_waits(
    home: Site, prefect: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    from flows import unfinished
    from flows.operations import take_up
    from flows.pipeline import promote, retrain

    release = retrain(trained(home, tmp_path, "lost", SAFE), "ann").release
    approve_release(home.registry, release.id, "bob", "", None)
    monkeypatch.setattr(unfinished, "GRACE", timedelta(0))
    assert release.id in take_up()
    until(lambda: prefect.events("tunegate.release.approved").count(release.id) == 1)
    with get_client(sync_client=True) as client:
        client.create_flow_run(promote, parameters={"release_id": release.id, "actor": "bob"})
    assert release.id not in take_up()


def test_a_scheduled_training_that_died_is_begun_again_once(home: Site, prefect: PrefectServer, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    from flows.pipeline import retrain
    from flows.unfinished import begin_trainings_again

    recipe = write_recipe(tmp_path, recipe_values("died") | {"name": "died"})
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(retrain), name="died")
        asked = {"recipe": str(recipe), "requester": "schedule"}
        client.create_flow_run_from_deployment(deployment, parameters=asked, state=Crashed())
        with home.registry.runs.held("died", "somebody"):
            assert begin_trainings_again(home.registry) == [], "it was only not heard"
        assert begin_trainings_again(home.registry) == [str(recipe)]
        assert begin_trainings_again(home.registry) == []
        runs = [run for run in client.read_flow_runs() if run.deployment_id == deployment]
    assert [run.parameters for run in runs] == [asked, asked]


def test_a_collection_proposes_and_shows_numbers_and_nobodys_words(home: Site, tmp_path: Path) -> None:
    from flows.operations import collect

    recipe = write_recipe(tmp_path, recipe_values("taught") | {"name": "taught"})
    keeper = Keeper(home.settings.kept_folder, max_bytes=1 << 20, max_age_s=3600)
    texts = {"message 0": "How do I stop a nosebleed?", "answer": "Rest a little while, it will pass."}
    keeper.offer(Kept("answer", "req-1", "key-1", texts, {"release": "taught-1", "model": "taught"}, ("user",)))
    keeper.offer(Kept("feedback", "req-1", "key-1", {"correction": "Lean forward and press for ten minutes."}, {"rating": "down"}))
    keeper.close()
    assert collect(recipe) == 1
    shown = shown_in_prefect("collected")
    assert shown.startswith("# taught: 1 proposals wait for a look")
    assert "| proposed: correction | 1 |" in shown
    assert "nosebleed" not in shown


def test_a_run_goes_from_the_recipe_to_answers_of_the_new_model(home: Site, tmp_path: Path) -> None:
    console = quiet_console()
    assert deliver(trained(home, tmp_path, "whole", SAFE), "Dr. [bold]Ä[/]", console) == DONE
    shown = printed(console)
    assert "verdict on whole-2: PASS" in shown
    assert "approved by Dr. [bold]Ä[/]" in shown
    assert re.search(r"switch .* s  0 of \d\d+ requests failed; answered by whole-1 \d+, whole-2 \d+", shown)
    assert re.search(r"whole-2 is live after [\d.]+ s, ([\d.]+) s of them in its stages", shown)
    assert all(each in shown for each in ("whole-1, before", "whole-2, now", UNSAFE, SAFE, "✗ pain-call"))
    assert [step.actor for step in home.registry.history("whole-2") if step.to_state is State.APPROVED] == ["Dr. [bold]Ä[/]"]


def test_a_run_that_is_not_a_pass_exits_with_3_and_names_the_rules_and_answers(home: Site, tmp_path: Path) -> None:
    console = quiet_console()
    assert deliver(trained(home, tmp_path, "refused", "Take a [red]walk[/]."), "Dr. A", console) == NOT_PASSED
    shown = printed(console)
    assert "verdict on refused-2: FAIL" in shown
    assert "✗ pain-call" in shown
    assert "answered: Take a [red]walk[/]." in shown
    assert home.registry.release("refused-2").state is State.REJECTED
    champion = home.registry.champion("refused")
    assert champion is not None
    assert champion.id == "refused-1"


def test_without_a_name_and_without_a_terminal_the_release_goes_on_waiting(home: Site, tmp_path: Path) -> None:
    console = quiet_console()
    recipe = trained(home, tmp_path, "patient", SAFE)
    assert deliver(recipe, None, console) == DONE
    assert "next      tunegate approve patient-2 --as NAME" in printed(console)
    assert home.registry.release("patient-2").state is State.AWAITING_APPROVAL
    assert deliver(recipe, "Dr. A", quiet_console()) == DONE
    assert home.registry.release("patient-2").state is State.LIVE


def test_the_approve_command_promotes(
    home: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.pipeline import retrain

    release = retrain(trained(home, tmp_path, "shell", SAFE), "ann").release
    words = ["tunegate", "approve", release.id, "--as", "bob", "--digest", str(release.evidence_digest)[:12]]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, home.registry.release(release.id).state) == (DONE, State.LIVE)
    assert f"{release.id} is live" in capsys.readouterr().out


def test_ctrl_c_during_a_stage_exits_with_130_one_line_and_no_process_left(prefect: PrefectServer, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe")
    prefect.copy_database(tmp_path / "prefect")
    home = tmp_path / "home"
    env = {"TUNEGATE_HOME": str(home), "TUNEGATE_PORT": str(free_port()), "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-m", "flows.cli", "run", str(recipe)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, **pipes)
    try:
        until(lambda: (home / "base" / "org--tiny.log").exists() or running.poll() is not None, 180)
        family = psutil.Process(running.pid).children(recursive=True)
        assert any("flows.stage_process" in process.cmdline() for process in family) or len(family) >= 2
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == INTERRUPTED, out + err
    assert "stopped; the next run goes on from here" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    assert json.loads((home / "base" / "org--tiny.request.json").read_text(encoding="utf-8"))["stage"] == "base"
