"""The gateway's client towards the slots: one aiohttp session, explicit timeouts, bytes as they come.

Translates aiohttp's many exceptions into the four ways a slot can fail. Sends its own headers only: nothing of the
caller's request head, and above all not the caller's key, reaches a slot.
Knows nothing of callers, routing or metrics. Next: `gateway_exchange.py`, which decides what a failure means.
"""

from functools import lru_cache

import aiohttp
from yarl import URL

from serving.metrics import UpstreamErrorKind
from serving.routing import Backend

# vLLM closes idle connections after 5 s; reusing one at that moment would fail a request that was never read.
_KEEP_ALIVE_S = 3.0
_SKIPPED_HEADERS = ("User-Agent", "Accept-Encoding")
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)


class UpstreamFailed(Exception):
    """A slot did not answer, or stopped answering."""

    def __init__(self, kind: UpstreamErrorKind) -> None:
        super().__init__(kind)
        self.kind = kind


class Answer:
    """A slot's answer whose head has arrived. Whoever holds it reads it to the end or closes it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._begun = False
        self.status = response.status
        self.content_type = response.headers.get("Content-Type", "application/json")

    @property
    def is_stream(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        return self.content_type.startswith("text/event-stream")

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            UpstreamFailed: the slot broke off before the end.
        """
        try:
            return await self._response.read()
        except _FAILURES as error:
            raise UpstreamFailed(_kind(error, "reset_before_first_byte")) from error

    async def next_chunk(self) -> bytes:
        """The bytes that have arrived, as they came; empty at the end.

        Raises:
            UpstreamFailed: the slot broke off, or was silent longer than the idle timeout.
        """
        try:
            chunk = await self._response.content.readany()
        except _FAILURES as error:
            raise UpstreamFailed(_kind(error, "reset_mid_stream" if self._begun else "reset_before_first_byte")) from error
        self._begun = True
        return chunk

    def close(self) -> None:
        """Drop the connection unless the body was read to its end; the slot then aborts the work at once."""
        self._response.close()


class Upstream:
    """Connections to every slot. Open it inside the running event loop.

    Args:
        connect_timeout_s: to a TCP connection.
        idle_timeout_s: between two pieces of a stream, the head included.
    """

    def __init__(self, *, connect_timeout_s: float, idle_timeout_s: float) -> None:
        # A plain answer is silent until it is complete: only the exchange's total timeout bounds it.
        self._plain = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._streamed = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=idle_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_SKIPPED_HEADERS,
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, backend: Backend, path: str, body: bytes, *, stream: bool, request_id: str) -> Answer:
        """Send a JSON body and wait for the answer's head.

        Raises:
            UpstreamFailed: no connection, no head, or a head that is not HTTP.
        """
        if self._session is None:
            raise RuntimeError("Upstream.open() was not awaited")
        headers = {
            "Authorization": f"Bearer {backend.api_key.get_secret_value()}",
            "Content-Type": "application/json",
            "X-Request-Id": request_id,
        }
        timeout = self._streamed if stream else self._plain
        address = _address(backend.base_url, path)
        try:
            return Answer(await self._session.post(address, data=body, headers=headers, timeout=timeout, allow_redirects=False))
        except _FAILURES as error:
            raise UpstreamFailed(_kind(error, "reset_before_first_byte")) from error


@lru_cache(maxsize=64)
def _address(base_url: str, path: str) -> URL:
    return URL(base_url.rstrip("/") + path, encoded=True)


def _kind(error: Exception, broken_off: UpstreamErrorKind) -> UpstreamErrorKind:
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return "connect"
    return "timeout" if isinstance(error, TimeoutError) else broken_off
