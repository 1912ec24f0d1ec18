"""Preference tuning: goes on from the SFT adapter by DPO, KTO, ORPO, CPO or SimPO.

Knows nothing of how rows were written or rendered, nor of losses. Next: `preference_trainers.py`; then `merge.py`.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from training.adapters import save_adapter
from training.config import ModelSection, SftSection
from training.data.balance import side
from training.devices import Ranks, require_others
from training.errors import InputError
from training.outcome import checkpoints_for, figures, keep, run
from training.parent import load_parent, taken_over
from training.practice.answers import cut_preferences
from training.practice.out_of_memory import Passes, with_smaller_passes
from training.practice.rates import odd_rate
from training.practice.stopping import HeldOut
from training.practice.template import stop_tokens
from training.practice.trackers import require_trackers
from training.preference_methods import NEED_A_BATCH
from training.preference_section import PreferenceSection
from training.preference_trainers import LabelledTrainer, PairTrainer, margins
from training.prepare import PREFERENCES, read_prepared
from training.progress import Report, silent
from training.ranks import join
from training.records import AdapterArtifact, BaseModelRecord, DatasetManifest, digest_of, verify_files
from training.sft import require_same_base, share_of, waited_for
from training.tokenizer import load_tokenizer
from training.watch import Watch

Row = dict[str, Any]
_INHERITED = ("learning_rate", "epochs", "batch_size", "gradient_accumulation")


def train_preference(
    model: ModelSection,
    sft: SftSection,
    preference: PreferenceSection,
    base: BaseModelRecord,
    dataset_dir: Path,
    dataset: DatasetManifest,
    parent_dir: Path,
    parent: AdapterArtifact,
    out: Path,
    report: Report,
    *,
    shard: bool = False,
) -> AdapterArtifact:
    """Tune the adapter in `parent_dir` on the prepared rows and write the new one to `out`; every process of a spread run calls this.

    They `shard` the base model out among them where they are asked to.

    Raises:
        InputError: the dataset or the adapter belongs to another base model, or there are no rows.
        TrainingError: the loss left the finite numbers, or the disk is full.
    """
    started, ranks = time.monotonic(), join()
    require_others(ranks, shard=shard)
    _require_shareable(preference, ranks)
    require_trackers(sft.report_to)
    require_rows(dataset_dir, dataset, base)
    section = sft.model_copy(update={key: getattr(preference, key) for key in _INHERITED})
    section_digest = digest_of([preference.digest, section.digest])
    rows, held_back = _sides(read_prepared(dataset_dir / PREFERENCES), preference)
    folder = Path(base.folder)
    tokenizer = load_tokenizer(folder)
    cut = cut_preferences(sft.cut_answers, rows, tokenizer, stop_tokens(tokenizer, folder))
    share = share_of(section, ranks)

    def attempt(passes: Passes) -> Any:
        adapted = load_parent(model, sft, base, parent_dir, parent, shard=shard)
        checkpoints = checkpoints_for(out, [base.digest, dataset.digest, parent.digest, section_digest], adapted)
        warnings = (*parent.course.warnings, *cut, *odd_rate(preference, sft))
        watch = Watch(report if ranks.first else silent, checkpoints, warnings, sft.report_to)
        if preference.way.rows == "labelled":
            labelled = LabelledTrainer(adapted, passes.of(share), preference, tokenizer, rows, watch)
            run(labelled, checkpoints)
            return labelled
        held_out = HeldOut(preference.held_out_every_steps, preference.early_stopping, checkpoints.root)
        trainer = PairTrainer(adapted, passes.of(share), preference, tokenizer, rows, watch, ranks, held_back, held_out)
        run(trainer, checkpoints)
        held_out.restore(trainer.state, trainer._load_from_checkpoint)
        return trainer

    passes = Passes(share.batch_size, share.gradient_accumulation)
    trainer, shortages = with_smaller_passes(passes, attempt, fixed=waited_for(ranks) or _compares_rows(preference))
    first_margin, last_margin = margins(trainer.state.log_history)
    artifact = AdapterArtifact(
        **taken_over(parent),
        **figures(trainer, started, shortages),
        stage="preference",
        method=parent.method,
        objective=preference.in_words,
        dataset_digest=dataset.digest,
        section_digest=section_digest,
        first_margin=first_margin,
        last_margin=last_margin,
        processes=ranks.world,
        files=(),
    )
    return keep(artifact, trainer.watch.checkpoints, out, partial(save_adapter, trainer.model, out, base.source))


def _sides(rows: list[Row], preference: PreferenceSection) -> tuple[list[Row], list[Row]]:
    """Rows to learn from, and rows to measure on."""
    if not preference.held_out_fraction:
        return rows, []
    return held_apart(rows, preference.held_out_fraction, key="preference.held_out_fraction")


def held_apart(pairs: Sequence[Row], fraction: float, *, key: str) -> tuple[list[Row], list[Row]]:
    """Pairs to learn from, and pairs to measure on; of one question all are on the same side.

    Raises:
        InputError: one side is empty.
    """
    sides: dict[str, list[Row]] = {"train": [], "validation": []}
    for pair in pairs:
        sides[side(digest_of(pair["prompt_ids"]), fraction)].append(pair)
    if not all(sides.values()):
        raise InputError(
            f"of {len(pairs)} pairs, {len(sides['train'])} are left to learn from and {len(sides['validation'])} to measure on",
            why="what was not measured on pairs it has not seen may prefer anything",
            do=f"add pairs, or change `{key}`",
        )
    return sides["train"], sides["validation"]


def _require_shareable(preference: PreferenceSection, ranks: Ranks) -> None:
    if ranks.world > 1 and (reason := preference.unshared):
        raise InputError(f"{ranks.world} processes are to tune, and {reason}", do="start one, or choose another loss")


def _compares_rows(preference: PreferenceSection) -> str:
    if preference.loss in NEED_A_BATCH:
        return f"loss {preference.loss} compares the rows of a pass with each other, and of fewer it learns something else"
    return ""


def require_rows(dataset_dir: Path, dataset: DatasetManifest, base: BaseModelRecord) -> None:
    """See to it that there are whole rows to learn preferences from, and that they belong to this base model.

    Raises:
        InputError: they do not, or there are none.
        RecordError: the rows are not those of the record.
    """
    require_same_base(dataset, base)
    verify_files(dataset_dir, dataset.files)
    if dataset.preference_rows == 0:
        raise InputError(
            "no row to learn preferences from is in the dataset", do="name a file in `data.preferences`, or leave this stage out"
        )
