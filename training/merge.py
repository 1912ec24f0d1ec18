"""Makes both merges of an adapter, measures them against the model that was trained, and keeps the better one.

An adapter trained over NF4-rounded weights has learned to correct that rounding too. Folding it into the original bf16
weights gives another model than the one that was trained, and not always a worse one; so both are made and judged.
A merge that was killed keeps the shards it had finished. The judge of answers is passed in.
Next: `certificate.py`, the choice; then the merged model goes to `serving`.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from training.adapters import load_adapter
from training.atomic import require_space, sync_tree
from training.builders import dequantised_weights, load_base, settle
from training.certificate import certify
from training.config import MergeSection, QuantizationSection
from training.errors import InputError
from training.fold import Weight, fold
from training.measure import AnswerTokens, Judge, ValidationPrompt, count_passes, divergence, read_answers
from training.parent import require_trained_on
from training.prepare import VALIDATION, read_prepared
from training.progress import Progress, Report
from training.records import (
    AdapterArtifact,
    BaseModelRecord,
    DatasetManifest,
    FileDigest,
    MergedModel,
    MergeMeasurement,
    MergeVariant,
    digest_of,
    verify_files,
)
from training.tokenizer import load_tokenizer
from training.updates import read_updates

_CANDIDATES = "candidates"
_ROUNDED: dict[str, MergeVariant] = {"nf4": "nf4_base", "fp4": "fp4_base", "int8": "int8_base"}


def merge_adapter(
    section: MergeSection,
    base: BaseModelRecord,
    dataset_dir: Path,
    dataset: DatasetManifest,
    adapter_dir: Path,
    adapter: AdapterArtifact,
    prompts: Sequence[ValidationPrompt],
    judge: Judge,
    out: Path,
    report: Report,
) -> MergedModel:
    """Write the better merge to `out` as bf16 safetensors with tokenizer, chat template and generation defaults.

    Raises:
        InputError: the adapter belongs to another base model, or there are no validation prompts.
        MergeError: the adapter cannot be folded into these weights.
    """
    started = time.monotonic()
    require_trained_on(base, adapter)
    _require_prompts(prompts)
    for folder, files in ((Path(base.folder), base.files), (dataset_dir, dataset.files), (adapter_dir, adapter.files)):
        verify_files(folder, files)
    settle(0)
    require_space(out, 3 * sum(file.size_bytes for file in base.files))
    bench = _Bench(section, base, read_prepared(dataset_dir / VALIDATION, section.max_validation_rows), prompts, judge, report)
    trained, variants = _fold_all(bench, adapter_dir, adapter, out / _CANDIDATES)
    measurements = tuple(bench.measure(variant, load_base(out / _CANDIDATES / variant, None)) for variant in variants)
    certificate = certify(trained, measurements)
    for file in variants[certificate.chosen]:
        os.replace(out / _CANDIDATES / certificate.chosen / file.path, out / file.path)
    shutil.rmtree(out / _CANDIDATES)
    sync_tree(out)
    merged = MergedModel(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - started,
        base_digest=base.digest,
        adapter_digest=adapter.digest,
        certificate=certificate,
        files=variants[certificate.chosen],
        warnings=adapter.course.warnings,
    )
    merged.write(out)
    return merged


def _fold_all(
    bench: "_Bench", adapter_dir: Path, adapter: AdapterArtifact, out: Path
) -> tuple[MergeMeasurement, dict[MergeVariant, tuple[FileDigest, ...]]]:
    """Measure the model as trained, and write a merge for each kind of base weights it could be folded into, below `out`."""
    base = Path(bench.base.folder)
    updates = read_updates(adapter_dir)
    model = load_base(base, adapter_quantization(adapter), config_changes=adapter.config_changes)
    # Taken before any forward: on a CPU, bitsandbytes could not unpack its weights afterwards.
    weights: dict[MergeVariant, Weight] = {"bf16_base": lambda name, tensor: tensor}
    if adapter.quantization != "none":
        weights[_ROUNDED[adapter.quantization]] = dequantised_weights(model)
    variants: dict[MergeVariant, tuple[FileDigest, ...]] = {}
    for variant, weight in weights.items():
        inputs = digest_of([bench.base.digest, adapter.digest, variant])
        variants[variant] = fold(base, updates, out / variant, weight, bench.shards_of(variant), adapter.config_changes, inputs)
    return bench.measure("trained", load_adapter(model, adapter_dir, trainable=False)), variants


def adapter_quantization(adapter: AdapterArtifact) -> QuantizationSection | None:
    """How the base was rounded while this adapter was trained."""
    if adapter.quantization == "none":
        return None
    return QuantizationSection(type=adapter.quantization, double_quant=adapter.double_quant)


class _Bench:
    """What every model is measured on. The trained model comes first: the merges are compared with it."""

    def __init__(
        self,
        section: MergeSection,
        base: BaseModelRecord,
        rows: list[dict[str, list[int]]],
        prompts: Sequence[ValidationPrompt],
        judge: Judge,
        report: Report,
    ) -> None:
        self.section, self.base, self.rows, self.prompts, self.judge, self.report = section, base, rows, prompts, judge, report
        self.tokenizer = load_tokenizer(Path(base.folder))
        self.trained: AnswerTokens | None = None
        self.done = 0

    def shards_of(self, variant: MergeVariant) -> Callable[[int, int], None]:
        """What a fold tells its progress to."""
        return lambda done, total: self.report(Progress(done, total, "tensors", variant))

    def measure(self, variant: MergeVariant | Literal["trained"], model: Any) -> MergeMeasurement:
        """Measure one model against the first one that was measured: the model as trained."""
        model.eval()
        answers = read_answers(model, self.rows, self.tokenizer.pad_token_id)
        self.trained = self.trained or answers
        kl_nats, flip_rate = divergence(self.trained, answers)
        passes = count_passes(model, self.tokenizer, self.prompts, self.judge, self.section.max_new_tokens)
        self.done += 1
        self.report(Progress(self.done, 3, "models", f"{passes} of {len(self.prompts)} validation prompts pass"))
        return MergeMeasurement(
            variant=variant,
            kl_nats=kl_nats,
            flip_rate=flip_rate,
            perplexity=answers.perplexity(),
            rule_passes=passes,
            rule_prompts=len(self.prompts),
        )


def _require_prompts(prompts: Sequence[ValidationPrompt]) -> None:
    if not prompts:
        raise InputError(
            "there are no validation prompts",
            why="the two merges could not be told apart by their answers",
            do="see merge.validation_suite",
        )
