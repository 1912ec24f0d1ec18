"""A model server that fails on demand, speaking just enough of vLLM's API. Imports nothing of tunegate, so it starts fast.

`python -m tests.fakes_gateway_slot PORT RELEASE [CHUNKS] [GAP_S]` runs it in a process of its own, to be killed or measured.
"""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Behaviour:
    """How a fake slot answers. Times in seconds; `None` means never."""

    chunks: int = 4
    think_s: float = 0.0
    chunk_gap_s: float = 0.0
    status: int = 200
    error_body: bytes = b'{"error": {"message": "engine trouble", "type": "InternalServerError", "param": null, "code": 500}}'
    die_before_head: bool = False
    die_after_chunks: int | None = None
    stall_after_chunks: int | None = None
    engine_error_event: bool = False
    omit_done: bool = False
    raw_chunks: tuple[bytes, ...] | None = None
    message: dict[str, Any] | None = None
    usage: bool = True


@dataclass
class Seen:
    """One request as it reached the slot."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass
class FakeSlot:
    """Speaks just enough of vLLM's API. `live` counts requests in work, `aborted` those whose caller hung up."""

    release_id: str
    behaviour: Behaviour = field(default_factory=Behaviour)
    seen: list[Seen] = field(default_factory=list)
    live: int = 0
    aborted: int = 0
    base_url: str = ""

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["FakeSlot"]:
        """Listen on loopback until the block ends."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/{rest:.*}", self._answer)
        # vLLM's server cancels a handler whose caller is gone; aiohttp does so only when told to.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, logger=_quiet(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(Seen(request.path, dict(request.headers), body))
        self.live += 1
        try:
            return await self._behave(request, body)
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise
        finally:
            self.live -= 1

    async def _behave(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        does = self.behaviour
        await asyncio.sleep(does.think_s)
        if does.die_before_head:
            _kill(request)
        if does.status != 200:
            return web.Response(body=does.error_body, status=does.status, content_type="application/json")
        if body.get("stream"):
            return await self._stream(request, body)
        message = does.message or {"role": "assistant", "content": f"I am {self.release_id}"}
        answer = {"id": "x", "model": body["model"], "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        if request.path == "/v1/embeddings":
            count = 7 + does.chunks
            vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
            answer = {"object": "list", "data": [vector], "model": body["model"], "usage": {"prompt_tokens": count, "total_tokens": count}}
        elif does.usage:
            answer["usage"] = {"prompt_tokens": 7, "total_tokens": 7 + does.chunks, "completion_tokens": does.chunks}
        if does.die_after_chunks is not None:
            return await self._half_a_body(request, json.dumps(answer).encode())
        return web.json_response(answer)

    async def _half_a_body(self, request: web.Request, whole: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(whole))})
        await response.prepare(request)
        await response.write(whole[: len(whole) // 2])
        _kill(request)
        return response

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        does = self.behaviour
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number, chunk in enumerate(does.raw_chunks or self.events(body)):
            if number == does.die_after_chunks:
                _kill(request)
            if number == does.stall_after_chunks:
                await asyncio.sleep(3600)
            await response.write(chunk)
            await asyncio.sleep(does.chunk_gap_s)
        await response.write_eof()
        return response

    def events(self, body: dict[str, Any]) -> list[bytes]:
        """The stream this slot sends for `body`, event by event."""
        does = self.behaviour
        events = [_event({"model": self.release_id, "choices": [{"delta": {"content": f"word{n} "}}]}) for n in range(does.chunks)]
        if does.usage and (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 7, "total_tokens": 7 + does.chunks, "completion_tokens": does.chunks}
            events.append(_event({"model": self.release_id, "choices": [], "usage": usage}))
        if does.engine_error_event:
            events.append(_event({"error": {"message": "engine died", "type": "InternalServerError", "param": None, "code": 500}}))
        return events if does.omit_done else [*events, b"data: [DONE]\n\n"]


def _quiet() -> logging.Logger:
    """Dying on demand is no error worth a traceback."""
    logger = logging.getLogger("tests.fakes_gateway_slot")
    logger.setLevel(logging.CRITICAL)
    return logger


def _event(content: object) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def _kill(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError


async def _serve_alone(port: int, release: str) -> None:
    chunks = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    gap_s = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    async with FakeSlot(release, Behaviour(chunks=chunks, chunk_gap_s=gap_s)).running(port) as slot:
        print(slot.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_alone(int(sys.argv[1]), sys.argv[2]))
