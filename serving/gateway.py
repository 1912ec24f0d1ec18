"""The one door: OpenAI's routes, keys, limits, and nothing else of what a slot could do.

    GET  /v1/models                                      key with scope infer
    POST /v1/chat/completions   POST /v1/completions     key with scope infer
    POST /v1/embeddings                                  key with scope infer; where the engine has it
    POST /v1/feedback                                    key with scope infer; where answers are kept
    GET  /health                                         anyone: is there a ready release for every public name?
    GET  /openapi.json                                   anyone: this list, for programs
    GET  /metrics   GET /metrics/slots                   callers on this machine that speak for nobody else

Anything else is 404 and reaches nobody. Puts questions to its parts and decides; it starts no process and reads no registry.
Next: `gateway_admission.py`, places and the queue; `gateway_exchange.py`, what happens to a request that was let in.
"""

import ipaddress
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

from serving.gateway_admission import Admission
from serving.gateway_call import JSON, Call, Header
from serving.gateway_commons import Commons
from serving.gateway_exchange import RETRY_AFTER_S, Exchange, ModelRoute, Ports
from serving.gateway_feedback import ACCEPTED, read_feedback
from serving.gateway_house import House, Keeps
from serving.gateway_openapi import document
from serving.gateway_order import Order, pin_of, stickiness_of
from serving.gateway_retries import RetryBudget
from serving.gateway_stream import Usage
from serving.gateway_witness import AnswerWitness, Shadows
from serving.keeping import Kept
from serving.key_limits import Grant, KeyLimiter
from serving.keys import KeyRing, Scope
from serving.limits import CHAT_FIELDS, COMPLETION_FIELDS, EMBEDDING_FIELDS, Caps, ModelRequest, read_request
from serving.metrics import CONTENT_TYPE
from serving.metrics_requests import NO_RELEASE, Outcome, RequestMetrics
from serving.metrics_requests import Route as RouteLabel
from serving.openai_errors import (
    ApiError,
    forbidden,
    method_not_allowed,
    model_not_found,
    no_champion,
    unauthorized,
    unknown_request,
    unknown_route,
)
from serving.routing import Route, RoutingTable
from serving.settings import Settings
from serving.upstream import Upstream

_OWN_LABELS: dict[str, RouteLabel] = {"/v1/models": "models", "/v1/feedback": "feedback"}
_MAX_KEY_BYTES = 256
_FORWARDED = (b"x-forwarded-for", b"forwarded", b"x-real-ip")
MODEL_ROUTES = {
    route.path: route
    for route in (
        ModelRoute("/v1/chat/completions", "chat_completions", CHAT_FIELDS, "messages"),
        ModelRoute("/v1/completions", "completions", COMPLETION_FIELDS, "prompt"),
        ModelRoute("/v1/embeddings", "embeddings", EMBEDDING_FIELDS, "input", optional=True),
    )
}
_FOR_NEIGHBOURS = ("/metrics", "/metrics/slots")
_GET, _POST = (b"GET", b"HEAD"), (b"POST",)
ROUTES = {
    "/v1/models": _GET,
    "/health": _GET,
    "/openapi.json": _GET,
    **dict.fromkeys(_FOR_NEIGHBOURS, _GET),
    **dict.fromkeys(MODEL_ROUTES, _POST),
}
_FEEDBACK = "/v1/feedback"
_T = TypeVar("_T")
_WITH_KEY = frozenset({"/v1/models", _FEEDBACK, *MODEL_ROUTES})


