"""The recipe's `serving` section: what the merged model is called and how the engine is started.

It travels with the release, so a release is started the same way today and after a rollback in a month.
Knows nothing of ports, keys or hosts; those are settings. Next: `settings.py`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.rollout_section import RolloutSection


class ServingSection(BaseModel):
    """How a release is served; part of the recipe and of the release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="the model name callers use; lower-case letters, digits, dot, dash, underscore; at most 63 characters",
    )
    max_model_len: int = Field(default=1024, ge=64, le=1_048_576, description="prompt and answer together, tokens")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(default="bfloat16", description="number type of the served weights")
    max_num_seqs: int = Field(default=32, ge=1, le=4096, description="requests the engine works on at a time")
    gpu_memory_utilization: float = Field(
        default=0.45, gt=0, le=1, description="share of a GPU's memory one slot may take; blue and green run side by side, so below a half"
    )
    rollout: RolloutSection = Field(default=RolloutSection(), description="how a promotion gives it the traffic")
