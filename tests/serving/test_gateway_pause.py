"""The whole process stands still (a starved machine, a suspended one): what came meanwhile is read before anybody is blamed."""

import asyncio
import time

import aiohttp
import pytest

from tests.fakes_gateway import KEY, PUBLIC_NAME, Stack, backend_of, gateway_over, one_slot
from tests.fakes_gateway_slot import Behaviour, FakeSlot

pytestmark = pytest.mark.anyio

# Longer than every limit below that can run out meanwhile.
PAUSE_S = 0.8
LIMITS = {"connect_timeout_s": 0.5, "body_timeout_s": 0.5, "head_timeout_s": 0.5, "idle_timeout_s": 0.5}
CALLERS = 12


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def pause_after(delay_s: float) -> None:
    """Nothing of this process runs for a while, neither the gateway nor its callers and slots."""
    asyncio.get_running_loop().call_later(delay_s, time.sleep, PAUSE_S)


async def statuses(stack: Stack, callers: int) -> set[int]:
    async def status() -> int:
        async with stack.post() as response:
            await response.read()
            return response.status

    return set(await asyncio.gather(*(status() for _ in range(callers))))


@pytest.mark.parametrize("delay_ms", [0.5, 1, 2, 3, 5, 8, 12, 20])
async def test_requests_that_were_on_their_way_are_answered(delay_ms: float) -> None:
    async with one_slot(**LIMITS) as (stack, _):
        pause_after(delay_ms / 1000)
        assert await statuses(stack, CALLERS) == {200}


async def test_a_body_that_came_meanwhile_counts_as_come() -> None:
    async with one_slot(**LIMITS) as (stack, _):
        body = b'{"model": "clinic", "messages": [{"role": "user", "content": "hello"}]}'
        host, port = stack.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[:10])
        await asyncio.sleep(0.1)
        writer.write(body[10:])
        time.sleep(PAUSE_S)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_stream_whose_next_piece_came_meanwhile_goes_on() -> None:
    async with one_slot(Behaviour(chunks=6, chunk_gap_s=0.1), **LIMITS) as (stack, _), stack.stream() as response:
        pause_after(0.15)
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
        assert stack.outcomes("clinic-1") == {"ok": 1}


async def test_limits_still_hold_after_a_pause() -> None:
    slow = FakeSlot("clinic-1", Behaviour(stall_after_chunks=1))
    async with slow.running(), gateway_over({PUBLIC_NAME: backend_of(slow)}, **LIMITS) as stack:
        pause_after(0.1)
        began_s = time.monotonic()
        async with stack.stream() as response:
            with pytest.raises(aiohttp.ClientPayloadError):  # the stream is cut, with no [DONE]
                await response.read()
        assert time.monotonic() - began_s < PAUSE_S + 2
        assert stack.outcomes("clinic-1") == {"timeout": 1}
