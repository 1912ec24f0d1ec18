"""Perplexity of the references over the API: how well the served model predicts a good answer after the rendered prompt.

How the reference's tokens are located: the server itself tokenises the conversation ready for the assistant's turn (A), and the
same conversation with the reference as an open assistant turn (B). Where B begins with A, B's remaining tokens are exactly the
reference as the model would have to write it: no template token, no end-of-turn token. The ids of B go back as the prompt of
`/v1/completions`, so nothing is tokenised twice, and the log-probabilities behind A are summed. Where B does not begin with A
(a template that rewrites the last turn, a token that spans the border) the number would be of something else: that is an error.

What is longer than the context is measured in windows that overlap by half, so that every token is predicted from at least half a
context (`windows`). perplexity = exp(-sum of log-probabilities / number of tokens), over all references' tokens together. Source:
Jelinek et al., "Perplexity — a measure of the difficulty of speech recognition tasks", J. Acoust. Soc. Am. 62 (1977).
Next: `scoring.py`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from evaluation.client import Client
from evaluation.errors import EndpointError, ScoringError
from evaluation.suite import Prompt

# Above zero is no probability; kernels that round may still end a hair above.
_MOST_LOGPROB = 1e-3


@dataclass(frozen=True)
class Window:
    """Tokens [first, last) are sent, and those from `scored` on are counted."""

    first: int
    last: int
    scored: int


def windows(start: int, end: int, size: int) -> Iterator[Window]:
    """Cover tokens [start, end), each once, by windows of at most `size` tokens; one window where all fits into it.

    Source: the strided evaluation of fixed-length models in the transformers documentation, "Perplexity of fixed-length models".
    """
    scored = start
    while scored < end:
        last = min(end, max(size, scored + max(1, size // 2)))
        yield Window(first=max(0, last - size), last=last, scored=scored)
        scored = last


async def reference_logprob(client: Client, prompt: Prompt, context: int) -> tuple[float, int]:
    """(sum of natural-log probabilities, number of tokens) of one prompt's reference; `context` is the server's, in tokens.

    Raises:
        EndpointError: the server failed, or lacks `/tokenize` or `prompt_logprobs`.
        ScoringError: the reference's tokens cannot be told from the prompt's.
    """
    before = await client.tokenize(prompt.messages)
    whole = await client.tokenize(prompt.messages, answer=prompt.reference)
    if whole[: len(before)] != before or len(whole) == len(before):
        raise ScoringError(
            f"prompt {prompt.id}: the server's tokens of prompt and reference do not begin with its tokens of the prompt",
            why="the perplexity of the reference alone cannot be measured with this chat template",
            do="set evaluation.perplexity: false, and take perplexity out of the gate",
        )
    found: list[float] = []
    for window in windows(len(before), len(whole), context - 1):  # one token is generated, and needs its place
        logprobs = await client.prompt_logprobs(whole[window.first : window.last])
        found += _finite(prompt, logprobs[window.scored - window.first :])
    return min(0.0, math.fsum(found)), len(found)


def _finite(prompt: Prompt, logprobs: tuple[float | None, ...]) -> list[float]:
    known = [value for value in logprobs if value is not None and math.isfinite(value) and value <= _MOST_LOGPROB]
    if len(known) != len(logprobs):
        raise EndpointError(
            f"prompt {prompt.id}: {len(logprobs) - len(known)} of {len(logprobs)} log-probabilities are missing, not finite or above 0",
            fault="protocol",
        )
    return known
