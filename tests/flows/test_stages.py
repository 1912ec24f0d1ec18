"""A stage that is finished is kept, one whose inputs changed gets a folder of its own, and an altered record is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.suite import load_suite
from flows import stages
from flows.data_drift import look_for_drift, remember_data
from flows.stages import Finished, Line
from serving.registry import Registry
from serving.settings import Settings
from tests.fakes_flows import ROW, QuickStages, open_small_line, printed, recipe_values, write_recipe
from tests.fakes_suites import write_suite
from training.data.accounting import Tally
from training.data.held_apart import TRAIN_KEYS
from training.data.leakage_keys import TrainKeys
from training.data.profile import write_profile
from training.data.profile_builder import ProfileBuilder
from training.data.rows import Place
from training.errors import DataError, ModelError, RecordError
from training.records import BaseModelRecord, MergedModel, digest_files

NAMES = ["base", "prepare", "sft", "preference", "reward", "online", "merge"]


class Runs:
    """Runs the training half of a recipe, again and again, in one home."""

    def __init__(self, tmp_path: Path, registry: Registry, settings: Settings) -> None:
        self.folder, self.registry, self.settings = tmp_path / "recipe", registry, settings
        self.values = recipe_values()
        self.values["data"]["preferences"] = [{"path": "pairs.jsonl"}]
        self.values |= {"preference": {"beta": 0.1}, "reward": {}, "online": {"reward": "model", "prompts": "practice"}}
        write_recipe(self.folder, self.values)
        write_suite(self.folder / "practice")
        (self.folder / "pairs.jsonl").write_text("{}\n", encoding="utf-8")

    def line(self, quick: QuickStages) -> Line:
        (self.folder / "recipe.yaml").write_text(json.dumps(self.values), encoding="utf-8")
        return open_small_line(self.folder / "recipe.yaml", self.settings, self.registry, quick)

    def run(self, says: str = "Call 911 now.") -> tuple[list[str], Finished[MergedModel], Line]:
        quick = QuickStages(says)
        line = self.line(quick)
        base = stages.fetch_base(line)
        dataset = stages.prepare(line, base)
        adapter = stages.prefer(line, base, dataset, stages.sft(line, base, dataset))
        reward = stages.teach_reward(line, base, dataset, adapter)
        adapter = stages.reinforce(line, base, adapter, reward)
        return quick.ran, stages.merge(line, base, dataset, adapter), line


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    settings = Settings(home=tmp_path / "home")
    settings.home.mkdir()
    with Registry(settings.database_url) as registry:
        yield Runs(tmp_path, registry, settings)


def test_a_finished_stage_is_not_run_again(runs: Runs) -> None:
    ran, first, _ = runs.run()
    again, second, line = runs.run()
    assert (ran, again) == (NAMES, [])
    assert first == second
    assert printed(line.display.console).count("kept") == len(NAMES) + 1  # the merge's own sentence says "kept", too


@pytest.mark.parametrize("purpose", ["production", "experiment"])
def test_what_vllm_cannot_serve_is_refused_before_a_row_is_prepared_unless_it_is_an_experiment(runs: Runs, purpose: str) -> None:
    runs.values["purpose"] = purpose
    quick = QuickStages()
    line = runs.line(quick)
    base = stages.base_folder(line)
    QuickStages()(line.request("base", base), lambda progress: None)
    config = base / "config.json"
    config.write_text('{"architectures": ["T5ForConditionalGeneration"]}', encoding="utf-8")
    record = BaseModelRecord.read(base)
    record.model_copy(update={"files": digest_files(base)}).write(base)

    if purpose == "experiment":
        assert stages.fetch_base(line).folder == base
        return
    with pytest.raises(ModelError, match="vLLM could not serve what is trained from this base model") as caught:
        stages.fetch_base(line)
    assert "purpose: experiment" in caught.value.do
    assert quick.ran == []


def test_every_stage_lies_in_the_runs_folder_under_its_inputs_digest(runs: Runs) -> None:
    _, merged, _ = runs.run()
    assert merged.folder.parent == runs.settings.home / "runs" / "small"
    assert merged.folder.name.startswith("merge-")
    assert len(merged.folder.name) == len("merge-") + 12


def change_data(values: dict[str, Any], folder: Path) -> None:
    (folder / "rows.jsonl").write_text(ROW + ROW, encoding="utf-8")


def change_pairs(values: dict[str, Any], folder: Path) -> None:
    (folder / "pairs.jsonl").write_text("{}\n{}\n", encoding="utf-8")


def change_length(values: dict[str, Any], folder: Path) -> None:
    values["model"]["max_length"] = 65


def change_sft(values: dict[str, Any], folder: Path) -> None:
    values["sft"]["r"] = 8


def change_preference(values: dict[str, Any], folder: Path) -> None:
    values["preference"]["beta"] = 0.2


def change_reward(values: dict[str, Any], folder: Path) -> None:
    values["reward"]["epochs"] = 2


def change_online(values: dict[str, Any], folder: Path) -> None:
    values["online"]["beta"] = 0.1


def change_practice(values: dict[str, Any], folder: Path) -> None:
    path = folder / "practice" / "prompts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("Prompt 0?", "Prompt zero?"), encoding="utf-8")


def change_merge(values: dict[str, Any], folder: Path) -> None:
    values["merge"]["max_new_tokens"] = 8


def change_validation(values: dict[str, Any], folder: Path) -> None:
    path = folder / "validation" / "prompts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("Prompt 0?", "Prompt zero?"), encoding="utf-8")


def change_gate(values: dict[str, Any], folder: Path) -> None:
    values["gate"]["alpha"] = 0.04
    values["serving"]["max_num_seqs"] = 2


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (change_data, ["prepare"]),
        (change_pairs, ["prepare"]),
        (change_length, ["prepare"]),
        (change_sft, ["sft"]),
        (change_preference, ["preference"]),
        (change_reward, ["reward"]),
        (change_online, ["online"]),
        (change_practice, ["online"]),
        (change_merge, ["merge"]),
        (change_validation, ["prepare", "merge"]),  # rows that overlap its prompts are not trained on
        (change_gate, []),
    ],
)
def test_a_change_runs_the_stage_it_concerns_anew_in_another_folder(
    runs: Runs, change: Callable[[dict[str, Any], Path], None], again: list[str]
) -> None:
    """The quick stages write the same records again, so that what follows an unchanged outcome is kept."""
    _, before, _ = runs.run()
    change(runs.values, runs.folder)
    ran, after, _ = runs.run()
    assert ran == again
    assert (after.folder != before.folder) == ("merge" in again)


def test_an_altered_record_is_refused_and_names_its_file(runs: Runs) -> None:
    _, merged, _ = runs.run()
    record = merged.folder / "record.json"
    record.write_text(record.read_text(encoding="utf-8").replace("kept the better one", "kept the worse one"), encoding="utf-8")
    with pytest.raises(RecordError, match="was altered") as caught:
        runs.run()
    assert str(record) in caught.value.what


def test_a_torn_record_is_refused(runs: Runs) -> None:
    _, merged, _ = runs.run()
    record = merged.folder / "record.json"
    record.write_text(record.read_text(encoding="utf-8")[:100], encoding="utf-8")
    with pytest.raises(RecordError, match="cannot be read"):
        runs.run()


def test_a_base_model_with_a_flipped_byte_is_refused(runs: Runs) -> None:
    runs.run()
    (runs.settings.home / "base" / "org--tiny" / "model.safetensors").write_text("Rest at home and wait!", encoding="utf-8")
    with pytest.raises(RecordError, match=r"model\.safetensors has other bytes"):
        runs.run()


def test_another_models_folder_of_the_same_name_is_not_taken_for_the_base_model(runs: Runs) -> None:
    """`org--tiny` is also the cache name of a folder that is called so: the stage, which tells them apart, has to look."""
    runs.values["model"]["base"] = "org--tiny"
    runs.run()
    runs.values["model"]["base"] = "org/tiny"
    quick = QuickStages()
    stages.fetch_base(runs.line(quick))
    assert quick.ran == ["base"]


def test_a_data_file_that_is_not_there_is_named_before_anything_runs(runs: Runs) -> None:
    (runs.folder / "rows.jsonl").unlink()
    with pytest.raises(DataError, match=r"rows\.jsonl is not there"):
        runs.run()


def test_a_stage_that_leaves_no_record_is_refused(runs: Runs) -> None:
    line = Line(**(vars(runs.line(QuickStages())) | {"run": lambda request, report: None}))
    with pytest.raises(RecordError, match="is not there"):
        stages.fetch_base(line)


def with_lengths(folder: Path, characters: int) -> None:
    """A profile of 300 rows, all of this length."""
    builder, tally = ProfileBuilder(), Tally()
    for number in range(300):
        tally.enter("rows.jsonl", Place("rows.jsonl", number))
        tally.keep("rows.jsonl", Place("rows.jsonl", number))
        builder.use(characters=characters + number % 7)
    write_profile(folder, builder.build(tally, str))


@pytest.mark.parametrize(("policy", "stops"), [("warn", False), ("stop", True), ("off", False)])
def test_data_that_is_no_longer_like_the_champions_is_told_or_stops_the_run(runs: Runs, policy: str, stops: bool) -> None:
    runs.values["data"]["drift"] = {"policy": policy}
    line = runs.line(QuickStages())
    base = stages.fetch_base(line)
    dataset = stages.prepare(line, base)
    champion = line.registry.add_release(
        public_name="clinic", model_digest="c" * 64, model_dir=base.folder, serving=line.recipe.serving, recipe_name="r", requester="ann"
    )
    line.registry.bootstrap(champion.id, "ann")
    with_lengths(dataset.folder, 40)
    remember_data(line, champion, dataset)
    same = look_for_drift(line, dataset)
    assert same is None or same.level in ("ok", "unjudged")

    with_lengths(dataset.folder, 900)

    if stops:
        with pytest.raises(DataError, match="drifted"):
            look_for_drift(line, dataset)
    else:
        drift = look_for_drift(line, dataset)
        assert (drift is None) == (policy == "off")
        assert drift is None or drift.level == "warn"


def test_an_evaluation_that_was_trained_on_is_refused(runs: Runs) -> None:
    line = runs.line(QuickStages())
    dataset = stages.prepare(line, stages.fetch_base(line))
    prompt = load_suite(line.recipe.evaluation.suite).prompts[0]
    TrainKeys.of([prompt.text]).write(dataset.folder / TRAIN_KEYS)

    with pytest.raises(DataError, match="are among the rows that are trained on"):
        stages.prepare(line, stages.fetch_base(line))
