"""The stages of one run: each finds its folder by the digests of what goes in, and runs only if that folder is not finished.

A folder's name is its stage and the first digits of the digest of its inputs, so an unchanged stage is found again, a changed one
gets a new folder, and a killed one goes on in its own. Plain functions: a test or a shell can call them without Prefect.
Next: `stage_runner.py`, which runs the heavy ones; `judging.py`, for everything after the merge.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar
from uuid import uuid4

from evaluation.lm_eval_process import TaskHost
from evaluation.suite import load_suite
from flows.collect_book import accepted_rows, with_accepted
from flows.display import Display, make_console, plain
from flows.live_training import told_live
from flows.recipe import Recipe, load_recipe
from flows.serving_control import open_registry
from flows.stage_process import StageName, StageRequest, judged_by, preferred_rows, suite_prompts
from flows.stage_runner import StageRunner
from flows.timing import timed
from serving.registry import Registry
from serving.settings import Settings, load_settings
from training.data.fingerprint import fingerprint
from training.data.held_apart import refuse_trained_prompts
from training.data.sources import SourceSection
from training.practice.rates import odd_rates
from training.progress import Report
from training.records import (
    RECORD_NAME,
    AdapterArtifact,
    BaseModelRecord,
    DatasetManifest,
    MergedModel,
    Record,
    RewardArtifact,
    digest_of,
    verify_files,
)
from training.served import require_servable

R = TypeVar("R", bound=Record)
LM_EVAL_LOG = "lm_eval.log"
_KEY_DIGITS = 12


@dataclass(frozen=True)
class Finished(Generic[R]):
    """A finished stage: its record and the folder that holds what the record describes."""

    record: R
    folder: Path


@dataclass(frozen=True)
class Line:
    """What every stage of one run needs: the recipe, where things are kept, who asked, who is told, and who runs what is heavy."""

    recipe: Recipe
    settings: Settings
    registry: Registry
    display: Display
    requester: str
    run: Callable[[StageRequest, Report], None]
    tasks: TaskHost = field(default_factory=TaskHost)
    recipe_path: Path | None = None

    def folder(self, stage: str, inputs: Mapping[str, object]) -> Path:
        """The folder of a stage with these inputs."""
        return self.settings.home / "runs" / self.recipe.name / f"{stage}-{digest_of(dict(inputs))[:_KEY_DIGITS]}"

    def request(self, stage: StageName, out: Path, **inputs: Path | None) -> StageRequest:
        """The order for a stage process."""
        return StageRequest(stage=stage, recipe=self.recipe, home=self.settings.home, out=out, **inputs)


@contextmanager
def open_line(recipe: Path, requester: str) -> Iterator[Line]:
    """Everything one run of a recipe needs.

    Raises:
        RecipeError: the recipe cannot be used.
        RunUnderWay: another process runs it.
    """
    settings = load_settings()
    with open_registry(settings) as registry, registry.runs.noticed(f"reading of {recipe.name}", requester):
        read = load_recipe(recipe)
    with timed(settings.home, read.serving.public_name, "retrain"), open_line_of(read, requester, recipe.absolute()) as line:
        yield line


@contextmanager
def open_line_of(recipe: Recipe, requester: str, path: Path | None = None, *, keep_warm: bool = False) -> Iterator[Line]:
    """The same for a recipe that is known. With `keep_warm`, what has imported the training libraries stays for the next line.

    Raises:
        RunUnderWay: another process runs it.
    """
    settings = load_settings()
    with (
        open_registry(settings) as registry,
        registry.runs.held(recipe.name, requester),
        StageRunner() as runner,
        TaskHost(settings.home / LM_EVAL_LOG) as tasks,
    ):
        yield Line(recipe, settings, registry, Display(make_console()), requester, runner.run, tasks, path)
        if keep_warm:
            runner.keep_warm()


def reach_registry() -> None:
    """See that the registry answers, before anything rests on it.

    Raises:
        RegistryError: it does not, or cannot be used.
    """
    with open_registry(load_settings()):
        pass


def fetch_base(line: Line) -> Finished[BaseModelRecord]:
    """The base model as safetensors on this disk; what is there already is verified by sha256, not trusted.

    Raises:
        ModelError: vLLM could not serve what would be made of it, and the recipe is no experiment.
    """
    base, recipe = _base_here(line), line.recipe
    if recipe.purpose == "production":
        require_servable(base.folder, recipe.sft)
    for warning in odd_rates(recipe.sft, recipe.preference, recipe.reward, recipe.online):
        line.display.say(f"[yellow]{plain(warning)}[/]")
    return base


def _base_here(line: Line) -> Finished[BaseModelRecord]:
    section, folder = line.recipe.model, base_folder(line)
    known = BaseModelRecord.read(folder) if (folder / RECORD_NAME).exists() else None
    if known is not None and known.source == section.base and not Path(section.base).is_dir():
        verify_files(folder, known.files)
        return _finish(line, line.request("base", folder), BaseModelRecord, lambda base: base.source)
    # A folder of the user's may have changed since, and another model may be cached under the same name: the stage compares.
    return _make(line, line.request("base", folder), BaseModelRecord, lambda base: base.source)


def base_folder(line: Line) -> Path:
    """Where this recipe's base model lies."""
    return line.settings.home / "base" / line.recipe.model.cache_name


