"""One admitted request: send it to a slot, bring the answer down, and know truthfully how it ended.

    first byte not yet sent    slot fails   → once more, if the routing table now names another backend; else 502/503/504
    stream under way           slot fails   → an error event, no [DONE], and the connection is cut
    at any time                caller gone  → the slot's connection is dropped, which makes vLLM abort the work

A request keeps the backend it began with, whatever becomes champion meanwhile.
Knows nothing of keys, limits or the registry. Next: `upstream.py`.
"""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import assert_never

from serving.gateway_reply import Receive, Reply
from serving.gateway_stream import StreamTail, Usage, usage_of
from serving.limits import ModelRequest
from serving.metrics import GatewayMetrics, Outcome, Route
from serving.openai_errors import INVALID_REQUEST, ApiError, upstream_failed, upstream_timeout, upstream_unreachable
from serving.routing import Backend, RoutingTable
from serving.upstream import Answer, Upstream, UpstreamFailed

RETRY_AFTER_S = 1
_LAST_WORDS_S = 1.0
_CALLERS_FAULT = frozenset({400, 413, 422})


@dataclass(frozen=True)
class ModelRoute:
    """A path that leads to a model, the same here and at the slot."""

    path: str
    label: Route
    fields: frozenset[str]


@dataclass(frozen=True)
class Ports:
    """What every exchange works with."""

    routing: RoutingTable
    upstream: Upstream
    metrics: GatewayMetrics
    total_timeout_s: float


class Exchange:
    """Runs once. `started_s` is the `time.perf_counter()` at which the request began."""

    def __init__(self, ports: Ports, route: ModelRoute, request: ModelRequest, reply: Reply, started_s: float) -> None:
        self._ports, self._route, self._request, self._reply, self._started_s = ports, route, request, reply, started_s
        self._caller_gone = False

    async def run(self, backend: Backend, receive: Receive) -> None:
        """Answer the caller by `backend`, and count the outcome."""
        self._take(backend)
        outcome: Outcome = "server_error"
        try:
            outcome = await self._answer(receive)
        finally:
            self._series.finished(outcome, self._elapsed_s())

    async def _answer(self, receive: Receive) -> Outcome:
        try:
            async with asyncio.timeout(self._ports.total_timeout_s) as deadline:
                watcher = asyncio.create_task(self._watch(receive, deadline))
                try:
                    return await self._relay()
                finally:
                    watcher.cancel()
        except ApiError as error:
            await self._reply.error(error)
            return "client_error"
        except UpstreamFailed as failure:
            self._series.upstream_error(failure.kind)
            return await self._give_up(_explained(failure))
        except TimeoutError:
            # A caller that stopped reading holds the answer up itself; that is no slow model.
            if self._caller_gone or self._reply.waiting_for_caller:
                return "aborted"
            self._series.upstream_error("timeout")
            return await self._give_up(upstream_timeout(f"the answer took longer than {self._ports.total_timeout_s:g} s"))

    async def _watch(self, receive: Receive, deadline: asyncio.Timeout) -> None:
        """A caller that hangs up makes the deadline now, which cancels whatever the exchange waits for."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not (self._reply.complete or deadline.expired()):
            self._caller_gone = True
            deadline.reschedule(asyncio.get_running_loop().time())

    async def _relay(self) -> Outcome:
        answer, first = await self._first_bytes()
        try:
            if answer.is_stream:
                return await self._stream(answer, first)
            await self._reply.whole(answer.status, first, answer.content_type.encode("latin-1"))
            self._count(usage_of(first))
            return "ok"
        finally:
            answer.close()

    async def _first_bytes(self) -> tuple[Answer, bytes]:
        """The answer's head with its first chunk, or with the whole body of a plain answer; tries a second backend once."""
        try:
            return await self._attempt()
        except UpstreamFailed as failure:
            other = self._ports.routing.backend(self._request.model)
            if failure.kind == "timeout" or other is None or other == self._backend:
                raise
            self._series.upstream_error(failure.kind)
        self._series.handed_over()
        self._take(other)
        return await self._attempt()

    async def _attempt(self) -> tuple[Answer, bytes]:
        body = self._request.body_for(self._backend.release_id)
        reply, stream = self._reply, self._request.stream
        answer = await self._ports.upstream.post(self._backend, self._route.path, body, stream=stream, request_id=reply.request_id)
        try:
            first = await (answer.next_chunk() if answer.is_stream else answer.read())
            if not first:
                raise UpstreamFailed("reset_before_first_byte")
            if answer.status in _CALLERS_FAULT:
                raise _callers_fault(answer.status, first)
            if answer.status != 200:
                raise UpstreamFailed("http_5xx")
        except BaseException:
            answer.close()
            raise
        return answer, first

    async def _stream(self, answer: Answer, first: bytes) -> Outcome:
        self._series.first_token(self._elapsed_s())
        await self._reply.start_stream(answer.content_type)
        tail, chunk = StreamTail(), first
        while chunk:
            await self._reply.piece(chunk)
            tail.feed(chunk)
            chunk = await answer.next_chunk()
        if not tail.ended_well():
            raise UpstreamFailed("reset_mid_stream")
        await self._reply.end_stream()
        self._count(tail.usage())
        if not tail.carries_error():
            return "ok"
        self._series.upstream_error("http_5xx")
        return "server_error"

    async def _give_up(self, error: ApiError) -> Outcome:
        if self._reply.started:
            # The caller may read slowly or not at all; the event is worth a moment, not a wait.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._reply.piece(error.event())
        else:
            await self._reply.error(error)
        return "timeout" if error.status == 504 else "server_error"

    def _take(self, backend: Backend) -> None:
        self._backend = backend
        self._reply.release = backend.release_id
        self._series = self._ports.metrics.requests(backend.release_id, self._route.label)
        self._series.started()

    def _count(self, usage: Usage | None) -> None:
        if usage is not None:
            self._series.tokens(usage.prompt, usage.completion)

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._started_s


def _explained(failure: UpstreamFailed) -> ApiError:
    match failure.kind:
        case "connect":
            return upstream_unreachable(RETRY_AFTER_S)
        case "timeout":
            return upstream_timeout("the model server was silent for too long")
        case "reset_before_first_byte":
            return upstream_failed("the model server broke off before it answered", RETRY_AFTER_S)
        case "reset_mid_stream":
            return upstream_failed("the model server broke off in the middle of the answer", RETRY_AFTER_S)
        case "http_5xx":
            return upstream_failed("the model server failed to answer", RETRY_AFTER_S)
        case _:
            assert_never(failure.kind)


def _callers_fault(status: int, body: bytes) -> ApiError:
    """vLLM's complaint about the request, in OpenAI's spelling."""
    try:
        given = json.loads(body)["error"]
        message, param = str(given["message"]), given.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError(status, INVALID_REQUEST, "the model server refused the request")
    code = "context_length_exceeded" if "maximum context length" in message else None
    return ApiError(status, INVALID_REQUEST, message, param=param if isinstance(param, str) else None, code=code)
