"""Requests while their model's engine is exchanged on the spot: they wait, no more than are allowed to, and none is lost."""

import asyncio

import pytest

from serving.routing import Route, champion_route
from tests.fakes_gateway import PUBLIC_NAME, backend_of, gateway_over
from tests.fakes_gateway_slot import Behaviour, FakeSlot

CHANGING = Route(PUBLIC_NAME, changing=True)
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_requests_wait_for_the_new_engine_longer_than_for_a_place_and_all_are_answered() -> None:
    """0.2 s is the patience of an ordinary queue; the exchange takes 0.6 s."""
    async with (
        FakeSlot("clinic-2", Behaviour()).running() as slot,
        gateway_over({PUBLIC_NAME: CHANGING}, queue_timeout_s=0.2, change_timeout_s=20) as stack,
    ):
        asked = [asyncio.create_task(stack.ask(stream=bool(number % 2))) for number in range(20)]
        await asyncio.sleep(0.6)
        assert not any(task.done() for task in asked)
        stack.routing.replace({PUBLIC_NAME: champion_route(PUBLIC_NAME, backend_of(slot))})
        answers = await asyncio.gather(*asked)
        assert {answer.status for answer in answers} == {200}
        assert {answer.headers["x-tunegate-release"] for answer in answers} == {"clinic-2"}


async def test_no_more_wait_than_the_queue_holds_and_the_others_are_told_when_to_come_back() -> None:
    async with gateway_over({PUBLIC_NAME: CHANGING}, max_queue=3, change_timeout_s=20) as stack:
        waiting = [asyncio.create_task(stack.ask()) for _ in range(3)]
        await asyncio.sleep(0.2)
        async with await stack.ask() as refused:
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        for task in waiting:
            task.cancel()


@pytest.mark.parametrize(("changing", "patience_s"), [(True, 0.6), (False, 0.1)])
async def test_an_exchange_that_takes_too_long_is_said_to_each_caller(changing: bool, patience_s: float) -> None:
    loop = asyncio.get_running_loop()
    async with gateway_over({PUBLIC_NAME: Route(PUBLIC_NAME, changing=changing)}, queue_timeout_s=0.1, change_timeout_s=0.6) as stack:
        began = loop.time()
        async with await stack.ask() as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (503, "model_not_ready")
        assert loop.time() - began >= patience_s
