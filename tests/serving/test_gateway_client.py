"""The `openai` Python client works unchanged, errors included."""

import asyncio
from typing import Any

import openai
import pytest

from tests.fakes_gateway import KEY, PUBLIC_NAME, Stack, becomes, one_slot
from tests.fakes_gateway_slot import Behaviour

pytestmark = pytest.mark.anyio
MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def client_of(stack: Stack, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=stack.url + "/v1", api_key=key, max_retries=0)


async def test_a_chat_answer_is_read() -> None:
    async with one_slot() as (stack, _), client_of(stack) as client:
        raw = await client.chat.completions.with_raw_response.create(model=PUBLIC_NAME, messages=MESSAGES)
        assert raw.headers["x-tunegate-release"] == "clinic-1"
        assert raw.parse().choices[0].message.content == "I am clinic-1"


async def test_a_stream_is_read_to_its_usage() -> None:
    async with one_slot(Behaviour(chunks=3)) as (stack, _), client_of(stack) as client:
        stream = await client.chat.completions.create(
            model=PUBLIC_NAME, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "word0 word1 word2 "
        assert chunks[-1].usage
        assert chunks[-1].usage.completion_tokens == 3


async def test_the_models_are_listed() -> None:
    async with one_slot() as (stack, _), client_of(stack) as client:
        assert [model.id async for model in client.models.list()] == [PUBLIC_NAME]


async def test_a_wrong_key_raises_authentication_error() -> None:
    async with one_slot() as (stack, _), client_of(stack, "tg-wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="not known"):
            await client.models.list()


async def test_an_unknown_model_raises_not_found_with_its_code() -> None:
    async with one_slot() as (stack, _), client_of(stack) as client:
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(model="gpt", messages=MESSAGES)
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(die_after_chunks=2), Behaviour(omit_done=True), Behaviour(engine_error_event=True)],
    ids=["slot dies", "clean close without [DONE]", "engine error"],
)
async def test_a_broken_stream_raises_instead_of_looking_whole(behaviour: Behaviour) -> None:
    async with one_slot(behaviour) as (stack, _), client_of(stack) as client:
        stream = await client.chat.completions.create(model=PUBLIC_NAME, messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError):
            [chunk async for chunk in stream]


async def test_its_own_retry_gets_through_once_there_is_room() -> None:
    """The one place is taken for 0.3 s; the client is told 429, waits as long as `Retry-After` says, and asks again."""
    async with one_slot(Behaviour(think_s=0.3), max_in_flight=1) as (stack, slot), client_of(stack) as client:
        first = asyncio.create_task(stack.ask())
        assert await becomes(lambda: slot.live == 1)
        answer = await client.with_options(max_retries=2).chat.completions.create(model=PUBLIC_NAME, messages=MESSAGES)
        assert answer.choices
        assert (await first).status == 200
        assert stack.outcomes("none") == {"rejected": 1}
