"""A real Prometheus scrapes the real gateway and the real vLLM under load: no panel says "No data", no alert looks at nothing."""

import asyncio
import contextlib
import json
import math
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import yaml

from evaluation.records import Outcome
from evaluation.suite import load_suite
from monitoring.alerts import ALERTS
from monitoring.dashboards import BOARDS
from monitoring.provisioning import files, prometheus_config
from monitoring.queries_engine import ENGINE_SERIES
from serving.config import ServingSection
from serving.engine import engine_command
from serving.lifecycle import State
from serving.line_log import STEPS, Entry, append
from serving.live_reference import LiveReference, write_reference
from serving.records import Rollout, RolloutStatus, SlotInfo, SlotState, Snapshot
from serving.rollout_decision import Standing, decide
from serving.rollout_judging import Judgement, judge
from serving.rollout_section import RolloutSection, RolloutStep
from serving.routing import Backend, Route, Target, champion_route
from serving.slot_folder import read_key
from serving.slots import SlotProcess
from serving.surroundings import Surroundings
from serving.training_now import TrainingNow, tell
from tests.fakes_engine_tiny import write_tiny_model
from tests.fakes_gateway import CHAT, PUBLIC_NAME, Stack, backend_of, gateway_over
from tests.fakes_gateway_slot import Behaviour, FakeSlot
from tests.fakes_serving import bare_release, slot_info
from tests.fakes_suites import many_prompts, write_suite

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.skipif(
        PROMETHEUS is None, reason="prometheus is not installed: NO panel or alert is checked live (apt-get install prometheus)"
    ),
]

SCRAPE_S, LOAD_S, WINDOW = 1, 8.0, "15s"
# Answers are held against the rules at lowest priority, which takes its time on a busy machine.
ROUNDS = 8
PANELS = [(board.slug, panel.title, query) for board in BOARDS for panel in board.panels for query in panel.queries]
SERVED = ServingSection(public_name=PUBLIC_NAME, max_model_len=512, max_num_seqs=4, dtype="float32")
SECTION = RolloutSection(steps=(RolloutStep(percent=50),))
ROLLOUT = Rollout(
    id=1, public_name=PUBLIC_NAME, release_id="clinic-3", champion_id="clinic-2", status=RolloutStatus.RUNNING, step=0, share=0.5,
    lease_until=datetime.now(UTC) + timedelta(hours=1), fence=1, failures=1, errors=0, outcome="FAIL", reason="", verdicts=(),
    baseline=None, actor="ann", started_at=datetime.now(UTC), step_at=datetime.now(UTC), ended_at=None,
)  # fmt: skip
PICTURES = os.environ.get("PANELS_FILE")
"""Where to write what every panel showed, for tests/benchmarks/dashboard_pictures.py."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def registry_of(port: int) -> Snapshot:
    """The old champion, the one that answers, and a canary that is to get half of the traffic."""

    def slot(number: int, state: SlotState, at: int | None) -> SlotInfo:
        now = datetime.now(UTC)
        return slot_info(f"{PUBLIC_NAME}-{number}", state, now, port=at)

    return Snapshot(
        generation=2,
        releases=(bare_release(1, State.RETIRED), bare_release(2, State.LIVE), bare_release(3, State.CANARY)),
        # Not ready for the registry: the canary's fake engine has no metrics that Prometheus could scrape.
        slots=(slot(2, SlotState.READY, port), slot(3, SlotState.STARTING, None)),
        leases={},
        steps={(PUBLIC_NAME, State.LIVE): 2, (PUBLIC_NAME, State.RETIRED): 1},
        rollouts=(ROLLOUT,),
        ended={(PUBLIC_NAME, RolloutStatus.DONE, "PASS"): 1},
    )


def look(stack: Stack) -> Judgement:
    """What the controller would do now: judge what the gateway has counted of both releases, and say it."""
    counts = stack.metrics.tallies.counts({"clinic-2", "clinic-3"})
    judgement = judge(counts["clinic-3"], counts["clinic-2"], SECTION, min_requests=20)
    stack.metrics.rollouts.looked(ROLLOUT, judgement, decide(SECTION, Standing(step=0, failures=0, errors=0, age_s=5), judgement))
    return judgement


async def load(stack: Stack) -> None:
    """A little of everything a caller may do, for LOAD_S seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + LOAD_S
    while loop.time() < end:
        streams = (ask(stack, stream=True, stream_options={"include_usage": True}) for _ in range(2))
        await asyncio.gather(ask(stack), *streams, ask(stack, model="nobody"), hang_up(stack))
        await asyncio.sleep(0.05)


