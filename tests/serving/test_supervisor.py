"""The supervisor over a real registry and real processes; the clock of leases is moved by hand."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import product
from pathlib import Path

import psutil
import pytest

from serving.artefact_store import ArtefactStore
from serving.engines import Command
from serving.lifecycle import State
from serving.memory import Memory
from serving.records import Release, SlotInfo, SlotState
from serving.registry import Registry
from serving.rollout_section import RolloutSection
from serving.settings import Settings
from serving.slot_leases import SlotLeases
from serving.slots import EngineCommand
from serving.supervisor import Supervisor, backoff_s, wanted_releases
from tests.fakes_keys import write_key_pair
from tests.fakes_serving import EVIDENCE, Clock, approved, candidate, champion, fake_engine, release_in, url_in, write_model
from training.records import digest_files
from training.signing import sign_model

TIMEOUT_S = 30.0


class Stage:
    """A registry, a clock and a supervisor's settings in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.looks = folder, Clock(), 0
        self.registry = Registry(url_in(folder), now=self.clock)
        self.settings = Settings(home=folder / "home", reconcile_s=0.05, restart_first_s=0.05, restart_cap_s=1.0, drain_s=1.0, warm_s=300)

    def look(self) -> None:
        self.looks += 1

    async def leased(self, release: Release) -> None:
        """Until there is a wish for its slot that the supervisor has seen: a wish lasts from then."""
        await until(lambda: release.id in self.registry.snapshot().leases)
        looks = self.looks
        await until(lambda: self.looks >= looks + 2)

    def champion(self) -> Release:
        return champion(self.registry, digest=write_model(self.folder / "a", "first"), folder=self.folder / "a")

    def approved(self) -> Release:
        return approved(self.registry, digest=write_model(self.folder / "b", "second"), folder=self.folder / "b")

    def want(self, release: Release, seconds: float) -> None:
        self.registry.want_slot(release.id, self.clock() + timedelta(seconds=seconds))

    def slot(self, release: Release) -> SlotInfo | None:
        return next((slot for slot in self.registry.slots() if slot.release_id == release.id), None)

    def is_in(self, release: Release, state: SlotState | None) -> Callable[[], bool]:
        return lambda: (slot.state if (slot := self.slot(release)) else None) is state

    def play(self, story: Callable[[], Awaitable[None]], command: Command | None = None, memory: Memory | None = None) -> None:
        async def run() -> None:
            of_stage = {"now": self.clock, "monotonic": self.clock.seconds, "seen": self.look}
            supervisor = Supervisor(self.registry, self.settings, command or fake_engine(), memory=memory, **of_stage)
            running = asyncio.create_task(supervisor.run())
            try:
                await story()
                assert not running.done()
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

        asyncio.run(run())


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    opened = Stage(tmp_path)
    yield opened
    opened.registry.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not true():
            await asyncio.sleep(0.02)


def processes_of(slot: SlotInfo | None) -> list[psutil.Process]:
    assert slot is not None
    leash = psutil.Process(slot.pid)
    return [leash, *leash.children(recursive=True)]


def test_the_champion_is_started_and_everything_ends_with_the_supervisor(stage: Stage) -> None:
    release, processes = stage.champion(), []

    async def story() -> None:
        await until(stage.is_in(release, SlotState.READY))
        processes.extend(processes_of(stage.slot(release)))

    stage.play(story)
    assert [process.is_running() for process in processes] == [False, False]
    assert stage.registry.slots() == ()


def test_a_lease_starts_a_slot_and_its_end_stops_that_slot_alone(stage: Stage) -> None:
    live, other = stage.champion(), stage.approved()

    async def story() -> None:
        stage.want(other, 60)
        await until(stage.is_in(live, SlotState.READY))
        await until(stage.is_in(other, SlotState.READY))
        before = stage.slot(live)
        stage.clock.forward(61)
        await until(stage.is_in(other, None))
        assert stage.slot(live) == before

    stage.play(story)


def test_a_crashed_engine_comes_back_on_another_port_and_the_crash_is_counted(stage: Stage) -> None:
    release = stage.champion()

    async def story() -> None:
        await until(stage.is_in(release, SlotState.READY))
        first = stage.slot(release)
        processes_of(first)[1].kill()
        await until(lambda: (slot := stage.slot(release)) is not None and slot.state is SlotState.READY and slot.restarts == 1)
        again = stage.slot(release)
        assert first is not None
        assert again is not None
        assert again.pid != first.pid

    stage.play(story)


def test_an_engine_that_stands_still_though_its_process_is_there_is_started_again(stage: Stage) -> None:
    stage.settings = stage.settings.model_copy(update={"silent_s": 2.4})
    release = stage.champion()

    async def story() -> None:
        await until(stage.is_in(release, SlotState.READY))
        before = processes_of(stage.slot(release))
        before[1].suspend()
        await until(lambda: (slot := stage.slot(release)) is not None and slot.state is SlotState.STARTING and slot.restarts > 0)
        assert "did not answer 3 times in a row, and was killed" in reason_of(stage, release)
        await until(stage.is_in(release, SlotState.READY))
        await until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in before))

    stage.play(story)


