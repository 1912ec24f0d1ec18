"""A real Prometheus scrapes the real gateway under load: no panel says "No data", no alert fails to evaluate."""

import asyncio
import contextlib
import math
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from monitoring import queries
from monitoring.alerts import ALERTS
from monitoring.dashboards import PANELS
from monitoring.provisioning import files, prometheus_config
from serving.lifecycle import State
from serving.records import SlotState, Snapshot
from tests.fakes_gateway import CHAT, PUBLIC_NAME, Stack, backend_of, gateway_over, release, slot_info
from tests.fakes_gateway_slot import Behaviour, FakeSlot

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(
        PROMETHEUS is None, reason="prometheus is not installed: NO panel or alert is checked live (apt-get install prometheus)"
    ),
]

SCRAPE_S, LOAD_S, WINDOW = 1, 3.0, "15s"
PANEL_QUERIES = [(panel.title, query) for panel in PANELS for query in panel.queries]
# True only when something is wrong; here it must evaluate, and be empty.
NOT_NOW = (queries.CHAMPION_SLOT_DOWN, queries.NO_CHAMPION, queries.SLOT_FAILED, queries.GATEWAY_DOWN)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


REGISTRY = Snapshot(
    generation=2,
    releases=(release(1, State.RETIRED), release(2, State.LIVE)),
    slots=(slot_info(1, SlotState.READY), slot_info(2, SlotState.READY)),
    leases={},
    steps={(PUBLIC_NAME, State.LIVE): 2, (PUBLIC_NAME, State.RETIRED): 1},
)


async def load(stack: Stack) -> None:
    """A little of everything a caller may do, for LOAD_S seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + LOAD_S
    while loop.time() < end:
        await asyncio.gather(
            ask(stack), ask(stack, stream=True, stream_options={"include_usage": True}), ask(stack, model="nobody"), hang_up(stack)
        )
        await asyncio.sleep(0.05)


async def ask(stack: Stack, **extra: Any) -> None:
    # A stream that the sick champion breaks off ends in ClientPayloadError, as it should.
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async with stack.post({**CHAT, **extra}) as response:
            await response.read()


async def hang_up(stack: Stack) -> None:
    asking = asyncio.create_task(stack.ask())
    await asyncio.sleep(0.01)
    asking.cancel()


@contextlib.asynccontextmanager
async def prometheus_over(stack: Stack, folder: Path) -> AsyncIterator[str]:
    """The provisioned configuration, with this gateway's port and a shorter interval."""
    config = prometheus_config(stack.url.removeprefix("http://"), interval=f"{SCRAPE_S}s")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "alerts.yml").write_text(files()["prometheus/alerts.yml"])
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(PROMETHEUS or "prometheus", *options, stdout=log, stderr=log)
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            await process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def query(stack: Stack, prometheus: str, expr: str) -> list[float]:
    async with stack.client.get(f"{prometheus}/api/v1/query", params={"query": expr}) as response:
        body = await response.json()
        assert body["status"] == "success", (expr, body)
        return [float(series["value"][1]) for series in body["data"]["result"]]


async def rules(stack: Stack, prometheus: str) -> list[dict[str, Any]]:
    async with stack.client.get(f"{prometheus}/api/v1/rules") as response:
        return [rule for group in (await response.json())["data"]["groups"] for rule in group["rules"]]


async def scrapes(stack: Stack, prometheus: str) -> bool:
    """Whether the gateway is being scraped; Prometheus takes some 5 s to look at its targets for the first time."""
    for _ in range(200):
        with contextlib.suppress(OSError, aiohttp.ContentTypeError):
            if await query(stack, prometheus, "up") == [1.0]:
                return True
        await asyncio.sleep(0.1)
    return False


async def test_every_panel_has_data_and_every_alert_evaluates(tmp_path: Path) -> None:
    """First the healthy release answers, then one that breaks off every answer, so that errors, too, have something to show."""
    sick = Behaviour(chunks=3, chunk_gap_s=0.01, think_s=0.03, die_after_chunks=2)
    async with (
        FakeSlot("clinic-1", Behaviour(think_s=0.03)).running() as old,
        FakeSlot("clinic-2", sick).running() as new,
        gateway_over({PUBLIC_NAME: backend_of(old)}) as stack,
        prometheus_over(stack, tmp_path) as prometheus,
    ):
        stack.metrics.follow(REGISTRY)
        assert await scrapes(stack, prometheus), (tmp_path / "log").read_text()
        await load(stack)
        stack.switch_to(backend_of(new))
        await load(stack)
        answers = {(title, asked.name): await query(stack, prometheus, asked.over(WINDOW)) for title, asked in PANEL_QUERIES}
        quiet = {asked.name: await query(stack, prometheus, asked.over(WINDOW)) for asked in NOT_NOW}
        evaluated = await rules(stack, prometheus)
    for (title, name), values in answers.items():
        print(f"{title:28} {name:24} {' '.join(f'{value:.4g}' for value in values)}")
    assert len(answers) == len(PANEL_QUERIES) >= 15
    assert [panel for panel, values in answers.items() if not values or any(math.isnan(value) for value in values)] == []
    assert quiet == {asked.name: [] for asked in NOT_NOW}
    assert {rule["name"]: (rule["health"], rule.get("lastError")) for rule in evaluated} == {alert.name: ("ok", None) for alert in ALERTS}
