"""A smaller run of `tests/benchmarks/rollout_switch.py`: the real server over stub engines, and callers who must notice nothing."""

from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import pytest

from serving.lifecycle import State
from tests.benchmarks.rollout_switch import Site, switch_under_load

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def running_site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    with site.serving():
        yield site


async def test_a_promotion_a_rollback_and_a_promotion_by_steps_fail_and_truncate_nothing(running_site: Site) -> None:
    """150 requests a second and streams of 4 s; a stream that is under way at the end of the load is waited for."""
    figures = await switch_under_load(running_site, 150, 15, steady_s=1.0)
    history = await anyio.to_thread.run_sync(running_site.registry.history, running_site.third.id)
    assert figures.faults == []
    assert {answer.release for answer in figures.answers} == {"clinic-1", "clinic-2", "clinic-3"}
    assert figures.live_streams() >= 30
    assert max(figures.flip_s(flip) for flip in figures.flips) < 1.0  # 50 ms on an idle machine; see the benchmark
    assert [step.to_state for step in history][-2:] == [State.CANARY, State.LIVE]
