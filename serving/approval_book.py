"""Approving as transactions of the registry, and the audit log to read. Every method may raise `RegistryError`.

Next: `approvals.py`, the rules inside; `admin_api.py`, the same over HTTP.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from serving import approvals, audit_log, releases
from serving.approval_terms import Signer
from serving.approvals import Standing
from serving.audit_log import AuditLine
from serving.database import Database
from serving.errors import TransitionRefused
from serving.history import Audit
from serving.lifecycle import State, check
from serving.records import Release


class ApprovalBook:
    """The registry's approvals."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database, self._now = database, now

    def standing(self, release_id: str) -> Standing:
        """How far the approval of a release is."""
        with self._database.read() as connection:
            return approvals.standing(connection, releases.one(connection, release_id))

    def sign(self, release_id: str, evidence_digest: str, signer: Signer, comment: str = "") -> Release:
        """Sign the evidence of a waiting release; approved with the last signature that is needed.

        Raises:
            EvidenceMismatch: the digest is not the one that was submitted.
            ApproverRefused: the terms do not allow this person's signature.
            ApprovalExpired: it has waited for too long.
        """
        with self._database.write() as connection:
            release = _waiting(connection, release_id, evidence_digest)
            return approvals.sign(connection, release, signer, comment, self._now())

    def override(self, release_id: str, evidence_digest: str, signer: Signer, reason: str) -> Release:
        """Approve alone, in an emergency. The verdict was PASS all the same, and the evidence must be the same.

        Raises:
            ApproverRefused: the terms know no emergency, or the reason is too short.
        """
        with self._database.write() as connection:
            release = _waiting(connection, release_id, evidence_digest)
            return approvals.override(connection, release, signer, reason, self._now())

    def grant_by_policy(self, release_id: str, evidence_digest: str, bounds: Mapping[str, Any]) -> Release:
        """Approve because everything lies within the risk bounds of the recipe, which are kept with it."""
        with self._database.write() as connection:
            release = _waiting(connection, release_id, evidence_digest)
            return approvals.grant_by_policy(connection, release, bounds, self._now())

    def check_still_holds(self, release_id: str) -> None:
        """See `approvals.check_still_holds`; before anything is started for a promotion."""
        with self._database.read() as connection:
            approvals.check_still_holds(connection, releases.one(connection, release_id), self._now())

    def lines(self, *, after: int = 0, most: int | None = None) -> tuple[AuditLine, ...]:
        """The audit log, oldest first."""
        with self._database.read() as connection:
            return audit_log.lines(connection, after=after, most=most)

    def verify(self, noted: Iterable[str] = ()) -> Audit:
        """Look for changes to the audit log; `noted` are heads of it that were written down elsewhere."""
        with self._database.read() as connection:
            return audit_log.audit(connection, noted)


def _waiting(connection: Connection, release_id: str, evidence_digest: str) -> Release:
    release = releases.one(connection, release_id)
    if release.state is State.CANARY:  # it goes back to approved when it is withdrawn, not by a second signature
        raise TransitionRefused(f"{release_id} is a canary, and was approved before", do=f"tunegate rollout status {release.public_name}")
    check(release.id, release.state, State.APPROVED)
    releases.check_evidence(release, evidence_digest)
    return release
