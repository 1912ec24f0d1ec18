"""What a caller feels, and what is counted, when a slot or the caller fails."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import pytest
from pydantic import SecretStr

from serving.routing import Backend
from tests.fakes_gateway import CHAT, KEY, PUBLIC_NAME, SLOT_KEY, Stack, backend_of, becomes, gateway_over, one_slot
from tests.fakes_gateway_slot import Behaviour, FakeSlot

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


async def read_until_cut(response: aiohttp.ClientResponse) -> bytes:
    """What came before the connection was cut; a stream that ends cleanly fails the test."""
    got = b""
    try:
        while chunk := await response.content.readany():
            got += chunk
    except aiohttp.ClientPayloadError:
        return got
    raise AssertionError(f"the stream ended as if it were whole: {got[-100:]!r}")


def over(slot: FakeSlot) -> AbstractAsyncContextManager[Stack]:
    return gateway_over({PUBLIC_NAME: backend_of(slot)})


def last_event(stream: bytes) -> dict[str, dict[str, str]]:
    event: dict[str, dict[str, str]] = json.loads(stream.strip().rsplit(b"data: ", 1)[1])
    return event


@asynccontextmanager
async def slot_process(chunks: int, gap_s: float) -> AsyncIterator[tuple[asyncio.subprocess.Process, Backend]]:
    """A fake slot in a process of its own."""
    command = ["-m", "tests.fakes_gateway_slot", "0", "clinic-1", str(chunks), str(gap_s)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout
        url = (await process.stdout.readline()).decode().strip()
        yield process, Backend("clinic-1", url, SecretStr(SLOT_KEY), "clinic-1")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_stream_passes_byte_for_byte() -> None:
    async with one_slot() as (stack, slot), stack.stream() as response:
        assert await response.read() == b"".join(slot.events({}))
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-tunegate-release"] == "clinic-1"
        assert stack.outcomes("clinic-1") == {"ok": 1}


@pytest.mark.parametrize(
    "chunks",
    [
        tuple(bytes([byte]) for byte in b'data: {"a":1}\n\ndata: [DONE]\n\n'),
        (b'data: {"text":"\xe4', b'\xbd\xa0"}\n\nda', b"ta: [DONE]\n", b"\n"),
        (b"data: not json at all\n\n", b": a comment\r\n\r\n", b"\xff\xfe\n\n", b"data: [DONE]\n\n"),
        (b'data: {"big":"' + b"x" * 3_000_000 + b'"}\n\n', b"data: [DONE]\n\n"),
    ],
    ids=["one byte at a time", "split character", "malformed", "huge event"],
)
async def test_odd_streams_pass_unchanged(chunks: tuple[bytes, ...]) -> None:
    async with one_slot(Behaviour(raw_chunks=chunks)) as (stack, _), stack.stream() as response:
        assert await response.read() == b"".join(chunks)
        assert stack.outcomes("clinic-1") == {"ok": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_one_after_another_share_a_connection_to_the_slot(stream: bool) -> None:
    async with one_slot() as (stack, _):
        kept = set()
        for _ in range(5):
            async with stack.post({**CHAT, "stream": stream}) as response:
                await response.read()
            ((connection,),) = stack.gateway.upstream._idle.values()
            kept.add(connection)
        assert len(kept) == 1


async def test_the_first_chunk_is_passed_on_before_the_second_exists() -> None:
    async with one_slot(Behaviour(chunks=2, chunk_gap_s=4.0)) as (stack, _):
        start = time.perf_counter()
        async with stack.stream() as response:
            await response.content.readany()
            assert time.perf_counter() - start < 2


async def test_tokens_are_counted_from_usage() -> None:
    async with one_slot(Behaviour(chunks=4)) as (stack, _):
        async with stack.post():
            pass
        async with stack.stream(stream_options={"include_usage": True}) as response:
            await response.read()
        assert stack.value("tunegate_tokens_total", release="clinic-1", direction="prompt") == 14
        assert stack.value("tunegate_tokens_total", release="clinic-1", direction="completion") == 8


async def test_a_stream_is_timed_to_its_first_token_and_to_its_end() -> None:
    async with one_slot(Behaviour(think_s=0.1, chunks=3, chunk_gap_s=0.1)) as (stack, _), stack.stream() as response:
        await response.read()
        labels = {"release": "clinic-1", "route": "chat_completions"}
        first, whole = (stack.value(f"tunegate_{name}_seconds_sum", **labels) for name in ("time_to_first_token", "request_duration"))
        assert 0.1 <= first < 0.25
        assert 0.3 <= whole < 0.6


async def test_nobody_listening_is_503_with_retry_after() -> None:
    async with FakeSlot("clinic-1").running() as slot:
        gone = backend_of(slot)
    async with gateway_over({PUBLIC_NAME: gone}) as stack, stack.post() as response:
        assert response.status == 503
        assert "retry-after" in response.headers
        assert (await response.json())["error"]["code"] == "upstream_unreachable"
        assert stack.outcomes("clinic-1") == {"server_error": 1}
        assert stack.value("tunegate_upstream_errors_total", release="clinic-1", kind="connect") == 1


async def test_a_host_that_swallows_connections_is_given_up_after_the_connect_timeout() -> None:
    """A listening socket whose backlog is full answers no SYN."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        backend = Backend("clinic-1", f"http://127.0.0.1:{port}", SecretStr(SLOT_KEY), "clinic-1")
        async with gateway_over({PUBLIC_NAME: backend}, connect_timeout_s=0.2) as stack, stack.post() as response:
            assert response.status == 503
            assert stack.value("tunegate_upstream_errors_total", release="clinic-1", kind="connect") == 1
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_slot_that_dies_before_its_head_is_502(stream: bool) -> None:
    async with one_slot(Behaviour(die_before_head=True)) as (stack, _), stack.post({**CHAT, "stream": stream}) as response:
        assert response.status == 502
        assert "retry-after" in response.headers
        assert (await response.json())["error"]["code"] == "upstream_failed"
        assert stack.value("tunegate_upstream_errors_total", release="clinic-1", kind="reset_before_first_byte") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_slot_that_dies_between_head_and_body_is_502_too(stream: bool) -> None:
    async with one_slot(Behaviour(die_after_chunks=0)) as (stack, _), stack.post({**CHAT, "stream": stream}) as response:
        assert response.status == 502
        assert stack.value("tunegate_upstream_errors_total", release="clinic-1", kind="reset_before_first_byte") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_before_the_first_byte_the_request_goes_once_to_the_backend_routing_names_by_then(stream: bool) -> None:
    dying = Behaviour(think_s=0.2, die_before_head=True)
    async with FakeSlot("clinic-1", dying).running() as old, FakeSlot("clinic-2").running() as new, over(old) as stack:
        asking = asyncio.create_task(stack.ask(stream=stream))
        assert await becomes(lambda: old.live == 1)
        stack.switch_to(backend_of(new))
        async with await asking as response:
            assert (response.status, response.headers["x-tunegate-release"]) == (200, "clinic-2")
            await response.read()
        assert (stack.outcomes("clinic-1"), stack.outcomes("clinic-2")) == ({}, {"ok": 1})
        assert stack.value("tunegate_upstream_errors_total", release="clinic-1", kind="reset_before_first_byte") == 1
        assert stack.value("tunegate_requests_in_flight", release="clinic-1") == 0


