"""Every stage of the line on a disk that is really full: a small memory disk of this process's own, filled up before each first try.

    unshare -Urm python -m tests.fakes_full_disk FOLDER

Says one JSON line for each stage: what the first try told, what of the finished stages was broken by it, and what the second try told,
with room again. Nobody else sees that disk, and it is gone with this process. Next: `flows/test_full_disk.py`.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from evaluation.config import EvaluationSection
from evaluation.gate import decide
from evaluation.records import Scorecard
from evaluation.scoring import score_endpoint
from evaluation.suite import load_suite
from flows.recipe import load_recipe
from flows.stage_process import StageName, StageRequest, run_stage
from serving.line_log import Entry, LineLog, append
from serving.registry import Registry
from tests.fakes_evaluation import FakeModel, serve
from tests.fakes_flows import recipe_values, write_recipe
from tests.fakes_gate import policy
from tests.fakes_serving import candidate
from tests.fakes_training import alpaca_rows, preference_rows, write_jsonl, write_tiny_model
from training.atomic import sha256_of, write_text
from training.disk import disk_faults_told
from training.errors import TunegateError
from training.progress import silent
from training.records import RECORD_NAME

SIZE_MB = 64
# With the KiB that are left to each: enough to begin, too little to end.
STAGES: tuple[tuple[StageName, int], ...] = (("prepare", 16), ("sft", 128), ("preference", 400), ("merge", 64), ("render", 0))
OTHERS = ("judge", "gate", "report", "register", "line log")


class FullDisk:
    """The memory disk, and what was finished on it."""

    def __init__(self, root: Path) -> None:
        self.root, self.filler = root, root / "filler"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(root)], check=True)
        self.finished = dict[Path, str]()

    def tried(self, stage: str, act: Callable[[], object], out: Path, leave_kib: int = 0) -> None:
        """Once without room, once with. A first try that goes well is said too."""
        self._fill(leave_kib)
        said, half_made = self._told_by(act, out), (out / RECORD_NAME).exists()
        broken = [str(path) for path, digest in self.finished.items() if not path.exists() or sha256_of(path) != digest]
        self.filler.unlink()
        again = self._told_by(act, out)
        self.finished |= {path: sha256_of(path) for path in out.rglob("*") if path.is_file() and "checkpoints" not in path.parts}
        print(json.dumps({"stage": stage, "said": said, "half_made": half_made, "broken": broken, "again": again}), flush=True)

    def _fill(self, leave_kib: int) -> None:
        pieces = (1 << 20, 4096)
        with self.filler.open("wb", buffering=0) as file:
            for size in pieces:
                while _written(file.fileno(), size):
                    pass
            file.truncate(max(0, file.tell() - leave_kib * 1024))

    def _told_by(self, act: Callable[[], object], out: Path) -> str:
        try:
            with disk_faults_told(out):
                act()
        except TunegateError as error:
            return str(error)
        return ""


def _written(descriptor: int, size: int) -> bool:
    try:
        return os.write(descriptor, bytes(size)) == size
    except OSError:
        return False


def main(root: Path) -> None:
    """Take the line through all of its stages."""
    logging.disable(logging.WARNING)
    disk = FullDisk(root)
    path = _recipe(root / "recipe")
    recipe = load_recipe(path)
    folders = {name: root / "runs" / name for name, _ in STAGES}
    inputs = {"dataset": folders["prepare"], "merged": folders["merge"]}
    base = root / "base" / recipe.model.cache_name
    run_stage(StageRequest(stage="base", recipe=recipe, home=root, out=base), silent)
    for stage, leave_kib in STAGES:
        adapter = folders["preference" if stage == "merge" else "sft"]
        asked = StageRequest(stage=stage, recipe=recipe, home=root, out=folders[stage], base=base, adapter=adapter, **inputs)
        asked.out.mkdir(parents=True, exist_ok=True)
        disk.tried(stage, lambda asked=asked: run_stage(asked, silent), asked.out, leave_kib)  # type: ignore[misc]
    _judged(disk, root)
    _kept(disk, root)


def _recipe(folder: Path) -> Path:
    tiny = write_tiny_model(folder / "tiny")
    pairs = write_jsonl(folder / "pairs.jsonl", preference_rows())
    values = recipe_values()
    rows = folder / "some.jsonl"
    write_jsonl(rows, alpaca_rows(20))
    values["model"] = {"base": str(tiny), "max_length": 128}
    values["data"] = {"sft": [{"path": str(rows)}], "preferences": [{"path": str(pairs)}], "validation_fraction": 0.2}
    values["sft"] = {"r": 4, "alpha": 8, "epochs": 1, "batch_size": 8, "checkpoint_every_steps": 1}
    values["preference"] = {"beta": 0.1, "epochs": 1}
    return write_recipe(folder, values)


def _judged(disk: FullDisk, root: Path) -> None:
    suite, section = load_suite(root / "recipe" / "suite"), EvaluationSection.model_validate({"suite": root / "recipe" / "suite"})
    section = section.model_copy(update={"perplexity": False, "forgetting": None})
    out, verdict = root / "card", root / "verdict"
    with serve(FakeModel()) as endpoint:

        def judge() -> Scorecard:
            return score_endpoint(endpoint, suite, section, model_digest="m" * 64, subject="clinic-2", out=out, report=silent)

        disk.tried("judge", judge, out)
    card = Scorecard.read(out)
    disk.tried("gate", lambda: decide(card, None, policy()).write(verdict), verdict)
    report = root / "report"
    disk.tried("report", lambda: write_text(report / "report.html", "<p>" * 9_000), report)


def _kept(disk: FullDisk, root: Path) -> None:
    with Registry(f"sqlite:///{root / 'registry.db'}") as registry:
        candidate(registry)

        def register() -> None:
            for number in range(40):  # what the database's free pages take is no growth
                candidate(registry, digest=f"{number:064d}")

        disk.tried("register", register, root / "nowhere")
        assert registry.approvals.verify().faults == ()
        assert len(registry.snapshot().releases) >= 41
    entry = Entry(at=1.0, public_name="clinic", step="sft", outcome="ok", seconds=1.0)
    disk.tried("line log", lambda: append(root, entry), root / "nowhere")
    assert list(LineLog(root).news()) == [entry]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
