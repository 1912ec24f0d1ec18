"""The webhooks: Alertmanager's alerts and news of data, from HTTP to Prefect's events. Prefect's own server has none.

    POST /alerts   Alertmanager's webhook, version 4: one event for each firing alert
    POST /data     {"recipe": NAME}: its data has changed

Callers show a key of the gateway's with the scope `admin`. What they send becomes labels of events, never code, path or template.
A storm is debounced by the triggers that listen (`deploy/prefect.yaml`). Next: `events.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import uvicorn
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flows.errors import PrefectUnreachable
from flows.events import ALERT_FIRING, DATA_CHANGED, announce
from flows.serving_control import open_registry
from serving.keys import KeyInfo, Scope, hash_secret
from serving.settings import Settings

_MAX_BODY_BYTES = 1 << 20
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Keys = Callable[[], Mapping[str, KeyInfo]]
Announce = Callable[[str, str, Mapping[str, str]], bool]


class _AlertLabels(BaseModel):
    alertname: Name
    release: Name | None = None
    public_name: Name | None = None
    action: Name | None = None


class _Alert(BaseModel):
    status: Literal["firing", "resolved"]
    labels: _AlertLabels


class Alerts(BaseModel):
    """What Alertmanager sends, as far as it is read here."""

    version: Literal["4"]
    alerts: list[_Alert] = Field(max_length=1000)


class DataChanged(BaseModel):
    """News of a recipe's data."""

    model_config = ConfigDict(extra="forbid")

    recipe: Name


def create_app(keys: Keys, announce: Announce = announce) -> Starlette:
    """The app; `keys` gives the keys that are not revoked, `announce` tells Prefect."""

    async def alerts(request: Request) -> Response:
        return await _answer(request, keys, Alerts, lambda heard: [_event_of(alert) for alert in heard.alerts if alert.status == "firing"])

    async def data(request: Request) -> Response:
        return await _answer(request, keys, DataChanged, lambda heard: [_event_of_data(heard)])

    async def _answer(
        request: Request, keys: Keys, kind: type[Any], events: Callable[[Any], list[tuple[str, str, dict[str, str]]]]
    ) -> Response:
        if (refused := await asyncio.to_thread(_refusal, request, keys)) is not None:
            return refused
        body = await _body(request)
        if body is None:
            return _error(413, f"the body is larger than {_MAX_BODY_BYTES} bytes")
        try:
            told = events(kind.model_validate_json(body))
        except ValidationError as error:
            return _error(400, "; ".join(f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()[:10]))
        try:
            heard = [await asyncio.to_thread(announce, *event) for event in told]
        except PrefectUnreachable as error:
            return _error(503, error.what)  # Alertmanager tries again
        return JSONResponse({"told": sum(heard)}, status_code=202)

    return Starlette(routes=[Route("/alerts", alerts, methods=["POST"]), Route("/data", data, methods=["POST"])])


def serve_hooks(settings: Settings, host: str, port: int) -> None:
    """Listen until a signal."""
    with open_registry(settings) as registry:
        uvicorn.run(create_app(registry.key_index), host=host, port=port, log_level="warning", access_log=False, server_header=False)


def _event_of(alert: _Alert) -> tuple[str, str, dict[str, str]]:
    labels = {"tunegate.alert": alert.labels.alertname}
    labels |= {"tunegate.release": alert.labels.release} if alert.labels.release else {}
    labels |= {"tunegate.public-name": alert.labels.public_name} if alert.labels.public_name else {}
    labels |= {"tunegate.action": alert.labels.action} if alert.labels.action else {}
    return ALERT_FIRING, f"tunegate.alert.{alert.labels.alertname}", labels


def _event_of_data(heard: DataChanged) -> tuple[str, str, dict[str, str]]:
    return DATA_CHANGED, f"tunegate.recipe.{heard.recipe}", {"tunegate.recipe": heard.recipe}


def _refusal(request: Request, keys: Keys) -> Response | None:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    key = keys().get(hash_secret(secret.strip())) if kind.lower() == "bearer" else None
    if key is None:
        return _error(401, "no valid key; tunegate keys create NAME --scope admin makes one")
    return None if Scope.ADMIN in key.scopes else _error(403, f"key {key.id} lacks the scope admin")


async def _body(request: Request) -> bytes | None:
    """The body; None when it is too large, whatever its length header says."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY_BYTES:
            return None
    return bytes(body)


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
