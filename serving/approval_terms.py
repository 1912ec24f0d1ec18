"""Under which terms a release may be approved, and whether an approval still holds. Part of the recipe; kept with each request.

Pure: knows nothing of SQL or HTTP. Next: `approvals.py`, which applies these terms inside transactions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

# A clock that was put back further than this makes every age meaningless, so nothing is taken as fresh then.
_CLOCK_SLIP = timedelta(minutes=5)


class ApprovalTerms(BaseModel):
    """Who has to sign, and for how long a signature holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approvers: int = Field(default=1, ge=1, le=20, description="how many different people have to sign")
    requester_may_approve: bool = Field(
        default=True, description="false: who asked for the release signs it under no name and through no account of theirs"
    )
    approve_within_h: float = Field(default=336.0, gt=0, le=8_760, description="hours for which a release may wait for its approval")
    promote_within_h: float = Field(default=168.0, gt=0, le=8_760, description="hours for which an approval holds until it is used")
    emergency: bool = Field(
        default=True, description="one person may approve alone and late, with a reason that is recorded and notified; never without a PASS"
    )


@dataclass(frozen=True)
class Signer:
    """Who signs: the name they give, and the account that vouches for it (`os:ann@box`, `key:key-1f2e3d4c`); empty inside our own code."""

    name: str
    account: str = ""

    @property
    def person(self) -> str:
        """The login name behind an account of this machine; empty for others."""
        kind, _, rest = self.account.partition(":")
        return rest.partition("@")[0] if kind == "os" else ""


def is_over(since: datetime, hours: float, now: datetime) -> bool:
    """Whether so many hours have passed; True as well when the clock says that `since` has yet to come."""
    return now > since + timedelta(hours=hours) or now < since - _CLOCK_SLIP


def objection(terms: ApprovalTerms, requester: str, earlier: Sequence[Signer], signer: Signer) -> str | None:
    """Why this person's signature does not count, or None."""
    if not terms.requester_may_approve and _folded(requester) in {_folded(signer.name), _folded(signer.person)}:
        return f"{requester} asked for it, and its recipe wants somebody else to approve"
    for other in earlier:
        if _folded(other.name) == _folded(signer.name):
            return f"{other.name} has signed it already"
        if other.account and other.account == signer.account:
            return f"{other.name} has signed it through the same account ({signer.account})"
    return None


def _folded(name: str) -> str:
    return name.strip().casefold()
