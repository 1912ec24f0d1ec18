"""One answer to a caller, on its way out: status, the headers every answer carries, and the body whole or in pieces.

Knows nothing of slots or metrics. Next: `gateway_exchange.py`.
"""

import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from serving.openai_errors import ApiError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json"
# Unique is enough for a request's name; randomness for each would cost a system call.
_PROCESS, _COUNT = secrets.token_hex(6), itertools.count(1)


class Reply:
    """Writes one HTTP answer. `release` is named on it from the moment the request is routed."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.request_id = f"req-{_PROCESS}-{next(_COUNT):x}"
        self.release: str | None = None
        self.started = False
        self.complete = False
        self.waiting_for_caller = False

    async def whole(self, status: int, body: bytes, content_type: bytes = JSON, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a complete answer."""
        headers = [*self._headers(content_type), (b"content-length", b"%d" % len(body)), *extra]
        self.started = self.complete = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def error(self, error: ApiError, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send an error in OpenAI's shape."""
        retry = [] if error.retry_after_s is None else [(b"retry-after", b"%d" % error.retry_after_s)]
        await self.whole(error.status, error.body(), extra=[*retry, *extra])

    async def start_stream(self, content_type: str) -> None:
        """Say 200; the pieces follow. Proxies in front are told not to hold them back."""
        headers = [*self._headers(content_type.encode("latin-1")), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        self.started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def piece(self, chunk: bytes) -> None:
        """Pass bytes on as they are; waits while the caller reads slower than it is sent to."""
        self.waiting_for_caller = True
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self.waiting_for_caller = False

    async def end_stream(self) -> None:
        """End a stream well. One that is not ended is cut: the server closes its connection."""
        self.complete = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _headers(self, content_type: bytes) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", content_type), (b"x-request-id", self.request_id.encode())]
        if self.release is not None:
            headers.append((b"x-tunegate-release", self.release.encode()))
        return headers