async def test_there_is_one_retry_and_no_more() -> None:
    dying, dead = Behaviour(think_s=0.2, die_before_head=True), Behaviour(die_before_head=True)
    async with FakeSlot("clinic-1", dying).running() as old, FakeSlot("clinic-2", dead).running() as new, over(old) as stack:
        asking = asyncio.create_task(stack.ask())
        assert await becomes(lambda: old.live == 1)
        stack.switch_to(backend_of(new))
        async with await asking as response:
            assert response.status == 502
        assert (len(old.seen), len(new.seen)) == (1, 1)
        assert stack.outcomes("clinic-2") == {"server_error": 1}


async def test_a_slot_killed_mid_stream_leaves_an_error_event_no_done_and_a_cut_connection() -> None:
    async with slot_process(chunks=1000, gap_s=0.02) as (process, backend), gateway_over({PUBLIC_NAME: backend}) as stack:
        async with stack.stream() as response:
            assert response.status == 200
            await response.content.readany()
            os.kill(process.pid, signal.SIGKILL)
            stream = await read_until_cut(response)
        assert last_event(stream)["error"]["code"] == "upstream_failed"
        assert b"[DONE]" not in stream
        assert stack.outcomes("clinic-1") == {"server_error": 1}
        assert stack.value("tunegate_upstream_errors_total", release="clinic-1", kind="reset_mid_stream") == 1


