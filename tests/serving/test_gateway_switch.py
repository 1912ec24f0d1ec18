"""The champion changes under load: nobody notices."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable

import pytest

from tests.fakes_gateway import PUBLIC_NAME, Stack, backend_of, gateway_over
from tests.fakes_gateway_slot import Behaviour, FakeSlot

pytestmark = pytest.mark.anyio

PLAIN_CALLERS, STREAM_CALLERS = 12, 24
RELEASES = ("clinic-1", "clinic-2")
# Uneven and shorter than a stream, so that no stream runs in step with the switches.
BETWEEN_SWITCHES_S = (0.20, 0.31, 0.17, 0.36, 0.23, 0.29, 0.19, 0.33)
PLAIN_NEEDED, LONGEST_S = 200, 60


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


async def plain_caller(stack: Stack, stop: asyncio.Event, releases: list[str]) -> None:
    while not stop.is_set():
        async with stack.post() as response:
            assert response.status == 200
            answer = await response.json()
            assert answer["model"] == response.headers["x-tunegate-release"]
            releases.append(answer["model"])


async def stream_caller(stack: Stack, stop: asyncio.Event, releases: list[str]) -> None:
    """Every stream lasts longer than the time between two switches, so each one is alive during at least one."""
    while not stop.is_set():
        async with stack.stream() as response:
            assert response.status == 200
            events = (await response.read()).split(b"\n\n")
            assert events[-2:] == [b"data: [DONE]", b""]
            models = {json.loads(event[6:])["model"] for event in events[:-2]}
            assert models == {response.headers["x-tunegate-release"]}
            releases.append(models.pop())


def enough(plain: list[str], streamed: list[str]) -> bool:
    """Whether both releases have answered as many streams as there are callers, and plain requests beside."""
    return min(streamed.count(release) for release in RELEASES) >= STREAM_CALLERS and len(plain) >= PLAIN_NEEDED


async def switch_until(stack: Stack, slots: list[FakeSlot], enough: Callable[[], bool]) -> int:
    """Switch back and forth, all the steady times at least once, for as long as a slow machine needs; returns how often."""
    deadline = time.monotonic() + LONGEST_S
    for switch in itertools.count():
        if switch >= len(BETWEEN_SWITCHES_S) and (enough() or time.monotonic() > deadline):
            return switch
        await asyncio.sleep(BETWEEN_SWITCHES_S[switch % len(BETWEEN_SWITCHES_S)])
        stack.switch_to(backend_of(slots[(switch + 1) % 2]))
    raise AssertionError("unreachable")


async def test_no_request_and_no_stream_fails_while_the_champion_changes_back_and_forth() -> None:
    slots = [FakeSlot(f"clinic-{number}", Behaviour(chunks=10, chunk_gap_s=0.04)) for number in (1, 2)]
    plain: list[str] = []
    streamed: list[str] = []
    async with slots[0].running(), slots[1].running(), gateway_over({PUBLIC_NAME: backend_of(slots[0])}) as stack:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as callers:
            for _ in range(PLAIN_CALLERS):
                callers.create_task(plain_caller(stack, stop, plain))
            for _ in range(STREAM_CALLERS):
                callers.create_task(stream_caller(stack, stop, streamed))
            switches = await switch_until(stack, slots, lambda: enough(plain, streamed))
            stop.set()
        counts = {release: stack.outcomes(release) for release in RELEASES}
    assert switches >= len(BETWEEN_SWITCHES_S)
    assert counts == {release: {"ok": plain.count(release) + streamed.count(release)} for release in counts}
    assert enough(plain, streamed)


async def test_a_stream_that_began_before_the_switch_ends_at_the_release_it_began_with() -> None:
    slots = [FakeSlot(f"clinic-{number}", Behaviour(chunks=5, chunk_gap_s=0.05)) for number in (1, 2)]
    async with slots[0].running(), slots[1].running(), gateway_over({PUBLIC_NAME: backend_of(slots[0])}) as stack, stack.stream() as before:
        await before.content.readany()
        stack.switch_to(backend_of(slots[1]))
        async with stack.post() as after:
            assert after.headers["x-tunegate-release"] == "clinic-2"
        assert b"clinic-2" not in await before.read()
        assert before.headers["x-tunegate-release"] == "clinic-1"
        assert stack.outcomes("clinic-1") == {"ok": 1}
