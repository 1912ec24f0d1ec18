"""What pruning takes and what it never takes, and that a kill in its middle loses nothing that is needed."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.pruning import TRASH, prune, removals, taken_bytes
from flows.upkeep import make_room
from serving.artefact_store import ArtefactStore, StoredModel
from serving.config import ServingSection
from serving.errors import RunUnderWay, StoreError
from serving.records import Release
from serving.registry import Registry
from serving.run_leases import EVERYTHING, this_process
from tests.fakes_flows import NOW
from tests.fakes_serving import EVIDENCE, url_in
from training.records import AdapterArtifact, MergeCertificate, MergedModel, MergeMeasurement, digest_files

OLD = 1_000_000_000
LARGE = 10_000_000  # beside which the registry's own files do not count


class Home:
    """A home whose folders carry an order: the first made is the oldest."""

    def __init__(self, root: Path, registry: Registry) -> None:
        self.root, self.registry, self._made = root, registry, 0

    def folder(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True)
        (path / "weights").write_bytes(b"x" * 1000)
        self._dated(path)
        return path

    def adapter(self, name: str) -> str:
        digests = {"base_digest": "b" * 64, "dataset_digest": name, "section_digest": "s" * 64}
        losses = {"first_loss": 3.0, "last_loss": 1.0, "validation_loss": None}
        stage = AdapterArtifact(
            created_at=NOW, stage="sft", quantization="nf4", trainable_parameters=1, steps=2, files=(), **digests, **losses
        )
        path = self.folder("runs", "demo", f"sft-{name}")
        stage.write(path)
        self._dated(path)
        return stage.digest

    def release(self, name: str) -> Release:
        """A candidate with a model and the adapter it was folded from."""
        both = MergeMeasurement(variant="trained", kl_nats=0.1, flip_rate=0.1, perplexity=2.0, rule_passes=1, rule_prompts=1)
        certificate = MergeCertificate(trained=both, measurements=(), chosen="bf16_base", reason="better")
        adapter = self.adapter(name)
        folder = self.folder("runs", "demo", f"merge-{name}")
        digests = {"base_digest": "b" * 64, "adapter_digest": adapter}
        merged = MergedModel(created_at=NOW, certificate=certificate, files=digest_files(folder), **digests)
        merged.write(folder)
        self._dated(folder)
        return self.registry.add_release(
            public_name="clinic",
            model_digest=merged.digest,
            model_dir=folder,
            serving=ServingSection(public_name="clinic"),
            recipe_name="demo",
            requester="ann",
        )

    def live(self, name: str) -> Release:
        release = self.release(name)
        if self.registry.champion("clinic") is None:
            return self.registry.bootstrap(release.id, "ann")
        return self.registry.promote(self.waiting(release).id, EVIDENCE, "bob")

    def waiting(self, release: Release, *, approve: bool = True) -> Release:
        self.registry.submit(release.id, EVIDENCE, None, "gate")
        return self.registry.approve(release.id, EVIDENCE, "bob") if approve else self.registry.release(release.id)

    def pruned(self, keep: int = 1, *, dry_run: bool = False) -> set[str]:
        return {Path(str(each.path)).name for each in prune(self.root, self.registry, keep, "ann", dry_run=dry_run)}

    def answers(self, name: str, *, hours: float) -> Path:
        """A file of kept answers that was last written to so long ago."""
        path = self.root / "kept" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"{}\n")
        os.truncate(path, LARGE)
        os.utime(path, (time.time() - hours * 3600,) * 2)
        return path

    def there(self) -> set[str]:
        return {path.name for path in (self.root / "runs" / "demo").iterdir()}

    def _dated(self, path: Path) -> None:
        self._made += 1
        os.utime(path, (OLD + self._made, OLD + self._made))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with Registry(url_in(tmp_path)) as registry:
        yield Home(tmp_path, registry)


def test_the_champion_and_its_predecessor_keep_their_weights_and_their_adapters(home: Home) -> None:
    for name in ("a", "b", "c"):
        home.live(name)
    home.registry.reject(home.release("d").id, "gate", "FAIL")
    home.folder("runs", "demo", "merge-z")
    assert home.pruned() == {"merge-a", "sft-a", "merge-d"}
    assert {"merge-b", "merge-c", "sft-b", "sft-c", "sft-d", "merge-z"} <= home.there()


def test_what_waits_or_is_approved_keeps_everything(home: Home) -> None:
    home.live("a")
    home.waiting(home.release("b"))
    home.waiting(home.release("c"), approve=False)
    home.release("d")
    home.folder("runs", "demo", "merge-z")
    home.folder("runs", "demo", "sft-z")
    assert home.pruned() == set()


def test_a_dry_run_says_the_same_and_removes_nothing(home: Home) -> None:
    for name in ("a", "b", "c"):
        home.live(name)
    before = home.there()
    said = home.pruned(dry_run=True)
    assert home.there() == before
    assert home.pruned() == said != set()
    assert home.pruned() == set()


def test_the_newest_of_each_stage_stay(home: Home) -> None:
    for stage in ("prepare", "sft", "merge"):
        for name in ("1", "2", "3"):
            home.folder("runs", "demo", f"{stage}-{name}")
    assert home.pruned(keep=2) == {"prepare-1", "sft-1", "merge-1"}


def test_with_a_budget_the_oldest_goes_first_and_no_more_than_is_too_much(home: Home) -> None:
    for number in range(6):
        folder = home.folder("runs", "demo", f"prepare-{number}")
        os.truncate(folder / "weights", LARGE)
        os.utime(folder, (OLD + number, OLD + number))
    budget = taken_bytes(home.root) - 1.5 * LARGE

    gone = prune(home.root, home.registry, 1, "ann", dry_run=False, budget_bytes=budget)

    assert [each.path.name for each in gone] == ["prepare-0", "prepare-1"]
    assert prune(home.root, home.registry, 1, "ann", dry_run=False, budget_bytes=budget + LARGE) == ()


def test_a_budget_takes_nothing_that_is_needed(home: Home) -> None:
    home.folder("runs", "demo", "prepare-0")
    assert prune(home.root, home.registry, 1, "ann", dry_run=False, budget_bytes=1) == ()
    assert (home.root / "runs" / "demo" / "prepare-0").exists()


def test_the_nightly_flow_keeps_the_budget_and_says_when_all_that_is_left_is_needed(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        home.folder("runs", "demo", f"prepare-{number}")
    monkeypatch.setenv("TUNEGATE_HOME", str(home.root))

    freed_gb = make_room.fn(keep=1, budget_gb=1e-9)

    assert freed_gb == pytest.approx(3000 / 1e9)
    assert "GB over the budget, and all of it is needed" in " ".join(capsys.readouterr().out.split())


def test_evidence_and_base_models_are_never_removed(home: Home) -> None:
    kept = [home.folder("runs", "demo", f"verdict-{n}") for n in range(3)]
    kept += [home.folder(*parts) for parts in (("judged", "clinic-1"), ("base", "tiny"), ("reviews", "x"), ("slots", "clinic-9"))]
    assert home.pruned() == set()
    assert all(path.exists() for path in kept)


def test_a_recipe_that_runs_and_every_scorecard_are_left_alone_while_it_does(home: Home) -> None:
    for name in ("1", "2"):
        home.folder("runs", "demo", f"merge-{name}")
        home.folder("runs", "other", f"merge-other-{name}")
        home.folder("scorecards", name)
    run = home.registry.runs.begin("demo", "ann")
    assert home.pruned() == {"merge-other-1"}
    home.registry.runs.end(run, "finished")
    assert home.pruned() == {"merge-1", "1"}


def test_checkpoints_of_a_finished_stage_go_and_those_of_an_unfinished_one_stay(home: Home) -> None:
    home.adapter("done")
    home.folder("runs", "demo", "sft-done", "checkpoints")
    home.folder("runs", "demo", "sft-killed", "checkpoints")
    assert [each.path.parent.name for each in removals(home.root, home.registry, 2)] == ["sft-done"]


def test_what_a_killed_pruning_left_is_removed_by_the_next(home: Home) -> None:
    left = home.folder(TRASH, "half")
    home.registry.runs.begin(EVERYTHING, "ann", replace(this_process(), boot_id="another boot"))
    home.pruned()
    assert not left.exists()


def test_two_prunings_at_once_are_refused(home: Home) -> None:
    home.registry.runs.begin(EVERYTHING, "ann")
    with pytest.raises(RunUnderWay, match="tunegate prune is under way"):
        home.pruned()


def test_a_link_leads_out_and_is_left_alone(home: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "mine").write_text("precious", encoding="utf-8")
    home.folder("runs", "demo", "merge-1")
    (home.root / "runs" / "demo" / "merge-0").symlink_to(outside)
    home.folder("runs", "demo", "merge-2")
    assert home.pruned() == {"merge-1"}
    assert (outside / "mine").exists()


def test_a_model_whose_folder_is_gone_stops_nothing(home: Home) -> None:
    shutil.rmtree(home.live("a").model_dir)
    home.live("b")
    assert home.pruned() == {"sft-a"}  # nobody can tell any more what it became


@pytest.fixture
def store(home: Home, tmp_path_factory: pytest.TempPathFactory) -> ArtefactStore:
    return ArtefactStore(f"file://{tmp_path_factory.mktemp('store')}", pause_s=0.0)


def stored(home: Home, store: ArtefactStore, *names: str) -> list[Release]:
    """Releases, each with its model in the store too."""
    made = [home.release(name) for name in names]
    for each in made:
        store.put(each.model_dir)
    return made


def rejected(home: Home, store: ArtefactStore, *names: str) -> list[Release]:
    made = stored(home, store, *names)
    for each in made:
        home.registry.reject(each.id, "gate", "FAIL")
    return made


def pruned_from(home: Home, store: ArtefactStore, *, dry_run: bool = False, budget_bytes: float | None = None) -> set[str]:
    found = prune(home.root, home.registry, 1, "ann", dry_run=dry_run, store=store, budget_bytes=budget_bytes)
    return {each.path.digest for each in found if isinstance(each.path, StoredModel)}


def in_store(store: ArtefactStore) -> set[str]:
    return {each.digest for each in store.models()}


def test_models_in_the_store_stay_while_their_release_is_in_use_and_the_rest_goes_and_is_named(home: Home, store: ArtefactStore) -> None:
    """Three champions in turn, one approved, one that waits; of those that nothing needs the newest stays."""
    first, second, third, approved, waits = stored(home, store, "a", "b", "c", "d", "e")
    home.registry.bootstrap(first.id, "ann")
    for release in (second, third):
        home.registry.promote(home.waiting(release).id, EVIDENCE, "bob")
    home.waiting(approved)
    home.waiting(waits, approve=False)
    old, _ = rejected(home, store, "f", "g")
    gone, before = {first.model_digest, old.model_digest}, in_store(store)
    assert pruned_from(home, store, dry_run=True) == gone
    assert in_store(store) == before
    assert pruned_from(home, store) == gone
    assert in_store(store) == before - gone
    told = {line.subject: line for line in home.registry.approvals.lines() if line.kind == "prune.removed"}
    assert gone <= told.keys()
    assert (told[old.model_digest].actor, told[old.model_digest].reason) == ("ann", "a model in the store that no release in use serves")
    assert home.registry.approvals.verify().faults == ()


def test_nothing_leaves_the_store_that_this_registry_does_not_know_or_while_anything_runs(home: Home, store: ArtefactStore) -> None:
    old, _ = rejected(home, store, "a", "b")
    (home.root / "elsewhere").mkdir()
    with Registry(url_in(home.root / "elsewhere")) as elsewhere:
        theirs = Home(home.root / "elsewhere", elsewhere).release("z")
    store.put(theirs.model_dir)
    run = home.registry.runs.begin("another", "bob")
    assert pruned_from(home, store) == set()
    home.registry.runs.end(run, "finished")
    assert pruned_from(home, store) == {old.model_digest}
    assert theirs.model_digest in in_store(store)


class Breaks:
    """A filesystem on which removing whole folders fails, as when the process is killed before it."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def rm(self, *_: object, **__: object) -> None:
        raise PermissionError("killed here")