def test_an_engine_that_never_comes_up_is_failed_with_its_last_words(stage: Stage) -> None:
    release = stage.champion()

    async def story() -> None:
        await until(lambda: (slot := stage.slot(release)) is not None and slot.restarts >= 2)
        slot = stage.slot(release)
        assert slot is not None
        assert slot.state is not SlotState.READY
        assert "ended with status 3" in slot.reason
        assert "no memory left" in slot.reason

    stage.play(story, fake_engine("--exit-at-once", "3"))


def test_a_flipped_bit_is_never_served_and_mending_it_is_noticed(stage: Stage) -> None:
    release, started = stage.champion(), []
    weights = stage.folder / "a/model.safetensors"
    weights.write_text("firsu")

    def command(release: Release, port: int) -> EngineCommand:
        started.append(release.id)
        return fake_engine()(release, port)

    async def story() -> None:
        await until(stage.is_in(release, SlotState.FAILED))
        slot = stage.slot(release)
        assert slot is not None
        assert "model.safetensors has other bytes than recorded" in slot.reason
        await asyncio.sleep(0.3)
        assert started == []
        weights.write_text("first")
        await until(stage.is_in(release, SlotState.READY))

    stage.play(story, command)


def test_promotion_keeps_the_old_slot_warm_for_a_while_and_then_stops_it(stage: Stage) -> None:
    old, new = stage.champion(), stage.approved()

    async def story() -> None:
        stage.want(new, 60)
        await until(stage.is_in(old, SlotState.READY))
        await until(stage.is_in(new, SlotState.READY))
        stage.registry.promote(new.id, EVIDENCE, "bob")
        await stage.leased(old)
        stage.clock.forward(299)
        await asyncio.sleep(0.3)
        assert stage.is_in(old, SlotState.READY)()
        stage.clock.forward(2)
        await until(stage.is_in(old, None))
        assert stage.is_in(new, SlotState.READY)()

    stage.play(story)


def test_a_rollback_finds_the_old_slot_running_and_stops_the_bad_one(stage: Stage) -> None:
    old, new = stage.champion(), stage.approved()

    async def story() -> None:
        stage.want(new, 60)
        await until(stage.is_in(old, SlotState.READY))
        await until(stage.is_in(new, SlotState.READY))
        before = stage.slot(old)
        stage.registry.promote(new.id, EVIDENCE, "bob")
        await stage.leased(old)
        stage.registry.release_slot(new.id)
        stage.registry.rollback("clinic", "bob", "worse")
        await stage.leased(new)
        stage.clock.forward(3)
        await until(stage.is_in(new, None))
        stage.clock.forward(301)
        await asyncio.sleep(0.3)
        assert stage.slot(old) == before

    stage.play(story)


def test_a_promotion_that_nobody_was_there_to_hear_is_followed_at_the_next_start(stage: Stage) -> None:
    old, new = stage.champion(), stage.approved()
    stage.registry.promote(new.id, EVIDENCE, "bob")

    async def story() -> None:
        await until(stage.is_in(new, SlotState.READY))
        assert stage.slot(old) is None

    stage.play(story)


def test_everything_stays_as_it_is_while_the_registry_cannot_be_read(stage: Stage) -> None:
    release = stage.champion()
    file, aside = stage.folder / "registry.db", stage.folder / "aside.db"

    async def story() -> None:
        await until(stage.is_in(release, SlotState.READY))
        processes = processes_of(stage.slot(release))
        stage.registry.close()
        file.rename(aside)
        await asyncio.sleep(0.3)
        aside.rename(file)
        assert all(process.is_running() for process in processes)
        await asyncio.sleep(0.2)
        assert stage.is_in(release, SlotState.READY)()

    stage.play(story)


def test_a_state_the_registry_could_not_hear_is_told_later(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "serving.supervisor")
    release = stage.champion()
    file, aside = stage.folder / "registry.db", stage.folder / "aside.db"

    async def story() -> None:
        await until(stage.is_in(release, SlotState.STARTING))
        stage.registry.close()
        file.rename(aside)
        await until(lambda: "is ready at" in caplog.text)
        aside.rename(file)
        await until(stage.is_in(release, SlotState.READY))

    stage.play(story, fake_engine("--start-delay-s", "0.3"))


@pytest.mark.parametrize(("state", "lease_s"), list(product(State, (None, -1.0, 0.0, 1.0))))
def test_a_release_is_wanted_when_it_is_live_or_a_canary_or_its_lease_lasts(tmp_path: Path, state: State, lease_s: float | None) -> None:
    clock = Clock()
    registry = Registry(url_in(tmp_path), now=clock)
    release = release_in(registry, state)
    if lease_s is not None:
        registry.want_slot(release.id, clock() + timedelta(seconds=lease_s))
    snapshot = registry.snapshot()
    wanted = wanted_releases(snapshot, SlotLeases(clock, clock.seconds).held(snapshot.leases), clock())
    assert (release.id in wanted) == (state in (State.LIVE, State.CANARY) or lease_s == 1.0)


