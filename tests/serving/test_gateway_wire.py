"""HTTP as strangers speak it: malformed, too large, too slow, pipelined, cut off."""

import asyncio
import json
import re
import time

import pytest

from tests.fakes_gateway import CHAT, KEY, Stack, becomes, one_slot
from tests.fakes_gateway_slot import Behaviour

pytestmark = pytest.mark.anyio
BODY = json.dumps(CHAT).encode()
START = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
SIZED = b"Content-Length: %d\r\n" % len(BODY)
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
SMUGGLED = b"0\r\n\r\n" + START + SIZED + b"\r\n" + BODY


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


async def connect(stack: Stack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(stack.url.rsplit(":", 1)[1]))


async def say(stack: Stack, data: bytes) -> bytes:
    """Everything the gateway says to these bytes until it closes the connection."""
    reader, writer = await connect(stack)
    writer.write(data)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (SIZED + b"Transfer-Encoding: chunked\r\n", SMUGGLED),
        (b"Transfer-Encoding: chunked\r\n" + SIZED, SMUGGLED),
        (SIZED + SIZED, BODY),
        (b"Content-Length: 5, 5\r\n", BODY),
        (b"Content-Length: +5\r\n", BODY),
        (b"Content-Length : 5\r\n", BODY),
        (b"Transfer-Encoding: gzip, chunked\r\n", SMUGGLED),
        (b"Transfer-Encoding: chunked, identity\r\n", SMUGGLED),
        (b"Transfer-Encoding: xchunked\r\n", SMUGGLED),
        (b"Transfer-Encoding: chunked\r\n", b"5\n" + BODY + b"\n0\n\n"),
        (b"Transfer-Encoding: chunked\r\n", b"0x5\r\n" + BODY),
        (b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffffff\r\n" + BODY),
        (b"X: a\r\n folded\r\n" + SIZED, BODY),
        (b"X: a\n" + SIZED, BODY),
        (b"X: a\rY: b\r\n" + SIZED, BODY),
        (b"X: a\0b\r\n" + SIZED, BODY),
        (b"Host: y\r\n" + SIZED, BODY),
    ],
    ids=[
        "length and chunks", "chunks and length", "two lengths", "a list of lengths", "signed length", "space before colon", "gzip coding",
        "chunked not last", "unknown coding", "bare LF in chunks", "hex prefix", "chunk size overflow", "folded header", "bare LF",
        "bare CR", "NUL", "two hosts",
    ],
)  # fmt: skip
async def test_a_request_that_two_parsers_could_read_differently_is_refused_and_its_connection_closed(head: bytes, body: bytes) -> None:
    async with one_slot() as (stack, slot):
        answer = await say(stack, START + head + b"\r\n" + body)
        assert statuses(answer) == [400]
        assert b"connection: close" in answer
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "invalid_http"
        assert slot.seen == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET /v1/models HTTP/1.2\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
        (b"FETCH / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://x/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (START + SIZED + b"Expect: a-miracle\r\n\r\n", 417),
        (b"POST /v1/chat/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 40_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(5_000)), 431),
        (START + b"Content-Length: 99999999999\r\n\r\n", 413),
    ],
    ids=[
        "TLS hello", "HTTP/1.2", "HTTP/2", "no host", "odd method", "high byte", "CONNECT", "absolute target", "expectation",
        "chunks in 1.0", "huge header", "endless target", "endless headers", "huge length",
    ],
)  # fmt: skip
async def test_odd_requests_get_one_clear_answer(request_: bytes, status: int) -> None:
    async with one_slot() as (stack, slot):
        assert statuses(await say(stack, request_)) == [status]
        assert slot.seen == []


async def test_a_chunked_body_is_put_together_and_its_trailers_are_not_headers() -> None:
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in (BODY[:7], BODY[7:]))
    data = START + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks + b"0\r\nAuthorization: Bearer wrong\r\n\r\n"
    async with one_slot() as (stack, slot):
        assert statuses(await say(stack, data)) == [200]
        assert slot.seen[0].body["messages"] == CHAT["messages"]


async def test_a_request_that_comes_one_byte_at_a_time_is_read() -> None:
    async with one_slot() as (stack, _):
        reader, writer = await connect(stack)
        for byte in START + SIZED + b"Connection: close\r\n\r\n" + BODY:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert statuses(await reader.read()) == [200]
        writer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    last = MODELS + b"Connection: close\r\n\r\n"
    async with one_slot(Behaviour(think_s=0.1)) as (stack, slot):
        answer = await say(stack, START + SIZED + b"\r\n" + BODY + MODELS + b"\r\n" + b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + last)
        assert statuses(answer) == [200, 200, 404, 200]
        assert answer.index(b"I am clinic-1") < answer.index(b'"object": "list"')
        assert len(slot.seen) == 1


async def test_a_flood_of_pipelined_requests_is_cut_short() -> None:
    async with one_slot(Behaviour(think_s=0.2)) as (stack, _):
        answer = await say(stack, START + SIZED + b"\r\n" + BODY + (MODELS + b"\r\n") * 500)
        assert statuses(answer)[-1] == 400
        assert len(statuses(answer)) < 40


