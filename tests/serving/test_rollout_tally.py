"""A gateway worker tells the rollout controller what it has counted."""

import asyncio
from pathlib import Path

import pytest

from serving.registry import Registry
from serving.rollout_counts import Tallies
from serving.rollout_tally import TallyTeller
from tests.fakes_serving import canary

pytestmark = pytest.mark.anyio


async def test_when_a_rollout_begins_a_worker_speaks_at_once_and_not_when_its_turn_comes(tmp_path: Path) -> None:
    """What it had counted before its first word is no evidence: each moment of silence would make a rollback later."""
    tallies = Tallies()
    tallies.of("clinic-1").finished("ok", 0.1)
    with Registry(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        teller = TallyTeller(registry, tallies)
        telling = asyncio.create_task(teller.run(every_s=600))
        await asyncio.sleep(0.05)
        assert registry.rollouts.tallies() == ()
        canary(registry)
        teller.observe(registry.snapshot())
        async with asyncio.timeout(10):
            while not (told := registry.rollouts.tallies()):
                await asyncio.sleep(0.01)
        telling.cancel()
    assert "clinic-1" in {each.release_id for each in told}
