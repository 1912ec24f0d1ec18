"""What the gateway costs: CPU per request and per streamed chunk, added latency and memory, against nginx and LiteLLM in one run.

    python -m tests.benchmarks.gateway_overhead [SECONDS_PER_CASE] [--litellm VENV] [--streams N]

nginx comes from the system's package (`nginx-light`), LiteLLM from a virtual environment of its own (`pip install 'litellm[proxy]'`);
what is not there is left out, and said so. Model server, proxies and caller are processes on loopback; the model server writes
canned bytes; "worker" is the gateway as it is among several. The cases take turns, so that a noisy neighbour hits all of them. CPU is
the process's own time, from the operating system: on a shared machine it is the honest figure, requests a second are not. With
--streams, memory is watched over so many streams.
"""

import argparse
import asyncio
import gc
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import psutil
import uvloop
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from serving.gateway import Gateway
from serving.gateway_commons import alone, together
from serving.gateway_door import Door
from serving.gateway_house import OwnHouse
from serving.gateway_ledger import Ledger
from serving.keys import KeyInfo, KeyRing, Scope, hash_secret
from serving.metrics import GatewayMetrics
from serving.metrics_requests import RequestMetrics
from serving.rollout_counts import Tallies
from serving.routing import Backend, RoutingTable, champion_route
from serving.settings import Settings
from serving.upstream import Upstream

ROUNDS, CONNECTIONS, CHUNKS, FEW = 3, 16, 64, 4
_MODULE = "tests.benchmarks.gateway_overhead"
# Not those of the tests: what they import would count as the gateway's memory.
KEY, SLOT_KEY, PUBLIC_NAME = "tg-benchmark-key", "slot-secret", "clinic"
CHAT = {"model": PUBLIC_NAME, "messages": [{"role": "user", "content": "hello"}]}
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
                self._task = asyncio.ensure_future(self._stream(FEW if b'"max_tokens": %d' % FEW in body else CHUNKS))
            else:
                self._transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
                )

    async def _stream(self, chunks: int) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in [_EVENT] * chunks + [b"data: [DONE]\n\n"]:
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0.001)  # a chunk of its own each, as tokens come
        self._transport.write(b"0\r\n\r\n")


async def run_slot() -> None:
    """The model server's process."""
    server = await asyncio.get_running_loop().create_server(CannedSlot, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def run_gateway(slot_port: str, *, as_worker: bool = False) -> None:
    """The gateway's process, as `tunegate serve` runs it; as a worker it counts in memory and files that it could share with others."""
    routes = {
        PUBLIC_NAME: champion_route(PUBLIC_NAME, Backend("clinic-1", f"http://127.0.0.1:{slot_port}", SecretStr(SLOT_KEY), "clinic-1"))
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder), max_in_flight=1000, gateway_workers=2 if as_worker else 1)
        info = KeyInfo(id="key-1", name="benchmark", scopes=frozenset({Scope.INFER}), created_at=datetime.now(UTC), revoked_at=None)
        ring, house, commons = KeyRing({hash_secret(KEY): info}), OwnHouse(settings, GatewayMetrics()), alone(settings)
        if as_worker:
            from serving.metrics_mapped import count_in  # not earlier: what it imports would count as the lone gateway's memory

            ledger = Ledger.make(4)
            commons = together(settings, Ledger(ledger.memory, ledger.bells, 0))
            count_in(folder, 0)
        metrics = RequestMetrics(CollectorRegistry(), Tallies())
        gateway = Gateway(settings, RoutingTable(routes), ring, Upstream(connect_timeout_s=5), metrics, house, commons)
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        await Door(gateway, settings, commons.connections).open(listener)
        gc.collect()
        gc.freeze()
        print(listener.getsockname()[1], flush=True)
        await asyncio.Event().wait()


