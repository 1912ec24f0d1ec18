"""What people are told of the audit log, and how it reads as JSON, in Slack and in a mail.

Comments and reasons are other people's text: credentials in addresses are masked, marks that Slack would act on are escaped, and nothing
of them gets into a header. Pure. Next: `outlets.py`, which sends it; `notifier.py`, which decides when.
"""

from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Literal

from serving.audit_log import AuditLine
from training.data.read_secrets import masked

Event = Literal["waiting", "approved", "rejected", "promoted", "rolled_back", "failed"]
_SAYS: dict[Event, str] = {
    "waiting": "waits for approval",
    "approved": "is approved",
    "rejected": "is rejected",
    "promoted": "is in production",
    "rolled_back": "was rolled back",
    "failed": "has failed",
}
_MOST_CHARACTERS = 1_000


@dataclass(frozen=True)
class Notice:
    """One thing to tell. `id` is the same each time it is told, so that a receiver can drop what it has."""

    id: str
    event: Event
    subject: str
    public_name: str
    actor: str
    reason: str
    evidence_digest: str | None
    at: str

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        evidence = f", evidence {self.evidence_digest[:12]}" if self.evidence_digest else ""
        return f"{self.subject} {_SAYS[self.event]} (by {self.actor}{evidence}){': ' if self.reason else ''}{self.reason}"


def notice_of(line: AuditLine) -> Notice | None:
    """What to tell of a line, if anything."""
    event = _event_of(line)
    if event is None:
        return None
    return Notice(
        id=line.sha256[:32],
        event=event,
        subject=line.subject,
        public_name=str(line.values.get("public_name", "")),
        actor=_clean(line.actor),
        reason=_clean(line.reason),
        evidence_digest=line.evidence_digest,
        at=line.at.isoformat(),
    )


def _event_of(line: AuditLine) -> Event | None:
    match line.kind:
        case "release.awaiting_approval":
            return "waiting"
        case "release.approved":  # a canary that is withdrawn gets there too, and was told of before
            return "approved" if line.values.get("from") == "awaiting_approval" else None
        case "release.rejected":
            return "rejected"
        case "release.live":  # the champion that comes back is told of with the one that goes
            return None if line.values.get("from") == "retired" else "promoted"
        case "release.rolled_back":
            return "rolled_back"
        case "run.failed" | "run.crashed":
            return "failed"
        case _:
            return None


def as_json(notice: Notice) -> dict[str, Any]:
    """The body of a webhook."""
    return {
        "id": notice.id,
        "event": f"tunegate.{notice.event}",
        "release": notice.subject,
        "public_name": notice.public_name,
        "actor": notice.actor,
        "reason": notice.reason,
        "evidence_digest": notice.evidence_digest,
        "at": notice.at,
        "text": notice.sentence,
    }


def as_slack(notice: Notice) -> dict[str, Any]:
    """The body of a Slack incoming webhook, and of what is compatible with it."""
    text = notice.sentence.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text, "unfurl_links": False}


def as_mail(notice: Notice, sender: str, recipients: list[str], line: AuditLine) -> EmailMessage:
    """A plain mail whose headers hold nothing but names of ours."""
    mail = EmailMessage()
    mail["Subject"] = f"tunegate: {notice.subject} {_SAYS[notice.event]}"
    mail["From"], mail["To"], mail["Date"] = sender, ", ".join(recipients), format_datetime(line.at)
    mail["Message-ID"] = f"<{notice.id}@tunegate.invalid>"
    look = "tunegate status" if notice.event == "failed" else f"tunegate show {notice.subject}"
    mail.set_content(f"{notice.sentence}\n\nLook at it: {look}\n")
    return mail


def _clean(text: str) -> str:
    """One line of printable characters, without credentials, of bounded length."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(masked(word) if "://" in word else word for word in printable.split())[:_MOST_CHARACTERS]
