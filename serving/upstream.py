"""The gateway's client towards the slots: requests out, bytes back as they come, over connections that are kept.

Sends its own headers only: nothing of the caller's request head, and above all not the caller's key, reaches a slot.
Knows nothing of callers, routing or metrics.
Next: `upstream_connection.py`, one connection; `gateway_exchange.py`, which listens.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

from serving.routing import Backend
from serving.upstream_connection import SlotConnection

# vLLM closes idle connections after 5 s; reusing one at that moment would fail a request that was never read.
_KEEP_ALIVE_S = 3.0
_SECOND_LOOK_S = 0.1

_T = TypeVar("_T")
Failure = Literal["connect", "reset"]
"""Nobody took the connection; or it broke, or carried what is no HTTP, before the answer was whole."""


class Listener(Protocol):
    """Who hears of an answer: `head` once, `chunk` for each piece that came, then `complete` or, at any time, `failed`."""

    def head(self, status: int, content_type: bytes) -> None: ...

    def chunk(self, data: bytes) -> None: ...

    def complete(self) -> None: ...

    def failed(self, how: Failure) -> None: ...


class Origin(NamedTuple):
    """Where a connection leads."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True)
class _Address:
    origin: Origin
    head: bytes


class Upstream:
    """Connections to every slot; lives in one event loop.

    Args:
        connect_timeout_s: to a connection.
        max_answer_bytes: the largest answer that is not a stream.
    """

    def __init__(self, *, connect_timeout_s: float, max_answer_bytes: int = 1 << 26) -> None:
        self.connect_timeout_s, self.max_answer_bytes = connect_timeout_s, max_answer_bytes
        self._idle: dict[Origin, list[SlotConnection]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def send(self, backend: Backend, path: str, body: bytes, request_id: str, listener: Listener) -> "Errand":
        """Send a JSON body; `listener` hears of the answer, always later than this call."""
        address = _address(backend.base_url, path, backend.api_key.get_secret_value())
        payload = b"%bX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b" % (address.head, request_id.encode(), len(body), body)
        errand = Errand(self, address.origin, payload, listener)
        errand.go()
        return errand

    def take(self, origin: Origin) -> SlotConnection | None:
        """A connection that is open and idle, the one used last."""
        idle = self._idle[origin]
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    def keep(self, origin: Origin, connection: SlotConnection) -> None:
        """Take back a connection whose answer was read to its end."""
        if self._closed:
            connection.drop()
        else:
            self._idle[origin].append(connection)

    async def connect(self, origin: Origin) -> SlotConnection:
        """A new connection.

        Raises:
            OSError: nobody answers there (TimeoutError is one).
        """
        context = _tls() if origin.tls else None
        attempt = asyncio.get_running_loop().create_connection(
            lambda: SlotConnection(self.max_answer_bytes), origin.host, origin.port, ssl=context
        )
        _, connection = await _within(self.connect_timeout_s, attempt)
        return connection

    def hold(self, task: asyncio.Task[None]) -> None:
        """Keep a task alive until it is done; the event loop holds them weakly."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sweep(self, now_s: float) -> None:
        """Close connections that were idle for too long."""
        for origin, idle in list(self._idle.items()):
            for connection in idle:
                if now_s - connection.idle_since_s > _KEEP_ALIVE_S:
                    connection.drop()
            idle[:] = [connection for connection in idle if connection.usable]
            if not idle:
                del self._idle[origin]

    def close(self) -> None:
        """Close every idle connection; those in use are their errands' to drop."""
        self._closed = True
        for idle in self._idle.values():
            for connection in idle:
                connection.drop()
        self._idle.clear()


class Errand:
    """One request to one slot. A kept connection that turns out to be dead before it said anything is replaced by a new one, once."""

    __slots__ = ("_connection", "_listener", "_origin", "_payload", "_task", "_upstream", "reused")

    def __init__(self, upstream: Upstream, origin: Origin, payload: bytes, listener: Listener) -> None:
        self._upstream, self._origin, self._payload, self._listener = upstream, origin, payload, listener
        self._connection: SlotConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self.reused = False

    def go(self) -> None:
        """Write the request on a kept connection, or on a new one as soon as there is one."""
        connection = self._upstream.take(self._origin)
        self.reused = connection is not None
        if connection is not None:
            self._begin(connection)
        else:
            self._connect()

    def _connect(self) -> None:
        self._task = asyncio.ensure_future(self._begin_anew())
        self._upstream.hold(self._task)

    async def _begin_anew(self) -> None:
        try:
            connection = await self._upstream.connect(self._origin)
        except (OSError, ValueError):  # ValueError: no host can be called that
            self._listener.failed("connect")
            return
        self._task = None
        self._begin(connection)

    def _begin(self, connection: SlotConnection) -> None:
        self._connection = connection
        connection.begin(self, self._payload)

    # From the connection.

    def head(self, status: int, content_type: bytes) -> None:
        """The answer's head has come."""
        self._payload = b""
        self._listener.head(status, content_type)

    def chunk(self, data: bytes) -> None:
        """A piece of the answer has come."""
        self._listener.chunk(data)

    def complete(self, reusable: bool) -> None:
        """The answer is whole."""
        connection, self._connection = self._connection, None
        if connection is not None and reusable:
            self._upstream.keep(self._origin, connection)
        self._listener.complete()

    def broken(self, silent: bool) -> None:
        """The connection broke; `silent` if it had not said a byte."""
        self._connection = None
        if self.reused and silent:
            self.reused = False
            self._connect()
        else:
            self._listener.failed("reset")

    # From the listener.

    def drop(self) -> None:
        """Want no more of it: the connection is closed, which makes vLLM abort the work."""
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.drop()
            self._connection = None

    def pause(self, paused: bool) -> None:
        """Read no more for now, or read again."""
        if self._connection is not None:
            self._connection.pause(paused)


async def _within(timeout_s: float, attempt: Coroutine[Any, Any, _T]) -> _T:
    """The attempt's result. One that seems late is looked at a second time: had this process stood still, the result may be there unread.

    Raises:
        TimeoutError: it took too long.
    """
    task = asyncio.ensure_future(attempt)
    try:
        for wait_s in (timeout_s, _SECOND_LOOK_S):
            if (await asyncio.wait({task}, timeout=wait_s))[0]:
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()


@lru_cache(maxsize=256)
def _address(base_url: str, path: str, key: str) -> _Address:
    parts = urlsplit(base_url.rstrip("/") + path)
    tls = parts.scheme == "https"
    origin = Origin(parts.hostname or "", parts.port or (443 if tls else 80), tls)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    return _Address(origin, head.encode())


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
