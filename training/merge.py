"""Folds an adapter into weights that vLLM can serve, both ways, and keeps the better one with its certificate.

    bf16_base   original weights + adapter       usually the better base, but not what was trained on
    nf4_base    NF4-rounded weights + adapter    what was trained on, with its rounding

Every adapter tensor must be consumed and every number finite. Tensors the adapter does not touch keep their bytes.
Knows nothing of rules: the judge is handed in. Next: `certificate.py`, which measures and chooses.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from training.atomic import new_folder, require_space
from training.base_model import check_model_folder
from training.builders import load_adapter, load_base, load_tokenizer, settle
from training.certificate import Judge, Trial, ValidationPrompt, certify, measure, measure_trained
from training.config import MergeSection, QuantizationSection
from training.errors import InputError, MergeError
from training.prepare import VALIDATION, read_prepared
from training.progress import Progress, Report
from training.records import (
    RECORD_NAME,
    AdapterArtifact,
    BaseModelRecord,
    DatasetManifest,
    MergedModel,
    MergeVariant,
    digest_files,
    verify_files,
)

_PREFIX = "base_model.model."
_SEED = 7
_STEPS = 5


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
    """Merge both ways, measure, keep the better one in `out`.

    Raises:
        InputError: the adapter was trained on another base model or dataset.
        MergeError: an adapter tensor fits nowhere, or a number is not finite.
    """
    started, source = time.monotonic(), Path(base.folder)
    _require_same(base, dataset, adapter)
    verify_files(adapter_dir, adapter.files)
    require_space(out.parent, 2 * sum(file.size_bytes for file in base.files))
    settle(_SEED)
    rows = read_prepared(dataset_dir / VALIDATION, section.max_validation_rows)
    trial = Trial(load_tokenizer(source), rows, prompts, judge, section.max_new_tokens)
    deltas = adapter_deltas(adapter_dir)

    def step(done: int, note: str) -> None:
        report(Progress(done, _STEPS, "steps", note))

    step(0, "measuring the adapter as it was trained")
    model = load_adapter(load_base(source, _quantization(adapter)), adapter_dir, trainable=False).get_base_model().eval()
    trained, trained_scores = measure_trained(model, trial)
    del model
    measurements = []
    for done, variant in enumerate(_variants(adapter), start=1):
        step(done, f"merging into {variant} and measuring it")
        model = _merged(source, variant, deltas)
        measurements.append(measure(variant, model, trained_scores, trial))
        del model
    certificate = certify(trained, measurements)
    step(_STEPS - 1, f"writing {certificate.chosen}")
    with new_folder(out) as partial:
        _write(source, _state(source, certificate.chosen), deltas, partial)
        check_model_folder(partial)
        merged = MergedModel(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            wall_s=time.monotonic() - started,
            base_digest=base.digest,
            adapter_digest=adapter.digest,
            certificate=certificate,
            files=digest_files(partial),
        )
        merged.write(partial)
    step(_STEPS, certificate.reason)
    return merged


def adapter_deltas(adapter_dir: Path) -> dict[str, torch.Tensor]:
    """What the adapter adds to each weight: tensor name -> fp32 `(out, in)`. LoRA and rank-stabilised LoRA.

    Raises:
        MergeError: a tensor is not half of a LoRA pair, or is not finite.
    """
    settings = json.loads((adapter_dir / "adapter_config.json").read_text(encoding="utf-8"))
    tensors = load_file(adapter_dir / "adapter_model.safetensors")
    if broken := sorted(name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()):
        raise MergeError(f"{adapter_dir}: not finite: {', '.join(broken)}", do="train again with a lower learning rate")
    scale = settings["lora_alpha"] / (settings["r"] ** 0.5 if settings.get("use_rslora") else settings["r"])
    deltas, left = {}, dict(tensors)
    for name in [name for name in tensors if name.endswith(".lora_A.weight")]:
        stem = name.removesuffix(".lora_A.weight")
        down, up = left.pop(name), left.pop(f"{stem}.lora_B.weight", None)
        if up is not None:
            deltas[f"{stem.removeprefix(_PREFIX)}.weight"] = scale * (up.float() @ down.float())
        else:
            left[name] = down
    if left:
        raise MergeError(
            f"{adapter_dir}: no way to merge {', '.join(sorted(left))}",
            why="a part of what was trained would be lost",
            do="train with LoRA or QLoRA",
        )
    return deltas


def add_deltas(state: Mapping[str, torch.Tensor], deltas: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` with each delta added in fp32 and rounded once to the weight's own type; other tensors are passed on as they are.

    Raises:
        MergeError: a delta that fits no tensor, or a sum that is not finite.
    """
    if lost := sorted(name for name, delta in deltas.items() if name not in state or state[name].shape != delta.shape):
        raise MergeError(
            f"the adapter changes what the base model does not have: {', '.join(lost)}", why="it was trained on another base model"
        )
    merged = {name: (tensor.float() + deltas[name]).to(tensor.dtype) if name in deltas else tensor for name, tensor in state.items()}
    if broken := sorted(name for name in deltas if not torch.isfinite(merged[name]).all()):
        raise MergeError(f"merged weights are not finite: {', '.join(broken)}", do="train again with a lower learning rate")
    return merged


def _require_same(base: BaseModelRecord, dataset: DatasetManifest, adapter: AdapterArtifact) -> None:
    if adapter.base_digest != base.digest or adapter.dataset_digest != dataset.digest:
        raise InputError(
            f"the adapter was trained on base {adapter.base_digest[:12]} and dataset {adapter.dataset_digest[:12]}, "
            f"these are {base.digest[:12]} and {dataset.digest[:12]}",
            why="folded into other weights it would make another model",
            do="run the recipe again",
        )


def _quantization(adapter: AdapterArtifact) -> QuantizationSection | None:
    return QuantizationSection() if adapter.quantization == "nf4" else None


def _variants(adapter: AdapterArtifact) -> tuple[MergeVariant, ...]:
    return ("bf16_base", "nf4_base") if adapter.quantization == "nf4" else ("bf16_base",)


def _base_for(source: Path, variant: MergeVariant) -> Any:
    return load_base(source, QuantizationSection() if variant == "nf4_base" else None)


def _merged(source: Path, variant: MergeVariant, deltas: Mapping[str, torch.Tensor]) -> Any:
    """The merged model in memory, to be measured."""
    model = _base_for(source, variant)
    model.load_state_dict(add_deltas(model.state_dict(), deltas))
    return model.eval()


def _state(source: Path, variant: MergeVariant) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in _base_for(source, variant).state_dict().items()}


def _write(source: Path, state: Mapping[str, torch.Tensor], deltas: Mapping[str, torch.Tensor], folder: Path) -> None:
    """The base model's folder again, shard by shard, with `state` plus `deltas` in place of the weights."""
    merged, unused = add_deltas(state, deltas), set(deltas)
    for path in sorted(source.iterdir()):
        if path.suffix == ".safetensors":
            shard = {name: merged[name].contiguous() for name in load_file(path)}
            unused -= shard.keys()
            save_file(shard, folder / path.name, metadata={"format": "pt"})
        elif path.is_file() and path.name != RECORD_NAME:
            shutil.copyfile(path, folder / path.name)
    if unused:
        raise MergeError(f"no shard of the base model holds {', '.join(sorted(unused))}", why="a part of what was trained would be lost")


__all__ = ["Judge", "ValidationPrompt", "merge_adapter"]
