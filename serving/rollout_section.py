"""The recipe's `serving.rollout` section: by which steps a release gets the traffic, and what takes it away again.

It travels with the release. Knows nothing of how requests are counted. Next: `rollout_judging.py`, which holds counts against it.
"""

from itertools import pairwise
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RolloutStep(BaseModel):
    """One share of the traffic, held until there is evidence enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percent: float = Field(gt=0, lt=100, description="share of the public name's requests that the new release answers, percent")
    min_requests: int = Field(
        default=300, ge=1, le=10_000_000, description="requests that each of the two releases must have answered before a step can pass"
    )
    min_s: float = Field(default=60.0, ge=0, le=604_800, description="seconds the step lasts at least")


class RolloutSection(BaseModel):
    """How a promotion goes: step by step, judged against the champion over the same window; 100 % follows the last step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[RolloutStep, ...] = Field(
        default=(), description="growing shares, e.g. 5 and 25 percent; 100 percent follows the last; none: straight to 100 percent"
    )
    interval_s: float = Field(default=5.0, ge=0.1, le=3_600, description="seconds between two looks at the counts")
    threshold: int = Field(
        default=3,
        ge=1,
        le=100,
        description="looks in a row that must FAIL before it is rolled back, or ERROR before it is withdrawn",
    )
    max_step_s: float = Field(
        default=3_600.0, ge=1, le=2_592_000, description="seconds after which a step that has not passed gives the traffic back"
    )
    watch_s: float = Field(
        default=300.0, ge=0, le=604_800, description="seconds a release is still watched, and rolled back, after it got all the traffic"
    )
    max_error_increase: float = Field(
        default=0.01, gt=0, le=1, description="most by which the share of failed requests may exceed the champion's, 0-1"
    )
    max_latency_ratio: float = Field(
        default=1.5, gt=1, le=100, description="most by which p50 or p95 of the answer time may exceed the champion's, as a ratio"
    )
    max_first_token_ratio: float = Field(default=1.5, gt=1, le=100, description="the same for the time to the first token of streams")
    max_violation_increase: float = Field(
        default=0.01, gt=0, le=1, description="most by which the share of checked answers that break a rule may exceed the champion's, 0-1"
    )
    require_rule_checks: bool = Field(default=False, description="whether a step without checked answers is INCONCLUSIVE")
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="probability that one bound of an interval is wrong; a tenth of it for a FAIL, because a step is looked at often",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        shares = [step.percent for step in self.steps]
        if any(later <= earlier for earlier, later in pairwise(shares)):
            raise ValueError(f"rollout.steps must grow; these are {', '.join(f'{share:g}' for share in shares)} percent")
        late = [step.min_s for step in self.steps if step.min_s >= self.max_step_s]
        if late:
            raise ValueError(f"rollout.max_step_s ({self.max_step_s:g}) must be above every step's min_s, which goes up to {max(late):g}")
        return self
