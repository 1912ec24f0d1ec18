"""Makes room: folders of old runs that nothing needs any more, by a policy that errs on the side of keeping.

Kept are the champion, the release that a rollback would bring back, whatever is a candidate, waits, is approved or is a canary, whatever
has a slot, all that these were made of and judged by, everything of a recipe that runs, and the newest of each stage. Evidence (verdicts,
cases, reviews) and base models are never removed. In the store of artefacts the models of such releases stay, and whatever this registry
does not know; while anything runs, all of it does. Kept answers cannot be made again: they go only where a budget asks for it and all
else is not enough. A folder is first moved aside in one step and then removed, so a kill leaves each either whole or in `trash`, which the
next pruning empties. The audit log names all that went. Next: `stages.py`, which makes the folders.
"""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.cases import case_folder, read_case
from serving.artefact_store import ArtefactStore, StoredModel
from serving.audit_log import Entry
from serving.errors import StoreError
from serving.lifecycle import State
from serving.records import Release
from serving.registry import Registry
from serving.run_leases import EVERYTHING
from training.errors import RecordError
from training.practice.course import CURVES_SUFFIX, TENSORBOARD_SUFFIX
from training.records import RECORD_NAME, AdapterArtifact, MergedModel

_log = logging.getLogger(__name__)

STAGES = ("prepare", "sft", "preference", "reward", "online", "merge", "render")
TRASH = "trash"
_NEEDED = frozenset({State.CANDIDATE, State.AWAITING_APPROVAL, State.APPROVED, State.CANARY, State.LIVE})
_CHECKPOINTS = "checkpoints"
_KEPT = "kept"
# A gateway writes to a file of kept answers for an hour at most.
_WRITTEN_S = 7_200.0
_BESIDE = (".log", ".request.json", CURVES_SUFFIX)


@dataclass(frozen=True)
class Removal:
    """A folder, a model in the store or a file of kept answers that is not needed. `made_s` is its age as a time, to take the oldest."""

    path: Path | StoredModel
    size_bytes: int
    why: str
    made_s: float


def prune(
    home: Path,
    registry: Registry,
    keep: int,
    who: str,
    *,
    dry_run: bool,
    budget_bytes: float | None = None,
    store: ArtefactStore | None = None,
) -> tuple[Removal, ...]:
    """Remove what `removals` finds, here and in the `store`; with `dry_run`, only say so. No run may start meanwhile.

    With a budget nothing goes while home and store take no more, and then the oldest first, until they do.

    Raises:
        RunUnderWay: another pruning is at work.
    """

    def found_now() -> tuple[Removal, ...]:
        found = (*removals(home, registry, keep), *_stored(store, registry, keep))
        if budget_bytes is None:
            return found
        too_many = taken_bytes(home, store) - budget_bytes
        chosen = _over_budget(found, too_many)
        return chosen + _over_budget(_kept_answers(home, registry), too_many - sum(each.size_bytes for each in chosen))

    if dry_run:
        return found_now()
    with registry.runs.held(EVERYTHING, who):
        _empty_trash(home)
        found = found_now()
        for each in found:
            _note(registry, who, each)
            if isinstance(each.path, Path):
                _remove(home, each.path)
            elif store is not None:
                store.drop(each.path.digest)
        return found


def _note(registry: Registry, who: str, gone: Removal) -> None:
    """Before it goes: whatever is killed then, the next pruning takes what this one has named."""
    name = gone.path.name if isinstance(gone.path, Path) else gone.path.digest
    facts = {"path": str(gone.path), "size_bytes": gone.size_bytes}
    registry.note(Entry("prune.removed", name, who, registry.now(), gone.why, facts=facts))


def removals(home: Path, registry: Registry, keep: int) -> tuple[Removal, ...]:
    """What may go, largest first."""
    running = _running(registry)
    needed = needed_folders(home, registry)
    found = []
    for recipe in _folders(home / "runs"):
        if recipe.name not in running:
            for stage in STAGES:
                found += _old(recipe.glob(f"{stage}-*"), keep, needed, f"a {stage} that no release in use was made of")
            found += [_removal(each, "the stage is finished") for each in _spent_checkpoints(recipe)]
    if not running:  # any run may be reading any scorecard
        found += _old((home / "scorecards").glob("*"), keep, needed, "a scorecard that no release in use was judged by")
    return tuple(sorted(found, key=lambda each: (-each.size_bytes, str(each.path))))


def _running(registry: Registry) -> set[str]:
    return {run.recipe_name for run in registry.runs.under_way()} - {EVERYTHING}


def _stored(store: ArtefactStore | None, registry: Registry, keep: int) -> list[Removal]:
    """Models of this registry's releases that none in use serves, all but the newest `keep`; none while anything runs."""
    if store is None or _running(registry):
        return []
    used, made = {each.model_digest for each in _in_use(registry)}, {each.model_digest: each for each in registry.releases()}
    spare = [each for each in _listed(store) if each.digest in made and each.digest not in used]
    newest_first = sorted(spare, key=lambda each: made[each.digest].created_at, reverse=True)
    why = "a model in the store that no release in use serves"
    return [Removal(each, each.size_bytes, why, made[each.digest].created_at.timestamp()) for each in newest_first[keep:]]


