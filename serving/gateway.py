"""The one door: OpenAI's routes, keys, limits, and nothing else of what a slot could do.

    GET  /v1/models                                      key with scope infer
    POST /v1/chat/completions   POST /v1/completions     key with scope infer
    GET  /health                                         anyone: is there a ready release for every public name?
    GET  /metrics                                        callers on this machine

Anything else is 404 and reaches nobody. A plain ASGI application; it starts no process and reads no registry.
Behind a front proxy on the same machine, `/metrics` is only closed to others if the proxy sends `X-Forwarded-For`.
Next: `gateway_exchange.py`, what happens to a request that was let in.
"""

import asyncio
import ipaddress
import json
import time

from serving.gateway_exchange import RETRY_AFTER_S, Exchange, ModelRoute, Ports
from serving.gateway_reply import Receive, Reply, Scope, Send
from serving.keys import KeyRing
from serving.keys import Scope as KeyScope
from serving.limits import CHAT_FIELDS, COMPLETION_FIELDS, Caps, ModelRequest, read_request
from serving.metrics import CONTENT_TYPE, NO_RELEASE, GatewayMetrics, Outcome, Route
from serving.openai_errors import (
    ApiError,
    body_timeout,
    forbidden,
    method_not_allowed,
    model_not_found,
    no_champion,
    overloaded,
    too_large,
    unauthorized,
    unknown_route,
)
from serving.routing import Backend, RoutingTable
from serving.settings import Settings
from serving.upstream import Upstream

_MAX_KEY_BYTES = 256
MODEL_ROUTES = {
    route.path: route
    for route in (
        ModelRoute("/v1/chat/completions", "chat_completions", CHAT_FIELDS),
        ModelRoute("/v1/completions", "completions", COMPLETION_FIELDS),
    )
}


class CallerGone(Exception):
    """The caller hung up before its request was whole."""


def create_app(settings: Settings, routing: RoutingTable, keys: KeyRing, upstream: Upstream, metrics: GatewayMetrics) -> "Gateway":
    """Put the gateway together. `upstream` is opened and closed by ASGI's lifespan."""
    return Gateway(settings, routing, keys, upstream, metrics)


class Gateway:
    """The ASGI application."""

    def __init__(self, settings: Settings, routing: RoutingTable, keys: KeyRing, upstream: Upstream, metrics: GatewayMetrics) -> None:
        self._settings, self._routing, self._keys, self._upstream, self._metrics = settings, routing, keys, upstream, metrics
        self._caps = Caps(json_depth=settings.max_json_depth, sequences=settings.max_n, tokens=settings.max_tokens)
        self._ports = Ports(routing, upstream, metrics, settings.total_timeout_s)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event, as ASGI 3 wants it."""
        if scope["type"] == "http":
            await self._http(scope, receive, Reply(send))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._upstream.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._upstream.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        started_s = time.perf_counter()
        # An escaped spelling of a known path is not that path: nothing is let in that was not written down here.
        path, method = scope.get("raw_path", scope["path"].encode()).decode("latin-1"), scope["method"]
        route = MODEL_ROUTES.get(path)
        label: Route = route.label if route else "models" if path == "/v1/models" else "other"
        try:
            if route:
                self._allow(method, "POST")
                self._authenticate(scope)
                await self._model(route, scope, receive, reply, started_s)
            elif path == "/v1/models":
                self._allow(method, "GET")
                self._authenticate(scope)
                await reply.whole(200, self._models())
                self._unrouted(label, "ok", started_s)
            elif path == "/health":
                self._allow(method, "GET")
                await reply.whole(*self._health())
            elif path == "/metrics" and _is_loopback(scope):
                self._allow(method, "GET")
                await reply.whole(200, self._metrics.render(), CONTENT_TYPE.encode())
            else:
                raise unknown_route(path)
        except CallerGone:
            self._unrouted(label, "aborted", started_s)
        except ApiError as error:
            self._unrouted(label, _outcome_of(error), started_s)
            await reply.error(error, _headers_for(error, path))

    def _unrouted(self, label: Route, outcome: Outcome, started_s: float) -> None:
        self._metrics.requests(NO_RELEASE, label).finished(outcome, time.perf_counter() - started_s)

    def _allow(self, method: str, allowed: str) -> None:
        if method != allowed:
            raise method_not_allowed(method, allowed)

    def _authenticate(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            raise unauthorized("send exactly one header 'Authorization: Bearer <key>'")
        scheme, _, secret = given[0].partition(b" ")
        if scheme.lower() != b"bearer" or not secret or len(secret) > _MAX_KEY_BYTES:
            raise unauthorized("the Authorization header must read 'Bearer <key>'")
        key = self._keys.find(secret.decode("utf-8", "surrogateescape"))
        if key is None:
            raise unauthorized("this key is not known, or was revoked")
        if KeyScope.INFER not in key.scopes:
            raise forbidden(KeyScope.INFER.value)

    async def _model(self, route: ModelRoute, scope: Scope, receive: Receive, reply: Reply, started_s: float) -> None:
        body = await self._body(scope, receive)
        request = read_request(body, route.fields, self._caps)
        backend = self._admit(request)
        self._in_flight += 1
        try:
            await Exchange(self._ports, route, request, reply, started_s).run(backend, receive)
        finally:
            self._in_flight -= 1

    def _admit(self, request: ModelRequest) -> Backend:
        if request.model not in self._routing.public_names():
            raise model_not_found(request.model)
        backend = self._routing.backend(request.model)
        if backend is None:
            raise no_champion(request.model, RETRY_AFTER_S)
        if self._in_flight >= self._settings.max_in_flight:
            raise overloaded(RETRY_AFTER_S)
        return backend

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        cap = self._settings.max_body_bytes
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared[:20]) > cap:
            raise too_large(cap)
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                return await _read(receive, cap)
        except TimeoutError:
            raise body_timeout(self._settings.body_timeout_s) from None

    def _models(self) -> bytes:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "tunegate"} for name in self._routing.public_names()]
        return json.dumps({"object": "list", "data": models}).encode()

    def _health(self) -> tuple[int, bytes]:
        ready = {name: self._routing.backend(name) is not None for name in self._routing.public_names()}
        well = bool(ready) and all(ready.values())
        return (200 if well else 503), json.dumps({"status": "ok" if well else "not_ready", "ready": ready}).encode()


async def _read(receive: Receive, cap: int) -> bytes:
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > cap:
            raise too_large(cap)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


def _is_loopback(scope: Scope) -> bool:
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _outcome_of(error: ApiError) -> Outcome:
    if error.status >= 500:
        return "server_error"
    return "client_error" if error.status == 400 else "rejected"


def _headers_for(error: ApiError, path: str) -> list[tuple[bytes, bytes]]:
    if error.status == 405:
        return [(b"allow", b"POST" if path in MODEL_ROUTES else b"GET")]
    return [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
