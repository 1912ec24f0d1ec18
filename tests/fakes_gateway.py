"""The real gateway, with fake slots behind it: real sockets on loopback, no vLLM."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
from pydantic import SecretStr

from serving.admin_api import AdminDesk
from serving.admin_door import WithAdmin
from serving.gateway import Gateway
from serving.gateway_commons import alone
from serving.gateway_door import Door
from serving.gateway_house import OwnHouse
from serving.keys import KeyInfo, KeyRing, Scope, hash_secret
from serving.metrics import GatewayMetrics
from serving.records import SlotInfo, SlotState
from serving.registry import Registry
from serving.routing import Backend, Route, RoutingTable, champion_route
from serving.settings import Settings
from serving.upstream import Upstream
from tests.fakes_gateway_slot import Behaviour, FakeSlot
from tests.fakes_serving import slot_info as serving_slot

KEY = "tg-test-key"
APPROVER_KEY = "tg-approver-key"
TESTER_KEY = "tg-tester-key"
SLOT_KEY = "slot-secret"
PUBLIC_NAME = "clinic"
CHAT = {"model": PUBLIC_NAME, "messages": [{"role": "user", "content": "hello"}]}


@dataclass
class Stack:
    """A running gateway, and a client that calls it."""

    url: str
    client: aiohttp.ClientSession
    metrics: GatewayMetrics
    routing: RoutingTable
    keys: KeyRing
    gateway: Gateway
    house: OwnHouse
    door: Door

    def switch_to(self, backend: Backend | None) -> None:
        """Give the public name another champion."""
        self.routing.replace({PUBLIC_NAME: champion_route(PUBLIC_NAME, backend)})

    def post(self, body: Any = None, path: str = "/v1/chat/completions", **options: Any) -> Any:
        """POST with a good key unless told otherwise. Use it as `async with stack.post(...) as response`."""
        headers = options.pop("headers", {"Authorization": f"Bearer {KEY}"})
        payload: dict[str, Any] = {} if "data" in options else {"json": CHAT if body is None else body}
        return self.client.post(self.url + path, headers=headers, **payload, **options)

    def stream(self, **extra: Any) -> Any:
        """Ask for a stream."""
        return self.post({**CHAT, "stream": True, **extra})

    async def ask(self, **extra: Any) -> aiohttp.ClientResponse:
        """The same as a coroutine, for a task of its own."""
        response: aiohttp.ClientResponse = await self.post({**CHAT, **extra})
        return response

    def value(self, name: str, **labels: str) -> float:
        """A sample of the gateway's metrics; 0 when there is none."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def outcomes(self, release: str, route: str = "chat_completions") -> dict[str, float]:
        """How the requests of a release ended, the outcomes that occurred only."""
        names = ("ok", "client_error", "server_error", "aborted", "timeout", "rejected")
        counts = {name: self.value("tunegate_requests_total", release=release, route=route, outcome=name) for name in names}
        return {name: count for name, count in counts.items() if count}


def settings_for_tests(**changes: Any) -> Settings:
    """Settings with short waits."""
    return Settings(**{"connect_timeout_s": 1.0, "idle_timeout_s": 5.0, "total_timeout_s": 20.0, "body_timeout_s": 1.0, **changes})


def key_ring() -> KeyRing:
    """A key that may infer, one that may only approve, and one that may do both."""
    owners = {KEY: ("caller", [Scope.INFER]), APPROVER_KEY: ("approver", [Scope.APPROVE]), TESTER_KEY: ("tester", list(Scope))}
    return KeyRing({hash_secret(secret): key_info(name, *scopes) for secret, (name, scopes) in owners.items()})


def key_info(name: str, *scopes: Scope, **terms: Any) -> KeyInfo:
    """What is known of a key."""
    return KeyInfo(id=name, name=name, scopes=frozenset(scopes), created_at=datetime.now(UTC), revoked_at=None, **terms)


def backend_of(slot: FakeSlot) -> Backend:
    """What the routing table says of this slot."""
    return Backend(slot.release_id, slot.base_url, SecretStr(SLOT_KEY), slot.release_id)


@contextlib.asynccontextmanager
async def gateway_over(
    routes: Mapping[str, Backend | Route | None], *, registry: Registry | None = None, **changes: Any
) -> AsyncIterator[Stack]:
    """The real gateway behind its real door, over these routes; with a registry, approvers are answered too."""
    settings, keys, metrics = settings_for_tests(**changes), key_ring(), GatewayMetrics()
    routing = RoutingTable({name: to if isinstance(to, Route) else champion_route(name, to) for name, to in routes.items()})
    house, upstream = OwnHouse(settings, metrics), Upstream(connect_timeout_s=settings.connect_timeout_s)
    gateway = Gateway(settings, routing, keys, upstream, metrics.traffic, house, alone(settings))
    desk = gateway if registry is None else WithAdmin(gateway, AdminDesk(registry), keys, metrics.traffic)
    door, listener = Door(desk, settings), socket.create_server(("127.0.0.1", 0))
    await door.open(listener)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        yield Stack(url, client, metrics, routing, keys, gateway, house, door)
    await door.close(0)


@contextlib.asynccontextmanager
async def one_slot(behaviour: Behaviour | None = None, **changes: Any) -> AsyncIterator[tuple[Stack, FakeSlot]]:
    """A gateway with one release, `clinic-1`, behind it."""
    async with (
        FakeSlot("clinic-1", behaviour or Behaviour()).running() as slot,
        gateway_over({PUBLIC_NAME: backend_of(slot)}, **changes) as stack,
    ):
        yield stack, slot


def slot_info(number: int, state: SlotState) -> SlotInfo:
    """What the registry knows of a release's engine."""
    return serving_slot(f"{PUBLIC_NAME}-{number}", state, datetime.now(UTC), port=1)


async def becomes(condition: Any, within_s: float = 1.0) -> bool:
    """Whether `condition()` turns true in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while loop.time() < end:
        if condition():
            return True
        await asyncio.sleep(0.01)
    return bool(condition())