def _listed(store: ArtefactStore) -> Sequence[StoredModel]:
    try:
        return store.models()
    except StoreError as error:
        _log.warning("nothing of the store is removed: %s", error.what)
        return ()


def _kept_answers(home: Path, registry: Registry) -> list[Removal]:
    """Files of kept answers that no gateway writes to any more; none while anything runs that may read them."""
    if _running(registry):
        return []
    files = [each for each in (home / _KEPT).glob("*.jsonl") if each.stem.isdigit() and not each.is_symlink()]
    old = [each for each in files if time.time() - each.stat().st_mtime > _WRITTEN_S]
    return [_removal(each, "kept answers, and all else is not enough") for each in old]


def _over_budget(found: Iterable[Removal], too_many_bytes: float) -> tuple[Removal, ...]:
    """As many of the oldest as make up for what is too much."""
    chosen = list[Removal]()
    for each in sorted(found, key=lambda each: (each.made_s, str(each.path))):
        if too_many_bytes <= 0:
            break
        chosen.append(each)
        too_many_bytes -= each.size_bytes
    return tuple(chosen)


def needed_folders(home: Path, registry: Registry) -> frozenset[Path]:
    """Folders that a release in use serves from, was made of, or was judged by."""
    found = set[Path]()
    for release in _in_use(registry):
        found.add(release.model_dir)
        found |= _judged_by(home, release)
        found |= _made_of(release.model_dir)
    return frozenset(path.resolve() for path in found)


def _in_use(registry: Registry) -> Iterable[Release]:
    snapshot = registry.snapshot()
    back = {target.id for name in registry.public_names() if (target := registry.rollback_target(name)) is not None}
    held = {slot.release_id for slot in snapshot.slots} | snapshot.leases.keys() | {each.champion_id for each in snapshot.rollouts}
    return [each for each in snapshot.releases if each.state in _NEEDED or each.id in back | held]


def _judged_by(home: Path, release: Release) -> set[Path]:
    if not (case_folder(home, release.id) / RECORD_NAME).exists():
        return set()
    case = read_case(home, release.id)
    return {case.candidate, case.merged, case.dataset, *(each for each in (case.champion, case.speed, case.preferences) if each)}


def _made_of(model: Path) -> set[Path]:
    """The adapter that a merged model was folded from, the adapter which that one was trained on from, and so on."""
    try:
        wanted: str | None = MergedModel.read(model).adapter_digest
    except (RecordError, OSError):  # a base model, or one that is gone
        return set()
    found, adapters = set[Path](), dict[str, tuple[Path, str | None]]()
    for folder in (path for stage in ("online", "preference", "sft") for path in model.parent.glob(f"{stage}-*")):
        try:
            record = AdapterArtifact.read(folder)
        except (RecordError, OSError):
            found.add(folder)  # what cannot be read cannot be told apart from what is needed
        else:
            adapters[record.digest] = folder, record.parent_digest
    while wanted in adapters:
        folder, wanted = adapters.pop(wanted)
        found.add(folder)
    return found


def _old(folders: Iterable[Path], keep: int, needed: frozenset[Path], why: str) -> list[Removal]:
    """All but the newest `keep` and what is needed."""
    newest_first = sorted(
        (each for each in folders if _is_folder(each)), key=lambda each: (each.stat().st_mtime_ns, each.name), reverse=True
    )
    return [_removal(each, why) for each in newest_first[keep:] if each.resolve() not in needed]


def _spent_checkpoints(recipe: Path) -> list[Path]:
    """Checkpoints of stages that are finished: nobody resumes from them."""
    return [path for path in recipe.glob(f"*/{_CHECKPOINTS}") if _is_folder(path) and (path.parent / RECORD_NAME).exists()]


def _removal(path: Path, why: str) -> Removal:
    return Removal(path, taken_bytes(path) if path.is_dir() else _size(path), why, path.stat().st_mtime)


def taken_bytes(path: Path, store: ArtefactStore | None = None) -> int:
    """What the files below a folder take, and those of a store that lies elsewhere."""
    elsewhere = 0 if store is None or store.lies_below(path) else sum(each.size_bytes for each in _listed(store))
    return elsewhere + sum(_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _remove(home: Path, path: Path) -> None:
    """Move aside, then remove: nobody ever sees half of it. A file of kept answers stands alone."""
    if path.is_file():
        path.unlink()
        return
    aside = home / TRASH / uuid.uuid4().hex
    aside.parent.mkdir(exist_ok=True)
    path.rename(aside)
    for ending in _BESIDE:
        path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)
    shutil.rmtree(path.with_name(f"{path.name}{TENSORBOARD_SUFFIX}"), ignore_errors=True)
    shutil.rmtree(aside)


def _empty_trash(home: Path) -> None:
    for left in _folders(home / TRASH):
        shutil.rmtree(left)


def _folders(parent: Path) -> Sequence[Path]:
    return sorted(each for each in parent.iterdir() if _is_folder(each)) if parent.is_dir() else []


def _is_folder(path: Path) -> bool:
    """A link leads out of what is ours."""
    return path.is_dir() and not path.is_symlink()
