"""What orchestration costs: the wall time of runs less the sum of their stages, and how long a finished stage takes to be passed over.

    python -m tests.benchmarks.orchestration                   the whole command over stages and engines that take no time, twice
    python -m tests.benchmarks.orchestration --home HOME …     runs that happened, as Prefect's own database below HOME remembers them

The bound is 5 s + 1 % of the wall time. Of the command it is held against everything that is no stage: the interpreter, imports, a
Prefect server of its own, its end. What the stages took, the switch among them, is what the command itself says; the wall time is
taken from outside. Of a flow that happened it is held against what lay between its stages.
The second run finds every stage finished; each may take 2 s.
"""

import argparse
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.fakes_flows import ROOT, SAFE, QuickStages, Site, finish_training, open_small_line, recipe_values, write_recipe

MOST_S, MOST_SHARE, SKIP_S = 5.0, 0.01, 2.0
# Stages that do work in every run, finished or not, are no passing over.
WORKS = ("keep_champion_serving", "look_for_drift", "gate", "switch")


@dataclass(frozen=True)
class FlowRun:
    """A flow that ended, and its stages as (name, seconds)."""

    flow: str
    seconds: float
    stages: tuple[tuple[str, float], ...]

    @property
    def between_s(self) -> float:
        """What no stage accounts for."""
        return self.seconds - sum(seconds for _, seconds in self.stages)

    @property
    def slowest(self) -> tuple[str, float]:
        """The stage that took longest of those that may be passed over."""
        return max(((name, seconds) for name, seconds in self.stages if name not in WORKS), key=lambda each: each[1], default=("–", 0.0))


def flow_runs(home: Path) -> list[FlowRun]:
    """Every completed flow that Prefect's database below `home` remembers, in their order."""
    with closing(sqlite3.connect(f"file:{home / 'prefect' / 'prefect.db'}?mode=ro", uri=True)) as database:
        found = database.execute(
            "SELECT r.id, f.name, r.start_time, r.end_time FROM flow_run r JOIN flow f ON f.id = r.flow_id "
            "WHERE r.state_type = 'COMPLETED' ORDER BY r.start_time"
        ).fetchall()
        return [FlowRun(name, _seconds(start, end), tuple(_stages(database, number))) for number, name, start, end in found]


def _stages(database: sqlite3.Connection, flow_run: str) -> Iterator[tuple[str, float]]:
    rows = database.execute("SELECT name, start_time, end_time FROM task_run WHERE flow_run_id = ? ORDER BY start_time", (flow_run,))
    for name, start, end in rows:
        yield name.rpartition("-")[0], _seconds(start, end)


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def show(title: str, wall_s: float, stages_s: float) -> None:
    """One line of the table."""
    bound, between_s = MOST_S + MOST_SHARE * wall_s, wall_s - stages_s
    print(f"{title:<44} {wall_s:>8.2f} {stages_s:>8.2f} {between_s:>9.2f} {bound:>7.2f}  {'ok' if between_s <= bound else 'MISSED'}")


def measure_command(site: Site, recipe: Path, title: str) -> list[FlowRun]:
    """Run the whole command once; its flows."""
    before = len(flow_runs(site.settings.home)) if (site.settings.home / "prefect" / "prefect.db").exists() else 0
    env = {**os.environ, **site.environment, "PYTHONPATH": str(ROOT)}
    env.pop("PREFECT_API_URL", None)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(recipe), "--approve-as", "benchmark"],
        env=env,
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    wall_s, runs = time.monotonic() - started, flow_runs(site.settings.home)[before:]
    said = re.search(r" after [\d.]+ s, ([\d.]+) s of them in its stages", done.stdout)
    assert said is not None, done.stdout
    show(title, wall_s, float(said[1]))
    for run in runs:
        show(f"  its flow {run.flow}, {len(run.stages)} stages", run.seconds, run.seconds - run.between_s)
    return runs


def measure_with_fakes() -> None:
    """The command over stages that are finished and engines that answer at once; then again."""
    with tempfile.TemporaryDirectory() as made:
        site = Site(Path(made) / "home")
        with site.serving():
            recipe = write_recipe(Path(made), recipe_values("bench") | {"name": "bench"})
            finish_training(open_small_line(recipe, site.settings, site.registry, QuickStages(SAFE)))
            measure_command(site, recipe, "tunegate run, no Prefect server about")
            (again, *_) = measure_command(site, recipe, "the same again, all finished")
            name, seconds = again.slowest
            print(f"\nslowest finished stage: {name}, {seconds:.2f} s (bound {SKIP_S:g} s)")
        site.registry.close()


def main() -> None:
    """Measure, or read, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, nargs="*", default=[], help="TUNEGATE_HOME of a run that happened without a Prefect server")
    homes = parser.parse_args().home
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'seconds':<44} {'wall':>8} {'stages':>8} {'between':>9} {'bound':>7}")
    for home in homes:
        for run in flow_runs(home):
            show(f"{home.name}: {run.flow}, {len(run.stages)} stages", run.seconds, run.seconds - run.between_s)
    if not homes:
        measure_with_fakes()


if __name__ == "__main__":
    main()
