"""One request as it came in, and its answer on the way out: status, the headers every answer carries, a body whole or in pieces.

Builds bytes and hands them to the connection it came by. Knows nothing of slots, keys or metrics.
Next: `gateway_connection.py`, which makes calls; `gateway_exchange.py`, which answers them.
"""

import itertools
import secrets
import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from serving.openai_errors import ApiError

if TYPE_CHECKING:
    from serving.keys import KeyInfo

JSON = b"application/json"
Header = tuple[bytes, bytes]

# Unique is enough for a request's name; randomness for each would cost a system call.
_PROCESS, _COUNT = secrets.token_hex(6), itertools.count(1)
_STATUS_LINES = {int(status): b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_STREAM_HEADERS = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"


class Wire(Protocol):
    """The connection a call came by, as far as its answer needs one."""

    @property
    def slow(self) -> bool:
        """Whether the caller reads slower than it is written to."""
        ...

    def write(self, data: bytes) -> None:
        """Put bytes on their way."""
        ...

    def answered(self, call: "Call") -> None:
        """The answer is complete; the next request may follow, or the connection closes."""
        ...

    def cut(self) -> None:
        """End the connection in the middle of an answer, so that nobody takes it for whole."""
        ...


class Owner(Protocol):
    """Whoever works on a call, and must hear of its caller."""

    def caller_gone(self) -> None:
        """The caller hung up."""
        ...

    def caller_slow(self, slow: bool) -> None:
        """The caller has stopped, or begun again, to take what is written."""
        ...


class Call:
    """One request and its answer. `release` is named on the answer from the moment the request is routed."""

    __slots__ = (
        "body", "expects_continue", "headers", "http10", "keep_alive", "key", "method", "owner", "path", "peer", "refusal",
        "release", "repeated", "request_id", "started", "started_s", "wire",
    )  # fmt: skip

    def __init__(self, wire: Wire, method: bytes, target: bytes, headers: Mapping[bytes, bytes], repeated: frozenset[bytes]) -> None:
        self.wire, self.method, self.headers, self.repeated = wire, method, headers, repeated
        # An escaped spelling of a known path is not that path: nothing is let in that was not written down.
        self.path = target.partition(b"?")[0].decode("latin-1")
        self.request_id = f"req-{_PROCESS}-{next(_COUNT):x}"
        self.started_s = time.perf_counter()
        self.body, self.peer = b"", ""
        self.http10 = self.expects_continue = self.started = False
        self.keep_alive = True
        self.key: KeyInfo | None = None
        self.owner: Owner | None = None
        self.refusal: ApiError | None = None
        self.release: str | None = None

    def elapsed_s(self) -> float:
        """Seconds since the request's head arrived."""
        return time.perf_counter() - self.started_s

    def whole(self, status: int, body: bytes, content_type: bytes = JSON, extra: Iterable[Header] = ()) -> None:
        """Send a complete answer."""
        self.started, self.owner = True, None
        length = b"content-length: %d\r\n" % len(body)
        head = self._head(status, content_type, length + b"".join(b"%b: %b\r\n" % header for header in extra))
        self.wire.write(head if self.method == b"HEAD" else head + body)
        self.wire.answered(self)

    def error(self, error: ApiError, extra: Iterable[Header] = ()) -> None:
        """Send an error in OpenAI's shape."""
        retry = [] if error.retry_after_s is None else [(b"retry-after", b"%d" % error.retry_after_s)]
        self.whole(error.status, error.body(), extra=[*retry, *extra])

    def start_stream(self, content_type: bytes, first: bytes) -> None:
        """Say 200 and send the first piece with it. Proxies in front are told not to hold pieces back."""
        self.started = True
        if self.http10:  # knows no chunks: the end of the connection is the end of the answer
            self.keep_alive = False
            self.wire.write(self._head(200, content_type, _STREAM_HEADERS) + first)
        else:
            head = self._head(200, content_type, b"transfer-encoding: chunked\r\n" + _STREAM_HEADERS)
            self.wire.write(b"%b%x\r\n%b\r\n" % (head, len(first), first))

    def piece(self, data: bytes) -> None:
        """Pass bytes on as they are."""
        self.wire.write(data if self.http10 else b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        """End a stream well."""
        self.owner = None
        if not self.http10:
            self.wire.write(b"0\r\n\r\n")
        self.wire.answered(self)

    def break_off(self, last_words: bytes = b"") -> None:
        """End a stream that is not whole: an event that says so, no end mark, and the connection is cut."""
        self.owner = None
        if last_words:
            self.piece(last_words)
        self.wire.cut()

    def _head(self, status: int, content_type: bytes, more: bytes) -> bytes:
        release = b"" if self.release is None else b"x-tunegate-release: %b\r\n" % self.release.encode()
        return b"%bdate: %b\r\ncontent-type: %b\r\nx-request-id: %b\r\n%b%b%b\r\n" % (
            _STATUS_LINES[status],
            _today(),
            content_type,
            self.request_id.encode(),
            release,
            b"" if self.keep_alive else b"connection: close\r\n",
            more,
        )


_date: tuple[int, bytes] = (0, b"")


def _today() -> bytes:
    """The time as HTTP writes it, made once a second."""
    global _date  # noqa: PLW0603  # one cell, written by one thread
    now = int(time.time())
    if _date[0] != now:
        _date = now, formatdate(now, usegmt=True).encode()
    return _date[1]
