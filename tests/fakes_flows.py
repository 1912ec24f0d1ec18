"""Stand-ins for the tests of `flows`: recipes on disk, stages that write true records in no time, and a real server over fake engines."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from evaluation.suite import load_suite
from flows import judging, stages
from flows.display import Display
from flows.promotion import Switchboard
from flows.recipe import load_recipe
from flows.rendering import weights_of
from flows.stage_process import StageRequest
from flows.stages import Finished, Line
from serving.keys import Scope
from serving.records import Release, SlotState
from serving.registry import Registry
from serving.settings import Settings
from serving.slots import free_port
from tests.fakes_suites import write_suite
from tests.fakes_trainer import trainer_view
from training.data.held_apart import TRAIN_KEYS
from training.data.leakage_keys import TrainKeys
from training.progress import Progress, Report
from training.records import (
    AdapterArtifact,
    BaseModelRecord,
    DatasetManifest,
    MergeCertificate,
    MergedModel,
    MergeMeasurement,
    Record,
    RewardArtifact,
    digest_files,
)

ROOT = Path(__file__).parents[1]
NOW = "2030-01-01T00:00:00+00:00"
SAFE, UNSAFE = "Call 911 now.", "Rest at home and wait."
ROW = '{"instruction": "My chest hurts.", "output": "Call 911 now."}\n'


def recipe_values(public_name: str = "clinic") -> dict[str, Any]:
    """A recipe as YAML values; `write_recipe` writes the files it names."""
    return {
        "name": "small",
        "model": {"base": "org/tiny", "max_length": 64},
        "data": {"sft": [{"path": "rows.jsonl"}]},
        "sft": {"r": 4},
        "merge": {"validation_suite": "validation"},
        "evaluation": {"suite": "suite", "concurrency": 2, "perplexity": False, "forgetting": None},
        "gate": {"must": {"critical_failures": {"max": 0}}, "min_prompts": 2},
        "serving": {"public_name": public_name, "max_model_len": 128},
    }


def write_recipe(folder: Path, values: Mapping[str, Any] | None = None) -> Path:
    """Write a recipe, one row of data, and its two suites."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text(ROW, encoding="utf-8")
    write_suite(folder / "suite")
    write_suite(folder / "validation")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(dict(values or recipe_values()), sort_keys=False), encoding="utf-8")
    return path


class QuickStages:
    """Runs a stage by writing its record. The merged model says `says`; `ran` lists the stages in order."""

    def __init__(self, says: str = SAFE) -> None:
        self.says, self.ran = says, list[str]()

    def __call__(self, request: StageRequest, report: Report) -> None:
        self.ran.append(request.stage)
        report(Progress(1, 1, "steps", "quick"))
        request.out.mkdir(parents=True, exist_ok=True)
        _WRITE[request.stage](request, self.says).write(request.out)


def _base(request: StageRequest, says: str) -> Record:
    files = _weights(request.out, UNSAFE)
    return BaseModelRecord(created_at=NOW, source=request.recipe.model.base, folder=str(request.out), files=files)


def _dataset(request: StageRequest, says: str) -> Record:
    TrainKeys.of(["What is trained on?"]).write(request.out / TRAIN_KEYS)
    counts = {"train_rows": 9, "validation_rows": 1, "train_tokens": 90, "loss_tokens": 40}
    return DatasetManifest(created_at=NOW, base_digest="b" * 64, section_digest="s" * 64, sources=(), files=(), **counts)


def _adapter(request: StageRequest, says: str) -> Record:
    assert request.stage in ("sft", "preference", "online")
    losses = {"first_loss": 3.0, "last_loss": 1.0, "validation_loss": None}
    digests = {"base_digest": "b" * 64, "dataset_digest": "d" * 64, "section_digest": "s" * 64}
    return AdapterArtifact(
        created_at=NOW, stage=request.stage, quantization="nf4", trainable_parameters=1, steps=2, files=(), **digests, **losses
    )


def _reward(request: StageRequest, says: str) -> Record:
    values = {"first_loss": 0.7, "last_loss": 0.1, "held_out_pairs": 4, "held_out_accuracy": 0.75, "trainable_parameters": 1, "steps": 2}
    digests = {"base_digest": "b" * 64, "dataset_digest": "d" * 64, "section_digest": "s" * 64, "parent_digest": "p" * 64}
    return RewardArtifact(created_at=NOW, quantization="nf4", double_quant=True, files=(), **digests, **values)


def _merged(request: StageRequest, says: str) -> Record:
    def measured(variant: Any) -> MergeMeasurement:
        return MergeMeasurement(variant=variant, kl_nats=0.1, flip_rate=0.1, perplexity=2.0, rule_passes=1, rule_prompts=1)

    both = (measured("bf16_base"), measured("nf4_base"))
    certificate = MergeCertificate(trained=measured("trained"), measurements=both, chosen="bf16_base", reason="kept the better one")
    files = _weights(request.out, says)
    return MergedModel(created_at=NOW, base_digest="b" * 64, adapter_digest="a" * 64, certificate=certificate, files=files)