def test_a_pruning_killed_in_a_model_of_the_store_leaves_none_that_looks_whole_and_the_next_one_finishes(
    home: Home, store: ArtefactStore
) -> None:
    first, second = rejected(home, store, "a", "b")
    copied = home.root / "copy"
    shutil.copytree(first.model_dir, copied)
    real = store._filesystem
    object.__setattr__(store, "_filesystem", Breaks(real))
    with pytest.raises(StoreError, match="killed here"):
        prune(home.root, home.registry, 1, "ann", dry_run=False, store=store)
    object.__setattr__(store, "_filesystem", real)
    assert (store.holds(first.model_digest), store.holds(second.model_digest)) == (False, True)
    store.put(copied)  # a run that makes the same model again finds that it is not there
    assert store.holds(first.model_digest)
    object.__setattr__(store, "_filesystem", Breaks(real))
    with pytest.raises(StoreError, match="killed here"):
        store.drop(first.model_digest)
    object.__setattr__(store, "_filesystem", real)
    assert pruned_from(home, store) == {first.model_digest}
    assert in_store(store) == {second.model_digest}


def test_a_budget_counts_the_store_and_takes_kept_answers_last_and_none_that_may_be_written_to(home: Home, store: ArtefactStore) -> None:
    rejected(home, store, "a", "b")
    old, older, fresh = home.answers("1", hours=50), home.answers("2", hours=90), home.answers("3", hours=0.5)
    assert pruned_from(home, store, budget_bytes=taken_bytes(home.root, store) + LARGE / 2) == set()
    spare = sum(each.size_bytes for each in prune(home.root, home.registry, 1, "ann", dry_run=True, store=store))
    assert pruned_from(home, store, budget_bytes=taken_bytes(home.root, store) - spare - LARGE / 2) != set()
    assert (old.exists(), older.exists()) == (True, False)
    pruned_from(home, store, budget_bytes=1)
    assert (old.exists(), fresh.exists()) == (False, True)


def test_without_a_budget_kept_answers_stay(home: Home) -> None:
    kept = home.answers("1", hours=1_000)
    assert home.pruned() == set()
    assert kept.exists()


class Unreachable:
    """A filesystem for which nobody answers."""

    protocol = "s3"

    def invalidate_cache(self) -> None: ...

    def find(self, *_: object, **__: object) -> dict[str, Any]:
        raise OSError("no answer")


def test_a_store_out_of_reach_holds_up_no_pruning_of_this_disk(home: Home, store: ArtefactStore, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        home.folder("runs", "demo", f"prepare-{number}")
    object.__setattr__(store, "_filesystem", Unreachable())
    found = prune(home.root, home.registry, 1, "ann", dry_run=False, store=store)
    assert {Path(str(each.path)).name for each in found} == {"prepare-0", "prepare-1"}
    assert "nothing of the store is removed" in caplog.text
