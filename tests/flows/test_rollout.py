"""A promotion by steps through the real server: it ends live under load, whoever follows learns how it ended, and going back is safe."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import aiohttp
import pytest

from flows import stages
from flows.approval import approve_release
from flows.comparing import Together
from flows.errors import NOT_PASSED, PromotionEnded, ServingFailed
from flows.judging import evaluate, gate, keep_champion_serving, register
from flows.load import light_load
from flows.promotion import switch, wait_until_routed
from flows.rollout import describe, follow, go_back, show
from serving.lifecycle import State
from serving.records import Release, RolloutStatus
from tests.fakes_flows import (
    ROOT,
    SAFE,
    Site,
    dataset,
    merged_model,
    open_small_line,
    printed,
    quiet_console,
    recipe_values,
    until,
    write_recipe,
)
from training.progress import Progress, silent

# Few requests on a slow machine: what is tested here is the way, not the statistics.
QUICK = {"steps": [{"percent": 50, "min_requests": 60, "min_s": 0}], "interval_s": 0.2, "watch_s": 1, "max_error_increase": 0.2}
# A few checked answers show no difference of a hundredth: how soon the live checks come would decide.
LENIENT = {"max_latency_ratio": 50, "max_first_token_ratio": 50, "max_violation_increase": 1}
HALF = {"steps": [{"percent": 50, "min_requests": 10_000_000, "min_s": 0}]}
NEVER = {"steps": [{"percent": 5, "min_requests": 10_000_000, "min_s": 0}]}


def approved(site: Site, folder: Path, name: str, rollout: dict[str, object]) -> Release:
    """A release that may be promoted, with a champion in production."""
    values = recipe_values(name)
    values["serving"]["rollout"] = rollout
    line = open_small_line(write_recipe(folder, values), site.settings, site.registry)
    champion = keep_champion_serving(line, stages.fetch_base(line))
    merged = merged_model(line, SAFE)
    release = register(line, merged)
    judged = gate(line, release, (evaluate(line, release, merged), evaluate(line, champion), Together()), merged, dataset(line))
    return approve_release(site.registry, judged.release.id, "bob", "looks right", None)


def in_background(site: Site, act: Callable[[], object], name: str) -> threading.Thread:
    """Do something as soon as the name has a canary."""

    def wait_and_act() -> None:
        until(lambda: site.registry.rollouts.current(name) is not None)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def is_cold(site: Site, release_id: str) -> bool:
    """Take back what keeps the slot up, for as long as somebody asks for it again; whether it is gone."""
    site.registry.release_slot(release_id)
    return all(slot.release_id != release_id for slot in site.registry.slots())


def test_a_promotion_by_steps_under_load_fails_no_request_and_ends_live(site: Site, tmp_path: Path) -> None:
    release = approved(site, tmp_path, "steps", QUICK | LENIENT)
    with light_load(site.url, site.key, "steps", every_s=0.01) as load:
        live = switch(site.board, release, "ann")
        asyncio.run(wait_until_routed(site.url, site.key, live))
    assert load.failures == []
    assert set(load.answered) == {"steps-1", "steps-2"}
    assert live.state is State.LIVE
    assert [step.to_state for step in site.registry.history(live.id)][-2:] == [State.CANARY, State.LIVE]
    until(lambda: site.registry.rollouts.current("steps") is None)
    assert [(each["status"], each["verdicts"][0]["outcome"]) for each in describe(site.registry, "steps")] == [("done", "PASS")]


def test_a_rollout_that_is_aborted_tells_who_follows_it_and_leaves_the_release_approved(site: Site, tmp_path: Path) -> None:
    release = approved(site, tmp_path, "aborts", NEVER)
    thread = in_background(site, lambda: site.registry.rollouts.abort("aborts", "eve", "not today"), "aborts")
    with pytest.raises(PromotionEnded, match="aborts-2 is approved: not today") as ended:
        switch(site.board, release, "ann")
    thread.join()
    assert ended.value.exit_code == NOT_PASSED
    assert site.registry.champion("aborts") == site.registry.release("aborts-1")


DIES = """
import sys
from flows.promotion import open_switchboard, switch
with open_switchboard() as board:
    switch(board, board.registry.release(sys.argv[1]), "ann")
