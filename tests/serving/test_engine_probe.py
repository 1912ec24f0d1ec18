"""When an engine counts as silent: it neither answers nor works, and its server was awake to hear it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest
from aiohttp import web
from pydantic import SecretStr

from serving.engine_probe import Address, Pace, awaited, went_silent
from serving.lifecycle import State
from serving.slots import free_port
from tests.fakes_serving import bare_release

RELEASE = bare_release(1, State.LIVE)
PACE = Pace(every_s=0.02, answer_s=0.1, page_s=5.0)


class Engine:
    """Answers after a while; `work` says what is on its page of metrics."""

    def __init__(self, answer_after_s: float, work: Callable[[], int]) -> None:
        self.answer_after_s, self.work, self.pages = answer_after_s, work, 0

    async def metrics(self, _: web.Request) -> web.Response:
        self.pages += 1
        return web.Response(text=f"# TYPE of something\nvllm:generation_tokens_total{{engine='0'}} {self.work()}\n")

    async def answer(self, _: web.Request) -> web.Response:
        await asyncio.sleep(self.answer_after_s)
        return web.json_response({"model": RELEASE.id, "choices": [{"text": "word"}]})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Address]:
        app = web.Application()
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/v1/completions", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
        try:
            yield Address(f"http://127.0.0.1:{port}", RELEASE.id, SecretStr("key"))
        finally:
            await runner.cleanup()


def test_an_engine_that_is_busy_is_not_silent_as_long_as_it_makes_tokens() -> None:
    """Its page is looked at once for every question that it does not answer."""
    busy = Engine(60.0, count().__next__)

    async def story() -> None:
        async with busy.running() as address:
            silent = asyncio.create_task(went_silent(address, PACE))
            async with asyncio.timeout(60):
                while busy.pages < 8:
                    await asyncio.sleep(0.01)
            assert not silent.done()
            silent.cancel()

    asyncio.run(story())


def test_an_engine_that_neither_answers_nor_makes_tokens_is_silent_after_three_questions() -> None:
    stuck = Engine(60.0, lambda: 7)

    async def story() -> str:
        async with stuck.running() as address, asyncio.timeout(60):
            return await went_silent(address, PACE)

    assert asyncio.run(story()) == "did not answer 3 times in a row"
    assert stuck.pages == 3


def test_an_engine_is_not_blamed_for_the_time_in_which_its_server_stood_still() -> None:
    """To connect, to ask and to read are three steps; the server stands still for 0.45 s before each, and waits for 0.1 s."""

    async def answer() -> bool:
        for _ in range(3):
            time.sleep(0.45)
            await asyncio.sleep(0.01)
        return True

    assert asyncio.run(awaited(answer(), 0.1)) is True


@pytest.mark.parametrize("silent_s", [0.6, 120.0])
def test_three_lost_answers_take_no_longer_than_the_setting_says(silent_s: float) -> None:
    pace = Pace.for_silence(silent_s)
    assert 3 * (pace.every_s + pace.answer_s + pace.page_s) == pytest.approx(silent_s)
