"""The line end to end, through the command: real weights, real NF4, real TRL, real vLLM, real Prefect. Takes some minutes.

A few rows of the clinic set train the embedded model for a few steps, which is enough to prove every joint; whether the demo's
candidate is good is the demo's own business. The second recipe differs in its gate alone, so everything before it must be kept.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from serving.slots import free_port
from tests.fakes_embedded import share_base

RECIPES = Path(__file__).resolve().parents[2] / "flows" / "recipes"
TRAIN_ROWS, PROMPTS, VALIDATION_PROMPTS, FORGETTING_ITEMS = 40, 12, 4, 8
RUN_LIMIT_S = 900

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@dataclass(frozen=True)
class Bench:
    """A folder with two small recipes, and a home of its own."""

    folder: Path
    environment: dict[str, str]

    def tunegate(self, *arguments: str, limit_s: float = RUN_LIMIT_S) -> "subprocess.CompletedProcess[str]":
        """Run the command as a user would."""
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=RECIPES.parents[1],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=limit_s,
        )

    def status(self) -> dict[str, object]:
        """What `tunegate status --json` says."""
        said: dict[str, object] = json.loads(self.tunegate("status", "--json").stdout)
        return said


def _head(source: Path, target: Path, count: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    # Every n-th line, so that all topics are there.
    target.write_text("".join(lines[:: max(1, len(lines) // count)][:count]), encoding="utf-8")


def _write_recipes(folder: Path) -> None:
    clinic = RECIPES / "clinic_en"
    _head(clinic / "sft.jsonl", folder / "clinic/sft.jsonl", TRAIN_ROWS)
    for name, count in (("suite", PROMPTS), ("validation", VALIDATION_PROMPTS)):
        _head(clinic / name / "prompts.jsonl", folder / "clinic" / name / "prompts.jsonl", count)
        header = yaml.safe_load((clinic / name / "suite.yaml").read_text(encoding="utf-8"))
        header |= {"rules": str(clinic / "suite" / "rules.yaml"), "generation": {"max_tokens": 24, "temperature": 0.0}}
        (folder / "clinic" / name / "suite.yaml").write_text(yaml.safe_dump(header), encoding="utf-8")
    recipe = yaml.safe_load((RECIPES / "demo.yaml").read_text(encoding="utf-8"))
    recipe["name"] = "small"
    recipe["data"]["sft"] = [{"path": "clinic/sft.jsonl"}]
    recipe["sft"] |= {"epochs": 1, "checkpoint_every_steps": 4}
    recipe["merge"] = {"validation_suite": "clinic/validation", "max_validation_rows": 4, "max_new_tokens": 16}
    recipe["evaluation"] |= {"suite": "clinic/suite", "forgetting": {"items": FORGETTING_ITEMS}}
    recipe["gate"] = {"must": {"empty_answers": {"max": 0}}, "min_prompts": PROMPTS}
    (folder / "lenient.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    recipe["gate"]["must"] = {"critical_failures": {"max": 0}, "rule_pass_rate": {"min": 1.0}}
    (folder / "strict.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("line")
    _write_recipes(folder)
    environment = os.environ | {
        "TUNEGATE_HOME": str(folder / "home"),
        "TUNEGATE_PORT": str(free_port()),
        "PREFECT_HOME": str(folder / "prefect"),
    }
    made = Bench(folder, environment)
    yield made
    made.tunegate("stop", limit_s=120)


@pytest.fixture(scope="module")
def strict(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    """The first run: a gate this candidate cannot pass."""
    ran = bench.tunegate("run", str(bench.folder / "strict.yaml"), "--approve-as", "tester")
    share_base(bench.folder / "home", tmp_path_factory)
    return ran


@pytest.fixture(scope="module")
def lenient(bench: Bench, strict: object) -> "subprocess.CompletedProcess[str]":
    """The second run: the same model, judged by a gate it can pass."""
    return bench.tunegate("run", str(bench.folder / "lenient.yaml"), "--approve-as", "tester")


def test_a_candidate_that_breaks_critical_rules_is_refused_by_name(bench: Bench, strict: "subprocess.CompletedProcess[str]") -> None:
    assert strict.returncode == 3, strict.stdout + strict.stderr
    assert "FAIL" in strict.stdout
    assert "✗" in strict.stdout
    assert "answered:" in strict.stdout
    assert bench.status()["champions"] == {"clinic": "clinic-1"}


def test_a_run_whose_inputs_have_not_changed_keeps_every_stage_and_goes_to_production(
    bench: Bench, lenient: "subprocess.CompletedProcess[str]"
) -> None:
    assert lenient.returncode == 0, lenient.stdout + lenient.stderr
    kept = [line for line in lenient.stdout.splitlines() if " kept " in line]
    assert len(kept) >= 5, lenient.stdout
    assert bench.status()["champions"] == {"clinic": "clinic-3"}


def test_nobody_notices_the_switch(lenient: "subprocess.CompletedProcess[str]") -> None:
    line = next(line for line in lenient.stdout.splitlines() if "requests failed" in line)
    failed, _, sent, *_ = line.split("switch")[1].split(" s ")[1].split()
    assert (int(failed), int(sent) > 10) == (0, True)
    assert "clinic-1 " in line
    assert "clinic-3 " in line


def test_both_releases_are_asked_and_shown_side_by_side(lenient: "subprocess.CompletedProcess[str]") -> None:
    assert "clinic-1, before" in lenient.stdout
    assert "clinic-3, now" in lenient.stdout


def test_the_report_is_written_and_names_no_file_outside_itself(bench: Bench, lenient: object) -> None:
    reports = list((bench.folder / "home/runs/small").glob("verdict-*/report.html"))
    assert len(reports) == 2
    assert all("http://" not in report.read_text(encoding="utf-8").replace("http://www.w3.org", "") for report in reports)


def test_the_gateway_counts_what_it_served_by_release(bench: Bench, lenient: object) -> None:
    page = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{bench.environment['TUNEGATE_PORT']}/metrics').read().decode())",
        ],
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    assert 'tunegate_requests_total{outcome="ok",release="clinic-3",route="chat_completions"}' in page
    assert "tunegate_champion_generation" in page


def test_a_rollback_puts_the_former_champion_back_and_it_answers(bench: Bench, lenient: object) -> None:
    rolled = bench.tunegate("rollback", "clinic", "--as", "tester")
    assert rolled.returncode == 0, rolled.stderr
    answer = bench.tunegate("ask", "clinic", "Hello, who are you?")
    assert answer.stdout.startswith("clinic-1"), answer.stdout + answer.stderr


def test_stopping_leaves_no_process_behind(bench: Bench, lenient: object) -> None:
    status = bench.status()
    pid = status["server"]["pid"]  # type: ignore[index,call-overload]
    children = psutil.Process(pid).children(recursive=True)
    assert children
    assert bench.tunegate("stop", limit_s=120).returncode == 0
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert (len(gone) > 0, alive) == (True, [])
