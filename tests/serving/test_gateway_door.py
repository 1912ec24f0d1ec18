"""Opening and closing: drain, hand-over between processes without a loss, TLS."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from serving.errors import SettingsError
from serving.gateway_tls import tls_context
from serving.settings import Settings
from tests.fakes_gateway import CHAT, KEY, becomes, one_slot, settings_for_tests
from tests.fakes_gateway_slot import Behaviour, FakeSlot
from tests.fakes_sinks import certificate

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


async def test_closing_lets_two_hundred_streams_finish_and_takes_nobody_new() -> None:
    async with one_slot(Behaviour(chunks=10, chunk_gap_s=0.3)) as (stack, slot):

        async def one() -> bytes:
            async with stack.stream() as response:
                whole: bytes = await response.read()
                return whole

        streams = [asyncio.create_task(one()) for _ in range(200)]
        assert await becomes(lambda: slot.live == 200, within_s=5)
        closing = asyncio.create_task(stack.door.close(20))
        await asyncio.sleep(0.05)
        async with aiohttp.ClientSession() as stranger:
            with pytest.raises(aiohttp.ClientConnectionError):
                await stranger.get(stack.url + "/health")
        assert all(answer.endswith(b"data: [DONE]\n\n") for answer in await asyncio.gather(*streams))
        await asyncio.wait_for(closing, 5)
        assert stack.outcomes("clinic-1") == {"ok": 200}


async def test_what_outlasts_the_drain_is_cut_and_its_slot_is_let_go() -> None:
    async with one_slot(Behaviour(think_s=30)) as (stack, slot):
        asking = asyncio.create_task(stack.ask())
        assert await becomes(lambda: slot.live == 1)
        await stack.door.close(0.2)
        with pytest.raises(aiohttp.ClientError):
            await asking
        assert await becomes(lambda: slot.live == 0)


async def test_while_draining_a_kept_connection_is_told_to_close_with_its_answer() -> None:
    async with one_slot() as (stack, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(stack.url.rsplit(":", 1)[1]))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(stack.door.close(5))
        await asyncio.sleep(0.05)
        writer.write(f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
        await asyncio.wait_for(closing, 2)
        writer.close()


@asynccontextmanager
async def worker(listener: socket.socket, slot: FakeSlot) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway process on the shared listener, once it takes callers."""
    command = [sys.executable, "-m", "tests.fakes_gateway_worker", str(listener.fileno()), slot.base_url]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, pass_fds=[listener.fileno()], cwd=ROOT, env=env)
    try:
        assert process.stdout
        assert await process.stdout.readline() == b"open\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_worker_is_replaced_under_load_without_a_loss() -> None:
    """The listening socket outlives the process, so what waits at it is taken by the next one."""
    outcomes: Counter[str] = Counter()
    stop = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"

        async def caller(client: aiohttp.ClientSession, stream: bool) -> None:
            while not stop.is_set():
                async with client.post(url, json={**CHAT, "stream": stream}, headers={"Authorization": f"Bearer {KEY}"}) as response:
                    body = await response.read()
                    outcomes["ok" if response.status == 200 and (not stream or body.endswith(b"[DONE]\n\n")) else "failed"] += 1
                await asyncio.sleep(0.02)

        # A connection for each request, and kept ones: both ways must survive.
        connectors = [aiohttp.TCPConnector(limit=0, force_close=close) for close in (True, False)]
        async with FakeSlot("clinic-1", Behaviour(chunks=5, chunk_gap_s=0.02)).running() as slot:
            clients = [aiohttp.ClientSession(connector=connector) for connector in connectors]
            async with worker(listener, slot) as first, asyncio.TaskGroup() as callers:
                for number in range(12):
                    callers.create_task(caller(clients[number % 2], number % 4 < 2))
                async with worker(listener, slot):
                    first.send_signal(signal.SIGTERM)
                    assert await asyncio.wait_for(first.wait(), 10) == 0
                    before = outcomes["ok"]
                    assert await becomes(lambda: outcomes["ok"] > before + 50, within_s=10)
                    stop.set()
                    await asyncio.sleep(0.5)
            for client in clients:
                await client.close()
    assert outcomes["ok"] > 100
    assert outcomes["failed"] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_with_a_certificate_it_speaks_https_and_nothing_else(tmp_path: Path, stream: bool) -> None:
    cert, key = certificate(tmp_path)
    async with one_slot(tls_certificate=cert, tls_key=key) as (stack, slot):
        trust = ssl.create_default_context(cafile=str(cert))
        url = stack.url.replace("http:", "https:") + "/v1/chat/completions"
        request = stack.client.post(url, json={**CHAT, "stream": stream}, headers={"Authorization": f"Bearer {KEY}"}, ssl=trust)
        async with request as response:
            assert response.status == 200
            assert not stream or await response.read() == b"".join(slot.events({}))
        with pytest.raises(aiohttp.ClientError):
            await stack.client.get(stack.url + "/health")


async def shown(url: str) -> bytes:
    """The certificate that a new caller gets to see."""
    port = urlsplit(url).port
    return ssl.PEM_cert_to_DER_cert(await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port), timeout=5))


async def test_a_renewed_certificate_is_shown_to_new_callers_and_costs_nobody_who_is_there_an_answer(tmp_path: Path) -> None:
    """Renewed as programs do it: the certificate, and a moment later the key. Between the two nothing fits, and the old one stays."""
    (tmp_path / "renewed").mkdir()
    (cert, key), (renewed, its_key) = certificate(tmp_path), certificate(tmp_path / "renewed")
    before, after = (ssl.PEM_cert_to_DER_cert(file.read_text()) for file in (cert, renewed))
    trust = ssl.create_default_context(cafile=str(cert))
    async with one_slot(Behaviour(chunks=20, chunk_gap_s=0.2), tls_certificate=cert, tls_key=key) as (stack, slot):
        url, headers = stack.url.replace("http:", "https:") + "/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}
        async with stack.client.post(url, json={**CHAT, "stream": True}, headers=headers, ssl=trust) as stream:
            renewed.replace(cert)
            await asyncio.sleep(1.5)
            assert await shown(stack.url) == before
            its_key.replace(key)
            async with asyncio.timeout(10):
                while await shown(stack.url) != after:
                    await asyncio.sleep(0.1)
            assert await stream.read() == b"".join(slot.events({}))


def test_one_half_of_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="together"):
        settings_for_tests(tls_certificate=tmp_path / "cert.pem")


@pytest.mark.parametrize("content", [None, "garbage"])
def test_a_certificate_that_cannot_be_used_names_both_settings(tmp_path: Path, content: str | None) -> None:
    files = [tmp_path / "cert.pem", tmp_path / "key.pem"]
    for path in files if content else ():
        path.write_text(content or "")
    with pytest.raises(SettingsError, match=r"TUNEGATE_TLS_CERTIFICATE=.*cert\.pem and TUNEGATE_TLS_KEY"):
        tls_context(Settings(tls_certificate=files[0], tls_key=files[1]))
