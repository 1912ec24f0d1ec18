import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from pydantic import SecretStr

from evaluation.client import Client, Endpoint, connect, patiently
from evaluation.errors import EndpointError
from evaluation.suite import Generation, Message
from tests.fakes_evaluation import MODEL, FakeModel, Fault, render, serve, token_logprob

T = TypeVar("T")
HELLO = (Message(role="user", content="Hello"),)


def use(endpoint: Endpoint, call: Callable[[Client], Awaitable[T]], *, timeout_s: float = 5.0) -> T:
    async def run() -> T:
        async with connect(endpoint, concurrency=4, timeout_s=timeout_s) as client:
            return await call(client)

    return asyncio.run(run())


def test_a_streamed_answer_comes_whole_with_its_times_and_tokens() -> None:
    with serve(FakeModel(answer=lambda _: "call 911 now")) as endpoint:
        answer = use(endpoint, lambda client: client.chat(HELLO, Generation(max_tokens=9)))
    assert (answer.text, answer.finish_reason, answer.completion_tokens) == ("call 911 now", "stop", 3)
    assert answer.ttft_s is not None
    assert 0 < answer.ttft_s < answer.latency_s


def test_the_request_asks_for_what_the_suite_says() -> None:
    model = FakeModel()
    with serve(model) as endpoint:
        use(endpoint, lambda client: client.chat(HELLO, Generation(max_tokens=9, temperature=0.5), seed=3))
    (body,) = model.chats
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"], body["stream"]) == (MODEL, 9, 0.5, 3, True)


def test_an_empty_answer_has_no_first_token() -> None:
    with serve(FakeModel(answer=lambda _: "")) as endpoint:
        answer = use(endpoint, lambda client: client.chat(HELLO, Generation()))
    assert (answer.text, answer.ttft_s) == ("", None)


@pytest.mark.parametrize(
    ("fault", "named", "passing"),
    [
        ("cut", "cut", True),
        ("error_event", "cut", True),
        ("not_json", "protocol", False),
        ("http_500", "http", True),
        ("http_400", "http", False),
    ],
)
def test_a_server_that_fails_is_named_and_never_guessed_for(fault: Fault, named: str, passing: bool) -> None:
    with serve(FakeModel(faults=[fault])) as endpoint, pytest.raises(EndpointError) as caught:
        use(endpoint, lambda client: client.chat(HELLO, Generation()))
    assert (caught.value.fault, caught.value.passing) == (named, passing)


def test_a_slow_server_runs_into_the_timeout() -> None:
    with serve(FakeModel(faults=["slow"], slow_s=1.0)) as endpoint, pytest.raises(EndpointError) as caught:
        use(endpoint, lambda client: client.chat(HELLO, Generation()), timeout_s=0.2)
    assert caught.value.fault == "timeout"
    assert "0.2 s" in caught.value.what


def test_a_server_that_is_not_there_is_named() -> None:
    with serve(FakeModel()) as endpoint:
        gone = endpoint
    with pytest.raises(EndpointError) as caught:
        use(gone, lambda client: client.chat(HELLO, Generation()))
    assert caught.value.fault == "connect"


def test_a_wrong_key_is_an_http_error() -> None:
    with serve(FakeModel()) as endpoint, pytest.raises(EndpointError) as caught:
        use(endpoint.model_copy(update={"api_key": SecretStr("other")}), lambda client: client.models())
    assert caught.value.status == 401


def test_the_key_is_not_printed_with_the_endpoint() -> None:
    assert "top-secret" not in repr(Endpoint(base_url="http://127.0.0.1:1", api_key=SecretStr("top-secret"), model="m"))


def test_tokenize_gives_the_rendered_prompt_and_the_open_answer() -> None:
    with serve(FakeModel()) as endpoint:
        before = use(endpoint, lambda client: client.tokenize(HELLO))
        whole = use(endpoint, lambda client: client.tokenize(HELLO, answer="Yes"))
    assert before == tuple(render(HELLO))
    assert whole == before + tuple(ord(char) for char in "Yes")


def test_prompt_logprobs_are_those_of_the_tokens_themselves() -> None:
    with serve(FakeModel()) as endpoint:
        assert use(endpoint, lambda client: client.prompt_logprobs([5, 9, 13])) == (None, token_logprob(9), token_logprob(13))


def test_patience_sends_again_what_may_pass_and_gives_up_after_the_attempts() -> None:
    calls = []

    async def call() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise EndpointError("cut", fault="cut")
        return "done"

    assert asyncio.run(patiently(call, 3, pause_s=0.001)) == "done"
    calls.clear()
    with pytest.raises(EndpointError):
        asyncio.run(patiently(call, 2, pause_s=0.001))
    assert len(calls) == 2


def test_patience_does_not_repeat_what_cannot_pass() -> None:
    calls = []

    async def call() -> None:
        calls.append(1)
        raise EndpointError("too long", fault="http", status=400)

    with pytest.raises(EndpointError):
        asyncio.run(patiently(call, 5, pause_s=0.001))
    assert len(calls) == 1
