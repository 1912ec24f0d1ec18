"""What SIGKILL costs a whole installation, whichever of its processes it takes, and whether the line ends as it would have.

    python -m tests.benchmarks.system_kills [--kills N] [--seed S] [--minutes M]

PostgreSQL (Prefect's database and the registry), Prefect's server, a worker with the shipped deployments, and `tunegate serve` with two
gateway workers and vLLM, all real; the model is tiny and made on the spot. One line runs undisturbed. Then lines run while a random
process of a random kind is killed at a random moment, again and again; what a service manager would start again is started again, and
people do no more than approve. A line that is live is held against the undisturbed one: digests, answers, steps of its releases, lines
of the audit log, notices; and callers may have seen answers, errors that say when to ask again, and cut connections, and nothing else.

The table is printed at the end, and when it is broken off. Next: `system_line.py`, one line; `whole_system.py`, the installation.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from tests.benchmarks.system_line import Line, System, write_recipe
from tests.benchmarks.system_targets import TARGETS, Target
from tests.benchmarks.whole_system import Service
from tests.fakes_flows import until
from tests.fakes_postgres import Cluster, postgres_cluster
from tests.fakes_prefect import WORKER, answers, new_server

LONGEST_RECOVERY_S = 600.0
CALM_LIMIT_S, LINE_LIMIT_S = 900.0, 3600.0
GAP_S = 20.0
_LOOK_S = 0.5


@dataclass
class Hit:
    """One kill. `recovered_s` is None while the system is not whole again."""

    target: str
    stage: str
    line: int
    at: float
    finished: frozenset[str]
    recovered_s: float | None = None
    skipped_s: float | None = None


class Storm:
    """Kills in one line after another, and remembers what each cost."""

    def __init__(self, system: System, kills: int, seed: int, until_s: float) -> None:
        self.system, self.left, self.chance, self.until_s = system, kills, random.Random(seed), until_s
        self.hits, self.faults = list[Hit](), list[str]()

    @property
    def over(self) -> bool:
        """Whether no more kills are to come."""
        return self.left <= 0 or time.monotonic() > self.until_s

    def through(self, line: Line) -> None:
        """Kill until the line is live, and once more then."""
        next_at = time.monotonic() + self.chance.uniform(1.0, GAP_S)
        pending: Hit | None = None
        while True:
            line.drive()
            assert time.time() - line.began < LINE_LIMIT_S, f"line {line.number} does not end: {line.stage()}, {line.why()}"
            if pending is not None and self._ended(line, pending):
                pending, next_at = None, time.monotonic() + self.chance.uniform(0.0, GAP_S)
            live = line.is_live()
            if pending is None and live and (self.over or any(hit.stage == "live" and hit.line == line.number for hit in self.hits)):
                break
            if pending is None and not self.over and (live or time.monotonic() >= next_at):
                pending = self._hit(line)
            time.sleep(_LOOK_S)
        self._note_skips(line)

    def _hit(self, line: Line) -> Hit:
        stage, finished = line.stage(), line.finished()
        target, victims = self._choose()
        hit = Hit(target.name, stage, line.number, time.time(), finished)
        if left := target.kill(self.system, victims):
            self.faults.append(f"line {line.number}: {len(left)} processes outlived {target.name}: {left}")
        self.left -= 1
        self.hits.append(hit)
        print(f"kill {len(self.hits):>3}: {target.name:<26} during {stage:<10} {len(victims)} processes", flush=True)
        return hit

    def _choose(self) -> tuple[Target, Sequence[psutil.Process]]:
        while True:
            target = self.chance.choice(TARGETS)
            if victims := target.find(self.system, self.chance):
                return target, victims

    def _ended(self, line: Line, hit: Hit) -> bool:
        spent = time.time() - hit.at
        if line.is_whole():
            hit.recovered_s = spent
            print(f"          whole again after {spent:.1f} s", flush=True)
            return True
        if spent > LONGEST_RECOVERY_S:
            self.faults.append(f"line {hit.line}: not whole {spent:.0f} s after {hit.target} was killed during {hit.stage}: {line.why()}")
            print(self.faults[-1], flush=True)
            return True
        return False

    def _note_skips(self, line: Line) -> None:
        for hit in self.hits:
            if hit.line == line.number:
                hit.skipped_s = line.skipped_s(hit.at, hit.finished)


def print_table(hits: Sequence[Hit]) -> None:
    """Target, kills, stages, and the median and the longest of what it took."""
    print(f"\n{'killed':<26} {'times':>5}  {'whole again after':>18}  {'passed over in':>14}  during")
    for name in [target.name for target in TARGETS]:
        mine = [hit for hit in hits if hit.target == name]
        if not mine:
            continue
        took = [hit.recovered_s for hit in mine if hit.recovered_s is not None]
        skipped = [hit.skipped_s for hit in mine if hit.skipped_s is not None]
        during = ", ".join(f"{stage} {sum(hit.stage == stage for hit in mine)}" for stage in dict.fromkeys(hit.stage for hit in mine))
        print(f"{name:<26} {len(mine):>5}  {_range(took):>18}  {_range(skipped):>14}  {during}")
    print(f"{'in all':<26} {len(hits):>5}", flush=True)


def _range(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{median(values):.1f} ({max(values):.1f}) s"


@contextmanager
def installation(folder: Path, cluster: Cluster) -> Iterator[System]:
    """Prefect's server and its worker, kept up."""
    database = cluster.empty().replace("postgresql://", "postgresql+asyncpg://")
    prefect, command = new_server(folder / "prefect", database)
    server = Service("prefect", command, prefect.env, prefect.folder, prefect.folder / "server.log")
    worker = Service("worker", WORKER, prefect.env, prefect.folder, prefect.folder / "worker.log")
    with prefect.ours(), server.running():
        until(lambda: answers(prefect.url), LONGEST_RECOVERY_S, 0.2)
        system = System(cluster, prefect, server, worker, folder, write_recipe(folder / "recipe"))
        with worker.running():
            yield system


def main() -> int:
    """Print each kill, the accounts of the lines, the table and the faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=120.0, help="no kill after so many; the line that goes on then ends")
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # a script's `&` ignores the first
        signal.signal(number, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="system-kills-"))
    print(f"everything lies in {folder}", flush=True)
    with postgres_cluster() as cluster, installation(folder, cluster) as system:
        return run(system, asked.kills, asked.seed, asked.minutes)


def run(system: System, kills: int, seed: int, minutes: float) -> int:
    """One calm line, then the storm; returns the exit status."""
    storm = Storm(system, kills, seed, time.monotonic() + 60 * minutes)
    try:
        with Line.begun(system, 0) as line:
            line.undisturbed(CALM_LIMIT_S)
            calm = line.account()
            print(f"undisturbed: live after {line.took_s():.1f} s; {calm.in_words()}", flush=True)
        while not storm.over:
            number = max((hit.line for hit in storm.hits), default=0) + 1
            with Line.begun(system, number) as line:
                storm.through(line)
                found = line.account()
            faults = [f"line {number}: {fault}" for fault in found.against(calm)]
            storm.faults += faults
            print(f"line {number}: {line.took_s():.1f} s, {found.in_words()}; {'; '.join(faults) or 'as the undisturbed one'}", flush=True)
    except KeyboardInterrupt:
        print("broken off")
    except AssertionError as fault:
        storm.faults.append(str(fault))
    print_table(storm.hits)
    print("\n".join(storm.faults) or "nothing is otherwise than without kills")
    return 1 if storm.faults or not storm.hits else 0


if __name__ == "__main__":
    sys.exit(main())
