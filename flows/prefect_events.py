"""Tells a Prefect server what happens to releases, so that its automations can start `promote` and others.

Without a server of the user's (no PREFECT_API_URL) nobody could listen, and nothing is sent. The server's own route for events is used
rather than `emit_event`, which queues and forgets: this way an event that did not arrive is known, and told again under the same id.
How far Prefect has been told stands in the registry, so the server, a command and a worker may all tell, and each event is told by one
of them. Next: `serving/notifier.py`.
"""

from uuid import UUID

from flows.own_prefect import server_of_the_user
from serving.audit_log import AuditLine
from serving.notices import Notice, as_json
from serving.notify_settings import load_notify_settings
from serving.outlets import NotTold, Outlet
from serving.registry import Registry


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


def tell_prefect(registry: Registry) -> bool:
    """Tell what is still to be told, now, rather than when the server looks next; returns whether there is anybody to tell.

    An event that Prefect does not take is told again later, by the server or the next command.
    """
    outlets = prefect_outlets(server_of_the_user())
    for outlet in outlets:
        registry.notifier(load_notify_settings().attempts).bring_up_to_date(outlet)
    return bool(outlets)


def prefect_outlets(api_url: str | None) -> tuple[Outlet, ...]:
    """The outlet, where there is a server to tell."""
    return (PrefectOutlet(),) if api_url else ()
