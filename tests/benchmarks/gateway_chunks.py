"""What one streamed chunk costs the gateway, split into its own code and the kernel's, against nginx and a relay that only copies bytes.

    python -m tests.benchmarks.gateway_chunks [SECONDS_PER_ROUND]

The model server sends each token as a write of its own, as vLLM does, on so many streams at a time. CPU is the process's own, from the
operating system, divided by the chunks that callers have read; a request's own cost is spread over its CHUNKS chunks and so is in it.
The relay (uvloop, no HTTP, no key, no count) is the floor of what Python can do here: a wait, a read and a write for each chunk.
`reads` says how many chunks came in one read of the caller, on average: above 1, several were passed on together.
"""

import argparse
import asyncio
import statistics
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import cast

import psutil
import uvloop

from tests.benchmarks import gateway_overhead as overhead

ROUNDS, STREAMS = 3, 16
_MODULE = "tests.benchmarks.gateway_chunks"


class Relay(asyncio.Protocol):
    """Copies bytes between a caller and the model server."""

    def __init__(self, port: int) -> None:
        self._port, self._early = port, b""
        self._other: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the other side."""
        self._transport = cast(asyncio.Transport, transport)
        self._task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: _Back(self._transport), "127.0.0.1", self._port)
        self._other = transport
        transport.write(self._early)

    def data_received(self, data: bytes) -> None:
        """From the caller."""
        if self._other is None:
            self._early += data
        else:
            self._other.write(data)


class _Back(asyncio.Protocol):
    def __init__(self, caller: asyncio.Transport) -> None:
        self._caller = caller

    def data_received(self, data: bytes) -> None:
        self._caller.write(data)


async def run_relay(slot_port: str) -> None:
    """The relay's process."""
    server = await asyncio.get_running_loop().create_server(lambda: Relay(int(slot_port)), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass
class Way:
    """One process between the callers and the model server."""

    name: str
    watched: psutil.Process
    port: int
    user_us: list[float] = field(default_factory=list)
    system_us: list[float] = field(default_factory=list)
    per_read: list[float] = field(default_factory=list)

    async def round(self, seconds: float) -> None:
        """Stream for so long, and divide."""
        case = overhead.Case(self.name, True, self.port, self.watched)
        before = self.watched.cpu_times()
        until = time.perf_counter() + seconds
        counts = await asyncio.gather(*(_stream(case, until) for _ in range(STREAMS)))
        after, chunks = self.watched.cpu_times(), sum(chunks for chunks, _ in counts)
        self.user_us.append((after.user - before.user) / chunks * 1e6)
        self.system_us.append((after.system - before.system) / chunks * 1e6)
        self.per_read.append(chunks / sum(reads for _, reads in counts))


async def _stream(case: overhead.Case, until: float) -> tuple[int, int]:
    """One caller: chunks it got, and the reads it took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", case.port)
    chunks = reads = 0
    while time.perf_counter() < until:
        writer.write(case.request)
        whole = False
        while not whole:
            data = await reader.read(65_536)
            assert data
            chunks, reads = chunks + data.count(b"data: "), reads + 1
            whole = data.endswith(b"0\r\n\r\n")
    writer.close()
    return chunks, reads


async def measure(seconds: float) -> None:
    """The ways take turns, ROUNDS times; the medians are printed."""
    async with AsyncExitStack() as running:
        slot, slot_port = await running.enter_async_context(overhead.child("slot"))
        gateway, port = await running.enter_async_context(overhead.child("gateway", str(slot_port)))
        relay, relay_port = await running.enter_async_context(overhead.child("relay", str(slot_port), module=_MODULE))
        nginx, nginx_port = running.enter_context(overhead.nginx(slot_port))
        ways = [Way("model server, asked directly", slot, slot_port), Way("nginx", nginx, nginx_port), Way("relay", relay, relay_port)]
        ways.append(Way("gateway", gateway, port))
        for way in ways:
            await way.round(1.0)
        for way in ways:
            way.user_us, way.system_us, way.per_read = [], [], []
        for _ in range(ROUNDS):
            for way in ways:
                await way.round(seconds)
    print(f"{'us of CPU per chunk':30}{'own code':>10}{'kernel':>10}{'in all':>10}{'reads':>8}")
    for way in ways:
        own, kernel, each = (statistics.median(values) for values in (way.user_us, way.system_us, way.per_read))
        print(f"{way.name:30}{own:>10.1f}{kernel:>10.1f}{own + kernel:>10.1f}{each:>8.2f}")


def main() -> None:
    """Play the relay, or measure."""
    if sys.argv[1:2] == ["relay"]:
        uvloop.run(run_relay(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seconds", type=float, nargs="?", default=5.0, help="of each round")
    uvloop.run(measure(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