async def test_a_caller_that_waits_for_100_continue_is_told_to_go_on() -> None:
    async with one_slot() as (stack, _):
        reader, writer = await connect(stack)
        writer.write(START + SIZED + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert statuses(await reader.read()) == [200]
        writer.close()


async def test_a_caller_without_a_key_is_not_asked_for_its_body() -> None:
    async with one_slot() as (stack, _):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
        assert statuses(await say(stack, head)) == [401]


@pytest.mark.parametrize("path", [b"/v1/models", b"/health", b"/nowhere"])
async def test_head_is_get_without_a_body(path: bytes) -> None:
    head = b"HEAD " + path + MODELS[len(b"GET /v1/models") :] + b"Connection: close\r\n\r\n"
    async with one_slot() as (stack, _):
        answer = await say(stack, head)
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: " in answer
        assert b"content-length: 0" not in answer


async def test_http_1_0_gets_a_stream_without_chunks_that_ends_with_the_connection() -> None:
    body = json.dumps({**CHAT, "stream": True}).encode()
    async with one_slot() as (stack, slot):
        answer = await say(stack, START.replace(b"1.1", b"1.0") + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer.split(b"\r\n\r\n", 1)[1] == b"".join(slot.events({}))


async def test_a_head_that_trickles_is_cut_off_whatever_its_pace() -> None:
    """A header line every 0.1 s never pauses for long; the whole head is what is timed."""
    async with one_slot(head_timeout_s=0.5) as (stack, _):
        reader, writer = await connect(stack)
        writer.write(b"GET /v1/models HTTP/1.1\r\n")
        began = time.monotonic()
        while not reader.at_eof() and time.monotonic() - began < 5 and not reader._buffer:
            writer.write(b"X-Y: z\r\n")
            await asyncio.sleep(0.1)
        assert statuses(await reader.read()) == [408]
        assert time.monotonic() - began < 3
        writer.close()


async def test_a_thousand_slow_callers_do_not_hold_up_the_next_one() -> None:
    async with one_slot() as (stack, _):
        slow = [await connect(stack) for _ in range(1000)]
        for _, writer in slow:
            writer.write(START)
        began = time.perf_counter()
        async with stack.post() as response:
            assert response.status == 200
        assert time.perf_counter() - began < 3
        for _, writer in slow:
            writer.close()


async def test_over_the_cap_of_connections_new_ones_are_told_and_closed() -> None:
    async with one_slot(max_connections=2) as (stack, _):
        first, second = await connect(stack), await connect(stack)
        assert await becomes(lambda: len(stack.door._connections) == 2)
        assert statuses(await say(stack, b"")) == [503]
        first[1].close()
        assert await becomes(lambda: len(stack.door._connections) == 1)
        async with stack.post() as response:
            assert response.status == 200
        second[1].close()


async def test_a_caller_that_ends_its_side_has_gone() -> None:
    async with one_slot(Behaviour(think_s=30)) as (stack, slot):
        _, writer = await connect(stack)
        writer.write(START + SIZED + b"\r\n" + BODY)
        assert await becomes(lambda: slot.live == 1)
        writer.write_eof()
        assert await becomes(lambda: slot.live == 0)
        assert await becomes(lambda: stack.outcomes("clinic-1") == {"aborted": 1})


async def test_a_refused_caller_reads_its_answer_although_it_is_still_sending() -> None:
    """Closing under unread data resets the connection, and the answer with it."""
    async with one_slot(max_body_bytes=2048) as (stack, _):
        reader, writer = await connect(stack)
        writer.write(START + b"Content-Length: 4000000\r\n\r\n" + b"x" * 400_000)
        assert statuses(await reader.read()) == [413]
        writer.close()


async def test_a_slow_reader_makes_the_gateway_stop_reading_from_the_slot() -> None:
    """40 MB pass; while the caller does not read, what the gateway holds is bounded by the sockets' buffers."""
    big = (b"data: " + b"x" * 100_000 + b"\n\n",) * 400
    async with one_slot(Behaviour(raw_chunks=(*big, b"data: [DONE]\n\n"))) as (stack, slot):
        async with stack.stream() as response:
            await asyncio.sleep(0.5)
            (connection,) = stack.door._connections
            assert connection._transport.get_write_buffer_size() < 2_000_000
            assert slot.live == 1
            assert len(await response.read()) == sum(map(len, big)) + len(b"data: [DONE]\n\n")
        assert stack.outcomes("clinic-1") == {"ok": 1}


async def test_streams_do_not_wait_for_each_other_on_one_slot() -> None:
    async with one_slot(Behaviour(chunks=5, chunk_gap_s=0.05)) as (stack, _):

        async def one() -> bytes:
            async with stack.stream() as response:
                whole: bytes = await response.read()
                return whole

        began = time.perf_counter()
        answers = await asyncio.gather(*(one() for _ in range(100)))
        assert all(answer.endswith(b"data: [DONE]\n\n") for answer in answers)
        assert time.perf_counter() - began < 3
