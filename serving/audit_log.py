"""Who did what: one line for each, appended and never changed, each carrying the sha256 of itself and of the line before.

It holds what the history of releases does not (requests, signatures, overrides, runs), and, for every step of that history, the step's
own hash: a change to either shows in the other. SQL on one connection inside somebody else's transaction.
Next: `history.py`, the chain of releases; `approvals.py` and `run_leases.py`, which write here.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from serving.history import START, Audit
from serving.tables import audit_log, transitions

STEP = "release."
"""What a line's kind begins with when it stands for a step of a release; the new state follows."""
_COLUMNS = ("seq", "kind", "subject", "actor", "account", "reason", "evidence_digest", "facts", "at", "previous_sha256")


@dataclass(frozen=True)
class Entry:
    """What is to be remembered. `facts` are plain JSON values; nothing secret belongs in any field."""

    kind: str
    subject: str
    actor: str
    at: datetime
    reason: str = ""
    account: str = ""
    evidence_digest: str | None = None
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AuditLine:
    """One line as it is kept. `facts` is canonical JSON."""

    seq: int
    kind: str
    subject: str
    actor: str
    account: str
    reason: str
    evidence_digest: str | None
    facts: str
    at: datetime
    previous_sha256: str
    sha256: str

    @property
    def values(self) -> dict[str, Any]:
        """`facts`, read."""
        found: dict[str, Any] = json.loads(self.facts)
        return found


def append(connection: Connection, entry: Entry) -> AuditLine:
    """Add a line. Writers come one after the other, so the last line is still the last when this one is written."""
    last = connection.execute(select(audit_log.c.seq, audit_log.c.sha256).order_by(audit_log.c.seq.desc()).limit(1)).first()
    number, previous = (last.seq + 1, last.sha256) if last is not None else (1, START)
    row: dict[str, Any] = {
        "seq": number,
        "kind": entry.kind,
        "subject": entry.subject,
        "actor": entry.actor,
        "account": entry.account,
        "reason": entry.reason,
        "evidence_digest": entry.evidence_digest,
        "facts": json.dumps(dict(entry.facts or {}), ensure_ascii=True, sort_keys=True, separators=(",", ":")),
        "at": entry.at,
        "previous_sha256": previous,
    }
    line = AuditLine(**row, sha256=_sha256_of(row))
    connection.execute(insert(audit_log).values(**row, sha256=line.sha256))
    return line


def lines(connection: Connection, *, subject: str | None = None, after: int = 0, most: int | None = None) -> tuple[AuditLine, ...]:
    """Lines in order, of one subject or of all, after a number."""
    query = select(audit_log).where(audit_log.c.seq > after).order_by(audit_log.c.seq)
    if subject is not None:
        query = query.where(audit_log.c.subject == subject)
    return tuple(AuditLine(**dict(row)) for row in connection.execute(query.limit(most)).mappings())


def audit(connection: Connection, noted: Iterable[str] = ()) -> Audit:
    """Look at every line, and hold those of releases against the history; `noted` are heads that were written down elsewhere."""
    found = lines(connection)
    faults, previous = list[str](), START
    for number, line in enumerate(found, start=1):
        faults += _faults_of(line, number, previous)
        previous = line.sha256
    faults += _against_history(connection, found)
    known = {START, *(line.sha256 for line in found)}
    faults += [
        f"the noted hash {each[:12]} is not in the audit log: lines were removed or rewritten" for each in noted if each not in known
    ]
    return Audit(len(found), previous, tuple(faults))


def _faults_of(line: AuditLine, number: int, previous: str) -> list[str]:
    where = f"line {line.seq} ({line.kind} of {line.subject})"
    faults = []
    if line.seq != number:
        faults.append(f"{where} should have number {number}: a line is missing")
    if line.previous_sha256 != previous:
        faults.append(f"{where} does not follow the line before it")
    if _sha256_of({name: getattr(line, name) for name in _COLUMNS}) != line.sha256:
        faults.append(f"{where} was changed after it was written")
    return faults


def _against_history(connection: Connection, found: Sequence[AuditLine]) -> list[str]:
    """Every step since the first one that was noted here is noted, and is what was noted."""
    steps = {row.seq: row.sha256 for row in connection.execute(select(transitions.c.seq, transitions.c.sha256))}
    noted = {line.values["step"]: line for line in found if line.kind.startswith(STEP)}
    faults = [
        f"line {line.seq} stands for step {step} of the history, which is {'another one' if step in steps else 'gone'}"
        for step, line in noted.items()
        if steps.get(step) != line.values["step_sha256"]
    ]
    first = min(noted, default=0)
    return faults + [f"step {step} of the history is not in the audit log" for step in sorted(steps) if step > first and step not in noted]


def _sha256_of(row: Mapping[str, Any]) -> str:
    at: datetime = row["at"]
    spelled = [row[name] if name != "at" else at.astimezone(UTC).isoformat(timespec="microseconds") for name in _COLUMNS]
    return hashlib.sha256(json.dumps(spelled, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()