"""


def test_a_promotion_killed_during_its_canary_is_taken_up_by_the_next_and_ends_live(site: Site, tmp_path: Path) -> None:
    release = approved(site, tmp_path, "resumes", QUICK | LENIENT)
    env = {**os.environ, **site.environment, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([sys.executable, "-c", DIES, release.id], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    until(lambda: site.registry.release(release.id).state is State.CANARY)
    with light_load(site.url, site.key, "resumes", every_s=0.01), ThreadPoolExecutor(1) as beside:
        # It has the release as it was read before the canary began, and waits for who promotes it.
        second = beside.submit(switch, site.board, release, "bob")
        until(lambda: second.running())
        first.kill()
        first.wait()
        live = second.result(60)
    assert live.state is State.LIVE
    assert switch(site.board, release, "bob") == live
    assert [step.to_state for step in site.registry.history(live.id)].count(State.CANARY) == 1
    heard = [line.kind for line in site.registry.approvals.lines() if line.subject == f"promotion of {release.id}"]
    assert heard == ["run.started", "run.crashed", *["run.started", "run.finished"] * 2]


def test_a_canary_is_taken_back_by_a_rollback_within_a_second(site: Site, tmp_path: Path) -> None:
    """On the registry's clock from the call to the commit; and a second after that, of 40 requests none goes where half of them went."""
    release = approved(site, tmp_path, "backs", HALF)
    called = list[datetime]()

    def take_back() -> None:
        until(lambda: asyncio.run(answering(site, "backs")) == "backs-2")
        called.append(site.registry.now())
        go_back(site.settings, site.registry, "backs", "eve", "bad", silent)

    thread = in_background(site, take_back, "backs")
    with pytest.raises(PromotionEnded, match="backs-2 is rolled_back: bad"):
        switch(site.board, release, "ann")
    thread.join()
    last = site.registry.history("backs-2")[-1]
    assert last.to_state is State.ROLLED_BACK
    assert (last.at - called[0]).total_seconds() < 1
    until(lambda: (site.registry.now() - last.at).total_seconds() >= 1)
    assert {asyncio.run(answering(site, "backs")) for _ in range(40)} == {"backs-1"}


async def answering(site: Site, public_name: str) -> str | None:
    """Who answers a request."""
    question = {"model": public_name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    headers = {"Authorization": f"Bearer {site.key.get_secret_value()}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{site.url}/v1/chat/completions", json=question, headers=headers) as answer,
    ):
        await answer.read()
        return answer.headers.get("x-tunegate-release")


def test_whoever_follows_sees_the_share_and_what_the_last_look_has_found(site: Site, tmp_path: Path) -> None:
    release = approved(site, tmp_path, "shows", NEVER | {"interval_s": 0.2})
    seen: list[Progress] = []

    def looked() -> bool:
        rollout = site.registry.rollouts.current("shows")
        return rollout is not None and rollout.outcome is not None

    def abort_when_seen() -> None:
        until(looked)
        until(lambda: any("INCONCLUSIVE" in progress.note for progress in seen))
        site.registry.rollouts.abort("shows", "eve", "enough")

    site.registry.rollouts.start(release.id, str(release.evidence_digest), "ann", site.registry.now())
    thread = in_background(site, abort_when_seen, "shows")
    with pytest.raises(PromotionEnded):
        follow(site.registry, release.id, seen.append)
    thread.join()
    assert any(progress.note.startswith("5 % of the traffic; INCONCLUSIVE: ") for progress in seen)
    console = quiet_console()
    show(console, describe(site.registry, "shows"))
    assert "shows-2 against shows-1, by ann" in printed(console)
    assert RolloutStatus.WITHDRAWN in printed(console)


def test_going_back_to_a_slot_that_is_cold_warms_it_first_and_fails_no_request(site: Site, tmp_path: Path) -> None:
    live = switch(site.board, approved(site, tmp_path, "cold", {}), "ann")
    asyncio.run(wait_until_routed(site.url, site.key, live))
    until(lambda: is_cold(site, "cold-1"))
    with light_load(site.url, site.key, "cold", every_s=0.05) as load:
        back = go_back(site.settings, site.registry, "cold", "eve", "worse", silent)
        asyncio.run(wait_until_routed(site.url, site.key, back))
    assert load.failures == []
    assert back.id == "cold-1"


def test_production_stays_where_it_is_when_the_release_to_go_back_to_does_not_come_up(site: Site, tmp_path: Path) -> None:
    live = switch(site.board, approved(site, tmp_path, "sick", {}), "ann")
    asyncio.run(wait_until_routed(site.url, site.key, live))
    until(lambda: is_cold(site, "sick-1"))
    weights = site.registry.release("sick-1").model_dir / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"spoilt")
    try:
        with pytest.raises(ServingFailed, match="sick stays where it is") as refused:
            go_back(site.settings, site.registry, "sick", "eve", "worse", silent)
    finally:
        weights.write_bytes(whole)
        site.registry.release_slot("sick-1")
    assert "--at-once" in str(refused.value)
    assert site.registry.champion("sick") == live
