"""`serve` as a real process with fake engines: from the registry to an answer, through a promotion, to a clean end."""

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import psutil
import pytest

from serving.errors import PortInUse, ServerError
from serving.gateway_front import listen
from serving.lifecycle import State
from serving.records import LEASE_S
from serving.registry import utc_now
from serving.rollout_section import RolloutSection, RolloutStep
from serving.slots import free_port
from tests.fakes_serving import EVIDENCE, approved, write_model
from tests.fakes_site import Site, ask, until

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path)
    yield opened
    opened.registry.close()
    for server in opened.started:
        server.kill()
        server.wait()


def test_a_request_reaches_the_champion_and_the_metrics_page_knows_it(site: Site) -> None:
    async def metrics() -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{site.port}/metrics") as page:
            return await page.text()

    with site.serving():
        status, release, body = asyncio.run(ask(site.port, site.secret))
        assert (status, release) == (200, "clinic-1")
        assert "word" in body
        assert 'tunegate_slot_state{release="clinic-1",state="ready"} 1.0' in asyncio.run(metrics())


def test_a_promotion_under_load_fails_no_request(site: Site) -> None:
    stop = False

    async def caller() -> list[tuple[int, str]]:
        answers = []
        while not stop:
            status, release, body = await ask(site.port, site.secret, words=3, stream=True)
            answers.append((status if body.endswith("data: [DONE]\n\n") else 0, release))
        return answers

    async def story() -> list[tuple[int, str]]:
        nonlocal stop
        callers = [asyncio.create_task(caller()) for _ in range(8)]
        for act in (site.promote_another, lambda: site.registry.rollback("clinic", "bob", "worse")):
            await asyncio.to_thread(act)
            await asyncio.sleep(1)
        stop = True
        return [answer for answers in await asyncio.gather(*callers) for answer in answers]

    with site.serving("--token-s", "0.02"):
        answers = asyncio.run(story())
    assert {status for status, _ in answers} == {200}
    releases = [release for _, release in answers]
    assert set(releases) == {"clinic-1", "clinic-2"}
    assert releases[-1] == "clinic-1"


def test_a_canary_whose_engine_is_killed_under_load_costs_no_caller_an_answer_and_is_rolled_back(site: Site) -> None:
    """Half of the traffic is the canary's; its engine would come back after half a minute, and two looks find it gone before."""
    section = RolloutSection(steps=(RolloutStep(percent=50, min_requests=1_000_000, min_s=0),), interval_s=0.3, threshold=2)
    release = approved(site.registry, digest=write_model(site.folder / "b", "second"), folder=site.folder / "b", rollout=section)
    answers: list[tuple[int, str]] = []

    def state() -> State:
        return site.registry.release(release.id).state

    async def caller() -> None:
        while state() is State.CANARY or answers[-50:].count((200, "clinic-1")) < 50:
            status, by, body = await ask(site.port, site.secret, words=3)
            answers.append((status if "word word word" in body else 0, by))

    async def story() -> None:
        site.registry.rollouts.start(release.id, EVIDENCE, "bob", utc_now() + timedelta(seconds=LEASE_S))
        callers = [asyncio.create_task(caller()) for _ in range(8)]
        async with asyncio.timeout(60):
            while answers.count((200, "clinic-2")) < 10:
                await asyncio.sleep(0.02)
            (leash,) = (slot.pid for slot in site.registry.slots() if slot.release_id == release.id)
            psutil.Process(leash).children()[0].kill()
            await asyncio.gather(*callers)

    with site.serving("--token-s", "0.02", RESTART_FIRST_S=30, RETRY_RATIO=1):
        site.registry.want_slot(release.id, utc_now() + timedelta(seconds=60))
        site.wait_ready(release)
        asyncio.run(story())
    last = site.registry.history(release.id)[-1]
    assert {status for status, _ in answers} == {200}
    assert (state(), site.registry.champion("clinic")) == (State.ROLLED_BACK, site.champion)
    assert "the slot of clinic-2" in last.reason


def test_a_canary_that_fails_is_rolled_back_within_its_looks_and_a_second_by_the_wall_clock(site: Site) -> None:
    """Two looks, 2 s apart. From its first share on every answer of its own is a 500; callers get the champion's instead."""
    section = RolloutSection(steps=(RolloutStep(percent=50, min_requests=1_000_000, min_s=0),), interval_s=2, threshold=2)
    release = approved(site.registry, digest=write_model(site.folder / "b", "second"), folder=site.folder / "b", rollout=section)
    answers: list[tuple[int, str]] = []

    async def caller() -> None:
        while site.registry.release(release.id).state is State.CANARY:
            status, by, _ = await ask(site.port, site.secret)
            answers.append((status, by))
            await asyncio.sleep(0.02)

    async def story() -> float:
        began_s = time.monotonic()
        site.registry.rollouts.start(release.id, EVIDENCE, "bob", utc_now() + timedelta(seconds=LEASE_S))
        await asyncio.wait_for(asyncio.gather(*(caller() for _ in range(4))), 60)
        return time.monotonic() - began_s

    with site.serving("--sick", release.id, RETRY_RATIO=1):
        site.registry.want_slot(release.id, utc_now() + timedelta(seconds=60))
        site.wait_ready(release)
        took_s = asyncio.run(story())
    last = site.registry.history(release.id)[-1]
    assert (last.actor, last.to_state, last.reason.startswith("failed requests")) == ("rollout controller", State.ROLLED_BACK, True)
    assert took_s <= section.interval_s * section.threshold + 1
    assert (len(answers) > 40, set(answers)) == (True, {(200, "clinic-1")})


