"""Perplexity of the references over the API: how well the served model predicts a good answer after the rendered prompt.

How the reference's tokens are located: the server itself tokenises the conversation ready for the assistant's turn (A), and the
same conversation with the reference as an open assistant turn (B). Where B begins with A, B's remaining tokens are exactly the
reference as the model would have to write it: no template token, no end-of-turn token. The ids of B go back as the prompt of
`/v1/completions`, so nothing is tokenised twice, and the log-probabilities behind A are summed. Where B does not begin with A
(a template that rewrites the last turn, a token that spans the border) the number would be of something else: that is an error.

perplexity = exp(-sum of log-probabilities / number of tokens), over all references' tokens together. Source: Jelinek et al.,
"Perplexity — a measure of the difficulty of speech recognition tasks", J. Acoust. Soc. Am. 62 (1977). Next: `scoring.py`.
"""

import math

from evaluation.client import Client
from evaluation.errors import EndpointError, ScoringError
from evaluation.suite import Prompt


async def reference_logprob(client: Client, prompt: Prompt) -> tuple[float, int]:
    """(sum of natural-log probabilities, number of tokens) of one prompt's reference.

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
    logprobs = (await client.prompt_logprobs(whole))[len(before) :]
    known = [value for value in logprobs if value is not None and math.isfinite(value)]
    if len(known) != len(logprobs):
        raise EndpointError(
            f"prompt {prompt.id}: {len(logprobs) - len(known)} of {len(logprobs)} log-probabilities are missing or not finite",
            fault="protocol",
        )
    return math.fsum(known), len(known)