class Gateway:
    """The desk that every connection puts its calls to."""

    def __init__(
        self, settings: Settings, routing: RoutingTable, keys: KeyRing, upstream: Upstream, metrics: RequestMetrics, house: House,
        commons: Commons,
    ) -> None:  # fmt: skip
        self._house = house
        self._caps = Caps(json_depth=settings.max_json_depth, sequences=settings.max_n, tokens=settings.max_tokens)
        self._document = document(self._caps, feedback=bool(settings.capture_ratio))
        self._shadows = Shadows(upstream, house.keeper, crowd=commons.copies, total_timeout_s=settings.total_timeout_s)
        self._routes = ROUTES | ({_FEEDBACK: _POST} if settings.capture_ratio else {})
        self._settings, self._routing, self._keys, self._metrics, self.upstream = settings, routing, keys, metrics, upstream
        retries = RetryBudget(settings.retry_ratio, commons.share)
        self._ports = Ports(upstream, metrics, retries, settings.total_timeout_s, settings.idle_timeout_s, time.monotonic)
        self._limiter = KeyLimiter(time.monotonic, commons.uses)
        self._admission = Admission(commons.room, settings.queue_timeout_s, time.monotonic, settings.change_timeout_s)
        routing.on_change(self._admission.pump)

    # From a connection.

    def glance(self, call: Call) -> ApiError | None:
        """Route, method and key: what can be known from the head alone."""
        allowed = self._routes.get(call.path)
        if allowed is None or (call.path in _FOR_NEIGHBOURS and not _is_neighbour(call)):
            return unknown_route(call.path)
        if call.method not in allowed:
            return method_not_allowed(call.method.decode("latin-1"), b", ".join(allowed).decode())
        return self._authenticate(call) if call.path in _WITH_KEY else None

    def serve(self, call: Call) -> None:
        """Answer a request that passed the glance."""
        route = MODEL_ROUTES.get(call.path)
        try:
            if route is None:
                self._serve_own(call)
            else:
                self._admit(route, call)
        except ApiError as error:
            self.refuse(call, error)

    def refuse(self, call: Call, error: ApiError) -> None:
        """Say no, and count it."""
        self._unrouted(call, _outcome_of(error))
        call.error(error, _headers_for(error))

    def lost(self, call: Call) -> None:
        """Count a caller that hung up before its request was whole."""
        self._unrouted(call, "aborted")

    def sweep(self, now_s: float) -> None:
        """Look at the clock for everything that waits."""
        self._shadows.sweep(now_s)
        self._admission.sweep(now_s)
        self.upstream.sweep(now_s)
        self._limiter.forget_all_but(self._keys.key_ids)

    def pump(self) -> None:
        """A place may have become free in another process."""
        self._admission.pump()

    def close(self) -> None:
        """Let go of the slots, and write what is still to be kept."""
        self._shadows.close()
        self.upstream.close()
        self._house.close()

    def _serve_own(self, call: Call) -> None:
        match call.path:
            case "/v1/models":
                self._unrouted(call, "ok")
                call.whole(200, self._models())
            case "/v1/feedback":
                assert call.key is not None
                record = read_feedback(call.body, call.key.id)
                self._house.feedback(record, _Patient[bool](call, lambda known: self._thank(call, record, known)))
            case "/openapi.json":
                call.whole(200, self._document)
            case "/metrics" | "/metrics/slots":
                kind = CONTENT_TYPE.encode() if call.path == "/metrics" else JSON
                self._house.page(call.path, _Patient[bytes](call, lambda page: call.whole(200, page, kind)))
            case _:
                call.whole(*self._health())

    def _thank(self, call: Call, record: Kept, known: bool) -> None:
        if known:
            self._unrouted(call, "ok")
            call.whole(202, ACCEPTED)
        else:
            self.refuse(call, unknown_request(record.request_id))

    def _unrouted(self, call: Call, outcome: Outcome) -> None:
        self._metrics.requests(NO_RELEASE, _label_of(call.path)).finished(outcome, call.elapsed_s())

    def _authenticate(self, call: Call) -> ApiError | None:
        given = call.headers.get(b"authorization")
        if given is None or b"authorization" in call.repeated:
            return unauthorized("send exactly one header 'Authorization: Bearer <key>'")
        scheme, _, secret = given.partition(b" ")
        if scheme.lower() != b"bearer" or not secret or len(secret) > _MAX_KEY_BYTES:
            return unauthorized("the Authorization header must read 'Bearer <key>'")
        key = self._keys.find(secret)
        if key is None:
            return unauthorized("this key is not known, or was revoked")
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            return unauthorized("this key has expired")
        call.key = key
        return None if Scope.INFER in key.scopes else forbidden(Scope.INFER.value)

    def _admit(self, model_route: ModelRoute, call: Call) -> None:
        request = read_request(call.body, model_route.fields, self._caps, needs=model_route.needs)
        call.body = b""
        assert call.key is not None
        route = self._routing.route(request.model)
        if route is None:
            raise model_not_found(request.model)
        asks_for = Order(self._routing, request.model, pin_of(call), stickiness_of(call, request, by_key=self._settings.sticky_by_key))
        if not route.targets and not self._admission.patience_s(asks_for):
            raise no_champion(request.model, RETRY_AFTER_S)
        asks_for.check(route)
        grant = self._limiter.admit(call.key, request.tokens_at_most if call.key.tokens_per_minute else 0)
        exchange = Exchange(self._ports, model_route, request, call, asks_for, _Settle(self._admission, grant))
        self._look_on(exchange, route, model_route, call, request, asks_for)
        self._admission.enter(exchange, call, asks_for, lambda error: self._turn_away(call, grant, error))

    def _look_on(
        self, exchange: Exchange, route: Route, model_route: ModelRoute, call: Call, request: ModelRequest, asks_for: Order
    ) -> None:
        """Keep this answer, and ask the shadow the same, where that is wanted. An answer that is compared is kept as well."""
        takers: list[Keeps] = [self._house.sample] if not model_route.optional and self._house.sample.wants(asks_for.side(route)) else []
        shadowed = route.shadow is not None and self._shadows.copy(route.shadow, model_route.path, call, request)
        if shadowed or random.random() < self._settings.capture_ratio:  # noqa: S311  # a sample
            takers.append(self._house.keeper)
        if takers:
            exchange.witness = AnswerWitness(takers, call, request)

    def _turn_away(self, call: Call, grant: Grant, error: ApiError | None) -> None:
        grant.settle(0)
        if error is None:
            self.lost(call)
        else:
            self.refuse(call, error)

    def _models(self) -> bytes:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "tunegate"} for name in self._routing.public_names()]
        return json.dumps({"object": "list", "data": models}).encode()

    def _health(self) -> tuple[int, bytes]:
        ready = {name: self._routing.backend(name) is not None for name in self._routing.public_names()}
        well = bool(ready) and all(ready.values())
        return (200 if well else 503), json.dumps({"status": "ok" if well else "not_ready", "ready": ready}).encode()


