"""A checkpoint's weights: every parameter that is trained, by name, in its own precision; and nothing that is not.

The libraries' own way depends on the method: it writes frozen weights too, resizes AdaLoRA's ranks, and passes over weights trained
beside an adapter. Knows nothing of methods, AdaLoRA's memory of its ranks excepted. Next: `checkpoints.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from training.errors import TrainingError

TRAINED = "trained.safetensors"
_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what AdaLoRA remembers about each parameter


def save_trained(model: Any, folder: Path, gathered: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the trained parameters of a model; `gathered` has them where they are spread over several devices."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors = {name: (gathered or named)[name].detach().cpu().contiguous() for name in named}
    save_file(tensors | _ranks(model), folder / TRAINED)


def load_trained(model: Any, folder: Path) -> None:
    """Put the parameters of a checkpoint back into a model that was built in the same way.

    Raises:
        TrainingError: the checkpoint holds other parameters than are trained now.
    """
    saved = load_file(folder / TRAINED)
    _restore_ranks(model, saved)
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if saved.keys() != own.keys():
        odd = sorted(saved.keys() ^ own.keys())[0]
        raise TrainingError(
            f"{folder} holds other parameters than this run trains, {odd} for one", do="delete the folder with the checkpoints"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


class TrainedCheckpoints:
    """Lets a trainer's checkpoints hold what is trained and nothing else; stands before the library's trainer among its bases.

    One that cannot be written stops the run with a reason: each library names a full disk by an error of its own.
    """

    model: Any
    args: Any

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        save_trained(self.model, Path(output_dir or self.args.output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(model or self.model, Path(resume_from_checkpoint))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:
            raise TrainingError(
                f"a checkpoint could not be written: {error}", do="free some space; the next run goes on from the last one"
            ) from error

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None is written: a checkpoint is not published, and a card takes longer than the weights."""


def _allocator(model: Any) -> Any:
    return getattr(getattr(model, "base_model", None), "rankallocator", None)


def _ranks(model: Any) -> dict[str, torch.Tensor]:
    allocator = _allocator(model)
    if allocator is None:
        return {}
    pattern = allocator.peft_config.rank_pattern or {}
    kept = {f"ranks/pattern/{name}": torch.tensor(mask, dtype=torch.bool) for name, mask in pattern.items()}
    for kind in _IMPORTANCE:
        kept |= {f"ranks/{kind}/{name}": tensor.detach().cpu().contiguous() for name, tensor in getattr(allocator, kind).items()}
    return kept


def _restore_ranks(model: Any, saved: dict[str, torch.Tensor]) -> None:
    """Move what belongs to AdaLoRA's allocator out of `saved` and into it."""
    allocator = _allocator(model)
    for key in [key for key in saved if key.startswith("ranks/")]:
        _, kind, name = key.split("/", 2)
        tensor = saved.pop(key)
        if kind == "pattern":
            allocator.peft_config.rank_pattern = (allocator.peft_config.rank_pattern or {}) | {name: tensor.tolist()}
        else:
            getattr(allocator, kind)[name] = tensor