def prepare(line: Line, base: Finished[BaseModelRecord]) -> Finished[DatasetManifest]:
    """The recipe's rows, tokenised and split; a changed file or key is another dataset."""
    recipe, accepted = line.recipe, accepted_rows(line.settings.home, line.recipe)
    data = with_accepted(recipe, accepted)
    inputs = {
        "base": base.record.digest,
        "data": recipe.data.digest,
        "max_length": recipe.model.max_length,
        "sources": [_fingerprint(source) for source in (*data.sft, *data.preferences)],
        "suites": [load_suite(suite).digest for suite in judged_by(recipe)],
        "preferred": preferred_rows(recipe),
    }
    request = line.request("prepare", line.folder("prepare", inputs), base=base.folder, accepted=accepted)
    dataset = _finish(line, request, DatasetManifest, _rows_in_words)
    refuse_trained_prompts(dataset.folder, suite_prompts([load_suite(suite) for suite in judged_by(recipe)]))
    return dataset


def sft(line: Line, base: Finished[BaseModelRecord], dataset: Finished[DatasetManifest]) -> Finished[AdapterArtifact]:
    """Supervised fine-tuning of an adapter."""
    stretched = line.recipe.model.rope_scaling
    inputs = {
        "dataset": dataset.record.digest,
        "sft": line.recipe.sft.digest,
        "context": stretched.digest if stretched else None,
        "judged": _stopped_by(line.recipe),
    }
    request = line.request("sft", line.folder("sft", inputs), base=base.folder, dataset=dataset.folder)
    return _finish(line, request, AdapterArtifact, _training_in_words)


def _stopped_by(recipe: Recipe) -> list[object] | None:
    """What decides when the training ends, where that is how the model answers."""
    if recipe.sft.early_stopping is None or recipe.sft.early_stopping.metric != "rule_pass_rate":
        return None
    return [load_suite(recipe.merge.validation_suite).digest, recipe.merge.max_new_tokens]


def prefer(
    line: Line, base: Finished[BaseModelRecord], dataset: Finished[DatasetManifest], adapter: Finished[AdapterArtifact]
) -> Finished[AdapterArtifact]:
    """Preference tuning of the adapter that SFT made."""
    assert line.recipe.preference is not None
    inputs = {"adapter": adapter.record.digest, "preference": line.recipe.preference.digest}
    request = line.request(
        "preference", line.folder("preference", inputs), base=base.folder, dataset=dataset.folder, adapter=adapter.folder
    )
    return _finish(line, request, AdapterArtifact, _training_in_words)


def teach_reward(
    line: Line, base: Finished[BaseModelRecord], dataset: Finished[DatasetManifest], adapter: Finished[AdapterArtifact]
) -> Finished[RewardArtifact]:
    """A reward model that goes on from the adapter."""
    assert line.recipe.reward is not None
    inputs = {"adapter": adapter.record.digest, "reward": line.recipe.reward.digest}
    request = line.request("reward", line.folder("reward", inputs), base=base.folder, dataset=dataset.folder, adapter=adapter.folder)
    return _finish(line, request, RewardArtifact, _reward_in_words)


