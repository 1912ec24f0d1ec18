"""What one heavy stage does, in a process of its own: its memory is given back, and a crash takes nothing else along.

    python -m flows.stage_process REQUEST.json

Says JSON lines on its standard output: {"progress": …} while it works, {"error": …} when a person can mend something. Its record on
disk, not its exit status, says that a stage is finished. Where the recipe asks for several processes, torch's
launcher starts them, each with the same request, and the first one writes and speaks. Here training meets the evaluation's rules, which
it must not know. Next: `stage_host.py`, which starts it quickly; `stage_runner.py`, which orders it.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from evaluation.rules import judge_answer
from evaluation.suite import Suite, load_suite
from evaluation.suite_union import load_suites
from flows.collect_book import with_accepted
from flows.errors import FAILED
from flows.recipe import Recipe
from flows.rendering import view_of_trainer
from flows.rewards import require_prompts, reward_by_model, reward_by_rules
from training.data.formats import Stage
from training.data.leakage import SuitePrompt
from training.devices import is_launched
from training.disk import disk_faults_told
from training.environment import die_with_parent
from training.errors import HubUnreachable, InputError, TunegateError
from training.progress import Progress, Report
from training.records import AdapterArtifact, BaseModelRecord, DatasetManifest, MergedModel, RewardArtifact
from training.rewarding import Rewarding

if TYPE_CHECKING:
    from training.measure import ValidationPrompt

StageName = Literal["base", "prepare", "sft", "preference", "reward", "online", "merge", "render"]
SPREAD: Sequence[StageName] = ("sft", "preference")  # what several processes may do together
WITHOUT_GPU: Sequence[StageName] = ("base", "prepare")


class StageRequest(BaseModel):
    """One stage to run: the frozen recipe, the folder to fill, and the finished folders it builds on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: StageName
    recipe: Recipe
    home: Path
    out: Path
    base: Path | None = None
    accepted: Path | None = None
    dataset: Path | None = None
    adapter: Path | None = None
    reward: Path | None = None
    merged: Path | None = None


def main(argv: list[str]) -> int:
    """Run the stage of one request file; returns the exit status."""
    request = StageRequest.model_validate_json(Path(argv[1]).read_text(encoding="utf-8"))
    if is_launched():
        die_with_parent()  # the launcher gives each process a session of its own, beyond the reach of a signal to the stage's group
    elif request.stage in SPREAD and request.recipe.devices.processes > 1:
        from training.launch import launch

        return launch(("-m", "flows.stage_process", argv[1]), request.recipe.devices.processes)
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    # Libraries print what they like; it belongs into the log.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(progress: Progress) -> None:
        out.write(json.dumps({"progress": progress.__dict__}) + "\n")

    try:
        with disk_faults_told(request.out):
            run_stage(request, say)
        _part_from_others()
    except TunegateError as error:
        said = {"what": error.what, "why": error.why, "do": error.do, "kind": kind_of(error)}
        out.write(json.dumps({"error": said}) + "\n")
        return FAILED
    return 0


def kind_of(error: TunegateError) -> Literal["input", "outside", "stage"]:
    """What the process that ordered the stage makes of an error."""
    if isinstance(error, InputError):
        return "input"
    return "outside" if isinstance(error, HubUnreachable) else "stage"


def _part_from_others() -> None:
    if is_launched():
        from training.ranks import leave

        leave()


def run_stage(request: StageRequest, report: Report) -> None:
    """Do what the request asks for, in this process."""
    _STAGES[request.stage](request, report)


def _base(request: StageRequest, report: Report) -> None:
    from training.base_model import fetch_base

    fetch_base(request.recipe.model, request.home, report)


def _prepare(request: StageRequest, report: Report) -> None:
    from training.prepare import prepare_dataset

    prompts = suite_prompts([load_suite(suite) for suite in judged_by(request.recipe)])
    data = with_accepted(request.recipe, request.accepted)
    prepare_dataset(request.recipe.model, data, _read_base(request), request.out, report, prompts, preferred_rows(request.recipe))


def preferred_rows(recipe: Recipe) -> Stage:
    """What the rows of `data.preferences` are for, which decides what kind of rows they may be."""
    return "kto" if recipe.preference is not None and recipe.preference.way.rows == "labelled" else "dpo"


