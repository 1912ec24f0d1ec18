"""The `openai` Python client works unchanged, errors included."""

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

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
    async with one_slot(Behaviour(think_s=0.3), max_in_flight=1, max_queue=0) as (stack, slot), client_of(stack) as client:
        first = asyncio.create_task(stack.ask())
        assert await becomes(lambda: slot.live == 1)
        answer = await client.with_options(max_retries=2).chat.completions.create(model=PUBLIC_NAME, messages=MESSAGES)
        assert answer.choices
        assert (await first).status == 200
        assert stack.outcomes("none") == {"rejected": 1}


TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "book", "parameters": {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]}},
    }
]
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "book", "arguments": '{"day": "Monday"}'}}


async def test_tools_go_up_and_their_calls_come_back() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    async with one_slot(Behaviour(message=message)) as (stack, slot), client_of(stack) as client:
        answer = await client.chat.completions.create(model=PUBLIC_NAME, messages=MESSAGES, tools=TOOLS, tool_choice="auto")
        (call,) = answer.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert json.loads(call.function.arguments) == {"day": "Monday"}
        assert (slot.seen[0].body["tools"], slot.seen[0].body["tool_choice"]) == (TOOLS, "auto")
        results: Any = [*MESSAGES, answer.choices[0].message, {"role": "tool", "tool_call_id": "c1", "content": "booked"}]
        await client.chat.completions.create(model=PUBLIC_NAME, messages=results, tools=TOOLS)
        assert slot.seen[1].body["messages"][2] == results[2]


async def test_a_streamed_tool_call_is_put_together() -> None:
    parts = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "book", "arguments": '{"day"'}}]
    more = [{"index": 0, "function": {"arguments": ': "Monday"}'}}]
    events = ({"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": calls}}]} for calls in (parts, more))
    chunks = (*(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events), b"data: [DONE]\n\n")
    async with one_slot(Behaviour(raw_chunks=chunks)) as (stack, _), client_of(stack) as client:
        stream = await client.chat.completions.create(model=PUBLIC_NAME, messages=MESSAGES, tools=TOOLS, stream=True)
        said = "".join([(chunk.choices[0].delta.tool_calls or [])[0].function.arguments async for chunk in stream])  # type: ignore[union-attr]
        assert json.loads(said) == {"day": "Monday"}


class Appointment(BaseModel):
    day: str
    minutes: int


async def test_an_answer_bound_to_a_schema_is_parsed() -> None:
    message = {"role": "assistant", "content": '{"day": "Monday", "minutes": 20}'}
    async with one_slot(Behaviour(message=message)) as (stack, slot), client_of(stack) as client:
        answer = await client.chat.completions.parse(model=PUBLIC_NAME, messages=MESSAGES, response_format=Appointment)
        assert answer.choices[0].message.parsed == Appointment(day="Monday", minutes=20)
        assert slot.seen[0].body["response_format"]["json_schema"]["schema"]["required"] == ["day", "minutes"]


async def test_a_failure_that_may_pass_is_retried_by_the_client_itself() -> None:
    """Half a second lies between the client's tries."""
    async with one_slot(Behaviour(status=500)) as (stack, slot), client_of(stack) as client:
        asking = asyncio.create_task(client.with_options(max_retries=2).chat.completions.create(model=PUBLIC_NAME, messages=MESSAGES))
        assert await becomes(lambda: len(slot.seen) == 1)
        slot.behaviour.status = 200
        assert (await asking).choices[0].message.content == "I am clinic-1"
        assert stack.outcomes("clinic-1") == {"server_error": 1, "ok": 1}


@pytest.mark.parametrize(
    ("status", "raised"), [(400, openai.BadRequestError), (422, openai.UnprocessableEntityError), (503, openai.InternalServerError)]
)
async def test_a_slots_refusal_raises_the_clients_own_error(status: int, raised: type[openai.APIStatusError]) -> None:
    async with one_slot(Behaviour(status=status)) as (stack, _), client_of(stack) as client:
        with pytest.raises(raised) as error:
            await client.chat.completions.create(model=PUBLIC_NAME, messages=MESSAGES)
        assert error.value.request_id


async def test_embeddings_are_404_where_the_engine_has_none() -> None:
    async with one_slot(Behaviour(status=404)) as (stack, _), client_of(stack) as client:
        with pytest.raises(openai.NotFoundError, match="does not serve"):
            await client.embeddings.create(model=PUBLIC_NAME, input="hello")


async def test_embeddings_pass_through_where_the_engine_has_them_and_are_counted() -> None:
    async with one_slot(Behaviour(chunks=4)) as (stack, slot), client_of(stack) as client:
        answer = await client.embeddings.create(model=PUBLIC_NAME, input=["hello", "there"])
        assert answer.data[0].embedding == [0.25, -0.5]
        assert (slot.seen[0].path, slot.seen[0].body["input"]) == ("/v1/embeddings", ["hello", "there"])
        assert stack.outcomes("clinic-1", "embeddings") == {"ok": 1}
        assert stack.value("tunegate_tokens_total", release="clinic-1", direction="prompt") == 11
        assert stack.value("tunegate_request_duration_seconds_count", release="clinic-1", route="embeddings") == 1


async def test_responses_are_404_by_name() -> None:
    async with one_slot() as (stack, slot), client_of(stack) as client:
        with pytest.raises(openai.NotFoundError, match="/v1/responses"):
            await client.responses.create(model=PUBLIC_NAME, input="hello")
        assert slot.seen == []