def test_an_engine_exchanged_in_place_under_load_loses_no_request_and_never_runs_beside_the_old_one(site: Site) -> None:
    digest = write_model(site.folder / "b", "second")
    release = approved(site.registry, digest=digest, folder=site.folder / "b", rollout=RolloutSection(), change="recreate")
    stop, beside = False, list[int]()

    async def caller() -> list[tuple[int, str]]:
        answers = []
        while not stop:
            status, by, body = await ask(site.port, site.secret, words=3, stream=True)
            answers.append((status if body.endswith("data: [DONE]\n\n") else 0, by))
        return answers

    async def story() -> list[tuple[int, str]]:
        nonlocal stop
        callers = [asyncio.create_task(caller()) for _ in range(8)]
        await asyncio.to_thread(site.registry.promote, release.id, EVIDENCE, "bob")
        while not site.is_ready(release):
            beside.append(sum(slot.pid is not None for slot in site.registry.slots()))
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        stop = True
        return [answer for answers in await asyncio.gather(*callers) for answer in answers]

    with site.serving("--token-s", "0.02"):
        answers = asyncio.run(story())
    assert {status for status, _ in answers} == {200}
    assert {by for _, by in answers} == {"clinic-1", "clinic-2"}
    assert max(beside) == 1


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP], ids=lambda sent: sent.name)
def test_a_signal_lets_streams_finish_stops_engines_and_exits_with_0(site: Site, sent: signal.Signals) -> None:
    """20 words at 0.1 s are 2 s; the signal comes after about 0.5 s."""

    async def story(server: subprocess.Popen[str]) -> tuple[int, str, str]:
        answer = asyncio.create_task(ask(site.port, site.secret, words=20, stream=True))
        await asyncio.sleep(0.5)
        server.send_signal(sent)
        await asyncio.sleep(0.3)
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(site.port, site.secret)
        return await answer

    with site.serving("--token-s", "0.1") as server:
        engines = site.engines()
        status, _, body = asyncio.run(story(server))
        assert server.wait(timeout=20) == 0
    assert status == 200
    assert body.count("data: {") == 20
    assert body.endswith("data: [DONE]\n\n")
    assert (len(engines), [engine for engine in engines if engine.is_running()]) == (2, [])
    assert site.registry.server() is None
    assert site.registry.slots() == ()


def test_a_killed_server_leaves_no_engine_and_the_next_one_starts_at_once(site: Site) -> None:
    with site.serving() as server:
        engines = site.engines()
        server.kill()
        server.wait()
        until(lambda: not any(engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE for engine in engines), 5)
        assert site.is_ready(site.champion)
    with site.serving():
        assert asyncio.run(ask(site.port, site.secret))[0] == 200


def test_a_second_server_is_refused_and_the_first_goes_on(site: Site) -> None:
    with site.serving() as server:
        second = site.start(port=free_port())
        _, message = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"a server already looks after this registry: process {server.pid}" in message
        assert asyncio.run(ask(site.port, site.secret))[0] == 200


def test_a_port_in_use_is_named_with_its_setting_and_nothing_is_left_behind(site: Site) -> None:
    with listen("127.0.0.1", site.port):
        server = site.start()
        _, message = server.communicate(timeout=60)
    assert server.returncode == 1
    assert f"port {site.port} on 127.0.0.1 is taken" in message
    assert "TUNEGATE_PORT" in message
    assert site.registry.server() is None


def test_two_listeners_on_one_port_are_refused_before_anything_starts() -> None:
    port = free_port()
    with listen("127.0.0.1", port), pytest.raises(PortInUse, match=str(port)):
        listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_names_the_setting(host: str) -> None:
    with pytest.raises(ServerError, match="TUNEGATE_HOST"):
        listen(host, free_port())


def test_a_second_signal_ends_at_once_and_leaves_no_engine(site: Site) -> None:
    async def story(server: subprocess.Popen[str]) -> None:
        answer = asyncio.create_task(ask(site.port, site.secret, words=100, stream=True))
        await asyncio.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        with pytest.raises(aiohttp.ClientError):
            await answer

    with site.serving("--token-s", "0.1") as server:
        engines = site.engines()
        asyncio.run(story(server))
        assert server.wait(timeout=5) == -signal.SIGTERM
        until(lambda: not any(engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE for engine in engines), 5)


def test_a_listener_is_not_handed_to_engines() -> None:
    with listen("127.0.0.1", free_port()) as listener:
        assert isinstance(listener, socket.socket)
        assert not listener.get_inheritable()
