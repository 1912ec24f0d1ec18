"""Preference tuning: goes on from the SFT adapter by DPO, KTO, ORPO, CPO or SimPO.

Knows nothing of how rows were written or rendered, nor of losses. Next: `preference_trainers.py`; then `merge.py`.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.adapters import load_adapter, trainable_parameters
from training.builders import load_base, settle
from training.checkpoints import CheckpointFolder
from training.config import ModelSection, SftSection
from training.devices import Ranks
from training.errors import InputError
from training.practice.seeds import be_deterministic
from training.practice.trackers import require_trackers
from training.preference_section import PreferenceSection
from training.preference_trainers import LabelledTrainer, PairTrainer, margins
from training.prepare import PREFERENCES, read_prepared
from training.progress import Report, silent
from training.ranks import join
from training.records import CHECKPOINTS, AdapterArtifact, BaseModelRecord, DatasetManifest, digest_of, verify_files
from training.sft import CHECKPOINT_BYTES_PER_PARAMETER, keep, require_same_base, run, share_of
from training.tokenizer import load_tokenizer
from training.watch import Watch, losses

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
) -> AdapterArtifact:
    """Tune the adapter in `parent_dir` on the prepared rows and write the new one to `out`; every process of a spread run calls this.

    Raises:
        InputError: the dataset or the adapter belongs to another base model, or there are no rows.
        TrainingError: the loss left the finite numbers, or the disk is full.
    """
    started, ranks = time.monotonic(), join()
    require_rows(dataset_dir, dataset, parent, base)
    verify_files(parent_dir, parent.files)
    merged_section = sft.model_copy(update={key: getattr(preference, key) for key in _INHERITED})
    require_trackers(sft.report_to)
    settle(sft.seed)
    be_deterministic(sft.deterministic)
    trusted, changes = model.trust_remote_code, parent.config_changes
    weights = load_base(Path(base.folder), sft.quantization, trust_remote_code=trusted, config_changes=changes)
    adapted = load_adapter(weights, parent_dir, trainable=True)
    trained = trainable_parameters(adapted)
    section_digest = digest_of([preference.digest, merged_section.digest])
    checkpoints = CheckpointFolder(out / CHECKPOINTS, digest_of([base.digest, dataset.digest, parent.digest, section_digest]))
    checkpoints.require_space(CHECKPOINT_BYTES_PER_PARAMETER * trained)
    rows = read_prepared(dataset_dir / PREFERENCES)
    watch = Watch(report if ranks.first else silent, checkpoints, parent.course.warnings, sft.report_to)
    trainer = _trainer(adapted, share_of(merged_section, ranks), preference, base, rows, watch, ranks)
    run(trainer, checkpoints)
    (first_loss, last_loss), (first_margin, last_margin) = losses(trainer.state), margins(trainer.state.log_history)
    artifact = AdapterArtifact(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - started,
        stage="preference",
        method=parent.method,
        objective=preference.in_words,
        config_changes=parent.config_changes,
        base_digest=base.digest,
        dataset_digest=dataset.digest,
        parent_digest=parent.digest,
        section_digest=section_digest,
        quantization=parent.quantization,
        double_quant=parent.double_quant,
        trainable_parameters=trained,
        steps=trainer.state.global_step,
        first_loss=first_loss,
        last_loss=last_loss,
        validation_loss=None,
        first_margin=first_margin,
        last_margin=last_margin,
        course=watch.course(trainer),
        processes=ranks.world,
        files=(),
    )
    return keep(adapted, artifact, base, checkpoints, out)


def _trainer(
    adapted: Any,
    sft: SftSection,
    preference: PreferenceSection,
    base: BaseModelRecord,
    rows: list[dict[str, Any]],
    watch: Watch,
    ranks: Ranks,
) -> Any:
    tokenizer = load_tokenizer(Path(base.folder))
    if preference.way.rows == "labelled":
        return LabelledTrainer(adapted, sft, preference, tokenizer, rows, watch)
    return PairTrainer(adapted, sft, preference, tokenizer, rows, watch, ranks)


def require_rows(dataset_dir: Path, dataset: DatasetManifest, parent: AdapterArtifact, base: BaseModelRecord) -> None:
    """See to it that there are whole rows to learn preferences from, and that rows and adapter belong to this base model.

    Raises:
        InputError: they do not, or there are none.
        RecordError: the rows are not those of the record.
    """
    require_same_base(dataset, base)
    verify_files(dataset_dir, dataset.files)
    if parent.base_digest != base.digest:
        raise InputError(
            f"the adapter was trained on base model {parent.base_digest[:12]}, this is {base.digest[:12]}",
            why="its numbers mean nothing on other weights",
            do="train the adapter again on this base model",
        )
    if dataset.preference_rows == 0:
        raise InputError(
            "no row to learn preferences from is in the dataset", do="name a file in `data.preferences`, or leave this stage out"
        )
