"""The routing table: what a snapshot asks for, how fast a change is seen, and what happens when the registry cannot be read."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from time import monotonic

import pytest
from pydantic import SecretStr

from serving.keys import KeyRing, Scope
from serving.records import Release, SlotInfo, SlotState, Snapshot
from serving.registry import Registry
from serving.routing import Backend, Leases, Route, RoutingTable, Target, View, choose, follow, routes_of
from tests.fakes_serving import EVIDENCE, Clock, approved, canary, champion, slot_info, url_in

POLL_S = 0.02


class Desk:
    """A registry, and a view of it that is followed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.registry = Registry(url_in(folder), now=self.clock)
        self.table, self.ring, self.seen = RoutingTable(), KeyRing({}), list[Snapshot]()
        self.leases = Leases(self.clock, self.monotonic)
        self.answers = 0
        self.view = View(self.table, self.ring, self.seen.append, read_key, seen=self.answered)

    def answered(self) -> None:
        """The registry has answered."""
        self.answers += 1

    def monotonic(self) -> float:
        """Ages as fast as the clock, from another beginning."""
        return (self.clock() - Clock()()).total_seconds() + 1000

    def slot(self, release: Release, state: SlotState, port: int | None = 20_001) -> None:
        self.registry.set_slot(slot_info(release.id, state, self.clock(), port=port))

    def route(self) -> Route:
        return routes_of(self.registry.snapshot(), read_key, self.leases)["clinic"]

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            watch = self.registry.watch()
            following = asyncio.create_task(follow(self.registry, watch, self.view, poll_s=POLL_S))
            try:
                await story()
                assert not following.done()
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following
                watch.close()

        asyncio.run(run())


def read_key(slot: SlotInfo) -> SecretStr | None:
    return SecretStr(f"key of {slot.release_id}")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path)
    yield opened
    opened.registry.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def to_champion(release: Release, port: int = 20_001, weight: float = 1.0) -> Target:
    return Target(Backend(release.id, f"http://127.0.0.1:{port}", SecretStr(f"key of {release.id}"), release.id), weight, "champion")


@pytest.mark.parametrize("state", list(SlotState))
def test_only_a_ready_slot_gets_traffic(desk: Desk, state: SlotState) -> None:
    release = champion(desk.registry)
    desk.slot(release, state)
    targets = (to_champion(release),) if state is SlotState.READY else ()
    assert routes_of(desk.registry.snapshot(), read_key, desk.leases)["clinic"].targets == targets


@pytest.mark.parametrize(
    ("state", "restarts", "changing"),
    [
        (None, 0, True),
        (SlotState.WAITING, 0, True),
        (SlotState.STARTING, 0, True),
        (SlotState.STARTING, 1, False),
        (SlotState.STOPPING, 0, True),
        (SlotState.READY, 0, False),
        (SlotState.FAILED, 1, False),
    ],
)
def test_an_engine_that_comes_for_the_first_time_is_worth_a_longer_wait_than_one_that_crashed(
    desk: Desk, state: SlotState | None, restarts: int, changing: bool
) -> None:
    release = champion(desk.registry)
    if state is not None:
        desk.registry.set_slot(slot_info(release.id, state, desk.clock()).model_copy(update={"restarts": restarts}))
    assert desk.route().changing == changing


def test_a_ready_slot_without_a_key_gets_no_traffic(desk: Desk) -> None:
    desk.slot(champion(desk.registry), SlotState.READY)
    assert routes_of(desk.registry.snapshot(), lambda _: None, desk.leases) == {"clinic": Route("clinic")}


def canary_route(desk: Desk) -> Route:
    """A champion and a canary at 5 %, both ready."""
    rollout = canary(desk.registry)
    desk.slot(desk.registry.release(rollout.champion_id), SlotState.READY, 20_001)
    desk.slot(desk.registry.release(rollout.release_id), SlotState.READY, 20_002)
    return desk.route()