def _view(request: StageRequest, says: str) -> Record:
    """As `fakes_flows_engine.py` renders: the characters of the last message."""
    assert request.merged is not None
    merged, suite = MergedModel.read(request.merged), load_suite(request.recipe.evaluation.suite)
    return trainer_view(
        suite,
        lambda messages: [ord(char) for char in messages[-1]["content"]],
        model_digest=merged.digest,
        weights=weights_of(merged.files),
    )


_WRITE: dict[str, Callable[[StageRequest, str], Record]] = {
    "base": _base,
    "prepare": _dataset,
    "sft": _adapter,
    "preference": _adapter,
    "reward": _reward,
    "online": _adapter,
    "merge": _merged,
    "render": _view,
}


def _weights(folder: Path, says: str) -> Any:
    (folder / "model.safetensors").write_text(says, encoding="utf-8")
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    return digest_files(folder)


def open_small_line(recipe: Path, settings: Settings, registry: Registry, stages: QuickStages | None = None) -> Line:
    """A line whose stages cost nothing and whose display prints into a string."""
    display, run = Display(quiet_console()), stages or QuickStages()
    return Line(load_recipe(recipe), settings, registry, display, "ann", run, recipe_path=recipe)


def quiet_console(width: int = 200) -> Console:
    """Prints into a string, as into a log file."""
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def printed(console: Console) -> str:
    """What a `quiet_console` was told."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def merged_model(line: Line, says: str) -> Finished[MergedModel]:
    """A finished merge whose model says `says`."""
    folder = line.folder("merge", {"says": says, "name": line.recipe.serving.public_name})
    QuickStages(says)(line.request("merge", folder), lambda _: None)
    return Finished(MergedModel.read(folder), folder)


def dataset(line: Line) -> Finished[DatasetManifest]:
    """A finished preparation."""
    folder = line.folder("prepare", {})
    QuickStages()(line.request("prepare", folder), lambda _: None)
    return Finished(DatasetManifest.read(folder), folder)


class Site:
    """A home with a live server over fake engines."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home, port=free_port(), reconcile_s=0.1, restart_first_s=0.1, drain_s=5, start_timeout_s=60)
        home.mkdir(parents=True)
        self.registry = Registry(self.settings.database_url)
        self.url = f"http://127.0.0.1:{self.settings.port}"
        _, self.key = self.registry.create_key("test", [Scope.INFER])

    @property
    def environment(self) -> dict[str, str]:
        """The variables from which a process of its own finds this home."""
        return {
            f"TUNEGATE_{name.upper()}": str(value)
            for name, value in self.settings.model_dump(exclude={"registry_url"}, exclude_none=True).items()
        }

    @property
    def board(self) -> Switchboard:
        """What a promotion needs."""
        return Switchboard(self.settings, self.registry, Display(quiet_console()))

    def line(self, folder: Path, public_name: str, stages: QuickStages | None = None) -> Line:
        """A line for one public name; several of them share the server."""
        return open_small_line(write_recipe(folder, recipe_values(public_name)), self.settings, self.registry, stages)

    @contextmanager
    def serving(self, **more: str) -> Iterator[None]:
        """Run the server while the block runs, with `more` in its environment."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment, **more}
        server = subprocess.Popen([sys.executable, "-m", "tests.fakes_flows_server"], cwd=ROOT, env=env)
        try:
            until(lambda: (live := self.registry.server()) is not None and live.pid == server.pid, 180)
            yield
        finally:
            server.terminate()
            server.wait(30)

    def wait_ready(self, release: Release) -> None:
        """Wait for the release's engine to have answered."""
        until(lambda: any(slot.release_id == release.id and slot.state is SlotState.READY for slot in self.registry.slots()))

    def asked(self, release: Release) -> int:
        """How many chats the release's engine was asked."""
        return (self.settings.slot_folder(release.id) / "vllm.log").read_text(encoding="utf-8").split().count("chat")


def until(true: Callable[[], bool], timeout_s: float = 60.0, every_s: float = 0.02) -> None:
    """Wait for something to become true; looked at seldom where looking is work for others."""
    limit = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(every_s)


def finish_training(line: Line) -> Finished[MergedModel]:
    """Leave a home in which everything before the first slot is finished, so that a real run of the recipe starts there."""
    base = stages.fetch_base(line)
    prepared = stages.prepare(line, base)
    merged = stages.merge(line, base, prepared, stages.sft(line, base, prepared))
    judging.view_of_trainer(line, merged)
    return merged
