"""The recipe's sections about good practice: answers that are cut, and when to stop. Next: `training/config.py`, which holds them."""

from typing import Literal

from pydantic import Field

from training.sections import Section


class CutAnswersSection(Section):
    """What to do about answers that were cut before they came here."""

    action: Literal["warn", "stop", "off"] = Field(
        default="warn", description="say it in the record and the report, refuse to train, or do not look"
    )
    max_share: float = Field(default=0.05, ge=0, le=1, description="share of rows from which on it matters")


class EarlyStoppingSection(Section):
    """When a run that gets no better ends before its last step; the best weights are kept then, not the last."""

    metric: Literal["held_out_loss", "rule_pass_rate"] = Field(
        default="held_out_loss",
        description="loss on the held-back rows, or share of `merge.validation_suite` answered without breaking a critical rule",
    )
    patience: int = Field(default=3, ge=1, le=100, description="measurements in a row that are no better, after which the run ends")
    min_gain: float = Field(default=0.0, ge=0, le=10, description="what a measurement has to be better by, in the metric's own unit")


class PreferenceStoppingSection(Section):
    """The same of preference tuning, which is measured on pairs."""

    metric: Literal["held_out_loss", "held_out_accuracy"] = Field(
        default="held_out_loss", description="on the held-back pairs: the loss, or the share of them whose preferred answer is ahead"
    )
    patience: int = Field(default=3, ge=1, le=100, description="measurements in a row that are no better, after which the run ends")
    min_gain: float = Field(default=0.0, ge=0, le=10, description="what a measurement has to be better by, in the metric's own unit")