async def ask(stack: Stack, **extra: Any) -> None:
    # A stream that a sick engine breaks off ends in ClientPayloadError, as it should.
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async with stack.post({**CHAT, "max_tokens": 12, **extra}) as response:
            await response.read()


async def hang_up(stack: Stack) -> None:
    asking = asyncio.create_task(stack.ask(max_tokens=200))
    await asyncio.sleep(0.01)
    asking.cancel()


@contextlib.asynccontextmanager
async def real_engine(folder: Path) -> AsyncIterator[tuple[Backend, SlotProcess]]:
    """The real vLLM with a tiny model."""
    write_tiny_model(folder / "model")
    slot = SlotProcess(
        "clinic-2", folder / "slot", lambda port: engine_command(folder / "model", "clinic-2", port, SERVED, drain_s=1), start_timeout_s=300
    )
    try:
        await slot.start()
        await slot.ready()
        key = read_key(folder / "slot")
        assert key is not None
        yield Backend("clinic-2", slot.base_url, key, "clinic-2"), slot
    finally:
        await slot.stop(1)


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


async def api(stack: Stack, prometheus: str, path: str, **params: str) -> Any:
    async with stack.client.get(f"{prometheus}/api/v1/{path}", params=params) as response:
        body = await response.json()
        assert body["status"] == "success", (params, body)
        return body["data"]


async def query(stack: Stack, prometheus: str, expr: str) -> list[float]:
    """The values of an expression now."""
    return [float(series["value"][1]) for series in (await api(stack, prometheus, "query", query=expr))["result"]]


async def asked_of(stack: Stack, prometheus: str) -> dict[tuple[str, str, str], list[float]]:
    """What every panel shows now."""
    return {(slug, title, asked.name): await query(stack, prometheus, asked.over(WINDOW)) for slug, title, asked in PANELS}


async def scrapes(stack: Stack, prometheus: str) -> bool:
    """Whether gateway and engine are being scraped; Prometheus takes some 5 s to look at its targets for the first time."""
    for _ in range(300):
        with contextlib.suppress(OSError, aiohttp.ContentTypeError):
            if await query(stack, prometheus, "up") == [1.0, 1.0]:
                return True
        await asyncio.sleep(0.1)
    return False


async def fires(stack: Stack, prometheus: str, alert: str, conditions: set[str]) -> bool:
    """Whether an alert comes to fire for just these conditions; Prometheus scrapes and evaluates every second."""
    for _ in range(100):
        firing = await api(stack, prometheus, "query", query=f'ALERTS{{alertname="{alert}",alertstate="firing"}}')
        if {series["metric"]["condition"] for series in firing["result"]} == conditions:
            return True
        await asyncio.sleep(0.1)
    return False


def write_line_log(home: Path) -> None:
    """A run that went well and was promoted, after one whose server was not the trained model; and a training that goes on."""
    for at, step in enumerate(STEPS):
        verdict = "PASS" if step == "gate" else None
        append(home, Entry(at=time.time(), public_name=PUBLIC_NAME, step=step, outcome="ok", seconds=1.0 + 3 * at, verdict=verdict))
    append(home, Entry(at=time.time(), public_name=PUBLIC_NAME, step="parity", outcome="failed", seconds=2))
    figures = {"loss": 0.8, "held_out_loss": 0.9, "learning_rate": 2e-4, "tokens_per_s": 250.0, "memory_bytes": 2e9}
    tell(home, TrainingNow(at=time.time(), public_name=PUBLIC_NAME, stage="sft", step=3, steps=9, **figures))


def without_data(answers: dict[Any, list[float]]) -> list[Any]:
    """A quantile is NaN for a release that nobody asks; of another one it must be a number."""
    return [asked for asked, values in answers.items() if all(math.isnan(value) for value in values)]


