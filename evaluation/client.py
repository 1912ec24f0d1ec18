"""A client of one OpenAI-compatible server (vLLM): streamed chat with its times, prompt log-probabilities, token ids.

One attempt per call; who calls decides about retries. Every fault becomes an `EndpointError` that says whether sending the
same request again may help. Knows nothing of suites. Next: `perplexity.py`, `scoring.py`.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from evaluation.errors import EndpointError
from evaluation.suite import Generation, Message

T = TypeVar("T")
_ERROR_CHARS = 400
_MAX_LINE_BYTES = 8 << 20
_LONGEST_PAUSE_S = 8.0


class Endpoint(BaseModel):
    """Where a model answers. `base_url` is the server's root, with or without `/v1`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(pattern=r"^https?://\S+$")
    api_key: SecretStr = SecretStr("")
    model: str

    @property
    def root(self) -> str:
        """The address without a trailing `/v1` or slash."""
        return self.base_url.rstrip("/").removesuffix("/v1").rstrip("/")


@dataclass(frozen=True)
class ChatAnswer:
    """A whole streamed answer. Times in seconds from sending the request; `ttft_s` to the first token with text."""

    text: str
    finish_reason: str
    latency_s: float
    ttft_s: float | None
    completion_tokens: int | None


class Client:
    """An open session with one endpoint; make it with `connect`."""

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        self._endpoint, self._session = endpoint, session

    async def chat(self, messages: Sequence[Message], generation: Generation, *, seed: int = 0, salt: str | None = None) -> ChatAnswer:
        """Ask for one answer, streamed. With `salt`, nothing is reused that vLLM has kept of prompts without that salt.

        Raises:
            EndpointError: no connection, too slow, HTTP error, an error event, or a stream that ends before `[DONE]`.
        """
        body = {
            "model": self._endpoint.model,
            "messages": [message.model_dump() for message in messages],
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"cache_salt": salt} if salt else {}),
        }
        began = time.perf_counter()
        text, finish, first, tokens = "", "", None, None
        async for event in self._stream("/v1/chat/completions", body):
            choice = _first_choice(event)
            piece = _text_of(choice)
            if piece and first is None:
                first = time.perf_counter() - began
            text += piece
            finish = str(choice.get("finish_reason") or finish)
            tokens = _tokens_of(event) or tokens
        if not finish:
            raise EndpointError(f"{self._endpoint.root}: the stream ended without a finish_reason", fault="cut")
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be written to any file
        return ChatAnswer(text, finish, time.perf_counter() - began, first, tokens)

    async def tokenize(self, messages: Sequence[Message], *, answer: str | None = None) -> tuple[int, ...]:
        """Token ids of a conversation as the server renders it, ready for the assistant's turn.

        With `answer`, the assistant's turn is begun with it and left open: no end-of-turn token follows.
        """
        turns = [message.model_dump() for message in messages]
        body: dict[str, Any] = {"model": self._endpoint.model, "messages": turns, "add_generation_prompt": answer is None}
        if answer is not None:
            body |= {"messages": [*turns, {"role": "assistant", "content": answer}], "continue_final_message": True}
        reply = await self._post("/tokenize", body)
        tokens = reply.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise EndpointError(f"{self._endpoint.root}/tokenize answered without token ids", fault="protocol")
        return tuple(tokens)

    async def prompt_logprobs(self, token_ids: Sequence[int]) -> tuple[float | None, ...]:
        """Natural-log probability of each token given those before it, one per id; None for the first.

        Uses vLLM's `prompt_logprobs: 0` (the token that stands there, no alternatives) with one token generated and thrown away.
        """
        body = {"model": self._endpoint.model, "prompt": list(token_ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        reply = await self._post("/v1/completions", body)
        entries = _first_choice(reply).get("prompt_logprobs")
        if not isinstance(entries, list) or len(entries) != len(token_ids):
            raise EndpointError(
                f"{self._endpoint.root}/v1/completions answered without prompt_logprobs for all {len(token_ids)} tokens", fault="protocol"
            )
        try:
            return tuple(
                None if entry is None else float(entry[str(token)]["logprob"]) for token, entry in zip(token_ids, entries, strict=True)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EndpointError(
                f"{self._endpoint.root}/v1/completions: prompt_logprobs lack the token at its own place: {error!r}", fault="protocol"
            ) from error

    async def context_length(self) -> int:
        """Tokens that fit into the model's context, prompt and answer together."""
        lengths = [entry.get("max_model_len") for entry in await self.models() if entry.get("id") == self._endpoint.model]
        if not lengths or not isinstance(lengths[0], int):
            raise EndpointError(f"{self._endpoint.root}/v1/models names no max_model_len of {self._endpoint.model}", fault="protocol")
        return lengths[0]

    async def stops_at(self, token_ids: Sequence[int], stop: int) -> bool:
        """Whether the server ends an answer at token `stop`: it is allowed to write nothing else, and has room for more of them."""
        body = {"model": self._endpoint.model, "prompt": list(token_ids), "max_tokens": 4, "temperature": 0.0, "allowed_token_ids": [stop]}
        return bool(_first_choice(await self._post("/v1/completions", body)).get("finish_reason") == "stop")

    async def models(self) -> tuple[Mapping[str, Any], ...]:
        """The entries of `/v1/models`."""
        async with self._faults("/v1/models"), self._session.get(f"{self._endpoint.root}/v1/models") as reply:
            body = await self._checked(reply)
        entries = body.get("data")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise EndpointError(f"{self._endpoint.root}/v1/models answered without a list of models", fault="protocol")
        return tuple(entries)

    async def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Any other question with a JSON body; the JSON object it is answered with.

        Raises:
            EndpointError: no connection, too slow, HTTP error, or no JSON object.
        """
        return await self._post(path, body)

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        async with self._faults(path), self._session.post(self._endpoint.root + path, json=body) as reply:
            return await self._checked(reply)

    async def _checked(self, reply: aiohttp.ClientResponse) -> dict[str, Any]:
        await self._raise_for_status(reply)
        value = json.loads(await reply.text())
        if not isinstance(value, dict):
            raise EndpointError(f"{reply.url.path} answered with a JSON {type(value).__name__}, not an object", fault="protocol")
        return value

    async def _raise_for_status(self, reply: aiohttp.ClientResponse) -> None:
        if reply.status >= 400:
            detail = (await reply.text())[:_ERROR_CHARS].strip()
            raise EndpointError(
                f"{self._endpoint.root}{reply.url.path} answered {reply.status}: {detail}", fault="http", status=reply.status
            )

    async def _stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The JSON of each server-sent event; ends at `[DONE]` and nowhere else."""
        async with self._faults(path), self._session.post(self._endpoint.root + path, json=body) as reply:
            await self._raise_for_status(reply)
            async for raw in reply.content:
                line = raw.decode("utf-8").strip()
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                event = json.loads(data)
                if not isinstance(event, dict):
                    raise EndpointError(f"{path} streamed a JSON {type(event).__name__}, not an object", fault="protocol")
                if "error" in event:
                    raise EndpointError(f"{path} streamed an error: {str(event['error'])[:_ERROR_CHARS]}", fault="cut")
                yield event
            raise EndpointError(f"{path}: the stream ended without [DONE]", fault="cut")

    @asynccontextmanager
    async def _faults(self, path: str) -> AsyncIterator[None]:
        """Name what goes wrong on the wire."""
        where = f"{self._endpoint.root}{path}"
        try:
            yield
        except TimeoutError:
            raise EndpointError(
                f"{where} took longer than {self._session.timeout.total:g} s",
                fault="timeout",
                do="raise evaluation.timeout_s, or lower evaluation.concurrency",
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise EndpointError(f"{where} cannot be reached: {error}", fault="connect", do="is the server running?") from error
        except aiohttp.ClientError as error:
            raise EndpointError(f"{where} broke off: {error!r}", fault="cut") from error
        except ValueError as error:
            raise EndpointError(f"{where} answered something that is not JSON: {error}", fault="protocol") from error


@asynccontextmanager
async def connect(endpoint: Endpoint, *, concurrency: int, timeout_s: float) -> AsyncIterator[Client]:
    """Open a session of at most `concurrency` connections, `timeout_s` for each whole request; proxies are not used."""
    secret = endpoint.api_key.get_secret_value()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers={"Authorization": f"Bearer {secret}"} if secret else {},
        read_bufsize=_MAX_LINE_BYTES,
        trust_env=False,
    ) as session:
        yield Client(endpoint, session)


async def patiently(call: Callable[[], Awaitable[T]], attempts: int, *, pause_s: float = 0.5) -> T:
    """Await `call()` up to `attempts` times while its fault may pass, waiting `pause_s`, then twice as long each time, 8 s at most.

    Raises:
        EndpointError: the last one.
    """
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except EndpointError as error:
            if attempt == attempts or not error.passing:
                raise
        await asyncio.sleep(min(pause_s * 2 ** (attempt - 1), _LONGEST_PAUSE_S))
    raise ValueError(f"attempts must be at least 1, not {attempts}")


def _first_choice(event: Mapping[str, Any]) -> dict[str, Any]:
    """The first choice; {} where there is none, as in the event that carries the usage."""
    choices = event.get("choices") or [{}]
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise EndpointError(f"the server answered with choices that are none: {str(choices)[:_ERROR_CHARS]}", fault="protocol")
    return choices[0]


def _text_of(choice: Mapping[str, Any]) -> str:
    delta = choice.get("delta") or {}
    content = delta.get("content") if isinstance(delta, dict) else delta
    if content is not None and not isinstance(content, str):
        raise EndpointError(f"the server streamed text that is no text: {str(content)[:_ERROR_CHARS]}", fault="protocol")
    return content or ""


def _tokens_of(event: Mapping[str, Any]) -> int | None:
    usage = event.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and tokens >= 0 else None
