"""Engines that somebody else runs: a stub OpenAI server as a slot, from the recipe to an answer through the gateway."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from serving.config import ServingSection
from serving.engine_probe import Pace
from serving.engines import engine_for, verify_before_start
from serving.errors import SlotError
from serving.outside_engine import OutsideEngine
from serving.records import Release, SlotInfo, SlotState
from serving.registry import Registry
from serving.routing import Leases, routes_of
from serving.settings import Settings
from serving.slot_keys import SlotKeys
from serving.slots import free_port
from serving.supervisor import Supervisor
from tests.fakes_gateway import PUBLIC_NAME, gateway_over
from tests.fakes_serving import candidate, slot_info, url_in

KEY, MODEL = "outside-key", "served-elsewhere"


class Stub:
    """An OpenAI server with one model; `well` can be switched off."""

    def __init__(self) -> None:
        self.well, self.asked = True, list[dict[str, Any]]()

    async def answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"message": "who?"}}, status=401)
        body = await request.json()
        self.asked.append(body)
        if not self.well or body["model"] != MODEL:
            return web.json_response({"error": {"message": "no"}}, status=503)
        said = {"index": 0, "text": "word", "message": {"role": "assistant", "content": "word"}}
        return web.json_response({"id": "x", "model": MODEL, "choices": [said], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        for path in ("/v1/completions", "/v1/chat/completions"):
            app.router.add_post(path, self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port := free_port())
        await site.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


def outside_release(registry: Registry) -> Release:
    section = ServingSection(public_name=PUBLIC_NAME, engine="outside")
    release = registry.add_release(
        public_name=PUBLIC_NAME, model_digest="a" * 64, model_dir=Path("/not/here"), serving=section, recipe_name="demo", requester="ann"
    )
    return registry.bootstrap(release.id, "ann")


def settings_in(folder: Path, url: str, **more: Any) -> Settings:
    own: dict[str, Any] = {"reconcile_s": 0.05, "restart_first_s": 0.05, "outside_model": MODEL, "outside_key": SecretStr(KEY), **more}
    return Settings(home=folder / "home", outside_url=url, **own)


def test_a_champion_that_somebody_else_runs_answers_through_the_gateway(tmp_path: Path) -> None:
    async def story() -> None:
        stub = Stub()
        async with stub.running() as url:
            with Registry(url_in(tmp_path)) as registry:
                release, settings = outside_release(registry), settings_in(tmp_path, url)
                supervisor = asyncio.create_task(Supervisor(registry, settings, no_command).run())
                async with asyncio.timeout(20):
                    while not (slots := registry.slots()) or slots[0].state != "ready":
                        await asyncio.sleep(0.02)
                assert (slots[0].base_url, slots[0].served_name, slots[0].pid) == (url, MODEL, None)
                routes = routes_of(registry.snapshot(), SlotKeys(settings), Leases())
                async with gateway_over(routes) as stack, await stack.ask() as answer:
                    assert (answer.status, answer.headers["x-tunegate-release"]) == (200, release.id)
                    assert json.loads(await answer.read())["choices"][0]["message"]["content"] == "word"
                supervisor.cancel()
                await asyncio.gather(supervisor, return_exceptions=True)
                (left,) = registry.slots()
                assert (left.state, left.base_url) == ("ready", url)  # gateways beside this server go on with it
        assert {asked["model"] for asked in stub.asked} == {MODEL}

    asyncio.run(story())


def test_gateways_go_on_with_an_engine_elsewhere_while_the_next_server_looks_at_it(tmp_path: Path) -> None:
    """Nobody answers at its address any more: callers are sent there until the next server has found that out, not until it has begun."""

    async def story(registry: Registry) -> None:
        release, stub = outside_release(registry), Stub()
        async with stub.running() as url:
            settings = settings_in(tmp_path, url, start_timeout_s=1)
            first = Supervisor(registry, settings, no_command)
            await first.reconcile()
            await state_is(registry, release, SlotState.READY)
            await first.stop()
        second, states = Supervisor(registry, settings, no_command), list[str]()
        await second.reconcile()
        async with asyncio.timeout(20):
            while states[-1:] != ["failed"]:
                states += [slot.state for slot in registry.slots()]
                await asyncio.sleep(0.02)
        assert list(dict.fromkeys(states)) == ["ready", "failed"]
        await second.stop()
        assert registry.slots() == ()

    with Registry(url_in(tmp_path)) as registry:
        asyncio.run(story(registry))


def test_an_engine_elsewhere_that_nobody_wants_any_more_is_forgotten_by_the_next_server(tmp_path: Path) -> None:
    async def story(registry: Registry) -> None:
        supervisor = Supervisor(registry, settings_in(tmp_path, "http://127.0.0.1:1"), no_command)
        await supervisor.reconcile()
        await supervisor.reconcile()
        assert [(slot.release_id, slot.state) for slot in registry.slots()] == [(wanted.id, SlotState.READY)]
        await supervisor.stop()

    with Registry(url_in(tmp_path)) as registry:
        wanted, unwanted = outside_release(registry), candidate(registry, name="other")
        for number, release in enumerate((wanted, unwanted)):
            registry.set_slot(ready_at(release, f"http://engine.example:{8000 + number}"))
        asyncio.run(story(registry))


def ready_at(release: Release, url: str) -> SlotInfo:
    return slot_info(release.id, SlotState.READY, datetime.now(UTC)).model_copy(update={"base_url": url, "pid": None})


async def state_is(registry: Registry, release: Release, state: SlotState) -> None:
    async with asyncio.timeout(20):
        while not any((slot.release_id, slot.state) == (release.id, state) for slot in registry.slots()):
            await asyncio.sleep(0.02)


def no_command(release: Release, port: int) -> Any:
    raise AssertionError("nothing is to be started here")


def engine_in(folder: Path, url: str, **more: Any) -> OutsideEngine:
    with Registry(url_in(folder)) as registry:
        return OutsideEngine(outside_release(registry), settings_in(folder, url, **more), pace=Pace(every_s=0.02, answer_s=5.0, page_s=5.0))


def test_an_engine_elsewhere_that_falls_silent_has_ended(tmp_path: Path) -> None:
    async def story() -> None:
        stub = Stub()
        async with stub.running() as url:
            engine = engine_in(tmp_path, url)
            await engine.start()
            await engine.ready()
            ended = asyncio.create_task(engine.ended())
            await asyncio.sleep(0.2)
            assert not ended.done()
            stub.well = False
            assert "did not answer 3 times in a row" in await asyncio.wait_for(ended, 5)

    asyncio.run(story())


def test_an_engine_elsewhere_that_never_answers_is_named_with_what_to_do(tmp_path: Path) -> None:
    async def story() -> None:
        engine = engine_in(tmp_path, f"http://127.0.0.1:{free_port()}", start_timeout_s=1)
        await engine.start()
        with pytest.raises(SlotError, match=r"nobody answered for clinic-1 .* within 1 s") as error:
            await engine.ready()
        assert MODEL in str(error.value)

    asyncio.run(story())


def test_without_an_address_an_outside_engine_is_refused_with_the_settings_name(tmp_path: Path) -> None:
    with pytest.raises(SlotError, match="TUNEGATE_OUTSIDE_URL"):
        asyncio.run(engine_in(tmp_path, "", outside_key=SecretStr("")).start())


def test_the_recipe_decides_who_runs_the_engine_and_only_files_that_are_loaded_here_are_hashed(tmp_path: Path) -> None:
    with Registry(url_in(tmp_path)) as registry:
        release = outside_release(registry)
    assert isinstance(engine_for(release, settings_in(tmp_path, "http://127.0.0.1:1"), no_command), OutsideEngine)
    verify_before_start(release, settings_in(tmp_path, "http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"outside_url": "ftp://host"}, "an address looks like"),
        ({"outside_url": "host:8000"}, "an address looks like"),
        ({"outside_url": "http://host/?a=1"}, "an address looks like"),
        ({"outside_url": "http://me:secret@host"}, "no user and no password"),
        ({"outside_url": "http://{model}"}, "{model} is not known"),
        ({"outside_url": "http://{release.id}"}, "{release.id} is not known"),
        ({"outside_model": "{name!r}{x}"}, "{x} is not known"),
        ({"outside_url": "http://host", "outside_key": "k"}, "would cross the network unencrypted"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_at_the_start(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as error:
        Settings(**settings)
    assert fault in str(error.value)


@pytest.mark.parametrize("url", ["https://{release}.models.example", "http://127.0.0.1:8000", "http://localhost:8000/v1/"])
def test_a_key_goes_over_https_or_stays_on_this_machine(url: str) -> None:
    assert Settings(outside_url=url, outside_key=SecretStr("k")).outside_url == url.removesuffix("/v1/")
