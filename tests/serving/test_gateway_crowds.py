"""Ten thousand of something: hang-ups, wrong names, wrong keys; and callers that mean harm.

Where there are ten thousand, callers and slot are bare protocols, so that the gateway is what works.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from pydantic import SecretStr

from serving.routing import Backend
from tests.fakes_gateway import CHAT, KEY, PUBLIC_NAME, SLOT_KEY, Stack, becomes, gateway_over, one_slot

pytestmark = pytest.mark.anyio

TIMES, AT_ONCE = 10_000, 100
CHUNK = b'data: {"choices": [{"delta": {"content": "word"}}]}\n\n'
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


class Mute(asyncio.Protocol):
    """A slot's connection that says nothing to a plain request, and one word of a stream. `working` are those asked and not dropped."""

    working: "set[Mute]"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.heard = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self not in self.working and self.heard.endswith(b"}"):
            self.working.add(self)
            if b'"stream":true' in self.heard:
                self.transport.write(b"%b%x\r\n%b\r\n" % (STREAM_HEAD, len(CHUNK), CHUNK))

    def connection_lost(self, error: Exception | None) -> None:
        self.working.discard(self)


class Caller(asyncio.Protocol):
    """Asks, and knows whether it has heard anything."""

    def __init__(self, request: bytes) -> None:
        self.request, self.heard = request, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.heard += data


@asynccontextmanager
async def mute_slot() -> AsyncIterator[tuple[Stack, set[Mute]]]:
    """A gateway over a slot that never finishes an answer."""
    working: set[Mute] = set()

    class Connection(Mute):
        pass

    Connection.working = working
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    backend = Backend("clinic-1", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", SecretStr(SLOT_KEY), "clinic-1")
    async with server, gateway_over({PUBLIC_NAME: backend}) as stack:
        yield stack, working


def request(body: object, key: str = KEY) -> bytes:
    sent = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(sent)}\r\n\r\n"
    return head.encode() + sent


def port_of(stack: Stack) -> int:
    return int(stack.url.rsplit(":", 1)[1])


async def hang_up_all(stack: Stack, working: set[Mute]) -> None:
    """So many callers at once, every second one in the middle of a stream."""
    loop, questions = asyncio.get_running_loop(), (request(CHAT), request({**CHAT, "stream": True}))
    callers = [Caller(questions[number % 2]) for number in range(AT_ONCE)]
    await asyncio.gather(*(loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port_of(stack)) for caller in callers))
    assert await becomes(lambda: len(working) == AT_ONCE and all(caller.heard for caller in callers[1::2]), within_s=10)
    for caller in callers:
        caller.transport.abort()
    assert await becomes(lambda: not working, within_s=10)


async def test_ten_thousand_hang_ups_waiting_and_in_mid_stream_leave_no_task_no_socket_and_no_place_taken() -> None:
    async with mute_slot() as (stack, working):
        await hang_up_all(stack, working)
        assert await becomes(lambda: not stack.door._connections)
        tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
        for _ in range(TIMES // AT_ONCE - 1):
            await hang_up_all(stack, working)
        assert await becomes(lambda: not stack.door._connections and len(os.listdir("/proc/self/fd")) <= descriptors)
        assert len(asyncio.all_tasks()) <= tasks
        assert stack.outcomes("clinic-1") == {"aborted": TIMES}
        assert stack.value("tunegate_requests_in_flight", release="clinic-1") == 0


async def test_ten_thousand_wrong_models_and_keys_make_no_series() -> None:
    """Half of them with a wrong model, half with a wrong key, ten at a time on one connection; the first ten make the 'none' series."""
    async with one_slot() as (stack, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(stack))
        lines = []
        for number in range(0, TIMES // 2, 5):
            wrong = range(number, number + 5)
            writer.write(b"".join(request({**CHAT, "model": f"m{each}"}) + request(CHAT, f"w{each}") for each in wrong))
            answers = b""
            while answers.count(b"}}") < 10:
                answers += await reader.read(65_536)
            lines += [len(stack.metrics.render().splitlines())] if number in (0, TIMES // 2 - 5) else []
        writer.close()
        assert lines[0] == lines[-1]
        assert len(lines) == 2
        assert stack.outcomes("none") == {"rejected": TIMES}


async def latencies_s(stack: Stack, for_s: float) -> tuple[float, float]:
    """The median and the 95th percentile of plain questions, asked one after the other for so long."""
    took: list[float] = []
    end_s = time.perf_counter() + for_s
    while (began_s := time.perf_counter()) < end_s:
        async with stack.post() as response:
            assert response.status == 200
            await response.read()
        took.append(time.perf_counter() - began_s)
        await asyncio.sleep(0.004)
    assert len(took) >= 10
    return statistics.median(took), sorted(took)[len(took) * 95 // 100]


@asynccontextmanager
async def abusers(stack: Stack) -> AsyncIterator[None]:
    """50 MB bodies, deep ones, wide ones, n of a billion, endless schemas, and 200 callers that trickle, all the time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes_gateway_abuser", str(port_of(stack)), KEY, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"ready\n"
        yield
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()


async def test_nobody_waits_long_because_of_callers_that_mean_harm() -> None:
    """Generous bounds, for a machine that does other things too: the abusers share its cores, and 1 ms may be 10."""
    async with one_slot() as (stack, _):
        quiet_s, _ = await latencies_s(stack, 1)
        async with abusers(stack):
            median_s, slow_s = await latencies_s(stack, 3)
    print(f"median {quiet_s * 1e3:.1f} ms, among abusers {median_s * 1e3:.1f} ms, 95 % of them within {slow_s * 1e3:.1f} ms")
    assert stack.outcomes("none")["client_error"] >= 5
    assert slow_s < 1
    assert median_s <= 20 * max(quiet_s, 0.01)
