"""The recipe's `preference` section: which way to learn from preferences, and with which strength.

A key that is left out takes the chosen method's own default, and one that it does not read is refused by name.
Next: `preference_methods.py`, the table behind it; `preference.py`, which trains.
"""

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from training.config import SftSection
from training.practice.sections import PreferenceStoppingSection
from training.preference_methods import NEED_A_BATCH, PREFERENCES, SPECIAL_KEYS, LossName, Name, Preference, keys_of, readers_of, usual_loss
from training.sections import Section


class PreferenceSection(Section):
    """Preference tuning that goes on from the SFT adapter; what is not said here is as in `sft`."""

    method: Name = Field(default="dpo", description="how preferences are learned from; the ways are listed in training/README.md")
    loss: LossName | None = Field(
        default=None, description="of dpo, kto and cpo: the variant of the loss; null takes the method's usual one"
    )
    beta: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="how strongly the model is held back; null is 0.1, of simpo 2; of orpo the weight of the odds",
    )
    reference: Literal["sft", "base"] | None = Field(
        default=None,
        description="of dpo and kto: what the model is held to: a frozen copy of the SFT adapter (null), or no adapter at all",
    )
    label_smoothing: float | None = Field(
        default=None,
        ge=0,
        lt=0.5,
        description="of robust, exo_pair, aot and cpo's sigmoid: share of pairs that are taken to be the wrong way round",
    )
    sft_weight: float | None = Field(
        default=None, ge=0, le=100, description="weight of the cross entropy of the preferred answer; null is 1 for orpo and cpo, else 0"
    )
    margin: float | None = Field(
        default=None, ge=0, le=100, description="of simpo: by how much the preferred answer is to be ahead; null is 1"
    )
    desirable_weight: float | None = Field(default=None, gt=0, le=100, description="of kto: weight of wanted answers; null is 1")
    undesirable_weight: float | None = Field(default=None, gt=0, le=100, description="of kto: weight of unwanted answers; null is 1")
    learning_rate: float = Field(default=5.0e-5, gt=0, le=1, description="peak, per step")
    epochs: float = Field(default=1.0, gt=0, le=100, description="passes over the preference rows")
    held_out_fraction: float = Field(
        default=0.0, ge=0, le=0.5, description="share of pairs (0–0.5) held back, by hash of the question, to measure on; not of kto"
    )
    held_out_every_steps: int | None = Field(
        default=None, ge=1, le=100_000, description="steps between two measurements on the held-back pairs; null is after each epoch"
    )
    early_stopping: PreferenceStoppingSection | None = Field(
        default=None, description="ends a run that gets no better, and keeps its best weights; needs held-back pairs"
    )
    batch_size: int = Field(default=2, ge=1, le=1024, description="pairs (of kto: rows) per forward pass and device")
    gradient_accumulation: int = Field(default=1, ge=1, le=4096, description="forward passes per step")

    @model_validator(mode="before")
    @classmethod
    def _defaults_follow_the_method(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("method", "dpo") not in PREFERENCES:
            return values
        name: Name = values.get("method", "dpo")
        loss = values.get("loss") or usual_loss(name)
        given = {key: value for key, value in values.items() if value is not None}
        return {"loss": loss, **keys_of(name, loss), **given}

    @model_validator(mode="after")
    def _keys_belong_to_the_method(self) -> Self:
        faults = []
        if self.loss is not None and self.loss not in self.way.losses:
            choices = f"its losses are {', '.join(self.way.losses)}" if self.way.losses else "it has a single loss: remove the key"
            faults.append(f"method {self.method} has no loss {self.loss}; {choices}")
        else:
            faults += self._unread()
        if self.loss == "exo_pair" and self.label_smoothing == 0:
            faults.append("loss exo_pair needs a label_smoothing above 0: it takes its logarithm (the paper uses 0.001)")
        if self.loss in NEED_A_BATCH and self.batch_size == 1:
            faults.append(f"loss {self.loss} compares the rows of a batch with each other: batch_size has to be 2 or more")
        faults += self._unmeasured()
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _unmeasured(self) -> list[str]:
        if self.held_out_fraction:
            return [f"method {self.method} learns from single answers, and holds no pairs back"] if self.way.rows == "labelled" else []
        keys = [key for key in ("held_out_every_steps", "early_stopping") if getattr(self, key) is not None]
        return [f"`{key}` measures on held-back pairs, and there are none: set held_out_fraction, such as 0.1" for key in keys]

    def _unread(self) -> list[str]:
        read = keys_of(self.method, self.loss)
        said = f"method {self.method}" + (f" with loss {self.loss}" if self.loss else "")
        unread = sorted(key for key in SPECIAL_KEYS if getattr(self, key) is not None and key not in read)
        return [f"{said} does not read `{key}`; it belongs to {', '.join(readers_of(key))}" for key in unread]

    @property
    def way(self) -> Preference:
        """What is known about the method."""
        return PREFERENCES[self.method]

    @property
    def in_words(self) -> str:
        """Method, loss and the numbers it is computed with."""
        numbers = [f"{key} {getattr(self, key):g}" for key in keys_of(self.method, self.loss) if isinstance(getattr(self, key), float)]
        return ", ".join([self.method, *([f"loss {self.loss}"] if self.loss else []), *numbers])

    @property
    def unshared(self) -> str:
        """Why the pairs of a step cannot be shared out among processes; empty when they can."""
        if self.loss in NEED_A_BATCH:
            return f"preference.loss {self.loss} compares the rows of a pass with each other, of which each process has some"
        if self.way.rows == "labelled":
            return f"preference.method {self.method} goes through its rows in batches that are fixed beforehand"
        if self.way.has_reference and self.sft_weight:
            return f"preference.sft_weight is {self.sft_weight:g}, and of {self.method} its mean is over the tokens of one process"
        return ""

    def misfits(self, sft: SftSection, processes: int = 1) -> list[str]:
        """Why this cannot go on from what `sft` makes; empty when it can."""
        faults = lora_misfits("preference tuning", sft)
        if processes > 1 and self.held_out_fraction:
            faults.append(f"devices.processes is {processes}, and preference.held_out_fraction has pairs measured in one process only")
        if processes > 1 and (reason := self.unshared):
            faults.append(f"devices.processes is {processes}, and {reason}: train it in one process")
        if self.way.has_reference and sft.also_train:
            faults.append(
                f"preference.method {self.method} holds the model to a reference that is the same weights with another adapter, and "
                f"sft.also_train moves those weights: choose one of {', '.join(_without_reference())}, or remove sft.also_train"
            )
        return faults


def lora_misfits(stage: str, sft: SftSection) -> list[str]:
    """Why a stage that trains an adapter further cannot go on from what `sft` makes; empty when it can."""
    if sft.tuning.family != "lora":
        return [f"{stage} goes on from a LoRA adapter, and sft.method {sft.method} makes none"]
    if sft.method == "adalora":
        return [f"{stage} keeps an adapter's ranks, and sft.method adalora moves them: choose lora or qlora"]
    return []


def _without_reference() -> list[str]:
    return [name for name in get_args(Name) if not PREFERENCES[name].has_reference]
