"""Runs one heavy stage in a process of its own, so that its memory is given back and a crash takes nothing else along.

    python -m flows.stage_process REQUEST.json

The child speaks JSON lines on its standard output: {"progress": …} while it works, {"error": …} when a person can mend something.
Its record on disk, not its exit status, says that a stage is finished. Here training meets the evaluation's rules, which it must
not know. Next: `stages.py`, which decides what has to run.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from evaluation.rules import judge_answer
from evaluation.suite import Suite, load_suite
from flows.errors import FAILED, StageFailed
from flows.recipe import Recipe
from flows.rendering import render_conversations
from serving import leash
from training.environment import stage_environment
from training.errors import InputError, TunegateError
from training.progress import Progress, Report
from training.records import AdapterArtifact, BaseModelRecord, DatasetManifest, MergedModel

StageName = Literal["base", "prepare", "sft", "preference", "merge", "render"]
CHILD = (sys.executable, "-m", "flows.stage_process")
_TAIL_LINES = 12


class StageRequest(BaseModel):
    """One stage to run: the frozen recipe, the folder to fill, and the finished folders it builds on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: StageName
    recipe: Recipe
    home: Path
    out: Path
    base: Path | None = None
    dataset: Path | None = None
    adapter: Path | None = None
    merged: Path | None = None


def run_stage(request: StageRequest, report: Report, child: Sequence[str] = CHILD) -> None:
    """Run a stage in a child that dies with this process; returns when the child has ended well.

    Args:
        child: the program to run; the path of the request is put behind it.

    Raises:
        TunegateError: the child met an error that a person can mend.
        StageFailed: the child died, or ended with an error of its own; its log is named.
    """
    request.out.mkdir(parents=True, exist_ok=True)
    path, log_path = request.out.parent / f"{request.out.name}.request.json", request.out.parent / f"{request.out.name}.log"
    path.write_text(request.model_dump_json(indent=1), encoding="utf-8")
    argv = [sys.executable, "-I", "-S", leash.__file__, *child, str(path)]
    with log_path.open("ab") as log:
        # The open pipe is the leash: when this process dies, the child's whole group is killed.
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True, text=True, env=_environment()
        )
        try:
            error = _listen(process, report)
            status = process.wait()
        except BaseException:
            process.terminate()
            raise
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
    if error is not None:
        raise error
    if status != 0:
        raise StageFailed(
            f"the {request.stage} stage ended with status {status}:\n{_tail(log_path)}",
            why="its record was not written, so nothing builds on it",
            do=f"read {log_path}; the next run goes on from the last checkpoint",
        )


def _listen(process: "subprocess.Popen[str]", report: Report) -> TunegateError | None:
    assert process.stdout is not None
    error: TunegateError | None = None
    for line in process.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # a library that prints
        if not isinstance(said, dict):
            continue
        if "progress" in said:
            report(Progress(**said["progress"]))
        elif "error" in said:
            kind = InputError if said["error"].pop("input") else StageFailed
            error = kind(**said["error"])
    return error


def _environment() -> dict[str, str]:
    # The folder above `flows` is where the packages are found when the project runs from its own checkout.
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **stage_environment(len(os.sched_getaffinity(0)))}


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines)


# What follows runs in the child.


def main(argv: list[str]) -> int:
    """Run the stage of one request file; returns the exit status."""
    request = StageRequest.model_validate_json(Path(argv[1]).read_text(encoding="utf-8"))
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    # Libraries print what they like; it belongs into the log.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(progress: Progress) -> None:
        out.write(json.dumps({"progress": progress.__dict__}) + "\n")

    try:
        _STAGES[request.stage](request, say)
    except TunegateError as error:
        said = {"what": error.what, "why": error.why, "do": error.do, "input": isinstance(error, InputError)}
        out.write(json.dumps({"error": said}) + "\n")
        return FAILED
    return 0


def _base(request: StageRequest, report: Report) -> None:
    from training.base_model import fetch_base

    fetch_base(request.recipe.model, request.home, report)


def _prepare(request: StageRequest, report: Report) -> None:
    from training.prepare import prepare_dataset

    prepare_dataset(request.recipe.model, request.recipe.data, _read_base(request), request.out, report)


def _sft(request: StageRequest, report: Report) -> None:
    from training.sft import train_sft

    recipe, (dataset_dir, dataset) = request.recipe, _read_dataset(request)
    train_sft(recipe.model, recipe.sft, _read_base(request), dataset_dir, dataset, request.out, report)


def _preference(request: StageRequest, report: Report) -> None:
    from training.preference import train_preference

    recipe, (dataset_dir, dataset), (parent_dir, parent) = request.recipe, _read_dataset(request), _read_adapter(request)
    assert recipe.preference is not None
    train_preference(
        recipe.model, recipe.sft, recipe.preference, _read_base(request), dataset_dir, dataset, parent_dir, parent, request.out, report
    )


def _merge(request: StageRequest, report: Report) -> None:
    from training.measure import ValidationPrompt
    from training.merge import merge_adapter

    suite = load_suite(request.recipe.merge.validation_suite)
    prompts = [ValidationPrompt(id=prompt.id, messages=[dict(message) for message in prompt.messages]) for prompt in suite.prompts]
    (dataset_dir, dataset), (adapter_dir, adapter) = _read_dataset(request), _read_adapter(request)
    merge_adapter(
        request.recipe.merge,
        _read_base(request),
        dataset_dir,
        dataset,
        adapter_dir,
        adapter,
        prompts,
        keeps_critical_rules(suite),
        request.out,
        report,
    )


def _render(request: StageRequest, report: Report) -> None:
    assert request.merged is not None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    suite = load_suite(request.recipe.evaluation.suite)
    render_conversations(request.merged, MergedModel.read(request.merged).digest, suite, request.out, now)


def keeps_critical_rules(suite: Suite) -> Callable[[str, str], bool]:
    """A judge for the merge certificate: (prompt id, answer) -> no critical rule is broken."""
    prompts = {prompt.id: prompt for prompt in suite.prompts}

    def judge(prompt_id: str, answer: str) -> bool:
        results = judge_answer(suite.rules, prompts[prompt_id], answer)
        return all(result.passed or result.severity != "critical" for result in results)

    return judge


def _read_base(request: StageRequest) -> BaseModelRecord:
    assert request.base is not None
    return BaseModelRecord.read(request.base)


def _read_dataset(request: StageRequest) -> tuple[Path, DatasetManifest]:
    assert request.dataset is not None
    return request.dataset, DatasetManifest.read(request.dataset)


def _read_adapter(request: StageRequest) -> tuple[Path, AdapterArtifact]:
    assert request.adapter is not None
    return request.adapter, AdapterArtifact.read(request.adapter)


_STAGES: dict[StageName, Callable[[StageRequest, Report], None]] = {
    "base": _base,
    "prepare": _prepare,
    "sft": _sft,
    "preference": _preference,
    "merge": _merge,
    "render": _render,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