def reinforce(
    line: Line, base: Finished[BaseModelRecord], adapter: Finished[AdapterArtifact], reward: Finished[RewardArtifact] | None
) -> Finished[AdapterArtifact]:
    """Online learning from the rewards of the adapter's own answers."""
    assert line.recipe.online is not None
    prompts, folders = load_suite(line.recipe.online.prompts), {"base": base.folder, "adapter": adapter.folder}
    inputs = {"adapter": adapter.record.digest, "online": line.recipe.online.digest, "prompts": prompts.digest}
    if reward is not None and line.recipe.online.reward == "model":
        inputs, folders = inputs | {"reward": reward.record.digest}, folders | {"reward": reward.folder}
    return _finish(line, line.request("online", line.folder("online", inputs), **folders), AdapterArtifact, _training_in_words)


def merge(
    line: Line, base: Finished[BaseModelRecord], dataset: Finished[DatasetManifest], adapter: Finished[AdapterArtifact]
) -> Finished[MergedModel]:
    """The adapter folded into weights that vLLM can serve, with its certificate."""
    section = line.recipe.merge
    inputs = {
        "adapter": adapter.record.digest,
        "merge": section.digest,
        "suite": load_suite(section.validation_suite).digest,
    }
    request = line.request("merge", line.folder("merge", inputs), base=base.folder, dataset=dataset.folder, adapter=adapter.folder)
    return _finish(line, request, MergedModel, lambda merged: merged.certificate.reason)


def _finish(line: Line, request: StageRequest, kind: type[R], in_words: Callable[[R], str]) -> Finished[R]:
    """The stage's record: read where it is finished, made where it is not."""
    if (request.out / RECORD_NAME).exists():
        record = kind.read(request.out)
        line.display.reused(request.stage, in_words(record))
        return Finished(record, request.out)
    return _make(line, request, kind, in_words)


def _make(line: Line, request: StageRequest, kind: type[R], in_words: Callable[[R], str]) -> Finished[R]:
    home, public_name = line.settings.home, line.recipe.serving.public_name
    with (
        line.display.stage(request.stage) as shown,
        timed(home, public_name, request.stage),
        told_live(home, public_name, request.stage, shown.report) as report,
    ):
        line.run(request, report)
        record = kind.read(request.out)
        shown.note = in_words(record)
    return Finished(record, request.out)


def _fingerprint(source: SourceSection) -> str:
    # What only reading can tell (a query, an address) is read again in every run; the same rows are the same dataset then.
    return fingerprint(source) or uuid4().hex


def _rows_in_words(dataset: DatasetManifest) -> str:
    rows_in = sum(source.rows_in for source in dataset.sources)
    dropped = sum(sum(source.dropped.values()) for source in dataset.sources)
    return f"{rows_in} rows in, {dataset.train_rows} to train, {dataset.validation_rows} to validate, {dropped} dropped"


def _reward_in_words(reward: RewardArtifact) -> str:
    warned = "".join(f"; {warning}" for warning in (*reward.course.out_of_memory, *reward.course.warnings))
    return f"{reward.steps} steps, {reward.held_out_accuracy:.0%} of {reward.held_out_pairs} held-back pairs in order{warned}"


def _training_in_words(adapter: AdapterArtifact) -> str:
    held_out = "" if adapter.validation_loss is None else f", held-out {adapter.validation_loss:.3f}"
    held_out += f"; {adapter.course.stopped}" if adapter.course.stopped else ""
    warned = "".join(f"; {warning}" for warning in (*adapter.course.out_of_memory, *adapter.course.warnings))
    ahead = "" if adapter.last_margin is None else f", preferred ahead by {adapter.first_margin:.3f} → {adapter.last_margin:.3f}"
    rewarded = "" if adapter.last_reward is None else f", reward {adapter.first_reward:.3f} → {adapter.last_reward:.3f}"
    return f"{adapter.steps} steps, loss {adapter.first_loss:.3f} → {adapter.last_loss:.3f}{held_out}{ahead}{rewarded}{warned}"
