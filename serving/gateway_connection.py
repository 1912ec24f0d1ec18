"""One caller's connection: bytes to calls, in order, within bounds of size, count and time.

Parsing is llhttp's (through httptools), strict as it comes: both lengths at once, two lengths, folded headers, bare line feeds and
odd transfer codings are errors there. What it leaves open is decided here: sizes, `Host`, `Expect`, pipelining, silence.
A caller that ends its side of the connection has gone (as nginx sees it too): its answer is not worth a model's time.
Knows nothing of routes, keys or slots. Next: `gateway.py`, the `Desk` that calls are put to.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import Protocol, cast

import httptools

from serving.gateway_call import Call
from serving.openai_errors import ApiError, bad_http, body_timeout, expectation_failed, head_too_large, internal_error, too_large

_NONE: frozenset[bytes] = frozenset()
_MOST_PIPELINED = 32
_log = logging.getLogger(__name__)

# What a refused caller still sends is read and dropped for so long: closing at once would reset the connection under our answer.
_LINGER_S = 1.0
# While draining, a connection without a request stays this long, for one that may be under way already.
_DRAIN_IDLE_S = 1.0


class Desk(Protocol):
    """What a connection does with its calls."""

    def glance(self, call: Call) -> ApiError | None:
        """Look at a request's head: why it is refused whatever its body, or None."""
        ...

    def serve(self, call: Call) -> None:
        """Answer a whole request, now or later."""
        ...

    def refuse(self, call: Call, error: ApiError) -> None:
        """Answer a request that is not looked at further."""
        ...

    def lost(self, call: Call) -> None:
        """The caller hung up before its request was whole."""
        ...


@dataclass(frozen=True)
class WireLimits:
    """Bounds of one connection."""

    head_bytes: int
    body_bytes: int
    head_s: float
    body_s: float
    keep_alive_s: float


