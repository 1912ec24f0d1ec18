"""Asks a live server everything that parity compares: renderings, stops, sampling defaults, context, log-probabilities, greedy tokens.

It says what the server did and judges nothing. Next: `parity.py`.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from evaluation.client import Client, Endpoint, connect, patiently
from evaluation.errors import EndpointError
from evaluation.parity_conversations import Conversation, Turn
from evaluation.parity_records import Sample, TokenIds, TrainerView

T = TypeVar("T")
DRAWS, _DRAW_TOKENS = 8, 8
# Said in full: a server's own defaults must not change what is measured.
_GREEDY = {"temperature": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


class Manner(Protocol):
    """How to ask: so many at a time, so long for each, so often; an `EvaluationSection` says it."""

    @property
    def concurrency(self) -> int: ...

    @property
    def timeout_s(self) -> float: ...

    @property
    def attempts(self) -> int: ...


@dataclass(frozen=True)
class ServedSample:
    """`prompt` are the natural-log probabilities of every prompt token but the first; then the server's own greedy tokens and theirs."""

    prompt: tuple[float, ...]
    greedy: TokenIds
    greedy_logprobs: tuple[float, ...]


@dataclass(frozen=True)
class ServedView:
    """What the server did. `renderings` and `texts` are by name; None for a conversation that it refused."""

    renderings: dict[str, TokenIds | None]
    texts: dict[str, TokenIds]
    stops: frozenset[int]
    draws: tuple[tuple[TokenIds, TokenIds], ...]
    samples: tuple[ServedSample, ...]
    context_tokens: int | None
    offered: bool


def ask_server(
    endpoint: Endpoint, section: Manner, trained: TrainerView, conversations: Sequence[Conversation], texts: Mapping[str, str]
) -> ServedView:
    """Put every question at once, `section.concurrency` at a time.

    Raises:
        EndpointError: the server failed.
    """
    return asyncio.run(_ask(endpoint, section, trained, conversations, texts))


async def _ask(
    endpoint: Endpoint, section: Manner, trained: TrainerView, conversations: Sequence[Conversation], texts: Mapping[str, str]
) -> ServedView:
    async with connect(endpoint, concurrency=section.concurrency, timeout_s=section.timeout_s) as client:
        server = _Server(client, endpoint.model, section.attempts)
        # The engine works on the samples while the tokenizer answers.
        samples, draws, stops, renderings, tokens, entries = await asyncio.gather(
            _all(server.sample(sample) for sample in trained.samples),
            _all(server.draw(prompt, seed, trained.defaults) for seed, prompt in enumerate(_openings(trained))),
            _all(server.stops_at(_openings(trained)[0], token) for token in probed_tokens(trained)),
            _all(server.render(conversation) for conversation in conversations),
            _all(server.tokenize(text) for text in texts.values()),
            patiently(client.models, section.attempts),
        )
    lengths = [entry.get("max_model_len") for entry in entries if entry.get("id") == endpoint.model]
    return ServedView(
        renderings={each.name: ids for each, ids in zip(conversations, renderings, strict=True)},
        texts=dict(zip(texts, tokens, strict=True)),
        stops=frozenset(token for token, stopped in zip(probed_tokens(trained), stops, strict=True) if stopped),
        draws=tuple(draws),
        samples=tuple(samples),
        context_tokens=lengths[0] if lengths else None,
        offered=bool(lengths),
    )


def probed_tokens(trained: TrainerView) -> TokenIds:
    """Every token that should stop an answer, the other special ones, and one ordinary token that must not; none without texts."""
    if not _openings(trained):
        return ()
    expected = {trained.end_of_turn, *trained.stops, *trained.special}
    ordinary = (token for tokens in trained.texts.values() for token in tokens if token not in expected)
    return (*sorted(expected), *list(ordinary)[:1])


def _openings(trained: TrainerView) -> list[TokenIds]:
    """Openings that many words can follow: there a sampling setting shows."""
    openings = sorted({ids[:4] for ids in trained.texts.values() if len(ids) >= 4})
    return openings[:: max(1, len(openings) // DRAWS)][:DRAWS]


@dataclass(frozen=True)
class _Server:
    """One connection's questions, each sent again while its fault may pass."""

    client: Client
    model: str
    attempts: int

    async def render(self, conversation: Conversation) -> TokenIds | None:
        """A conversation's ids, ready for the assistant's turn; None where the template refuses it."""
        body: dict[str, Any] = {"messages": [_on_the_wire(turn) for turn in conversation.messages], "add_generation_prompt": True}
        if conversation.tools:
            body["tools"] = list(conversation.tools)
        try:
            return _ids(await self._post("/tokenize", body), "tokens")
        except EndpointError as error:
            if error.status == 400:
                return None
            raise

    async def tokenize(self, text: str) -> TokenIds:
        return _ids(await self._post("/tokenize", {"prompt": text, "add_special_tokens": False}), "tokens")

    async def stops_at(self, prompt: TokenIds, token: int) -> bool:
        """Whether an answer ends at this token: it may write nothing else, and has room for a second one."""
        choice = await self._complete(prompt, max_tokens=2, allowed_token_ids=[token], **_GREEDY)
        return choice.get("finish_reason") == "stop"

    async def draw(self, prompt: TokenIds, seed: int, defaults: Mapping[str, float]) -> tuple[TokenIds, TokenIds]:
        """The same seeded answer twice: without any setting, and with those that should be the defaults."""
        asked = {"max_tokens": _DRAW_TOKENS, "seed": seed, "ignore_eos": True}
        bare, told = await asyncio.gather(self._complete(prompt, **asked), self._complete(prompt, **asked, **defaults))
        return _ids(bare, "token_ids"), _ids(told, "token_ids")

    async def sample(self, sample: Sample) -> ServedSample:
        """Log-probabilities of the prompt, and as many greedy tokens as the trainer wrote."""
        choice = await self._complete(sample.prompt, max_tokens=len(sample.greedy), prompt_logprobs=0, logprobs=0, **_GREEDY)
        entries = choice.get("prompt_logprobs") or []
        try:
            prompt = tuple(_finite(entry[str(token)]["logprob"]) for token, entry in zip(sample.prompt[1:], entries[1:], strict=True))
            written = tuple(_finite(each) for each in choice["logprobs"]["token_logprobs"])
        except (KeyError, TypeError, ValueError) as error:
            raise EndpointError(f"/v1/completions answered without the log-probabilities asked for: {error!r}", fault="protocol") from error
        return ServedSample(prompt, _ids(choice, "token_ids"), written)

    async def _complete(self, prompt: TokenIds, **asked: object) -> dict[str, Any]:
        reply = await self._post("/v1/completions", {"prompt": list(prompt), "return_token_ids": True, **asked})
        choices = reply.get("choices")
        return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}

    async def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        return await patiently(lambda: self.client.ask(path, {"model": self.model, **body}), self.attempts)


async def _all(questions: Iterable[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*questions))


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a log-probability is {number}")
    return number


def _ids(reply: Mapping[str, Any], key: str) -> TokenIds:
    ids = reply.get(key)
    if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
        raise EndpointError(f"the server answered without `{key}`, a list of token ids", fault="protocol")
    return tuple(ids)


def _on_the_wire(turn: Turn) -> Turn:
    """OpenAI's API takes the arguments of a call as text; templates, and so training, take them as an object."""
    if "tool_calls" not in turn:
        return turn
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}}
        for call in turn["tool_calls"]
    ]
    return {**turn, "tool_calls": calls}
