"""How a run went, as its record tells it. Next: `training/records.py`, whose artefact holds it."""

from pydantic import BaseModel, ConfigDict, Field

# What lies beside a stage's folder while and after it trains, named like the folder: it differs between two identical runs.
CURVES_SUFFIX, TENSORBOARD_SUFFIX = ".training.html", ".tensorboard"


class Conditions(BaseModel):
    """What the bits of the outcome depend on, besides the recipe and the rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    repeatable: bool = Field(description="the same inputs give the same bits under these conditions")
    device: str
    threads: int = Field(description="of the CPU; another number rounds sums in another order")
    versions: dict[str, str]


class Course(BaseModel):
    """What happened on the way to a trained model, beyond its first and last loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warnings: tuple[str, ...] = Field(default=(), description="traps that were met and let pass, a sentence each")
    held_out: tuple[tuple[int, float], ...] = Field(
        default=(), description="step, loss on the held-back rows in nats per answer token, or on pairs"
    )
    held_out_accuracies: tuple[tuple[int, float], ...] = Field(
        default=(), description="step, share of the held-back pairs whose preferred answer is ahead"
    )
    pass_rates: tuple[tuple[int, float], ...] = Field(default=(), description="step, share of the validation prompts answered by the rules")
    kept_step: int = Field(default=0, description="the step whose weights these are")
    rows_per_pass: int = Field(default=0, description="rows in a forward pass on each device, at the end of the run")
    passes_per_step: int = Field(default=0, description="forward passes in a step, at the end of the run")
    out_of_memory: tuple[str, ...] = Field(default=(), description="each time memory ran out, and what the run went on with")
    conditions: Conditions | None = Field(default=None, description="what the bits of the outcome depend on")
    stopped: str = Field(default="", description="why the run ended before its last step; empty when it did not")
