"""The recipe's `serving` section: what the merged model is called and how the engine is started.

It travels with the release, so a release is started the same way today and after a rollback in a month.
Knows nothing of ports, keys or hosts; those are settings. Next: `settings.py`.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.rollout_section import RolloutSection


class ServingSection(BaseModel):
    """How a release is served; part of the recipe and of the release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="the model name callers use; lower-case letters, digits, dot, dash, underscore; at most 63 characters",
    )
    engine: Literal["vllm", "outside"] = Field(
        default="vllm", description="vllm: started here; outside: run by somebody else, at the address of TUNEGATE_OUTSIDE_URL"
    )
    max_model_len: int = Field(default=1024, ge=64, le=1_048_576, description="prompt and answer together, tokens")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(default="bfloat16", description="number type of the served weights")
    quantization: Literal["none", "fp8", "bitsandbytes"] = Field(
        default="none", description="what vLLM rounds the weights to while it loads them; judged as it is served"
    )
    tensor_parallel: int = Field(default=1, ge=1, le=64, description="GPUs that share each layer of one engine")
    pipeline_parallel: int = Field(default=1, ge=1, le=64, description="groups of GPUs that each hold a part of the layers")
    prefix_caching: bool = Field(default=True, description="whether the keys and values of prompts that begin alike are computed once")
    chat_template: Path | None = Field(
        default=None, description="Jinja file in place of the model's own template; one that the model was not trained with fails parity"
    )
    max_num_seqs: int = Field(default=32, ge=1, le=4096, description="requests the engine works on at a time")
    gpu_memory_utilization: float = Field(
        default=0.45, gt=0, le=1, description="share of a GPU's memory one slot may take; blue and green run side by side, so below a half"
    )
    change: Literal["auto", "side_by_side", "recreate"] = Field(
        default="auto",
        description="side_by_side: a new engine starts beside the old one; recreate: it takes the old one's place, to be judged "
        "too, while requests wait; auto: side by side while there is memory",
    )
    rollout: RolloutSection = Field(default=RolloutSection(), description="how a promotion gives it the traffic")

    @model_validator(mode="after")
    def _one_engine_has_no_canary(self) -> Self:
        if self.change == "recreate" and self.rollout.steps:
            raise ValueError("serving.change: recreate runs one engine at a time, but serving.rollout.steps need two: remove the steps")
        return self