class CallerConnection(asyncio.Protocol):
    """One connection. `open_ones` holds every connection that is open; `sweep` is called for each of them a few times a second."""

    def __init__(self, desk: Desk, limits: WireLimits, open_ones: "set[CallerConnection]") -> None:
        self._desk, self._limits, self._open_ones = desk, limits, open_ones
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Call] = deque()
        self._current: Call | None = None
        self._arriving: Call | None = None
        self._began_s: float | None = None
        self._closing_s: float | None = None
        self._stepping = self._deaf = self._spoke = False
        self._body: list[bytes] = []
        self._repeated: frozenset[bytes] = _NONE
        self.draining = self.slow = False
        self._forget_head()

    # From the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast(asyncio.Transport, transport)
        self._heard_s = monotonic()
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._open_ones.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has come; `_deaf` once nothing more is wanted."""
        self._heard_s = monotonic()
        if self._deaf:
            return
        self._spoke = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # no other protocol is spoken here; what follows the request is not HTTP
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            self._fault(bad_http(str(error)))
        if self._arriving is None and self._head_bytes > self._limits.head_bytes:
            self._fault(head_too_large(self._limits.head_bytes))
        self._step()

    def pause_writing(self) -> None:
        """The caller reads slower than it is written to."""
        self.slow = True
        if self._current and self._current.owner:
            self._current.owner.caller_slow(True)

    def resume_writing(self) -> None:
        """It has caught up."""
        self.slow = False
        if self._current and self._current.owner:
            self._current.owner.caller_slow(False)
        self._step()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever works for this caller."""
        self._open_ones.discard(self)
        self._deaf, self._closing_s = True, monotonic()
        self._waiting.clear()
        current, self._current = self._current, None
        if current and current.owner:
            current.owner.caller_gone()
        if self._arriving and not self._arriving.refusal:
            self._desk.lost(self._arriving)
        self._arriving = None

    # From the parser, in this order.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._began_s = monotonic()
        self._forget_head()

    def on_url(self, url: bytes) -> None:
        """The target, or a part of it where it came in parts."""
        self._target += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after the head has ended it is a trailer, which nobody reads."""
        self._head_bytes += len(name) + len(value) + 4
        if self._arriving is not None or self._head_bytes > self._limits.head_bytes:
            return
        name = name.lower()
        if name in self._headers:
            self._repeated = self._repeated | {name}
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is whole: make a call of it, and ask the caller for the body it may be holding back."""
        call = Call(self, self._parser.get_method(), self._target, self._headers, self._repeated)
        call.peer = self.peer
        call.http10 = self._parser.get_http_version() == "1.0"
        call.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._arriving, self._began_s = call, monotonic()
        fault = self._fault_of(call)
        if fault is not None:
            self._fault(fault)
            return
        call.refusal = self._desk.glance(call)
        if b"expect" not in self._headers:
            return
        if self._headers[b"expect"].lower() != b"100-continue":
            self._fault(expectation_failed())
        elif call.refusal is not None:
            self._fault(call.refusal)
        elif self._current is None and not self._waiting:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """A part of the body; that of a refused request is dropped."""
        if self._deaf:
            return
        self._body_size += len(data)
        if self._body_size > self._limits.body_bytes:
            self._fault(too_large(self._limits.body_bytes))
        elif self._arriving is not None and self._arriving.refusal is None:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        call, self._arriving, self._began_s = self._arriving, None, None
        if call is None or self._deaf:
            return
        call.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._head_bytes, self._body = 0, list[bytes]()
        if len(self._waiting) >= _MOST_PIPELINED:
            self._give_up(call, bad_http(f"more than {_MOST_PIPELINED} requests were sent ahead of their answers"))
        else:
            self._waiting.append(call)

    # From the call.

    def write(self, data: bytes) -> None:
        """Put bytes on their way."""
        self._transport.write(data)

    def answered(self, call: Call) -> None:
        """Close the connection, or go on with the next request."""
        self._current = None
        self._heard_s = monotonic()
        if call.keep_alive:
            self._step()
        elif self._arriving is None and not self._deaf:
            self._close()
        else:
            self._linger()

    def cut(self) -> None:
        """End the connection; what was written before still goes out, if the caller takes it soon."""
        self._current = None
        self._close()

    # From the door.

    def sweep(self, now_s: float) -> None:
        """Look at the clock: too slow, too silent, or lingering for too long."""
        if self._closing_s is not None:
            if now_s - self._closing_s > _LINGER_S:
                self._transport.abort()
        elif self._began_s is not None:
            self._sweep_arriving(now_s - self._began_s)
        elif self._current is None and (self.slow or not self._waiting):
            patience_s = self._limits.keep_alive_s if self._spoke else self._limits.head_s
            if now_s - self._heard_s > (_DRAIN_IDLE_S if self.draining else patience_s):
                self._close()

    def drain(self) -> None:
        """From now on every answer is the connection's last, and says so."""
        self.draining = True
        if self._current and not self._current.started:
            self._current.keep_alive = False

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _sweep_arriving(self, waited_s: float) -> None:
        limit_s = self._limits.head_s if self._arriving is None else self._limits.body_s
        if waited_s > limit_s:
            self._fault(body_timeout(limit_s))
            self._step()

    def _step(self) -> None:
        """Serve the calls that wait, one after the other; an answer that is given at once must not nest the next one inside it."""
        if self._stepping:
            return
        self._stepping = True
        while self._waiting and self._current is None and not self.slow and self._closing_s is None:
            call = self._current = self._waiting.popleft()
            if self.draining and not self._waiting:
                call.keep_alive = False
            self._put(call)
        self._stepping = False

    def _put(self, call: Call) -> None:
        try:
            if call.refusal is not None:
                self._desk.refuse(call, call.refusal)
            else:
                self._desk.serve(call)
        except Exception:  # noqa: BLE001  # whatever it is, it is this one request that fails
            _log.exception("request %s on %s met a fault of the gateway", call.request_id, call.path[:100])
            if not call.started:
                self._desk.refuse(call, internal_error())
            else:
                self.cut()

    def _fault_of(self, call: Call) -> ApiError | None:
        """What is wrong with a head whatever it asks for."""
        if self._head_bytes > self._limits.head_bytes:
            return head_too_large(self._limits.head_bytes)
        if b"host" in call.repeated or (b"host" not in call.headers and not call.http10):
            return bad_http("a request needs exactly one Host header")
        coding = call.headers.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or call.http10):
            return bad_http("the only transfer coding understood is chunked, in HTTP/1.1")
        if int(call.headers.get(b"content-length", b"0")) > self._limits.body_bytes:
            return too_large(self._limits.body_bytes)
        return None

    def _fault(self, error: ApiError) -> None:
        """Refuse what is arriving, and hear no more: where the next request would begin is not known."""
        if self._deaf:
            return
        call = self._arriving or Call(self, b"GET", self._target, {}, _NONE)
        self._give_up(call, error)

    def _give_up(self, call: Call, error: ApiError) -> None:
        call.refusal, call.keep_alive = error, False
        self._deaf, self._began_s, self._arriving = True, None, None
        self._waiting.append(call)

    def _linger(self) -> None:
        self._deaf, self._closing_s = True, monotonic()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _close(self) -> None:
        self._deaf, self._closing_s = True, monotonic()
        self._transport.close()

    def _forget_head(self) -> None:
        self._target, self._headers, self._repeated = b"", dict[bytes, bytes](), _NONE
        self._head_bytes = self._body_size = 0
        self._body = []
