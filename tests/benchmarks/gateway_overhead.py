"""What the gateway costs: CPU per request and per streamed chunk, and latency, against no proxy and a bare one in one run.

    python -m tests.benchmarks.gateway_overhead [SECONDS_PER_CASE]

Model server, gateway and caller are three processes on loopback; the model server writes canned bytes. The cases take turns,
so that a noisy neighbour hits all of them. CPU is the process's own time, from the operating system: on a shared machine it
is the honest figure, requests a second are not.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import psutil
import uvicorn
import uvloop
from pydantic import SecretStr

from serving.gateway import create_app
from serving.gateway_reply import Receive, Scope, Send
from serving.metrics import GatewayMetrics
from serving.routing import Backend, RoutingTable
from serving.settings import Settings
from serving.upstream import Upstream
from tests.fakes_gateway import CHAT, KEY, PUBLIC_NAME, SLOT_KEY, key_ring

ROUNDS, CONNECTIONS, CHUNKS = 3, 16, 64
_ANSWER = json.dumps({"choices": [{"message": {"content": "x" * 200}}], "usage": {"prompt_tokens": 7, "completion_tokens": 40}}).encode()
_EVENT = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" word"}}]}\n\n'


class CannedSlot(asyncio.Protocol):
    """The cheapest possible model server: fixed bytes for a request, one write for each chunk."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport, self._data = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        """Answer once head and body are complete."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        if found and len(body) >= length:
            self._data = b""
            if b'"stream": true' in body or b'"stream":true' in body:
                self._task = asyncio.ensure_future(self._stream())
            else:
                self._transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
                )

    async def _stream(self) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in [_EVENT] * CHUNKS + [b"data: [DONE]\n\n"]:
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0.001)  # a chunk of its own each, as tokens come
        self._transport.write(b"0\r\n\r\n")


async def run_slot() -> None:
    """The model server's process."""
    server = await asyncio.get_running_loop().create_server(CannedSlot, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def run_gateway(slot_port: str) -> None:
    """The gateway's process."""
    routes = {PUBLIC_NAME: Backend("clinic-1", f"http://127.0.0.1:{slot_port}", SecretStr(SLOT_KEY))}
    upstream = Upstream(connect_timeout_s=5, idle_timeout_s=60)
    await serve(create_app(Settings(max_in_flight=1000), RoutingTable(routes), key_ring(), upstream, GatewayMetrics()))


async def serve(app: Any) -> None:
    """uvicorn as `tunegate serve` runs it."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False, http="httptools"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


async def run_bare(slot_port: str) -> None:
    """The floor of this architecture: uvicorn and aiohttp, and nothing in between but copying."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            body = (await receive())["body"]
            async with session.post(f"http://127.0.0.1:{slot_port}/", data=body) as response:
                kind = response.headers["Content-Type"].encode()
                length = [] if b"stream" in kind else [(b"content-length", response.headers["Content-Length"].encode())]
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind), *length]})
                async for chunk in response.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await serve(app)


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[tuple[psutil.Process, int]]:
    """This file in another process, and the port it listens on."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", __spec__.name, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout
        yield psutil.Process(process.pid), int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


@dataclass
class Case:
    """What one kind of request cost through one way, over all rounds. `cpu_s` is the gateway's alone."""

    name: str
    stream: bool
    port: int
    watched: psutil.Process | None
    requests: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        self.latencies_s: list[float] = []
        body = json.dumps({**CHAT, "stream": self.stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        self._request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def round(self, seconds: float) -> None:
        """Ask on CONNECTIONS connections at once for so long."""
        cpu, start = _cpu_s(self.watched), time.perf_counter()
        await asyncio.gather(*(self._caller(start + seconds) for _ in range(CONNECTIONS)))
        self.cpu_s += _cpu_s(self.watched) - cpu
        self.wall_s += time.perf_counter() - start

    async def _caller(self, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while (start := time.perf_counter()) < until:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            await (reader.readuntil(b"\r\n0\r\n\r\n") if self.stream else reader.readexactly(len(_ANSWER)))
            self.latencies_s.append(time.perf_counter() - start)
            self.requests += 1
        writer.close()


def _cpu_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(seconds: float) -> None:
    """Run every case in turn, ROUNDS times, and print the table."""
    async with (
        child("slot") as (slot, slot_port),
        child("bare", str(slot_port)) as (bare, bare_port),
        child("gateway", str(slot_port)) as (gateway, port),
    ):
        ways = (("direct", slot_port, slot), ("bare proxy", bare_port, bare), ("gateway", port, gateway))
        cases = [Case(f"{kind}, {way}", kind == "stream", at, process) for kind in ("plain", "stream") for way, at, process in ways]
        for case in cases:
            await case.round(0.3)
            case.requests, case.cpu_s, case.wall_s = 0, 0.0, 0.0
            case.latencies_s.clear()
        for _ in range(ROUNDS):
            for case in cases:
                await case.round(seconds)
        report(cases, gateway.memory_info().rss)


def report(cases: list[Case], memory_bytes: int) -> None:
    """Print microseconds of CPU of the process that was asked: the slot when direct, else the proxy."""
    print(f"{'case':20}{'requests':>10}{'req/s':>9}{'CPU us/req':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for case in cases:
        cuts = statistics.quantiles(case.latencies_s, n=100)
        cost_us = case.cpu_s / case.requests * 1e6
        rate, p50_ms, p99_ms = case.requests / case.wall_s, cuts[49] * 1e3, cuts[98] * 1e3
        print(f"{case.name:20}{case.requests:>10}{rate:>9.0f}{cost_us:>12.1f}{p50_ms:>9.2f}{p99_ms:>9.2f}")
    direct, bare, gateway, *streamed = (case.cpu_s / case.requests * 1e6 for case in cases)
    per_chunk = [(stream - plain) / CHUNKS for stream, plain in zip(streamed, (direct, bare, gateway), strict=True)]
    print(f"CPU per request: gateway / direct {gateway / direct:.1f}, gateway / bare proxy {gateway / bare:.2f}")
    print("CPU us per streamed chunk: direct {:.1f}, bare proxy {:.1f}, gateway {:.1f}".format(*per_chunk))
    print(f"gateway memory: {memory_bytes / 1e6:.0f} MB")


def main(arguments: list[str]) -> None:
    """Play the role named by the first argument; without one, measure."""
    match arguments:
        case ["slot"]:
            uvloop.run(run_slot())
        case ["bare", slot_port]:
            uvloop.run(run_bare(slot_port))
        case ["gateway", slot_port]:
            uvloop.run(run_gateway(slot_port))
        case _:
            uvloop.run(measure(float(arguments[0]) if arguments else 3.0))


if __name__ == "__main__":
    main(sys.argv[1:])
