"""The routing table: what a snapshot asks for, how fast a change is seen, and what happens when the registry cannot be read."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from pydantic import SecretStr

from serving.keys import KeyRing, Scope
from serving.records import Release, SlotInfo, SlotState, Snapshot
from serving.registry import Registry
from serving.routing import Backend, Route, RoutingTable, View, follow, routes_of
from tests.fakes_serving import EVIDENCE, Clock, approved, champion, url_in

POLL_S = 0.02


class Desk:
    """A registry, and a view of it that is followed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.registry = Registry(url_in(folder), now=self.clock)
        self.table, self.ring, self.seen = RoutingTable(), KeyRing({}), list[Snapshot]()
        self.view = View(self.table, self.ring, self.seen.append, read_key)

    def slot(self, release: Release, state: SlotState, port: int | None = 20_001) -> None:
        info = SlotInfo(release_id=release.id, state=state, port=port, pid=1, restarts=0, reason="", updated_at=self.clock())
        self.registry.set_slot(info)

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


def read_key(release_id: str) -> SecretStr | None:
    return SecretStr(f"key of {release_id}")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(tmp_path)
    yield opened
    opened.registry.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("state", list(SlotState))
def test_only_a_ready_slot_gets_traffic(desk: Desk, state: SlotState) -> None:
    release = champion(desk.registry)
    desk.slot(release, state)
    backend = RoutingTable(routes_of(desk.registry.snapshot(), read_key)).backend("clinic")
    expected = Backend(release.id, "http://127.0.0.1:20001", SecretStr("key of clinic-1")) if state is SlotState.READY else None
    assert backend == expected


def test_a_ready_slot_without_a_key_gets_no_traffic(desk: Desk) -> None:
    desk.slot(champion(desk.registry), SlotState.READY)
    assert routes_of(desk.registry.snapshot(), lambda _: None) == {"clinic": Route("clinic")}


def test_a_champion_that_is_not_ready_is_known_but_has_no_backend(desk: Desk) -> None:
    champion(desk.registry)
    table = RoutingTable(routes_of(desk.registry.snapshot(), read_key))
    assert (table.public_names(), table.backend("clinic"), table.backend("other")) == (("clinic",), None, None)


def test_a_name_without_a_champion_is_unknown(desk: Desk) -> None:
    desk.slot(approved(desk.registry, digest="b" * 64), SlotState.READY)
    assert routes_of(desk.registry.snapshot(), read_key) == {}


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
    other = Registry(url_in(desk.folder))

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
        file.rename(aside)
        file.write_text("garbage" * 1000)
        await asyncio.sleep(POLL_S * 10)
        assert desk.table.backend("clinic") == before
        assert desk.ring.find(secret.get_secret_value().encode()) is not None
        assert desk.ring.find(b"tg-other") is None
        file.unlink()
        aside.rename(file)
        desk.slot(release, SlotState.STOPPING)
        await until(lambda: desk.table.backend("clinic") is None)

    desk.play(story)


def test_no_key_is_in_what_is_printed_of_a_backend() -> None:
    assert "secret" not in repr(Backend("clinic-1", "http://127.0.0.1:1", SecretStr("secret")))