def test_the_back_off_doubles_up_to_its_cap() -> None:
    assert [backoff_s(crashes, 1.0, 60.0) for crashes in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff_s(10_000, 1.0, 60.0) == 60


class OneEngine:
    """Memory for one engine alone."""

    def needs(self, release: Release) -> float:
        return 1.0

    def room(self, engines: Collection[int]) -> float:
        return 1.5

    def words(self, amount: float) -> str:
        return f"{amount:g} GiB"


def test_without_memory_for_two_the_newcomer_waits_and_takes_the_place_when_it_is_promoted(stage: Stage) -> None:
    old, new = stage.champion(), stage.approved()
    alive_at_once: list[int] = []

    async def story() -> None:
        stage.want(new, 60)
        await until(stage.is_in(old, SlotState.READY))
        await until(stage.is_in(new, SlotState.WAITING))
        waiting = stage.slot(new)
        assert waiting is not None
        assert waiting.reason == "no memory for it beside clinic-1: it needs 1 GiB, 0.5 GiB are free"
        stage.registry.promote(new.id, EVIDENCE, "bob")
        while not stage.is_in(new, SlotState.READY)():
            alive_at_once.append(sum(slot.pid is not None for slot in stage.registry.slots()))
            await asyncio.sleep(0.02)
        assert stage.is_in(old, SlotState.WAITING)()
        stage.registry.rollback("clinic", "bob", "worse")
        await until(stage.is_in(old, SlotState.READY))

    stage.play(story, memory=OneEngine())
    assert max(alive_at_once) == 1


def test_a_recipe_that_says_so_lets_a_candidate_take_the_champions_place_while_it_is_judged(stage: Stage) -> None:
    live = stage.champion()
    digest = write_model(stage.folder / "c", "third")
    judged = candidate(stage.registry, digest=digest, folder=stage.folder / "c", rollout=RolloutSection(), change="recreate")

    async def story() -> None:
        await until(stage.is_in(live, SlotState.READY))
        stage.want(judged, 60)
        await until(stage.is_in(judged, SlotState.READY))
        assert stage.is_in(live, SlotState.WAITING)()
        stage.registry.release_slot(judged.id)
        await until(stage.is_in(live, SlotState.READY))
        assert stage.slot(judged) is None

    stage.play(story)


def test_with_a_public_key_a_model_waits_for_a_signature_that_holds(stage: Stage) -> None:
    private, public = write_key_pair(stage.folder / "keys")
    stage.settings = stage.settings.model_copy(update={"verify_key": public})
    release = stage.champion()

    async def story() -> None:
        await until(stage.is_in(release, SlotState.FAILED))
        assert "it has no signature" in reason_of(stage, release)
        sign_model(release.model_dir, write_key_pair(stage.folder / "others")[0])
        await until(lambda: "Key mismatch" in reason_of(stage, release))
        sign_model(release.model_dir, private)
        await until(stage.is_in(release, SlotState.READY))

    stage.play(story)


@pytest.mark.parametrize("what", ["a byte", "the signature"])
def test_an_engine_that_crashes_does_not_come_back_over_files_that_were_altered_while_it_ran(stage: Stage, what: str) -> None:
    private, public = write_key_pair(stage.folder / "keys")
    stage.settings = stage.settings.model_copy(update={"verify_key": public})
    release, starts = stage.champion(), list[int]()
    sign_model(release.model_dir, private)

    def command(release: Release, port: int) -> EngineCommand:
        starts.append(port)
        return fake_engine()(release, port)

    async def story() -> None:
        await until(stage.is_in(release, SlotState.READY))
        if what == "a byte":
            (release.model_dir / "model.safetensors").write_text("firsu")
        else:
            sign_model(release.model_dir, write_key_pair(stage.folder / "others")[0])
        processes_of(stage.slot(release))[1].kill()
        await until(lambda: ("other bytes" if what == "a byte" else "Key mismatch") in reason_of(stage, release))
        assert (stage.is_in(release, SlotState.FAILED)(), len(starts)) == (True, 1)

    stage.play(story, command)


def reason_of(stage: Stage, release: Release) -> str:
    slot = stage.slot(release)
    return slot.reason if slot else ""


def test_a_model_that_is_not_here_is_fetched_and_one_that_cannot_be_had_yet_is_tried_again(tmp_path: Path) -> None:
    """The store is empty at first: the slot says so, and serves once the model has come there."""
    stage = Stage(tmp_path)
    stage.settings = stage.settings.model_copy(update={"artefact_url": f"file://{tmp_path}/store", "restart_cap_s": 0.1})
    folder = stage.settings.home / "runs" / "clinic" / "merge-1"
    release = champion(stage.registry, digest=write_model(folder, "first"), folder=folder)
    folder.rename(tmp_path / "elsewhere")

    async def story() -> None:
        await until(stage.is_in(release, SlotState.FAILED))
        slot = stage.slot(release)
        assert slot is not None
        assert "does not hold the model" in slot.reason
        ArtefactStore(stage.settings.artefact_url).put(tmp_path / "elsewhere")
        await until(stage.is_in(release, SlotState.READY))

    stage.play(story)
    assert digest_files(folder) == digest_files(tmp_path / "elsewhere")
