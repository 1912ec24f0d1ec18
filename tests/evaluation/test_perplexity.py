"""Windows for references that are longer than the context, and numbers that are no probabilities."""

import asyncio
import itertools
import math

import pytest

from evaluation.client import Endpoint, connect
from evaluation.errors import EndpointError
from evaluation.perplexity import reference_logprob, windows
from evaluation.suite import Message, Prompt
from tests.fakes_evaluation import FakeModel, serve, token_logprob

PROMPT = Prompt(id="long", topic="pain", messages=(Message(role="user", content="Hello"),), reference="Rest and drink water. " * 40)


def measure(endpoint: Endpoint, context: int) -> tuple[float, int]:
    async def run() -> tuple[float, int]:
        async with connect(endpoint, concurrency=2, timeout_s=5) as client:
            return await reference_logprob(client, PROMPT, context)

    return asyncio.run(run())


@pytest.mark.parametrize(("start", "end", "size"), list(itertools.product((0, 1, 7, 20, 33), (34, 35, 64, 200), (2, 3, 8, 32, 400))))
def test_windows_count_every_token_once_fit_and_leave_half_a_context(start: int, end: int, size: int) -> None:
    found = list(windows(start, end, size))
    assert [token for window in found for token in range(window.scored, window.last)] == list(range(start, end))
    assert all(window.last - window.first <= size for window in found)
    assert all(window.scored - window.first >= min(window.scored, size - max(1, size // 2)) for window in found)


def test_what_fits_is_one_window() -> None:
    (window,) = windows(5, 32, 32)
    assert (window.first, window.last, window.scored) == (0, 32, 5)


def test_a_reference_longer_than_the_context_has_the_log_probability_of_all_its_tokens() -> None:
    """The fake's log-probabilities do not depend on what stands before, so windows must not change the sum."""
    with serve(FakeModel(context=100)) as endpoint:
        logprob, tokens = measure(endpoint, 100)
    assert tokens == len(PROMPT.reference)
    assert logprob == pytest.approx(sum(token_logprob(ord(char)) for char in PROMPT.reference))


@pytest.mark.parametrize("value", [math.nan, -math.inf, 0.5])
def test_a_log_probability_that_cannot_be_one_is_an_error_and_no_number(value: float) -> None:
    with serve(FakeModel(logprob=lambda token: value)) as endpoint, pytest.raises(EndpointError, match="not finite or above 0"):
        measure(endpoint, 1024)
