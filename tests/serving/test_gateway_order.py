"""Which release answers: weights, stickiness, pins, leases, retries, shadows."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from serving.gateway_order import Side
from serving.gateway_retries import RetryBudget
from serving.routing import Backend, Route, Target, choose
from tests.fakes_gateway import CHAT, KEY, PUBLIC_NAME, TESTER_KEY, Stack, backend_of, becomes, gateway_over
from tests.fakes_gateway_slot import Behaviour, FakeSlot

pytestmark = pytest.mark.anyio
OLD, NEW, OTHER = (Backend(f"clinic-{number}", "http://127.0.0.1:1", SecretStr("k"), f"clinic-{number}") for number in (1, 2, 3))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


def route(share: float, lease_until: float | None = None) -> Route:
    return Route("clinic", (Target(OLD, 1 - share, "champion"), Target(NEW, share, "canary")), None, lease_until)


def first_of(given: Route, stickiness: bytes | None = None, point: float = 0.0, now: float = 0.0) -> str | None:
    return next((backend.release_id for backend in choose(given, stickiness, lambda: point, now)), None)


@pytest.mark.parametrize(
    ("share", "point", "answers"),
    [
        (0.0, 0.0, "clinic-1"),
        (0.05, 0.0499, "clinic-2"),
        (0.05, 0.0501, "clinic-1"),
        (0.25, 0.2499, "clinic-2"),
        (0.25, 0.9999, "clinic-1"),
        (1.0, 0.9999, "clinic-2"),
    ],
)
def test_a_share_of_the_scale_is_the_canarys(share: float, point: float, answers: str) -> None:
    assert first_of(route(share), point=point) == answers


@pytest.mark.parametrize("share", [0.05, 0.25, 1.0])
def test_after_its_lease_a_canary_gets_nothing_and_the_champion_everything(share: float) -> None:
    assert first_of(route(share, lease_until=10.0), point=0.0, now=9.9) == "clinic-2"
    assert choose(route(share, lease_until=10.0), None, lambda: 0.0, 10.0) == (OLD,)


def test_whoever_is_chosen_the_other_one_comes_next() -> None:
    assert choose(route(0.25), None, lambda: 0.1, 0.0) == (NEW, OLD)
    assert choose(route(0.25), None, lambda: 0.9, 0.0) == (OLD, NEW)


def test_a_route_without_targets_has_nobody() -> None:
    assert choose(Route("clinic"), None, lambda: 0.5, 0.0) == ()


def test_a_canary_alone_gets_its_traffic_only_under_its_lease() -> None:
    alone = Route("clinic", (Target(NEW, 1.0, "canary"),), None, 10.0)
    assert (first_of(alone, now=9.0), first_of(alone, now=11.0)) == ("clinic-2", None)


def test_the_share_of_sticky_callers_is_the_share_of_the_weight() -> None:
    """10,000 callers at 25 %: the standard deviation is 43, so three of them are 130."""
    counts = Counter(first_of(route(0.25), b"user %d" % number) for number in range(10_000))
    assert abs(counts["clinic-2"] - 2_500) < 130


def test_a_rising_share_only_moves_callers_to_the_canary() -> None:
    callers = [b"user %d" % number for number in range(2_000)]
    at_5, at_25 = ({caller for caller in callers if first_of(route(share), caller) == "clinic-2"} for share in (0.05, 0.25))
    assert at_5 < at_25


def test_stickiness_differs_between_names() -> None:
    """Otherwise the same unlucky callers would meet every canary first."""
    callers = [b"user %d" % number for number in range(2_000)]
    other = Route("other", route(0.5).targets)
    assert 800 < sum(first_of(route(0.5), caller) == first_of(other, caller) for caller in callers) < 1_200


def test_random_callers_share_as_the_weights_say() -> None:
    dice = random.Random(1)
    counts = Counter(choose(route(0.25), None, dice.random, 0.0)[0].release_id for _ in range(10_000))
    assert abs(counts["clinic-2"] - 2_500) < 130


@pytest.mark.parametrize(("ratio", "asked", "may"), [(0.0, 100, 0), (0.1, 0, 10), (0.1, 1_000, 10), (1.0, 0, 10)])
def test_a_retry_budget_holds_ten_and_fills_with_traffic(ratio: float, asked: int, may: int) -> None:
    budget = RetryBudget(ratio)
    for _ in range(asked):
        budget.asked()
    assert [budget.may() for _ in range(may + 1)] == [True] * may + [False]


def test_a_spent_retry_budget_allows_its_share_and_no_more() -> None:
    budget = RetryBudget(0.1)
    while budget.may():
        pass
    granted = 0
    for _ in range(1_000):
        budget.asked()
        granted += budget.may()
    assert 95 <= granted <= 100


@asynccontextmanager
async def canary_stack(share: float, old: Behaviour | None = None, new: Behaviour | None = None, **changes: Any) -> AsyncIterator[Any]:
    """A gateway over a champion and a canary: (stack, champion's slot, canary's slot)."""
    async with AsyncExitStack() as running:
        slots = [
            await running.enter_async_context(FakeSlot(f"clinic-{number}", behaviour or Behaviour()).running())
            for number, behaviour in ((1, old), (2, new))
        ]
        targets = (Target(backend_of(slots[0]), 1 - share, "champion"), Target(backend_of(slots[1]), share, "canary"))
        stack = await running.enter_async_context(gateway_over({PUBLIC_NAME: Route(PUBLIC_NAME, targets)}, **changes))
        yield stack, *slots


async def release_of(stack: Stack, key: str = KEY, headers: dict[str, str] | None = None, **extra: Any) -> tuple[int, str | None]:
    async with stack.post({**CHAT, **extra}, headers={"Authorization": f"Bearer {key}", **(headers or {})}) as response:
        await response.read()
        return response.status, response.headers.get("x-tunegate-release")


async def test_a_user_and_a_conversation_stay_with_one_release() -> None:
    async with canary_stack(0.5) as (stack, *_):
        by_user = [{await release_of(stack, user=f"u{number}") for _ in range(4)} for number in range(20)]
        headers = [{"x-tunegate-conversation": f"c{number}"} for number in range(20)]
        by_conversation = [{await release_of(stack, headers=header) for _ in range(4)} for header in headers]
    for answers in (by_user, by_conversation):
        assert {len(one) for one in answers} == {1}
        assert set().union(*answers) == {(200, "clinic-1"), (200, "clinic-2")}


async def test_without_a_user_a_key_is_spread_unless_it_is_told_to_stick() -> None:
    async with canary_stack(0.5) as (stack, *_):
        assert len({await release_of(stack) for _ in range(40)}) == 2
    async with canary_stack(0.5, sticky_by_key=True) as (stack, *_):
        assert len({await release_of(stack) for _ in range(40)}) == 1


@pytest.mark.parametrize("pin", ["clinic-1", "clinic-2"])
async def test_a_tester_gets_the_release_that_is_pinned(pin: str) -> None:
    async with canary_stack(0.0) as (stack, *_):
        assert {await release_of(stack, TESTER_KEY, {"x-tunegate-pin": pin}) for _ in range(5)} == {(200, pin)}


async def test_a_pin_needs_a_scope_and_a_release_that_is_there_and_is_never_answered_by_another() -> None:
    async with canary_stack(0.5, new=Behaviour(die_before_head=True)) as (stack, old, _):
        assert (await release_of(stack, KEY, {"x-tunegate-pin": "clinic-2"}))[0] == 403
        assert (await release_of(stack, TESTER_KEY, {"x-tunegate-pin": "clinic-9"}))[0] == 404
        assert (await release_of(stack, TESTER_KEY, {"x-tunegate-pin": "clinic-2"}))[0] == 502
        assert old.seen == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_canary_that_dies_before_its_first_byte_costs_the_caller_nothing(stream: bool) -> None:
    async with canary_stack(1.0, new=Behaviour(die_before_head=True)) as (stack, *_):
        assert await release_of(stack, stream=stream) == (200, "clinic-1")
        assert stack.outcomes("clinic-1") == {"ok": 1}
        assert stack.value("tunegate_upstream_errors_total", release="clinic-2", kind="reset_before_first_byte") == 1


async def test_without_retries_the_failure_reaches_the_caller() -> None:
    async with canary_stack(1.0, new=Behaviour(status=500), retry_ratio=0.0) as (stack, *_):
        assert (await release_of(stack))[0] == 502


async def test_a_failing_canary_cannot_send_more_than_the_budget_to_the_champion() -> None:
    """Ten in reserve, and a tenth of 50 requests."""
    async with canary_stack(1.0, new=Behaviour(status=503)) as (stack, old, _):
        statuses = Counter([(await release_of(stack))[0] for _ in range(50)])
        assert statuses == {200: 15, 502: 35} or statuses == {200: 14, 502: 36}
        assert len(old.seen) == statuses[200]


async def test_requests_wait_while_no_slot_is_ready_and_go_on_when_one_is() -> None:
    async with FakeSlot("clinic-1").running() as slot, gateway_over({PUBLIC_NAME: None}, queue_timeout_s=10) as stack:
        asking = [asyncio.create_task(stack.ask(stream=number % 2 == 0)) for number in range(10)]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in asking)
        stack.switch_to(backend_of(slot))
        assert [(await task).status for task in asking] == [200] * 10


async def test_who_waits_too_long_for_a_place_gets_429_and_who_hangs_up_leaves_the_queue() -> None:
    async with (
        FakeSlot("clinic-1", Behaviour(think_s=2)).running() as slot,
        gateway_over({PUBLIC_NAME: backend_of(slot)}, max_in_flight=1, max_queue=2, queue_timeout_s=0.4) as stack,
    ):
        first = asyncio.create_task(stack.ask())
        assert await becomes(lambda: slot.live == 1)
        waits, leaves = asyncio.create_task(stack.ask()), asyncio.create_task(stack.ask())
        await asyncio.sleep(0.1)
        assert (await stack.ask()).status == 429
        leaves.cancel()
        assert await becomes(lambda: stack.outcomes("none").get("aborted") == 1)
        answer = await waits
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert (await first).status == 200
        assert len(slot.seen) == 1


class Sides:
    """A sample that takes nothing, and hears whose answer it could have had."""

    def __init__(self) -> None:
        self.asked: list[Side] = []

    def wants(self, side: Side) -> bool:
        self.asked.append(side)
        return False


@pytest.mark.parametrize(("share", "side"), [(0.0, "beside"), (1.0, "canary")])
async def test_the_sample_of_live_answers_is_told_whether_a_canary_answers(share: float, side: Side) -> None:
    async with canary_stack(share) as (stack, _, new):
        sides = stack.house.sample = Sides()
        await release_of(stack)
        await release_of(stack, TESTER_KEY, headers={"x-tunegate-pin": "clinic-2"})
        stack.switch_to(backend_of(new))
        await release_of(stack)
    assert sides.asked == [side, "canary", "alone"]