def test_a_canary_has_its_share_until_its_lease_ends(desk: Desk) -> None:
    route = canary_route(desk)
    assert [(target.role, target.weight) for target in route.targets] == [("champion", 0.95), ("canary", 0.05)]
    assert route.lease_until == desk.monotonic() + 10


@pytest.mark.parametrize(("later_s", "answers"), [(0, "clinic-2"), (9.9, "clinic-2"), (10, "clinic-1"), (1000, "clinic-1")])
def test_a_canary_whose_controller_is_dead_gets_nothing_once_the_lease_has_ended(desk: Desk, later_s: float, answers: str) -> None:
    route = canary_route(desk)
    assert choose(route, None, lambda: 0.0, desk.monotonic() + later_s)[0].release_id == answers


def test_of_many_requests_the_canary_gets_its_share(desk: Desk) -> None:
    """Of 20,000 at 5 % the standard deviation is sqrt(20000 · 0.05 · 0.95) = 31, three of them 93."""
    route, dice = canary_route(desk), Random(11)
    chosen = [choose(route, None, dice.random, desk.monotonic())[0].release_id for _ in range(20_000)]
    assert abs(chosen.count("clinic-2") - 1000) < 93


def test_a_lease_seen_again_ends_when_it_was_going_to_and_a_renewal_is_good_for_its_full_time(desk: Desk) -> None:
    began = desk.monotonic() + 10
    canary_route(desk)
    desk.clock.forward(4)
    assert desk.route().lease_until == began
    rollout = desk.registry.rollouts.current("clinic")
    assert rollout is not None
    desk.registry.rollouts.renew(rollout, desk.clock() + timedelta(seconds=10))
    assert desk.route().lease_until == began + 4


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_a_machine_whose_clock_is_wrong_believes_a_renewal_for_no_longer_and_no_shorter(desk: Desk, skew_s: float) -> None:
    canary_route(desk)
    rollout = desk.registry.rollouts.current("clinic")
    assert rollout is not None
    desk.registry.rollouts.renew(rollout, desk.clock() + timedelta(seconds=skew_s))
    assert desk.route().lease_until == desk.monotonic() + 10


def test_a_lease_from_before_this_process_is_held_against_the_clock(desk: Desk) -> None:
    rollout = canary(desk.registry)
    desk.slot(desk.registry.release(rollout.release_id), SlotState.READY)
    desk.clock.forward(60)
    lease_until = desk.route().lease_until
    assert lease_until is not None
    assert lease_until < desk.monotonic()


def test_a_canary_answers_alone_while_the_champions_slot_is_down_and_nobody_does_once_its_lease_has_ended(desk: Desk) -> None:
    canary_route(desk)
    desk.slot(desk.registry.release("clinic-1"), SlotState.FAILED, None)
    route = desk.route()
    assert [backend.release_id for backend in choose(route, None, lambda: 0.9, desk.monotonic())] == ["clinic-2"]
    assert choose(route, None, lambda: 0.9, desk.monotonic() + 11) == ()


def test_a_shadow_is_beside_the_targets(desk: Desk) -> None:
    live, waiting = champion(desk.registry), approved(desk.registry, digest="b" * 64)
    desk.slot(live, SlotState.READY, 20_001)
    desk.slot(waiting, SlotState.READY, 20_002)
    desk.registry.rollouts.shadow(waiting.id, desk.clock() + timedelta(seconds=60), "ann")
    route = routes_of(desk.registry.snapshot(), read_key, desk.leases)["clinic"]
    assert [target.role for target in route.targets] == ["champion"]
    assert route.shadow is not None
    assert route.shadow.release_id == waiting.id


def test_a_champion_that_is_not_ready_is_known_but_has_no_backend(desk: Desk) -> None:
    champion(desk.registry)
    table = RoutingTable(routes_of(desk.registry.snapshot(), read_key, desk.leases))
    assert (table.public_names(), table.backend("clinic"), table.backend("other")) == (("clinic",), None, None)


