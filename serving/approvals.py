"""Requests and signatures: a release that waits is a record, and so is every name under it.

    requested ─ signed … signed ─→ granted          as many different people as the terms want
        ├─ overridden ─→ granted                     one person, in an emergency, with a reason
        └─ auto ─→ granted                           nobody: everything lies within the risk bounds of the recipe

All of it are lines of the audit log, so what was signed, by whom and under which terms cannot be changed afterwards. SQL on one
connection inside somebody else's transaction. Next: `registry.py`, which makes transactions of these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from serving import releases
from serving.approval_terms import ApprovalTerms, Signer, is_over, objection
from serving.audit_log import AuditLine, Entry, append, lines
from serving.errors import ApprovalExpired, ApproverRefused, EvidenceMismatch, TransitionRefused
from serving.lifecycle import State
from serving.records import Release
from serving.releases import Step

REQUESTED, SIGNED, GRANTED, OVERRIDDEN, AUTO = (f"approval.{each}" for each in ("requested", "signed", "granted", "overridden", "auto"))
_MIN_REASON = 10
POLICY_SIGNER = Signer("policy", "policy")


@dataclass(frozen=True)
class Asked:
    """Under which terms an approval is asked for, and of which recipe the release was made."""

    terms: ApprovalTerms = field(default_factory=ApprovalTerms)
    recipe_digest: str | None = None
    recipe_path: Path | None = None


@dataclass(frozen=True)
class Standing:
    """How far the approval of a release is. Times are those of the audit log."""

    terms: ApprovalTerms
    requested_at: datetime | None
    recipe_digest: str | None
    recipe_path: Path | None
    signatures: tuple[Signer, ...]
    granted_at: datetime | None

    @property
    def missing(self) -> int:
        """How many people have yet to sign."""
        return 0 if self.granted_at is not None else max(0, self.terms.approvers - len(self.signatures))


def request(connection: Connection, release: Release, asked: Asked, actor: str, at: datetime) -> None:
    """Note under which terms the evidence of a release waits for signatures."""
    facts = {
        "terms": asked.terms.model_dump(mode="json"),
        "requester": release.requester,
        "recipe_digest": asked.recipe_digest,
        "recipe_path": None if asked.recipe_path is None else str(asked.recipe_path),
    }
    append(connection, _entry(REQUESTED, release, Signer(actor), at, "", facts))


def standing(connection: Connection, release: Release) -> Standing:
    """What has been asked and signed for the evidence that the release carries now."""
    found = [line for line in lines(connection, subject=release.id) if line.evidence_digest == release.evidence_digest]
    asked = _last(found, REQUESTED)
    granted = _last(found, GRANTED)
    facts = {} if asked is None else asked.values
    return Standing(
        terms=ApprovalTerms.model_validate(facts.get("terms", {})),
        requested_at=None if asked is None else asked.at,
        recipe_digest=facts.get("recipe_digest"),
        recipe_path=Path(facts["recipe_path"]) if facts.get("recipe_path") else None,
        signatures=tuple(Signer(line.actor, line.account) for line in found if line.kind == SIGNED),
        granted_at=None if granted is None else granted.at,
    )


def sign(connection: Connection, release: Release, signer: Signer, comment: str, at: datetime) -> Release:
    """Add a signature; with the last one that is needed, awaiting_approval → approved.

    Raises:
        ApproverRefused: this person's signature does not count.
        ApprovalExpired: it has waited for too long.
    """
    _check_named(release, signer)
    now = standing(connection, release)
    _check_waits(release, now, at)
    said = objection(now.terms, release.requester, now.signatures, signer)
    if said is not None:
        raise ApproverRefused(f"{release.id} cannot be approved by {signer.name}: {said}", why="an approval is worth the people behind it")
    append(connection, _entry(SIGNED, release, signer, at, comment))
    signers = (*now.signatures, signer)
    if len(signers) < now.terms.approvers:
        return release
    return _grant(connection, release, signer, comment, at, {"signers": [each.name for each in signers]})


def override(connection: Connection, release: Release, signer: Signer, reason: str, at: datetime) -> Release:
    """awaiting_approval → approved by one person alone, in an emergency. The evidence must be the same; the verdict was PASS.

    Raises:
        ApproverRefused: the terms allow no such thing, or no reason is given.
    """
    _check_named(release, signer)
    now = standing(connection, release)
    if not now.terms.emergency:
        raise ApproverRefused(
            f"{release.id} has no emergency: its recipe says approval.emergency: false", do="have it signed in the usual way"
        )
    if len(reason.strip()) < _MIN_REASON:
        raise ApproverRefused(
            f"an emergency needs a reason of at least {_MIN_REASON} characters", why="it is what everybody is told, and what is kept"
        )
    append(connection, _entry(OVERRIDDEN, release, signer, at, reason, {"signers": [each.name for each in now.signatures]}))
    return _grant(connection, release, signer, f"EMERGENCY: {reason}", at, {"signers": [signer.name], "emergency": True})


def grant_by_policy(connection: Connection, release: Release, bounds: Mapping[str, Any], at: datetime) -> Release:
    """awaiting_approval → approved by nobody, because everything lies within `bounds`."""
    append(connection, _entry(AUTO, release, POLICY_SIGNER, at, "every risk bound of the recipe is kept", {"bounds": dict(bounds)}))
    return _grant(connection, release, POLICY_SIGNER, "every risk bound of the recipe is kept", at, {"signers": []})


def check_still_holds(connection: Connection, release: Release, now: datetime) -> None:
    """Let a release pass whose approval was granted for the evidence it carries, and not too long ago.

    Raises:
        EvidenceMismatch: it was granted for other evidence, or by nobody.
        ApprovalExpired: it was granted too long ago.
    """
    found = standing(connection, release)
    if found.granted_at is None:
        raise EvidenceMismatch(
            f"{release.id} is {release.state}, but the audit log holds no approval of its evidence",
            why="somebody has changed the registry by hand",
            do="look: tunegate audit verify",
        )
    if is_over(found.granted_at, found.terms.promote_within_h, now):
        raise _expired(release, f"was approved at {found.granted_at:%Y-%m-%d %H:%M} UTC", found.terms.promote_within_h)


def _grant(connection: Connection, release: Release, signer: Signer, reason: str, at: datetime, facts: Mapping[str, Any]) -> Release:
    append(connection, _entry(GRANTED, release, signer, at, reason, facts))
    step = Step(State.APPROVED, signer.name, reason, at, release.evidence_digest, signer.account)
    return releases.take(connection, release, step)


def _check_named(release: Release, signer: Signer) -> None:
    if not signer.name.strip():
        raise TransitionRefused(f"{release.id} cannot be approved in nobody's name", do="say who you are: --as NAME")


def _check_waits(release: Release, found: Standing, at: datetime) -> None:
    if found.requested_at is not None and is_over(found.requested_at, found.terms.approve_within_h, at):
        raise _expired(release, f"has waited since {found.requested_at:%Y-%m-%d %H:%M} UTC", found.terms.approve_within_h)


def _expired(release: Release, what: str, hours: float) -> ApprovalExpired:
    return ApprovalExpired(
        f"{release.id} {what}; its recipe allows {hours:g} hours",
        why="what was true of the model and its callers then need not be true now",
        do=f"tunegate reject {release.id} --as NAME, then run its recipe again: what is unchanged is not computed again",
    )


def _entry(kind: str, release: Release, signer: Signer, at: datetime, reason: str, facts: Mapping[str, Any] | None = None) -> Entry:
    return Entry(kind, release.id, signer.name, at, reason, signer.account, release.evidence_digest, facts)


def _last(found: Sequence[AuditLine], kind: str) -> AuditLine | None:
    return next((line for line in reversed(found) if line.kind == kind), None)