def judged_by(recipe: Recipe) -> list[Path]:
    """Folders of the suites by whose prompts a recipe's model is measured: none of them may be trained on."""
    return [*recipe.evaluation.suites, recipe.merge.validation_suite]


def suite_prompts(suites: Sequence[Suite]) -> list[SuitePrompt]:
    """The suites' prompts as data preparation takes them: what the user says, and the reference answer."""
    return [SuitePrompt(suite.name, prompt.id, prompt.text, prompt.reference) for suite in suites for prompt in suite.prompts]


def _sft(request: StageRequest, report: Report) -> None:
    from training.practice.stopping import Validation
    from training.sft import train_sft

    recipe, (dataset_dir, dataset) = request.recipe, _read_dataset(request)
    suite = load_suite(recipe.merge.validation_suite)
    validation = Validation(_prompts_of(suite), keeps_critical_rules(suite), recipe.merge.max_new_tokens)
    train_sft(
        recipe.model, recipe.sft, _read_base(request), dataset_dir, dataset, request.out, report, validation, shard=recipe.devices.shard
    )


def _preference(request: StageRequest, report: Report) -> None:
    from training.preference import train_preference

    recipe, (dataset_dir, dataset), (parent_dir, parent) = request.recipe, _read_dataset(request), _read_adapter(request)
    assert recipe.preference is not None
    rows, adapter = (dataset_dir, dataset), (parent_dir, parent)
    base, shard = _read_base(request), recipe.devices.shard
    train_preference(recipe.model, recipe.sft, recipe.preference, base, *rows, *adapter, request.out, report, shard=shard)


def _reward(request: StageRequest, report: Report) -> None:
    from training.reward_model import train_reward

    recipe, (dataset_dir, dataset), (parent_dir, parent) = request.recipe, _read_dataset(request), _read_adapter(request)
    assert recipe.reward is not None
    train_reward(
        recipe.model, recipe.sft, recipe.reward, _read_base(request), dataset_dir, dataset, parent_dir, parent, request.out, report
    )


def _online(request: StageRequest, report: Report) -> None:
    from training.measure import ValidationPrompt
    from training.online import train_online

    recipe, (parent_dir, parent) = request.recipe, _read_adapter(request)
    assert recipe.online is not None
    suite = load_suite(recipe.online.prompts)
    require_prompts(suite, suite_prompts([load_suite(each) for each in judged_by(recipe)]), by_rules=recipe.online.reward == "rules")
    prompts = [ValidationPrompt(id=prompt.id, messages=[dict(message) for message in prompt.messages]) for prompt in suite.prompts]
    rewarding = reward_by_rules(suite) if recipe.online.reward == "rules" else _reward_of_model(request)
    base = _read_base(request)
    train_online(recipe.model, recipe.sft, recipe.online, base, prompts, rewarding, parent_dir, parent, request.out, report)


def _reward_of_model(request: StageRequest) -> Rewarding:
    from training.reward_model import load_reward

    assert request.reward is not None
    artifact = RewardArtifact.read(request.reward)
    loaded = load_reward(request.recipe.model, request.recipe.sft, _read_base(request), request.reward, artifact)
    return reward_by_model(loaded.rewards, artifact.digest)


def _merge(request: StageRequest, report: Report) -> None:
    from training.merge import merge_adapter

    suite = load_suite(request.recipe.merge.validation_suite)
    (dataset_dir, dataset), (adapter_dir, adapter) = _read_dataset(request), _read_adapter(request)
    merge_adapter(
        request.recipe.merge,
        _read_base(request),
        dataset_dir,
        dataset,
        adapter_dir,
        adapter,
        _prompts_of(suite),
        keeps_critical_rules(suite),
        request.out,
        report,
    )


def _render(request: StageRequest, report: Report) -> None:
    assert request.merged is not None
    assert request.base is not None
    view_of_trainer(
        request.merged,
        MergedModel.read(request.merged),
        request.base,
        _read_base(request),
        load_suites(request.recipe.evaluation.suites),
        request.recipe.serving.max_model_len,
        request.out,
        datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _prompts_of(suite: Suite) -> "list[ValidationPrompt]":
    from training.measure import ValidationPrompt

    return [ValidationPrompt(id=prompt.id, messages=[dict(message) for message in prompt.messages]) for prompt in suite.prompts]


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
    "reward": _reward,
    "online": _online,
    "merge": _merge,
    "render": _render,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