async def test_every_panel_and_every_signal_of_an_alert_has_data(tmp_path: Path) -> None:
    """First the real engine answers alone, then beside a canary that breaks off every answer, so that errors, too, have something to show.

    What the gateway counts of the canary makes the rollouts' judge FAIL it, and Prometheus fires the alert about it.
    """
    suite = load_suite(write_suite(tmp_path / "suite", prompts=many_prompts(6)))
    home = tmp_path / "home"
    write_reference(home / "live", "clinic-2", LiveReference(suites=(suite,), answers=("Call 911 now.", "Please see a doctor today.")))
    write_line_log(home)
    sick = Behaviour(chunks=3, chunk_gap_s=0.01, think_s=0.03, die_after_chunks=2)
    async with (
        real_engine(tmp_path) as (engine, process),
        FakeSlot("clinic-3", sick).running() as broken,
        gateway_over({PUBLIC_NAME: engine}, home=home, live_checks_per_minute=600) as stack,
        prometheus_over(stack, tmp_path) as prometheus,
        asyncio.TaskGroup() as beside,
    ):
        tasks = [beside.create_task(stack.house.sample.run()), beside.create_task(Surroundings(home, stack.metrics).run(every_s=0.5))]
        shared = (Target(engine, 0.5, "champion"), Target(backend_of(broken), 0.5, "canary"))
        stack.metrics.follow(registry_of(process.port))
        assert await scrapes(stack, prometheus), (tmp_path / "log").read_text()
        for _ in range(ROUNDS):
            await load(stack)
            stack.routing.replace({PUBLIC_NAME: Route(PUBLIC_NAME, shared)})
            await load(stack)
            judgement = look(stack)
            panels = await asked_of(stack, prometheus)
            if not without_data(panels):
                break
            stack.routing.replace({PUBLIC_NAME: champion_route(PUBLIC_NAME, engine)})
        firing = await fires(stack, prometheus, "TunegateCanaryFailing", set(judgement.failing))
        signals = {(alert.name, signal): await query(stack, prometheus, signal) for alert in ALERTS for signal in alert.signals}
        engine_series = {name: await query(stack, prometheus, name) for name in sorted(ENGINE_SERIES)}
        rules = [rule for group in (await api(stack, prometheus, "rules"))["groups"] for rule in group["rules"]]
        if PICTURES:
            Path(PICTURES).write_text(json.dumps(await drawn(stack, prometheus)))
        for task in tasks:
            task.cancel()
        stack.routing.replace({PUBLIC_NAME: champion_route(PUBLIC_NAME, engine)})
        broken_off = await killed_mid_stream(stack, process)
    for (slug, title, name), values in panels.items():
        print(f"{slug:9} {title:44} {name:24} {' '.join(f'{value:.4g}' for value in values[:6])}")
    assert len({(slug, title) for slug, title, _ in panels}) == 65
    assert without_data(panels) == []
    assert without_data(signals) == []
    assert {name for name, values in engine_series.items() if not values} == set()
    assert {rule["name"]: (rule["health"], rule.get("lastError")) for rule in rules} == {alert.name: ("ok", None) for alert in ALERTS}
    assert len(panels["rollout", "Share of the traffic", "traffic_share"]) == 2
    assert stack.outcomes("clinic-3").keys() >= {"server_error"}
    assert (judgement.outcome, firing) == (Outcome.FAIL, True)
    assert stack.value("tunegate_live_unchecked_total", release="clinic-2", reason="no_reference") == 0
    assert b'data: {"error":' in broken_off
    assert b"[DONE]" not in broken_off


async def killed_mid_stream(stack: Stack, process: SlotProcess) -> bytes:
    """What a caller gets whose engine, the real one, is killed in mid-stream; asked here because it is the last thing this engine does."""
    engine = psutil.Process(process.pid).children()[0]
    read = bytearray()
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async with stack.stream(max_tokens=400, ignore_eos=True) as response:
            read += await response.content.readline()
            engine.kill()
            async for chunk in response.content.iter_any():
                read += chunk
    return bytes(read)


async def drawn(stack: Stack, prometheus: str) -> list[dict[str, Any]]:
    """Every panel's series over the whole load, for pictures."""
    end = time.time()
    span = {"start": f"{end - 2 * LOAD_S - 4:.1f}", "end": f"{end:.1f}", "step": "1"}
    found = []
    for board in BOARDS:
        for row in board.rows:
            for panel in row.panels:
                series = []
                for asked in panel.queries:
                    answer = await api(stack, prometheus, "query_range", query=asked.over(WINDOW), **span)
                    series += [{"legend": asked.legend, **each} for each in answer["result"]]
                about = {"board": board.title, "row": row.title, "title": panel.title, "kind": panel.kind, "width": panel.width}
                more = {"unit": panel.queries[0].unit, "limit": panel.limit, "by_label": panel.by_label, "decimals": panel.decimals}
                found.append({**about, **more, "good": panel.good, "series": series})
    return found