def test_a_name_without_a_champion_is_unknown(desk: Desk) -> None:
    desk.slot(approved(desk.registry, digest="b" * 64), SlotState.READY)
    assert routes_of(desk.registry.snapshot(), read_key, desk.leases) == {}


def test_a_promotion_and_a_rollback_are_each_one_swap_between_two_ready_slots(desk: Desk) -> None:
    old, new = champion(desk.registry), approved(desk.registry, digest="b" * 64)
    desk.slot(old, SlotState.READY, 20_001)
    desk.slot(new, SlotState.READY, 20_002)
    answered = set[str | None]()

    def release_now() -> str | None:
        backend = desk.table.backend("clinic")
        answered.add(backend.release_id if backend else None)
        return backend.release_id if backend else None

    async def story() -> None:
        await until(lambda: release_now() == old.id)
        answered.clear()
        desk.registry.promote(new.id, EVIDENCE, "bob")
        await until(lambda: release_now() == new.id)
        desk.registry.rollback("clinic", "bob", "worse")
        await until(lambda: release_now() == old.id)

    desk.play(story)
    assert answered == {old.id, new.id}


def test_a_change_by_another_process_is_seen_at_the_next_look(desk: Desk) -> None:
    """Generous against a busy machine; the look itself is every 20 ms."""
    old, new = champion(desk.registry), approved(desk.registry, digest="b" * 64)
    desk.slot(new, SlotState.READY)
    other = Registry(url_in(desk.folder), now=desk.clock)

    async def story() -> None:
        await until(lambda: desk.table.public_names() == ("clinic",))
        began = monotonic()
        other.promote(new.id, EVIDENCE, "bob")
        await until(lambda: (backend := desk.table.backend("clinic")) is not None and backend.release_id != old.id)
        assert monotonic() - began < 1.0

    desk.play(story)
    other.close()


def test_keys_are_let_in_and_shut_out_without_a_restart(desk: Desk) -> None:
    async def story() -> None:
        key, secret = desk.registry.create_key("web", [Scope.INFER])
        await until(lambda: desk.ring.find(secret.get_secret_value().encode()) == key)
        desk.registry.revoke_key(key.id)
        await until(lambda: desk.ring.find(secret.get_secret_value().encode()) is None)

    desk.play(story)


def test_nothing_is_read_while_nothing_changes(desk: Desk) -> None:
    async def story() -> None:
        await until(lambda: len(desk.seen) == 1)
        await asyncio.sleep(POLL_S * 10)
        assert len(desk.seen) == 1

    desk.play(story)


def test_the_last_good_table_stays_while_the_registry_is_gone_and_lets_nobody_new_in(desk: Desk) -> None:
    release = champion(desk.registry)
    desk.slot(release, SlotState.READY)
    _, secret = desk.registry.create_key("web", [Scope.INFER])
    file, aside = desk.folder / "registry.db", desk.folder / "aside.db"

    async def story() -> None:
        await until(lambda: desk.table.backend("clinic") is not None)
        before = desk.table.backend("clinic")
        desk.registry.close()
        with closing(sqlite3.connect(file)) as connection:  # or the log beside the file would stand in for what is garbage
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file.rename(aside)
        file.write_text("garbage" * 1000)
        await asyncio.sleep(POLL_S * 3)  # a look may be under way
        answers = desk.answers
        await asyncio.sleep(POLL_S * 10)
        assert desk.answers == answers > 0
        assert desk.table.backend("clinic") == before
        assert desk.ring.find(secret.get_secret_value().encode()) is not None
        assert desk.ring.find(b"tg-other") is None
        file.unlink()
        aside.rename(file)
        desk.slot(release, SlotState.STOPPING)
        await until(lambda: desk.table.backend("clinic") is None)
        assert desk.answers > answers

    desk.play(story)


def test_no_key_is_in_what_is_printed_of_a_backend() -> None:
    assert "secret" not in repr(Backend("clinic-1", "http://127.0.0.1:1", SecretStr("secret"), "clinic-1"))
