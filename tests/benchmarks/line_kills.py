"""What a SIGKILL costs at every stage of the line, and whether the line ends in the same models after all of them.

    python -m tests.benchmarks.line_kills RECIPE [--random N] [--seed S]

Runs the recipe once undisturbed. Then runs it in a fresh home, kills the command and everything it started (the server stays, it is
nobody's child) in the middle of a stage, runs it again, kills it in the next stage, and so on; with --random, N times in all at random
moments, in as many lines as that takes. The table says what each kill cost: the work until it, and what the next run needed to finish
that stage, less what the stage takes undisturbed. At the end the digests of every record must be those of the undisturbed run.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from serving.slots import free_port

RECORDS = ("prepare", "sft", "preference", "merge")
LIMIT_S = 1800.0


@dataclass
class Attempt:
    """One run of the command. `finished` is (stage, seconds since the start), as the command printed it."""

    status: int = 0
    seconds: float = 0.0
    finished: list[tuple[str, float]] = field(default_factory=list)
    output: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Home:
    """A TUNEGATE_HOME of its own with a recipe to run in it."""

    folder: Path
    recipe: Path
    environment: dict[str, str]

    def run(self, kill_when: "KillWhen | None" = None) -> Attempt:
        """Run the line, and kill it and its children at the moment asked for."""
        attempt, started = Attempt(), time.monotonic()
        command = [sys.executable, "-m", "flows.cli", "run", str(self.recipe), "--approve-as", "benchmark"]
        process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        reader = threading.Thread(target=_read, args=(process, attempt, started), daemon=True)
        reader.start()
        while process.poll() is None and time.monotonic() - started < LIMIT_S:
            if kill_when and kill_when.now(attempt, time.monotonic() - started):
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.05)
        attempt.status = process.wait(timeout=30)
        attempt.seconds = time.monotonic() - started
        reader.join(timeout=30)
        return attempt

    def stop(self) -> None:
        """End the server of this home."""
        subprocess.run([sys.executable, "-m", "flows.cli", "stop"], env=self.environment, check=True, capture_output=True, timeout=180)

    def digests(self) -> dict[str, str]:
        """See the function of that name."""
        return digests(self.folder)


def digests(home: Path) -> dict[str, str]:
    """Stage folder without its key -> digest of the record in it."""
    found = {}
    for record in sorted((home / "runs").glob("*/*/record.json")):
        stage = record.parent.name.split("-")[0]
        if stage in RECORDS:
            found[stage] = json.loads(record.read_text(encoding="utf-8"))["digest"]
    return found


@dataclass(frozen=True)
class KillWhen:
    """`after_s` seconds after `stage` has been finished (None: after the start)."""

    stage: str | None
    after_s: float

    def now(self, attempt: Attempt, elapsed_s: float) -> bool:
        """Whether the moment has come."""
        if self.stage is None:
            return elapsed_s >= self.after_s
        began = next((at for name, at in attempt.finished if name == self.stage), None)
        return began is not None and elapsed_s - began >= self.after_s


def _read(process: "subprocess.Popen[str]", attempt: Attempt, started: float) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        attempt.output.append(line.rstrip())
        if line.startswith("✓ "):
            attempt.finished.append((line[2:18].strip(), time.monotonic() - started))


def fresh_home(recipe: Path, name: str) -> Home:
    """An empty home below a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix=f"line-kills-{name}-"))
    own = {"TUNEGATE_HOME": str(folder), "TUNEGATE_PORT": str(free_port()), "PREFECT_HOME": str(folder / "prefect")}
    return Home(folder, recipe.resolve(), os.environ | own)


def in_each_stage(home: Home, undisturbed: Attempt) -> None:
    """Kill in the middle of every stage that takes longer than a second, and print what each kill cost."""
    print(f"{'killed in':<20} {'stage takes':>11} {'killed after':>12} {'next run needs':>14} {'cost':>8}")
    before, at = None, 0.0
    takes: dict[str, float] = {}
    befores: dict[str, str | None] = {}
    for name, finished in undisturbed.finished:
        if name not in takes:  # a slot is waited for twice: before it is judged, and before it takes over
            takes[name], befores[name] = finished - at, before
        before, at = name, finished
    for name in [name for name, seconds in takes.items() if seconds > 1.0]:
        killed = home.run(KillWhen(befores[name], takes[name] / 2))
        if killed.status != -signal.SIGKILL:
            print(f"{name:<20} {takes[name]:>9.1f} s  ended before the kill (exit {killed.status})")
            continue
        spent = killed.seconds - _when(killed, befores[name])
        again = home.run(KillWhen(name, 0.0))
        needs = _when(again, name) - _when(again, befores[name])
        start = _when(again, befores[name])
        print(f"{name:<20} {takes[name]:>9.1f} s {spent:>10.1f} s {needs:>12.1f} s {spent + needs - takes[name]:>6.1f} s"
              f"   (stages before it kept in {start:.1f} s)", flush=True)  # fmt: skip


def at_random(calm: Home, undisturbed: Attempt, kills: int, seed: int) -> bool:
    """Kill `kills` times in all, each a random while after the start; a line that ends is compared, and another one begun.

    Returns whether every line ended like the undisturbed one, with the same records.
    """
    chance = random.Random(seed)  # a schedule, not a secret
    home, here, same = fresh_home(calm.recipe, "stormy"), 0, True
    for number in range(1, kills + 1):
        attempt = home.run(KillWhen(None, chance.uniform(1.0, max(8.0, undisturbed.seconds / 4))))
        while attempt.status != -signal.SIGKILL:
            same &= ended(home, attempt, here, calm, undisturbed)
            home, here = fresh_home(calm.recipe, "stormy"), 0
            attempt = home.run(KillWhen(None, chance.uniform(1.0, max(8.0, undisturbed.seconds / 4))))
        here += 1
        reached = attempt.finished[-1][0] if attempt.finished else "nothing"
        print(f"kill {number:>3} after {attempt.seconds:6.1f} s, behind {reached}", flush=True)
    return ended(home, home.run(), here, calm, undisturbed) and same


def ended(home: Home, last: Attempt, kills: int, calm: Home, undisturbed: Attempt) -> bool:
    """Stop the server of a line that has ended, and say whether it ended as the undisturbed one did."""
    home.stop()
    found = home.digests()
    same = found == calm.digests() and len(found) >= 3 and last.status == undisturbed.status
    verdict = "the same records" if same else f"OTHERWISE than {undisturbed.status} with {calm.digests()}: {found}"
    print(f"the line ended after {kills} kills: exit {last.status} after {last.seconds:.1f} s, {verdict}", flush=True)
    return same


def _when(attempt: Attempt, stage: str | None) -> float:
    return next((at for name, at in attempt.finished if name == stage), 0.0)


def main() -> int:
    """Print the table, then whether both homes hold the same records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--random", type=int, default=0, metavar="N", help="kill N times at random moments instead of once in every stage")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    calm = fresh_home(asked.recipe, "calm")
    undisturbed = calm.run()
    calm.stop()
    print(f"undisturbed: exit {undisturbed.status} after {undisturbed.seconds:.1f} s", flush=True)
    if undisturbed.status not in (0, 3):
        print("\n".join(undisturbed.output))
        return 1
    if asked.random:
        return 0 if at_random(calm, undisturbed, asked.random, asked.seed) else 1
    stormy = fresh_home(asked.recipe, "stormy")
    in_each_stage(stormy, undisturbed)
    return 0 if ended(stormy, stormy.run(), len(undisturbed.finished), calm, undisturbed) else 1


if __name__ == "__main__":
    sys.exit(main())
