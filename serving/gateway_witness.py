"""Looks on while an answer is given, and makes a record of it; sends copies to a shadow release, whose answers nobody but the record sees.

Neither can delay or fail a caller: what is kept is bounded, and a shadow that is slow, broken or busy is left alone.
Next: `keeping.py`, where the records go.
"""

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import orjson

from serving.gateway_call import Call
from serving.gateway_commons import Crowd
from serving.gateway_house import Keeps
from serving.keeping import Kept, Kind
from serving.limits import ModelRequest
from serving.metrics_requests import Outcome
from serving.routing import Backend
from serving.upstream import Errand, Failure, Upstream

_log = logging.getLogger(__name__)

_MOST_ANSWER_BYTES = 262_144
_MOST_ROLE = 40


class AnswerWitness:
    """Keeps one answer, up to a bound, and hands it over when it has ended well."""

    def __init__(self, takers: Sequence[Keeps], call: Call, request: ModelRequest, kind: Kind = "answer") -> None:
        self._takers, self._request, self._kind = takers, request, kind
        self._request_id, self._key_id = call.request_id, call.key.id if call.key else ""
        self._answer = bytearray()

    def chunk(self, data: bytes) -> None:
        """A piece of the answer."""
        if len(self._answer) <= _MOST_ANSWER_BYTES:
            self._answer += data

    def finished(self, release_id: str, outcome: Outcome) -> None:
        """The answer has ended; one that is too long, or was no answer, is not kept."""
        if outcome != "ok" or len(self._answer) > _MOST_ANSWER_BYTES:
            return
        try:
            self._hand_over(release_id)
        except Exception:  # noqa: BLE001  # whatever it is, the answer is given, and its slot's connection is worth keeping
            _log.exception("the answer to %s could not be handed to who keeps it", self._request_id)

    def _hand_over(self, release_id: str) -> None:
        roles, texts = prompt_of(self._request)
        texts["answer"] = answer_of(bytes(self._answer), stream=self._request.stream)
        facts = {"release": release_id, "model": self._request.model}
        record = Kept(self._kind, self._request_id, self._key_id, texts, facts, roles)
        for taker in self._takers:
            taker.offer(record)


def prompt_of(request: ModelRequest) -> tuple[list[str], dict[str, str]]:
    """The roles of a conversation and its texts by number; of a bare prompt, the text alone."""
    messages = request.fields.get("messages")
    if not isinstance(messages, list):
        prompt = request.fields.get("prompt", "")
        return [], {"prompt": prompt if isinstance(prompt, str) else orjson.dumps(prompt).decode()}
    roles = [str(message.get("role", ""))[:_MOST_ROLE] for message in messages]
    return roles, {f"message {number}": _text_of(message.get("content")) for number, message in enumerate(messages)}


def answer_of(body: bytes, *, stream: bool) -> str:
    """The text of the first choice, of a whole answer or of a stream's events."""
    if not stream:
        return _choice_text(_json(body), "message")
    events = (line[6:] for line in body.splitlines() if line.startswith(b"data: {"))
    return "".join(_choice_text(_json(event), "delta") for event in events)


def _choice_text(answer: Any, holder: str) -> str:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    first = next((one for one in choices or () if isinstance(one, dict) and one.get("index", 0) == 0), {})
    inside = first.get(holder)
    text = inside.get("content") if isinstance(inside, dict) else first.get("text")
    return text if isinstance(text, str) else ""


def _text_of(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _json(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


class Shadows:
    """Copies of requests on their way to shadow releases, so many at a time; a copy that finds no place is not made."""

    def __init__(self, upstream: Upstream, keeper: Keeps, *, crowd: Crowd, total_timeout_s: float) -> None:
        self._upstream, self._keeper, self._crowd, self._total_timeout_s = upstream, keeper, crowd, total_timeout_s
        self._copies: set[_Copy] = set()

    def copy(self, backend: Backend, path: str, call: Call, request: ModelRequest) -> bool:
        """Send the same request to `backend`; whether there was a place for it."""
        if not self._crowd.admits(len(self._copies)):
            return False
        copy = _Copy(backend, AnswerWitness((self._keeper,), call, request, "shadow"), monotonic(), self._copies.discard)
        self._copies.add(copy)
        copy.errand = self._upstream.send(backend, path, request.body_for(backend.served_name), call.request_id, copy)
        return True

    def sweep(self, now_s: float) -> None:
        """Give up copies that take too long."""
        self._crowd.are_here(len(self._copies))
        for copy in list(self._copies):
            if now_s - copy.since_s > self._total_timeout_s:
                copy.end("timeout")

    def close(self) -> None:
        """Give up all copies."""
        for copy in list(self._copies):
            copy.end("aborted")


class _Copy:
    """One copy; reads its answer and tells only its witness."""

    def __init__(self, backend: Backend, witness: AnswerWitness, since_s: float, forget: Callable[["_Copy"], None]) -> None:
        self._backend, self._witness, self.since_s, self._forget = backend, witness, since_s, forget
        self._status = 0
        self.errand: Errand | None = None

    def head(self, status: int, content_type: bytes) -> None:
        self._status = status

    def chunk(self, data: bytes) -> None:
        self._witness.chunk(data)

    def complete(self) -> None:
        self.errand = None
        self.end("ok" if self._status == 200 else "server_error")

    def failed(self, how: Failure) -> None:
        self.errand = None
        self.end("server_error")

    def end(self, outcome: Outcome) -> None:
        self._forget(self)
        if self.errand is not None:
            self.errand.drop()
        self._witness.finished(self._backend.release_id, outcome)
