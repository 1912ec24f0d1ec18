"""Tells a Prefect server what happens to releases, so that its automations can start `promote` and others.

Without a server of the user's (no PREFECT_API_URL) nobody could listen, and nothing is sent. The server's own route for events is used
rather than `emit_event`, which queues and forgets: this way an event that did not arrive is known, and told again under the same id.
Next: `serving/notifier.py`.
"""

from uuid import UUID

from serving.audit_log import AuditLine
from serving.notices import Notice, as_json
from serving.outlets import NotTold, Outlet


class PrefectOutlet:
    """Sends one event for each notice: `tunegate.release.approved` and so on, of the resource `tunegate.release.RELEASE`."""

    name = "prefect"

    def tell(self, notice: Notice, line: AuditLine) -> None:
        """See `serving.outlets.Outlet`."""
        import httpx
        from prefect.client.orchestration import get_client

        event = {
            "id": str(UUID(notice.id)),
            "event": f"tunegate.release.{notice.event.replace('_', '-')}",
            "occurred": notice.at,
            "resource": {
                "prefect.resource.id": f"tunegate.release.{notice.subject}",
                # What the triggers in deploy/prefect.yaml match and pass on.
                "tunegate.release": notice.subject,
                "tunegate.public-name": notice.public_name,
                "tunegate.actor": notice.actor,
            },
            "payload": as_json(notice),
        }
        try:
            with get_client(sync_client=True) as client:
                client.request("POST", "/events", json=[event])
        except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
            raise NotTold(f"Prefect could not be told ({type(error).__name__})") from None


def prefect_outlets(api_url: str | None) -> tuple[Outlet, ...]:
    """The outlet, where there is a server to tell."""
    return (PrefectOutlet(),) if api_url else ()
