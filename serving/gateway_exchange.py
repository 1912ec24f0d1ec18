"""One admitted request: send it to a slot, bring the answer down, and know truthfully how it ended.

    first byte not yet sent    slot fails   → once more with the next backend, within the retry budget; else 502/503/504
    stream under way           slot fails   → an error event, no [DONE], and the connection is cut
    at any time                caller gone  → the slot's connection is dropped, which makes vLLM abort the work

A request keeps the backend it began with, whatever becomes champion meanwhile. Everything here is a callback: a task for each
request and each chunk costs more than all the rest. Knows nothing of keys, limits or the registry. Next: `upstream.py`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from serving.gateway_call import Call
from serving.gateway_retries import RetryBudget
from serving.gateway_stream import StreamTail, Usage, usage_of
from serving.limits import ModelRequest
from serving.metrics_requests import Outcome, RequestMetrics, Route, UpstreamErrorKind
from serving.openai_errors import INVALID_REQUEST, ApiError, not_served, upstream_failed, upstream_timeout, upstream_unreachable
from serving.routing import Backend
from serving.upstream import Errand, Failure, Upstream

RETRY_AFTER_S = 1
_CALLERS_FAULT = frozenset({400, 413, 422})


@dataclass(frozen=True)
class ModelRoute:
    """A path that leads to a model, the same here and at the slot; the fields that pass, and the one that is needed besides the model.

    `optional`: not every engine has it.
    """

    path: str
    label: Route
    fields: frozenset[str]
    needs: str
    optional: bool = False


@dataclass(frozen=True)
class Ports:
    """What every exchange works with."""

    upstream: Upstream
    metrics: RequestMetrics
    retries: RetryBudget
    total_timeout_s: float
    idle_timeout_s: float
    clock: Callable[[], float]


class Witness(Protocol):
    """Somebody who keeps answers."""

    def chunk(self, data: bytes) -> None:
        """A piece of the answer that went to the caller."""
        ...

    def finished(self, release_id: str, outcome: Outcome) -> None:
        """The answer has ended."""
        ...


class Exchange:
    """Runs once; `done` is called at its end with the tokens it took, as far as they are known."""

    __slots__ = (
        "_backend", "_begun_s", "_call", "_content_type", "_done", "_errand", "_events", "_first_s", "_heard_s", "_others", "_pieces",
        "_ports", "_request", "_retried", "_route", "_series", "_slow", "_status", "_streams", "_tail", "witness",
    )  # fmt: skip

    def __init__(
        self, ports: Ports, route: ModelRoute, request: ModelRequest, call: Call, others: Callable[[], tuple[Backend, ...]],
        done: Callable[["Exchange", Usage], None],
    ) -> None:  # fmt: skip
        self._ports, self._route, self._request, self._call, self._others, self._done = ports, route, request, call, others, done
        self._begun_s = self._first_s = self._heard_s = ports.clock()
        self._retried = self._slow = self._streams = False
        self._events = self._status = 0
        self._content_type = b""
        self._pieces: list[bytes] = []
        self._tail = StreamTail()
        self._errand: Errand | None = None
        self.witness: Witness | None = None

    def start(self, backend: Backend) -> None:
        """Ask `backend`; the caller is answered, and the outcome counted, whatever happens."""
        self._call.owner = self
        self._begun_s = self._ports.clock()
        self._ports.retries.asked()
        self._ask(backend)

    def _ask(self, backend: Backend) -> None:
        self._backend, self._heard_s = backend, self._ports.clock()
        self._call.release = backend.release_id
        self._series = self._ports.metrics.requests(backend.release_id, self._route.label)
        self._series.started()
        body = self._request.body_for(backend.served_name)
        self._errand = self._ports.upstream.send(backend, self._route.path, body, self._call.request_id, self)

    # From the slot.

    def head(self, status: int, content_type: bytes) -> None:
        """The answer's head."""
        self._status, self._content_type = status, content_type
        self._streams = status == 200 and content_type.startswith(b"text/event-stream")
        self._heard_s = self._ports.clock()

    def chunk(self, data: bytes) -> None:
        """Pass a piece of a stream on at once; keep a piece of anything else."""
        if not self._streams:
            self._pieces.append(data)
            return
        self._heard_s = self._ports.clock()
        if self._call.started:
            self._call.piece(data)
        else:
            self._first_s = self._heard_s
            self._series.first_token(self._call.elapsed_s())
            self._call.start_stream(self._content_type, data)
        self._tail.feed(data)
        self._events += data.count(b"\n\n")
        if self.witness is not None:
            self.witness.chunk(data)

    def complete(self) -> None:
        """The slot says that this is all."""
        self._errand = None
        if self._streams:
            self._complete_stream()
        else:
            self._complete_whole(b"".join(self._pieces))

    def _complete_stream(self) -> None:
        if not self._call.started:
            self._failed("reset_before_first_byte")
        elif not self._tail.ended_well():
            self._failed("reset_mid_stream")
        elif self._tail.carries_error():
            self._series.upstream_error("http_5xx")
            self._call.end_stream()
            self._end("server_error")
        else:
            self._call.end_stream()
            self._pace(usage := self._tail.usage())
            self._end("ok", usage)

    def _pace(self, usage: Usage | None) -> None:
        # Without `usage`, vLLM's stream is one event a token, one with the role before them and [DONE] behind.
        gaps = (usage.completion if usage else self._events - 2) - 1
        if gaps > 0:
            self._series.inter_token((self._heard_s - self._first_s) / gaps)

    def _complete_whole(self, body: bytes) -> None:
        if not body:
            self._failed("reset_before_first_byte")
        elif self._status in _CALLERS_FAULT:
            self._refuse(_callers_fault(self._status, body))
        elif self._status == 404 and self._route.optional:
            self._refuse(not_served(self._route.path, self._request.model))
        elif self._status != 200:
            self._failed("http_5xx")
        else:
            if self.witness is not None:
                self.witness.chunk(body)
            self._call.whole(200, body, self._content_type)
            self._end("ok", usage_of(body))

    def failed(self, how: Failure) -> None:
        """No connection, or it broke."""
        self._errand = None
        if how == "connect":
            self._failed("connect")
        else:
            self._failed("reset_mid_stream" if self._call.started else "reset_before_first_byte")

    def _failed(self, kind: UpstreamErrorKind) -> None:
        self._series.upstream_error(kind)
        other = None if self._call.started or self._retried or kind == "timeout" else self._other()
        if other is None or not self._ports.retries.may():
            self._give_up(_explained(kind))
            return
        self._retried, self._pieces, self._status = True, [], 0
        self._series.handed_over()
        self._ask(other)

    def _other(self) -> Backend | None:
        return next((backend for backend in self._others() if backend != self._backend), None)

    # From the caller.

    def caller_gone(self) -> None:
        """Nobody waits for the answer any more."""
        self._drop()
        self._end("aborted")

    def caller_slow(self, slow: bool) -> None:
        """Do not read from the slot what the caller does not take."""
        self._slow, self._heard_s = slow, self._ports.clock()
        if self._errand is not None:
            self._errand.pause(slow)

    # From the clock.

    def sweep(self, now_s: float) -> None:
        """Give up what takes too long. A plain answer is silent until it is complete: only the total bounds it."""
        silent_s = now_s - self._heard_s if self._request.stream else 0.0
        if now_s - self._begun_s <= self._ports.total_timeout_s and silent_s <= self._ports.idle_timeout_s:
            return
        self._drop()
        if self._slow:  # a caller that stopped reading holds the answer up itself; that is no slow model
            self._call.break_off()
            self._end("aborted")
        else:
            self._series.upstream_error("timeout")
            long = now_s - self._begun_s > self._ports.total_timeout_s
            what = f"the answer took longer than {self._ports.total_timeout_s:g} s" if long else "the model server was silent for too long"
            self._give_up(upstream_timeout(what))

    def _refuse(self, error: ApiError) -> None:
        self._call.error(error)
        self._end("client_error")

    def _give_up(self, error: ApiError) -> None:
        if self._call.started:
            self._call.break_off(error.event())
        else:
            self._call.error(error)
        self._end("timeout" if error.status == 504 else "server_error")

    def _drop(self) -> None:
        errand, self._errand = self._errand, None
        if errand is not None:
            errand.drop()

    def _end(self, outcome: Outcome, usage: Usage | None = None) -> None:
        if usage is not None:
            self._series.tokens(usage.prompt, usage.completion)
        self._series.finished(outcome, self._call.elapsed_s())
        self._done(self, usage or self._guess())
        if self.witness is not None:
            self.witness.finished(self._backend.release_id, outcome)

    def _guess(self) -> Usage:
        """About four bytes are a token, and an event carries one: what is charged where nobody reported a number."""
        return Usage(self._request.prompt_bytes // 4, self._events)


def _explained(kind: UpstreamErrorKind) -> ApiError:
    match kind:
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
            assert_never(kind)


def _callers_fault(status: int, body: bytes) -> ApiError:
    """vLLM's complaint about the request, in OpenAI's spelling."""
    try:
        given = json.loads(body)["error"]
        message, param = str(given["message"]), given.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError(status, INVALID_REQUEST, "the model server refused the request")
    code = "context_length_exceeded" if "maximum context length" in message else None
    return ApiError(status, INVALID_REQUEST, message, param=param if isinstance(param, str) else None, code=code)
