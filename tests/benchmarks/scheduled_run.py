"""A line that nobody starts, with real weights: when each thing happens between new rows on a disk and a new champion.

    python -m tests.benchmarks.scheduled_run [--epochs 0.5]

A real Prefect server on PostgreSQL with a worker and the shipped deployments, looking at the data every minute; `tunegate serve` with
vLLM. Rows are appended, a schedule sees them, `retrain` runs, a key with the scope `approve` approves over HTTP, and `promote` gives
the release a quarter of the traffic, then all of it, while callers ask without pause. The first champion is the base model. Takes about
ten minutes.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from flows.registering import Environments, Limits, register
from serving.lifecycle import State
from tests.benchmarks.whole_system import Callers, Place
from tests.fakes_flows import ROOT, until
from tests.fakes_postgres import postgres_cluster
from tests.fakes_prefect import POLL_S, PrefectServer, prefect_server
from tests.flows.test_deployed import approve_over_http, moment, shipped

CLINIC = ROOT / "flows" / "recipes" / "clinic_en"
LONGEST_S = 1500.0


@dataclass
class Diary:
    """What happened when, in seconds since the rows arrived."""

    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    lines: list[tuple[float, str]] = field(default_factory=list)

    def note(self, what: str, at: datetime | None = None) -> None:
        """Write it down and say it."""
        self.lines.append((((at or datetime.now(UTC)) - self.began).total_seconds(), what))
        print(f"{self.lines[-1][0]:8.1f} s  {what}", flush=True)


def main() -> int:
    """Tell the diary as it is written, then the stages and the callers' account."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=0.5)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="scheduled-run-"))
    print(f"everything lies in {folder}")
    with postgres_cluster() as cluster:
        database = cluster.empty().replace("postgresql://", "postgresql+asyncpg://")
        with prefect_server(folder / "prefect", database) as prefect, prefect.ours():
            return record(folder, prefect, asked.epochs)


def record(folder: Path, prefect: PrefectServer, epochs: float) -> int:
    """Everything, from the registration to the new champion."""
    place, rows = Place(folder / "home", prefect.url), (CLINIC / "sft.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(rows[:200]), encoding="utf-8")
    recipe = write_recipe(folder / "recipe.yaml", data, epochs)
    register(shipped(folder, recipe, datetime.now(UTC) + timedelta(seconds=5)), Limits(), Environments(place.environment))
    with place.service(os.environ).running(), prefect.worker({}):
        wait(lambda: any(run["state_type"] == "COMPLETED" for run in prefect.runs("look-for-data")))
        with data.open("a", encoding="utf-8") as file:
            file.write("".join(rows[200:]))
        diary = Diary()
        diary.note(f"{len(rows) - 200} rows arrive beside 200 (a first look has been)")
        run = ended(prefect, "retrain")
        for when, what in (("created", "retrain is asked for"), ("start_time", "its process is there"), ("end_time", "it has ended")):
            diary.note(what, moment(run[when]))
        (release,) = [each for each in place.registry.releases("clinic") if each.state is State.AWAITING_APPROVAL]
        with Callers(place) as callers:
            approve_over_http(place, release)  # type: ignore[arg-type]  # it wants a registry and an address
            diary.note(f"{release.id} is approved over HTTP")
            wait(lambda: place.registry.release(release.id).state is State.LIVE)
            ended(prefect, "promote")
        for step in place.registry.history(release.id):
            if step.at > diary.began:
                diary.note(f"{step.from_state} → {step.to_state} by {step.actor}: {step.reason}", step.at)
    print_stages(prefect, run)
    print("callers:", ", ".join(f"{came} from {name}: {count}" for (came, name), count in sorted(callers.seen.items())))
    return 0 if {came for came, _ in callers.seen} == {"answer"} else 1


def write_recipe(path: Path, data: Path, epochs: float) -> Path:
    """The demo's recipe, shorter, over other rows, with one step before all the traffic."""
    recipe: dict[str, Any] = yaml.safe_load((ROOT / "flows" / "recipes" / "demo.yaml").read_text(encoding="utf-8"))
    recipe["name"] = "scheduled"
    recipe["data"]["sft"] = [{"path": str(data)}]
    recipe["sft"]["epochs"] = epochs
    recipe["merge"]["validation_suite"] = str(CLINIC / "validation")
    recipe["evaluation"] |= {"suite": str(CLINIC / "suite")}
    recipe["gate"] = {"must": {"rule_pass_rate": {"min": 0.05}}, "min_prompts": 60}
    # Two engines share two cores here: latency is no evidence.
    recipe["serving"]["rollout"] = {
        "steps": [{"percent": 25, "min_requests": 10, "min_s": 10}],
        "interval_s": 2, "watch_s": 0, "max_error_increase": 0.4, "max_latency_ratio": 10, "max_first_token_ratio": 10,
        "max_violation_increase": 0.5,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def wait(true: Any) -> None:
    """Until it is so."""
    until(true, LONGEST_S, POLL_S)


def ended(prefect: PrefectServer, flow: str) -> dict[str, Any]:
    """The first run of a flow, once it is complete."""
    wait(lambda: any(run["state_type"] in ("COMPLETED", "FAILED", "CRASHED") for run in prefect.runs(flow)))
    return prefect.wait_for_run(flow)


def print_stages(prefect: PrefectServer, run: dict[str, Any]) -> None:
    """Where the time of `retrain` went."""
    tasks = prefect.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    for task in sorted(tasks, key=lambda each: str(each["start_time"])):
        print(f"  {task['name'].rsplit('-', 1)[0]:<24} {task['total_run_time']:8.1f} s")
    between_s = run["total_run_time"] - sum(task["total_run_time"] for task in tasks)
    print(f"  {'between stages':<24} {between_s:8.2f} s of {run['total_run_time']:.1f} (bound {5 + 0.01 * run['total_run_time']:.1f})")


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"in all {time.monotonic() - started:.0f} s")
    sys.exit(code)