async def test_a_slot_killed_while_idle_fails_the_next_request_fast() -> None:
    async with slot_process(chunks=2, gap_s=0.0) as (process, backend), gateway_over({PUBLIC_NAME: backend}) as stack:
        async with stack.post() as response:
            assert response.status == 200
        process.kill()
        await process.wait()
        start = time.perf_counter()
        async with stack.post() as response:
            assert response.status in {502, 503}
        assert time.perf_counter() - start < 3


async def test_a_stream_that_closes_cleanly_without_done_is_not_passed_off_as_whole() -> None:
    async with one_slot(Behaviour(omit_done=True)) as (stack, _), stack.stream() as response:
        assert "error" in last_event(await read_until_cut(response))
        assert stack.outcomes("clinic-1") == {"server_error": 1}


async def test_an_engine_error_inside_a_stream_counts_as_an_error_though_http_said_200() -> None:
    async with one_slot(Behaviour(engine_error_event=True)) as (stack, slot), stack.stream() as response:
        assert await response.read() == b"".join(slot.events({}))
        assert stack.outcomes("clinic-1") == {"server_error": 1}


async def test_a_stream_that_stalls_ends_in_an_error_event_and_the_slot_is_let_go() -> None:
    async with one_slot(Behaviour(stall_after_chunks=2), idle_timeout_s=0.3) as (stack, slot), stack.stream() as response:
        stream = await read_until_cut(response)
        assert last_event(stream)["error"]["code"] == "upstream_timeout"
        assert stack.outcomes("clinic-1") == {"timeout": 1}
        assert await becomes(lambda: slot.live == 0)


async def test_a_stream_that_never_begins_is_504() -> None:
    async with one_slot(Behaviour(stall_after_chunks=0), idle_timeout_s=0.3) as (stack, _), stack.stream() as response:
        assert response.status == 504
        assert (await response.json())["error"]["type"] == "timeout_error"


async def test_a_plain_answer_slower_than_the_total_timeout_is_504_and_the_slot_is_let_go() -> None:
    async with one_slot(Behaviour(think_s=30), total_timeout_s=1.0, idle_timeout_s=0.2) as (stack, slot):
        async with stack.post() as response:
            assert response.status == 504
        assert stack.outcomes("clinic-1") == {"timeout": 1}
        assert await becomes(lambda: slot.live == 0)


async def test_a_stream_longer_than_the_total_timeout_ends_in_an_error_event() -> None:
    async with one_slot(Behaviour(chunks=1000, chunk_gap_s=0.05), total_timeout_s=1.0) as (stack, slot), stack.stream() as response:
        stream = await read_until_cut(response)
        assert last_event(stream)["error"]["code"] == "upstream_timeout"
        assert await becomes(lambda: slot.live == 0)