class _Patient(Generic[_T]):
    """Waits for what may come from another process; `act` does not hear of it when the caller has gone."""

    def __init__(self, call: Call, act: Callable[[_T], None]) -> None:
        self._gone, self._act, call.owner = False, act, self

    def __call__(self, found: _T) -> None:
        if not self._gone:
            self._act(found)

    def caller_gone(self) -> None:
        """See `gateway_call.Owner`."""
        self._gone = True

    def caller_slow(self, slow: bool) -> None:
        """Nothing is being written yet."""


class _Settle:
    """What follows the end of an exchange: its key's account is put right, and the next one gets the place."""

    __slots__ = ("_admission", "_grant")

    def __init__(self, admission: Admission, grant: Grant) -> None:
        self._admission, self._grant = admission, grant

    def __call__(self, exchange: Exchange, usage: Usage) -> None:
        self._grant.settle(usage.prompt + usage.completion)
        self._admission.leave(exchange)


def _label_of(path: str) -> RouteLabel:
    route = MODEL_ROUTES.get(path)
    return route.label if route else _OWN_LABELS.get(path, "other")


def _is_neighbour(call: Call) -> bool:
    """A caller on this machine, and no proxy on this machine that speaks for somebody elsewhere."""
    if any(name in call.headers for name in _FORWARDED):
        return False
    try:
        address = ipaddress.ip_address(call.peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _outcome_of(error: ApiError) -> Outcome:
    if error.status >= 500:
        return "server_error"
    return "client_error" if error.status == 400 else "rejected"


def _headers_for(error: ApiError) -> list[Header]:
    if error.allow is not None:
        return [(b"allow", error.allow.encode())]
    return [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
