"""Which releases one request may go to, best first: by weight, by who asks, or by a tester's pin.

Knows nothing of bodies, places or slots. Next: `routing.py`, whose `choose` decides; `gateway_admission.py`, which asks.
"""

import random
import time
from typing import Literal

from serving.gateway_call import Call
from serving.keys import KeyInfo, Scope
from serving.limits import ModelRequest
from serving.openai_errors import forbidden, release_not_there
from serving.routing import Backend, Route, RoutingTable, choose

PIN_HEADER, CONVERSATION_HEADER = b"x-tunegate-pin", b"x-tunegate-conversation"
_MAX_STICKINESS_BYTES = 512

Side = Literal["alone", "beside", "canary"]
"""Whether the release that is asked is the only one of its name, the champion beside a canary, or that canary."""


class Order:
    """Whom to ask, by the routing table of the moment. The same caller gets the same order while the table stays."""

    __slots__ = ("_model", "_pin", "_point", "_routing", "_stickiness")

    def __init__(self, routing: RoutingTable, model: str, pin: str | None, stickiness: bytes | None) -> None:
        self._routing, self._model, self._pin, self._stickiness = routing, model, pin, stickiness
        self._point = 0.0 if stickiness else random.random()  # noqa: S311  # a share of traffic, not a secret

    def __call__(self) -> tuple[Backend, ...]:
        route = self._routing.route(self._model)
        if route is None:
            return ()
        if self._pin is not None:
            return tuple(backend for backend in _all_of(route) if backend.release_id == self._pin)[:1]
        return choose(route, self._stickiness, lambda: self._point, time.monotonic())

    @property
    def changing(self) -> bool:
        """Whether nobody is ready because its engine is being exchanged."""
        route = self._routing.route(self._model)
        return route is not None and route.changing and not route.targets

    @property
    def model(self) -> str:
        """The public name."""
        return self._model

    def side(self, route: Route) -> Side:
        """Who is asked first."""
        if all(target.role == "champion" for target in route.targets):
            return "alone"
        canaries = [target.backend.release_id for target in route.targets if target.role == "canary"]
        return "canary" if any(backend.release_id in canaries for backend in self()[:1]) else "beside"

    def check(self, route: Route) -> None:
        """A pin must name a release that is there: it is never answered by another one."""
        if self._pin is not None and all(backend.release_id != self._pin for backend in _all_of(route)):
            raise release_not_there(self._pin)


def stickiness_of(call: Call, request: ModelRequest, *, by_key: bool) -> bytes | None:
    """Who asks, as far as it should decide which release answers. Two keys' users of one name are two users."""
    assert call.key is not None
    named = call.headers.get(CONVERSATION_HEADER) or request.user.encode("utf-8", "replace")
    if named:
        return b"%b\0%b" % (call.key.id.encode(), named[:_MAX_STICKINESS_BYTES])
    return call.key.id.encode() if by_key else None


def _all_of(route: Route) -> tuple[Backend, ...]:
    shadow = () if route.shadow is None else (route.shadow,)
    return (*(target.backend for target in route.targets), *shadow)


def pin_of(call: Call) -> str | None:
    """The release a tester asks for. Whoever may approve a release, or change which one is live, may try it."""
    pin = call.headers.get(PIN_HEADER)
    if pin is None:
        return None
    if not _may_pin(call.key):
        raise forbidden(f"{Scope.APPROVE.value}' or '{Scope.ADMIN.value}")
    return pin.decode("latin-1")


def _may_pin(key: KeyInfo | None) -> bool:
    return key is not None and not key.scopes.isdisjoint({Scope.APPROVE, Scope.ADMIN})
