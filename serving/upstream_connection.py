"""One connection to a slot: a request out, an answer parsed as it comes, then the next.

Parsing is llhttp's. The pieces of one read are handed on together, so that a burst of events costs the caller one write.
Knows nothing of pools and retries. Next: `upstream.py`.
"""

import asyncio
from time import monotonic
from typing import Protocol, cast

import httptools

_MOST_HEAD_BYTES = 65_536
_STREAM = b"text/event-stream"


class Reader(Protocol):
    """Who reads the answer."""

    def head(self, status: int, content_type: bytes) -> None: ...

    def chunk(self, data: bytes) -> None: ...

    def complete(self, reusable: bool) -> None: ...

    def broken(self, silent: bool) -> None: ...


class SlotConnection(asyncio.Protocol):
    """Used by one request at a time."""

    def __init__(self, max_answer_bytes: int) -> None:
        self._max_answer_bytes = max_answer_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._reader: Reader | None = None
        self.usable, self.idle_since_s, self._paused = True, 0.0, False
        self._pieces: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast(asyncio.Transport, transport)

    def begin(self, reader: Reader, payload: bytes) -> None:
        """Send a request; `reader` hears of its answer."""
        self._reader = reader
        self._status = self._bytes = 0
        self._content_type, self._framed, self._whole, self._lasting = b"application/json", False, False, False
        self._transport.write(payload)

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on."""
        if not self.usable or paused == self._paused:
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def drop(self) -> None:
        """Close at once; nobody hears of it."""
        self._reader, self.usable = None, False
        self._transport.abort()

    # From the event loop.

    def data_received(self, data: bytes) -> None:
        """Parse, then hand on what came in this read."""
        reader = self._reader
        if reader is None:  # bytes nobody asked for
            self.drop()
            return
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._break(silent=False)
            return
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            reader.chunk(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._whole:
            self._finish(self._lasting)
        elif self._bytes > _MOST_HEAD_BYTES and self._over_limit():
            self._break(silent=False)

    def connection_lost(self, error: Exception | None) -> None:
        """The end of an answer without a length, or the slot is gone."""
        self.usable = False
        if self._reader is None:
            return
        if self._status and not self._framed and error is None:
            self._finish(reusable=False)
        else:
            self._break(silent=self._bytes == 0)

    # From the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        """What the gateway needs to know of an answer's head."""
        name = name.lower()
        if name == b"content-type":
            self._content_type = value
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Tell the reader; an interim answer (100 Continue, 103) is none."""
        status = self._parser.get_status_code()
        if status >= 200 and self._reader is not None:
            self._status = status
            self._reader.head(status, self._content_type)

    def on_body(self, data: bytes) -> None:
        """A piece, without its framing."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole. Only here does the parser still know whether the connection may be used again."""
        self._whole = self._status > 0
        self._lasting = self._framed and self._parser.should_keep_alive()

    def _over_limit(self) -> bool:
        return not self._status or (not self._content_type.startswith(_STREAM) and self._bytes > self._max_answer_bytes)

    def _finish(self, reusable: bool) -> None:
        reader, self._reader = self._reader, None
        reusable = reusable and self.usable
        self.idle_since_s = monotonic()
        if reusable:
            self.pause(False)
        else:
            self.drop()
        if reader is not None:
            reader.complete(reusable)

    def _break(self, *, silent: bool) -> None:
        reader = self._reader
        self.drop()
        if reader is not None:
            reader.broken(silent)
