"""Whether training that is killed at random moments ends in the very bytes of a run that was left alone.

    python -m tests.benchmarks.resume_kills [--kills N] [--seed S] [--only NAME…]

Makes a tiny model and trains it by each way below, once undisturbed. Then it starts the same run again and again and kills it (SIGKILL)
a random while behind a random step, until it was killed N times in all; a run that ends before that is compared and begun anew. Every
attempt is a fork of this process, which has imported the libraries; of two processes one is killed at random, and the other at once
after it, as torch's launcher does. The table says how often the records' digests were the same, and how many steps were made twice.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from serving.slots import free_port
from tests.fakes_training import TinyLine, sft_section
from training.config import SftSection
from training.preference import train_preference
from training.preference_section import PreferenceSection
from training.progress import Progress, Report, silent
from training.records import RECORD_NAME, AdapterArtifact
from training.sft import train_sft

EVERY = 3  # steps between checkpoints
PAIRS = PreferenceSection(learning_rate=1e-2, epochs=16, batch_size=4)
Train = Callable[[TinyLine, Path, Report], object]


def sft_with(**changes: object) -> Train:
    """SFT on the tiny line, with dropout, over several epochs."""
    common = {"epochs": 5, "checkpoint_every_steps": EVERY, "batch_size": 4}
    section = SftSection.model_validate({**common, **changes}) if changes.get("method") == "full" else sft_section(**common, **changes)

    def train(line: TinyLine, out: Path, report: Report) -> object:
        return train_sft(line.model, section, line.base, line.dataset_dir, line.dataset, out, report)

    return train


def dpo(line: TinyLine, out: Path, report: Report) -> object:
    """Preference tuning of an adapter that was made before."""
    parent, section = line.root / "parent", SftSection.model_validate(sft_section(checkpoint_every_steps=EVERY).model_dump())
    return train_preference(
        line.model, section, PAIRS, line.base, line.dataset_dir, line.dataset, parent, AdapterArtifact.read(parent), out, report
    )


WAYS: dict[str, tuple[Train, int]] = {
    "sft, qlora": (sft_with(), 1),
    "sft, full": (sft_with(method="full", learning_rate=1e-4), 1),
    "dpo": (dpo, 1),
    "sft, lora, 2 processes": (sft_with(method="lora"), 2),
}


@dataclass
class Outcome:
    """What became of one way to train."""

    kills: int = 0
    ends: int = 0
    same: int = 0
    steps: int = 0
    redone: int = 0
    torn: int = 0
    reached: list[int] = field(default_factory=list)


@dataclass
class Attempt:
    """A running training: its processes, and the end of a pipe on which the first one tells its steps."""

    processes: list[int]
    ears: int
    first_step: int = -1
    step: int = 0
    torn: bool = False

    def listen(self, until_step: int | None) -> bool:
        """Hear steps until one is reached; False when the training ended before."""
        text = b""
        while piece := os.read(self.ears, 1):
            text += piece
            if piece == b"\n":
                done, note = text.decode().rstrip("\n").split(" ", 1)
                self.step, text = int(done), b""
                self.first_step = self.step if self.first_step < 0 else self.first_step
                self.torn |= "damaged" in note
                if until_step is not None and self.step >= until_step:
                    return True
        return False

    def kill(self, chance: random.Random) -> None:
        """SIGKILL, one after the other in random order."""
        for process in chance.sample(self.processes, len(self.processes)):
            os.kill(process, signal.SIGKILL)

    def wait(self) -> list[int]:
        """Exit codes; a killed process has a negative one."""
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in self.processes]
        os.close(self.ears)
        return codes


def start(train: Train, processes: int, line: TinyLine, out: Path) -> Attempt:
    """Fork the processes of a training."""
    ears, mouth = os.pipe()
    port = str(free_port())
    children = []
    for rank in range(processes):
        if not (child := os.fork()):
            os.close(ears)
            if processes > 1:
                names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
                os.environ |= dict(zip(names, map(str, (rank, rank, processes, processes)), strict=True))
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
            _be(train, line, out, mouth)
        children.append(child)
    os.close(mouth)
    return Attempt(children, ears)


def _be(train: Train, line: TinyLine, out: Path, mouth: int) -> None:
    """Train in a fork, and never return from it."""

    def tell(progress: Progress) -> None:
        os.write(mouth, f"{progress.done} {progress.note}\n".encode())

    status = 1
    try:
        train(line, out, tell)
        status = 0
    except Exception as error:  # noqa: BLE001 - a fork must not go on in the loop below
        print(f"a training failed: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def harass(name: str, line: TinyLine, kills: int, chance: random.Random) -> Outcome:
    """Train undisturbed, then under kills."""
    train, processes = WAYS[name]
    whole, out, outcome = line.root / "whole", line.root / "killed", Outcome()
    shutil.rmtree(whole, ignore_errors=True)
    began, calm = time.monotonic(), start(train, processes, line, whole)
    calm.listen(None)
    assert calm.wait() == [0] * processes
    record = AdapterArtifact.read(whole)
    outcome.steps, step_s = record.steps, (time.monotonic() - began) / record.steps
    at = 0
    while outcome.kills < kills or out.exists():
        attempt = start(train, processes, line, out)
        last = outcome.kills >= kills
        if attempt.listen(None if last else at + chance.randint(0, 2 * EVERY)):
            time.sleep(chance.uniform(0, 2 * step_s))  # anywhere in a step, or in the writing of a checkpoint
            attempt.kill(chance)
        attempt.listen(None)  # what it had said before it died
        codes = attempt.wait()
        outcome.redone += max(0, at - max(attempt.first_step, 0))
        outcome.torn += attempt.torn
        at = attempt.step
        if not (out / RECORD_NAME).exists():
            assert not last, f"an undisturbed attempt ended with {codes}"
            assert -signal.SIGKILL in codes, f"an attempt ended by itself with {codes}"
            outcome.kills += 1
            outcome.reached.append(at)
            continue
        outcome.ends += 1
        outcome.same += AdapterArtifact.read(out).digest == record.digest
        shutil.rmtree(out)
        at = 0
    return outcome


def main() -> int:
    """Print the table; 0 when every digest was the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="resume-kills-"))
    if not os.fork():  # no thread may run in this process, or its forks hang
        line = TinyLine(root)
        train_sft(line.model, sft_section(), line.base, line.dataset_dir, line.dataset, root / "parent", silent)
        os._exit(0)
    if os.wait()[1]:
        raise SystemExit("the adapter that DPO goes on from could not be made")
    line = TinyLine.of(root)
    print(f"seed {asked.seed}; a checkpoint every {EVERY} steps; {line.dataset.train_rows} rows, {line.dataset.preference_rows} pairs")
    print(f"{'method':<24} steps kills ended same digest steps redone torn found seconds  killed behind step", flush=True)
    fine = True
    for name in asked.only:
        began = time.monotonic()
        found = harass(name, line, asked.kills, random.Random(asked.seed))
        fine &= found.same == found.ends > 0 and found.kills >= asked.kills
        print(
            f"{name:<24} {found.steps:>5} {found.kills:>5} {found.ends:>5} {found.same:>11} {found.redone:>12} {found.torn:>10}"
            f" {time.monotonic() - began:>7.0f}  {' '.join(map(str, found.reached))}",
            flush=True,
        )
    shutil.rmtree(root)
    print("every run ended in the bytes of the undisturbed one" if fine else "MISSED: see `ended` and `same digest`")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
