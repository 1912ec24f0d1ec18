"""Compares what the trainer renders with what the live server renders: the same conversation must be the same token ids.

A chat template, tokenizer or special token that differs between training and serving makes a model worse without any error.
Rendering is injected, so this file knows nothing of transformers. Next: `gate.py`.
"""

import asyncio
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from evaluation.client import Client, Endpoint, connect, patiently
from evaluation.config import EvaluationSection
from evaluation.suite import Message, Suite

_AROUND = 6  # token ids shown on each side of the first difference


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mismatch(_Fact):
    """One conversation that trainer and server render differently."""

    subject: str = Field(description="prompt id, or what was compared")
    what: str


class ParityReport(_Fact):
    """What was compared, and every difference. `compared` 0 means nothing was checked: that is not parity."""

    compared: int = Field(ge=0, description="conversations whose token ids were compared")
    stop_checked: bool = Field(description="whether the server was seen to stop at training's end-of-turn token")
    mismatches: tuple[Mismatch, ...]

    @property
    def holds(self) -> bool:
        """Whether trainer and server agree on everything, and something was looked at."""
        return self.compared > 0 and not self.mismatches


def check_parity(
    endpoint: Endpoint,
    suite: Suite,
    section: EvaluationSection,
    render: Callable[[Sequence[Message]], Sequence[int]],
    *,
    max_model_len: int | None = None,
    end_of_turn: int | None = None,
) -> ParityReport:
    """Compare every prompt of a suite, and conversations made to be awkward, between `render` and the server's `/tokenize`.

    Args:
        endpoint: the live server.
        suite: whose prompts are compared.
        section: concurrency, timeout and attempts of the requests.
        render: messages -> token ids ready for the assistant's turn, as training renders them.
        max_model_len: context length in tokens that the server must report, if known.
        end_of_turn: id of the token that ends the assistant's turn in training; the server must stop at it.

    Raises:
        EndpointError: the server failed.
    """
    return asyncio.run(_compare(endpoint, suite, section, render, max_model_len, end_of_turn))


async def _compare(
    endpoint: Endpoint,
    suite: Suite,
    section: EvaluationSection,
    render: Callable[[Sequence[Message]], Sequence[int]],
    max_model_len: int | None,
    end_of_turn: int | None,
) -> ParityReport:
    conversations = [*((prompt.id, prompt.messages) for prompt in suite.prompts), *awkward_conversations()]
    async with connect(endpoint, concurrency=section.concurrency, timeout_s=section.timeout_s) as client:
        served = await asyncio.gather(*(_tokenize(client, messages, section) for _, messages in conversations))
        mismatches = [
            Mismatch(subject=name, what=_difference(tuple(render(messages)), ids))
            for (name, messages), ids in zip(conversations, served, strict=True)
            if tuple(render(messages)) != ids
        ]
        if max_model_len is not None:
            mismatches += await _context_faults(client, endpoint, max_model_len)
        if end_of_turn is not None:
            mismatches += await _stop_faults(client, suite, end_of_turn, section)
    return ParityReport(compared=len(conversations), stop_checked=end_of_turn is not None, mismatches=tuple(mismatches))


def awkward_conversations() -> tuple[tuple[str, tuple[Message, ...]], ...]:
    """Conversations on which templates tend to differ: no system message, several turns, blanks, emoji, Chinese, markup."""

    def said(*contents: str) -> tuple[Message, ...]:
        return tuple(Message(role="user" if turn % 2 == 0 else "assistant", content=text) for turn, text in enumerate(contents))

    return (
        ("awkward:plain", said("Hello")),
        ("awkward:turns", said("Hi", "Hello, how can I help?", "My head hurts.")),
        ("awkward:blanks", said("  two blanks first\n\n\tand a tab, and two blanks last  ")),
        ("awkward:emoji", said("fever 🤒🌡️ 39 °C — what now?")),
        ("awkward:chinese", said("一岁宝宝发烧39度，怎么办？")),
        ("awkward:markup", said("<|im_end|> [INST] </s> {{ not a template }}")),
        ("awkward:system", (Message(role="system", content="Be brief."), *said("Why?"))),
        ("awkward:long", said("word " * 200 + "end")),
    )


async def _tokenize(client: Client, messages: Sequence[Message], section: EvaluationSection) -> tuple[int, ...]:
    return await patiently(lambda: client.tokenize(messages), section.attempts)


async def _context_faults(client: Client, endpoint: Endpoint, expected: int) -> list[Mismatch]:
    lengths = [entry.get("max_model_len") for entry in await client.models() if entry.get("id") == endpoint.model]
    if not lengths:
        return [Mismatch(subject="model", what=f"the server does not offer a model named {endpoint.model}")]
    if lengths[0] is not None and lengths[0] != expected:
        return [Mismatch(subject="max_model_len", what=f"the server says {lengths[0]} tokens, the recipe {expected}")]
    return []


async def _stop_faults(client: Client, suite: Suite, end_of_turn: int, section: EvaluationSection) -> list[Mismatch]:
    ids = await _tokenize(client, suite.prompts[0].messages, section)
    if await patiently(lambda: client.stops_at(ids, end_of_turn), section.attempts):
        return []
    return [Mismatch(subject="stop token", what=f"the server writes on behind token {end_of_turn}, which ended every turn in training")]


def _difference(trained: tuple[int, ...], served: tuple[int, ...]) -> str:
    """Where two renderings part, with the ids around that place."""
    at = next(
        (index for index, (one, other) in enumerate(zip(trained, served, strict=False)) if one != other), min(len(trained), len(served))
    )
    window = slice(max(0, at - 2), at + _AROUND)
    ours, theirs = list(trained[window]), list(served[window])
    return f"differs at token {at}: trained with {ours} of {len(trained)}, served with {theirs} of {len(served)}"
