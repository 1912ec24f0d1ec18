"""The real gateway on real uvicorn, with fake slots behind it: real sockets on loopback, no vLLM."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from pydantic import SecretStr

from serving.config import ServingSection
from serving.gateway import create_app
from serving.keys import KeyInfo, KeyRing, Scope, hash_secret
from serving.lifecycle import State
from serving.metrics import GatewayMetrics
from serving.records import Release, SlotInfo, SlotState
from serving.routing import Backend, RoutingTable
from serving.settings import Settings
from serving.upstream import Upstream
from tests.fakes_gateway_slot import Behaviour, FakeSlot

KEY = "tg-test-key"
APPROVER_KEY = "tg-approver-key"
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
    """A key that may infer, and one that may only approve."""
    now = datetime.now(UTC)

    def info(name: str, scope: Scope) -> KeyInfo:
        return KeyInfo(id=name, name=name, scopes=frozenset({scope}), created_at=now, revoked_at=None)

    return KeyRing({hash_secret(KEY): info("caller", Scope.INFER), hash_secret(APPROVER_KEY): info("approver", Scope.APPROVE)})


def backend_of(slot: FakeSlot) -> Backend:
    """What the routing table says of this slot."""
    return Backend(slot.release_id, slot.base_url, SecretStr(SLOT_KEY))


@contextlib.asynccontextmanager
async def gateway_over(routes: Mapping[str, Backend | None], **changes: Any) -> AsyncIterator[Stack]:
    """The real gateway on real uvicorn, over these routes."""
    settings, routing, keys, metrics = settings_for_tests(**changes), RoutingTable(routes), key_ring(), GatewayMetrics()
    upstream = Upstream(connect_timeout_s=settings.connect_timeout_s, idle_timeout_s=settings.idle_timeout_s)
    app = create_app(settings, routing, keys, upstream, metrics)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", access_log=False, http="httptools")
    async with _listening(config) as url, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        yield Stack(url, client, metrics, routing, keys)


@contextlib.asynccontextmanager
async def _listening(config: uvicorn.Config) -> AsyncIterator[str]:
    """uvicorn without its signal handlers and without its 100 ms pauses at start and end, which add up over a hundred tests."""
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.servers[0].close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        await server.lifespan.shutdown()


@contextlib.asynccontextmanager
async def one_slot(behaviour: Behaviour | None = None, **changes: Any) -> AsyncIterator[tuple[Stack, FakeSlot]]:
    """A gateway with one release, `clinic-1`, behind it."""
    async with (
        FakeSlot("clinic-1", behaviour or Behaviour()).running() as slot,
        gateway_over({PUBLIC_NAME: backend_of(slot)}, **changes) as stack,
    ):
        yield stack, slot


def release(number: int, state: State) -> Release:
    """A registry entry of the public name."""
    now = datetime.now(UTC)
    return Release(
        id=f"{PUBLIC_NAME}-{number}",
        public_name=PUBLIC_NAME,
        number=number,
        state=state,
        model_digest=f"d{number}",
        model_dir=Path("model"),
        evidence_digest=None,
        report_path=None,
        judged_against=None,
        recipe_name="demo",
        requester="me",
        created_at=now,
        serving=ServingSection(public_name=PUBLIC_NAME),
    )


def slot_info(number: int, state: SlotState) -> SlotInfo:
    """What the registry knows of a release's engine."""
    return SlotInfo(release_id=f"{PUBLIC_NAME}-{number}", state=state, port=1, pid=1, restarts=0, reason="", updated_at=datetime.now(UTC))


async def becomes(condition: Any, within_s: float = 1.0) -> bool:
    """Whether `condition()` turns true in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while loop.time() < end:
        if condition():
            return True
        await asyncio.sleep(0.01)
    return bool(condition())
