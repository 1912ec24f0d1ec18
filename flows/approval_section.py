"""The recipe's `approval` section: who has to sign, for how long that holds, and when nobody has to.

Signatures and expiry are the registry's (`serving/approval_terms.py`); the risk bounds speak of metrics, which only the line knows.
Pure. Next: `approval.py`.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evaluation.config import SPEED, Bound, MetricName
from serving.approval_terms import ApprovalTerms


class AutoApproval(BaseModel):
    """Risk bounds within which nobody is asked. A number that was not measured keeps no bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bounds: dict[MetricName, Bound] = Field(description="absolute limits on the candidate's numbers; at least one")
    max_loss: dict[MetricName, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default={}, description="most by which a number may be worse than the champion's, in its own unit"
    )

    @model_validator(mode="after")
    def _bounds_something(self) -> "AutoApproval":
        if not self.bounds:
            raise ValueError("bounds names no metric: whatever passed the gate would be approved by nobody")
        if proven := [name for name, bound in self.bounds.items() if bound.proven]:
            raise ValueError(f"bounds of {', '.join(proven)}: proven belongs to the gate, which has the intervals")
        if timed := sorted(SPEED & self.max_loss.keys()):
            raise ValueError(f"max_loss of {', '.join(timed)}: speed is compared side by side, by the gate: gate.must_not_regress")
        return self


class ApprovalSection(ApprovalTerms):
    """How a release that passed its gate is approved."""

    auto: AutoApproval | None = Field(default=None, description="approve without a person while every one of these is kept")

    @property
    def terms(self) -> ApprovalTerms:
        """What the registry keeps to."""
        return ApprovalTerms.model_validate(self.model_dump(exclude={"auto"}))


Numbers = Mapping[MetricName, float | None]


def risks(auto: AutoApproval, candidate: Numbers, champion: Numbers | None, higher_is_better: Mapping[MetricName, bool]) -> list[str]:
    """Every bound that is not kept, in words; empty when nobody need be asked."""
    found = [said for name, bound in auto.bounds.items() if (said := _outside(name, bound, candidate.get(name)))]
    if auto.max_loss and champion is None:
        return [*found, "there is no champion to compare with"]
    for name, most in auto.max_loss.items():
        mine, theirs = candidate.get(name), (champion or {}).get(name)
        if mine is None or theirs is None:
            found.append(f"{name} was not measured on both")
        elif not (loss := theirs - mine if higher_is_better[name] else mine - theirs) <= most:
            found.append(f"{name} is worse by {loss:g}, more than {most:g}")
    return found


def _outside(name: MetricName, bound: Bound, value: float | None) -> str | None:
    if value is None:
        return f"{name} was not measured"
    if bound.min is not None and not value >= bound.min:
        return f"{name} is {value:g}, below {bound.min:g}"
    if bound.max is not None and not value <= bound.max:
        return f"{name} is {value:g}, above {bound.max:g}"
    return None
