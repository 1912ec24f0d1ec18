"""News of data and alerts, told to Prefect as events, so that its automations can start the flow that follows.

Nothing depends on being heard, and without a Prefect server nobody is told. What happens to releases stands in the registry and is told
from there: `prefect_events.py`. Next: `deploy/prefect.yaml`, which says what starts on which event.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from flows.errors import PrefectUnreachable

APPROVED, PROMOTED, ROLLED_BACK = "tunegate.release.approved", "tunegate.release.promoted", "tunegate.release.rolled-back"
DATA_CHANGED, ALERT_FIRING = "tunegate.data.changed", "tunegate.alert.firing"
EVENTS = (APPROVED, PROMOTED, ROLLED_BACK, DATA_CHANGED, ALERT_FIRING)


def announce(event: str, resource: str, labels: Mapping[str, str]) -> bool:
    """Tell the Prefect server; returns whether there is one. The labels are what automations match and pass on.

    Raises:
        PrefectUnreachable: there should be one, and it does not take the event.
    """
    url = PREFECT_API_URL.value()
    if not url:
        return False
    told: dict[str, Any] = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": resource, **labels},
    }
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[told]).raise_for_status()
    except (PrefectException, httpx.HTTPError) as error:
        raise PrefectUnreachable(
            f"{url} does not take the event {event} of {resource}: {type(error).__name__}",
            why="what should follow from it is not started; what is in the registry holds all the same",
            do="start the Prefect server, or correct or unset PREFECT_API_URL, and do it again",
        ) from error
    return True