@asynccontextmanager
async def child(*arguments: str, module: str = _MODULE) -> AsyncIterator[tuple[psutil.Process, int]]:
    """This file, or another, in another process, and the port it listens on."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout
        yield psutil.Process(process.pid), int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


_NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 10000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  upstream slot {{ server 127.0.0.1:{slot_port}; keepalive 64; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://slot; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""

_LITELLM = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{slot_port}/v1", api_key: {slot_key}}}
general_settings: {{master_key: {key}}}
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def started(command: list[str], port: int, env: dict[str, str]) -> Iterator[psutil.Process]:
    """A server in a process of its own, once it listens."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **env})
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def nginx(slot_port: int) -> Iterator[tuple[psutil.Process, int]]:
    """nginx with one worker, and the worker's process."""
    with tempfile.TemporaryDirectory() as folder:
        port, config = free_port(), Path(folder) / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, slot_port=slot_port, port=port))
        program = shutil.which("nginx") or "nginx"
        with started([program, "-c", str(config), "-p", folder, "-e", f"{folder}/error.log"], port, {}) as master:
            yield master.children()[0], port


@contextmanager
def litellm(venv: Path, slot_port: int) -> Iterator[tuple[psutil.Process, int]]:
    """LiteLLM's proxy with one worker and no database."""
    with tempfile.TemporaryDirectory() as folder:
        port, config = free_port(), Path(folder) / "config.yaml"
        config.write_text(_LITELLM.format(model=PUBLIC_NAME, slot_port=slot_port, slot_key=SLOT_KEY, key="sk-" + KEY))
        command = [str(venv / "bin" / "litellm"), "--config", str(config), "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
        own = {"PYTHONPATH": "", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "LITELLM_LOG": "ERROR"}
        with started(command, port, own) as process:
            yield process, port


@dataclass
class Case:
    """What one kind of request cost through one way, over all rounds. `cpu_s` is the asked process's alone."""

    way: str
    stream: bool
    port: int
    watched: psutil.Process
    key: str = KEY
    max_tokens: int = 64
    requests: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        self.latencies_s: list[float] = []
        self.alone_s: list[float] = []
        body = json.dumps({**CHAT, "stream": self.stream, "max_tokens": self.max_tokens}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
        self.request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def round(self, seconds: float) -> None:
        """Ask on CONNECTIONS connections at once for so long, then on one alone: to the whole answer, or a stream's first bytes."""
        cpu, start = _cpu_s(self.watched), time.perf_counter()
        await asyncio.gather(*(self._caller(start + seconds, self.latencies_s) for _ in range(CONNECTIONS)))
        self.cpu_s += _cpu_s(self.watched) - cpu
        self.requests = len(self.latencies_s)
        self.wall_s += time.perf_counter() - start
        await self._caller(time.perf_counter() + seconds / 2, self.alone_s)

    async def _caller(self, until: float, latencies_s: list[float]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while (start := time.perf_counter()) < until:
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            if self.stream:
                await reader.readuntil(b"\n\n")
                latencies_s.append(time.perf_counter() - start)
                await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                await reader.readexactly(_length(head))
                latencies_s.append(time.perf_counter() - start)
        writer.close()

    def forget(self) -> None:
        """Start counting anew."""
        self.requests, self.cpu_s, self.wall_s = 0, 0.0, 0.0
        self.latencies_s.clear()
        self.alone_s.clear()

    @property
    def cost_us(self) -> float:
        """CPU of a request, in microseconds."""
        return self.cpu_s / self.requests * 1e6


def _length(head: bytes) -> int:
    return next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(seconds: float, venv: Path | None, streams: int) -> None:
    """Run every case in turn, ROUNDS times, and print the table."""
    async with AsyncExitStack() as running:
        slot, slot_port = await running.enter_async_context(child("slot"))
        gateway, port = await running.enter_async_context(child("gateway", str(slot_port)))
        worker, worker_port = await running.enter_async_context(child("worker", str(slot_port)))
        ways = [("direct", slot, slot_port, KEY), ("gateway", gateway, port, KEY), ("worker", worker, worker_port, KEY)]
        if shutil.which("nginx"):
            ways.insert(1, ("nginx", *running.enter_context(nginx(slot_port)), KEY))
        else:
            print("nginx is not installed: left out")
        if venv:
            ways.append(("LiteLLM", *running.enter_context(litellm(venv, slot_port)), "sk-" + KEY))
        else:
            print("no --litellm: left out")
        cases = [Case(way, stream, at, process, key) for stream in (False, True) for way, process, at, key in ways]
        for case in cases:
            await case.round(1.0)
            case.forget()
        for _ in range(ROUNDS):
            for case in cases:
                await case.round(seconds)
        report(cases)
        await watch_memory(Case("gateway", True, port, gateway, max_tokens=FEW), streams)


async def watch_memory(case: Case, streams: int) -> None:
    """The gateway's resident memory while so many short streams pass, 200 at a time."""
    print(f"gateway memory: {case.watched.memory_info().rss / 1e6:.1f} MB", flush=True)
    while len(case.latencies_s) < streams:
        await asyncio.gather(*(case._caller(time.perf_counter() + 5, case.latencies_s) for _ in range(200)))
        print(f"  after {len(case.latencies_s):>7} more streams: {case.watched.memory_info().rss / 1e6:.1f} MB", flush=True)


def report(cases: list[Case]) -> None:
    """Print the CPU of the process that was asked: the slot when direct, else the proxy. Streams are timed to their first bytes."""
    print(f"{'case':16}{'requests':>10}{'req/s':>9}{'CPU us/req':>12}{'p50 ms':>9}{'p99 ms':>9}{'alone p50':>11}{'p99 ms':>9}")
    for case in cases:
        cuts, alone = (statistics.quantiles(times, n=100) for times in (case.latencies_s, case.alone_s))
        name, rate = f"{'stream' if case.stream else 'plain'} {case.way}", case.requests / case.wall_s
        times = "".join(f"{value * 1e3:>{width}.2f}" for value, width in ((cuts[49], 9), (cuts[98], 9), (alone[49], 11), (alone[98], 9)))
        print(f"{name:16}{case.requests:>10}{rate:>9.0f}{case.cost_us:>12.1f}{times}")
    plain = {case.way: case for case in cases if not case.stream}
    streamed = {case.way: case for case in cases if case.stream}
    ours = plain["gateway"].cost_us
    for other, cost_us in ((way, case.cost_us) for way, case in plain.items() if way != "gateway"):
        print(f"CPU per request: gateway / {other} = {ours / cost_us:.3g}, {other} / gateway = {cost_us / ours:.3g}")
    for way in plain:
        print(f"CPU us per streamed chunk, {way}: {(streamed[way].cost_us - plain[way].cost_us) / CHUNKS:.2f}")
    for kind, of in (("plain", plain), ("first bytes of a stream", streamed)):
        ours_s, direct_s = (statistics.quantiles(of[way].alone_s, n=100) for way in ("gateway", "direct"))
        print(f"added, {kind}: p50 {(ours_s[49] - direct_s[49]) * 1e3:.3f} ms, p99 {(ours_s[98] - direct_s[98]) * 1e3:.3f} ms")


def main() -> None:
    """Play the role named by the first argument; without one, measure."""
    match sys.argv[1:]:
        case ["slot"]:
            uvloop.run(run_slot())
            return
        case ["gateway", slot_port]:
            uvloop.run(run_gateway(slot_port))
            return
        case ["worker", slot_port]:
            uvloop.run(run_gateway(slot_port, as_worker=True))
            return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seconds", type=float, nargs="?", default=3.0)
    parser.add_argument("--litellm", type=Path, metavar="VENV")
    parser.add_argument("--streams", type=int, default=0)
    given = parser.parse_args()
    uvloop.run(measure(given.seconds, given.litellm, given.streams))


if __name__ == "__main__":
    main()
