"""What the gateway reads of an answer it passes on: did it end well, and how many tokens were used.

Only the last bytes of a stream are kept and they are looked at once, at the end. Knows nothing of sockets.
Next: `gateway_exchange.py`.
"""

import json
from typing import Any, NamedTuple

import orjson

_KEPT_BYTES = 8192
_USAGE_KEY = b'"usage":'
_DECODER = json.JSONDecoder()


class Usage(NamedTuple):
    """Token counts of one answer."""

    prompt: int
    completion: int


class StreamTail:
    """The last bytes of a stream of server-sent events."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Remember the end of what was passed on."""
        self._bytes += chunk
        if len(self._bytes) > 2 * _KEPT_BYTES:
            del self._bytes[:-_KEPT_BYTES]

    def ended_well(self) -> bool:
        """Whether the stream's last event is `[DONE]`; a clean close without it is a broken answer."""
        return self._bytes.rstrip().endswith(b"data: [DONE]")

    def carries_error(self) -> bool:
        """Whether the engine gave up inside a stream that had begun with 200: its last event is then an error, not a choice."""
        event = next((line for line in reversed(self._bytes.splitlines()) if line.startswith(b"data: {")), b"")
        if b'"error"' not in event:
            return False
        try:
            content = json.loads(event[len(b"data: ") :])
        except ValueError:
            return False
        return bool(content.get("error"))

    def usage(self) -> Usage | None:
        """The last `usage` object, where the caller asked for one."""
        return usage_of(self._bytes)


def usage_of(body: bytes | bytearray) -> Usage | None:
    """The last `usage` object in a JSON answer or in events, found without parsing the rest.

    The key cannot be met inside a JSON string: a quote would be escaped there.
    """
    position = body.rfind(_USAGE_KEY)
    if position < 0:
        return None
    begin = position + len(_USAGE_KEY)
    try:
        return _usage(orjson.loads(body[begin : body.find(b"}", begin) + 1]))
    except orjson.JSONDecodeError:  # an object inside it, as a rule
        return _usage_of_nested(body[begin : position + 2048].decode("utf-8", "replace").lstrip())


def _usage_of_nested(text: str) -> Usage | None:
    try:
        counts, _ = _DECODER.raw_decode(text)
    except ValueError:
        return None
    return _usage(counts)


def _usage(counts: Any) -> Usage | None:
    if not isinstance(counts, dict):
        return None
    prompt, completion = counts.get("prompt_tokens") or 0, counts.get("completion_tokens") or 0
    if not (isinstance(prompt, int) and isinstance(completion, int)) or prompt < 0 or completion < 0:
        return None
    return Usage(prompt, completion)