@pytest.mark.parametrize(
    ("status", "answered", "outcome"),
    [
        (400, 400, "client_error"),
        (500, 502, "server_error"),
        (503, 502, "server_error"),
        (401, 502, "server_error"),
        (404, 502, "server_error"),
    ],
)
async def test_a_slots_refusal_is_the_callers_fault_only_when_it_is(status: int, answered: int, outcome: str) -> None:
    async with one_slot(Behaviour(status=status)) as (stack, _), stack.post() as response:
        assert response.status == answered
        assert set((await response.json())["error"]) == {"message", "type", "param", "code"}
        assert stack.outcomes("clinic-1") == {outcome: 1}


async def test_a_slots_complaint_about_the_request_reaches_the_caller_in_openais_spelling() -> None:
    complaint = {
        "error": {
            "message": "This model's maximum context length is 10 tokens.",
            "type": "BadRequestError",
            "param": "messages",
            "code": 400,
        }
    }
    async with one_slot(Behaviour(status=400, error_body=json.dumps(complaint).encode())) as (stack, _), stack.post() as response:
        error = (await response.json())["error"]
        assert (error["code"], error["type"], error["param"]) == ("context_length_exceeded", "invalid_request_error", "messages")


async def test_a_caller_that_hangs_up_while_waiting_frees_the_slot_within_a_second() -> None:
    async with one_slot(Behaviour(think_s=30)) as (stack, slot):
        asking = asyncio.create_task(stack.ask())
        assert await becomes(lambda: slot.live == 1)
        asking.cancel()
        assert await becomes(lambda: slot.live == 0, within_s=1.0)
        assert slot.aborted == 1
        assert await becomes(lambda: stack.outcomes("clinic-1") == {"aborted": 1})
        assert stack.value("tunegate_requests_in_flight", release="clinic-1") == 0


async def test_a_caller_that_hangs_up_mid_stream_frees_the_slot_within_a_second() -> None:
    async with one_slot(Behaviour(stall_after_chunks=2)) as (stack, slot):
        async with stack.stream() as response:
            await response.content.readany()
            response.close()
        assert await becomes(lambda: slot.live == 0, within_s=1.0)
        assert await becomes(lambda: stack.outcomes("clinic-1") == {"aborted": 1})
        assert stack.value("tunegate_upstream_errors_total", release="clinic-1", kind="reset_mid_stream") == 0


async def test_a_caller_that_stops_reading_is_aborted_and_not_counted_against_the_model() -> None:
    """8 MB do not fit into the sockets between, so the gateway waits for the caller until the total timeout."""
    big = (b"data: " + b"x" * 100_000 + b"\n\n",) * 80
    async with one_slot(Behaviour(raw_chunks=(*big, b"data: [DONE]\n\n")), total_timeout_s=1.0) as (stack, slot):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(stack.url.rsplit(":", 1)[1]), limit=1024)
        body = json.dumps({**CHAT, "stream": True})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        await reader.readline()
        assert await becomes(lambda: stack.outcomes("clinic-1") == {"aborted": 1}, within_s=3.0)
        assert await becomes(lambda: slot.live == 0)
        writer.close()


async def test_an_aborted_request_leaves_the_latency_alone() -> None:
    async with one_slot(Behaviour(think_s=30)) as (stack, slot):
        asking = asyncio.create_task(stack.ask())
        await becomes(lambda: slot.live == 1)
        asking.cancel()
        await becomes(lambda: stack.outcomes("clinic-1") == {"aborted": 1})
        assert stack.value("tunegate_request_duration_seconds_count", release="clinic-1", route="chat_completions") == 0


class Stumbling:
    """Wants every answer, and cannot take any."""

    def wants(self, side: object) -> bool:
        return True

    def offer(self, record: object) -> None:
        raise ValueError("a fault of ours")


async def test_a_fault_in_whoever_looks_on_costs_neither_the_answer_nor_the_place() -> None:
    async with one_slot(max_in_flight=1, max_queue=0) as (stack, _):
        stack.house.sample = Stumbling()  # type: ignore[assignment]
        for _ in range(3):
            async with stack.post() as response:
                assert response.status == 200
                await response.read()
