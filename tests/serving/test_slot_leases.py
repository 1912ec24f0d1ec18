"""How long a slot is wanted, where clocks are wrong or jump; `age` is the monotonic clock of whoever looks."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from serving.records import Release
from serving.registry import Registry
from serving.slot_leases import SlotLeases
from tests.fakes_serving import Clock, candidate, url_in

JUMPS_S = [61, -61, 86_400, -86_400]


class Room:
    """Somebody who asks for a slot, and the server that looks; each has a clock of its own."""

    def __init__(self, url: str) -> None:
        self.age, self.asker_ahead_s, self.looker_ahead_s = Clock(), 0.0, 0.0
        self.registry = Registry(url, now=self.askers)
        self.release: Release = candidate(self.registry)
        self.restart()

    def askers(self) -> datetime:
        return self.age() + timedelta(seconds=self.asker_ahead_s)

    def lookers(self) -> datetime:
        return self.age() + timedelta(seconds=self.looker_ahead_s)

    def restart(self) -> None:
        """Another server looks, which has seen nothing yet."""
        self.leases = SlotLeases(self.lookers, self.age.seconds)

    def ask(self, seconds: float) -> None:
        self.registry.want_slot(self.release.id, self.askers() + timedelta(seconds=seconds))

    def is_held(self) -> bool:
        return self.release.id in self.leases.held(self.registry.snapshot().leases)

    def lasts_s(self) -> float:
        """How long it goes on from now; looked at every 60 s."""
        began = self.age.seconds()
        while self.is_held():
            self.age.forward(60)
        return self.age.seconds() - began


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(url_in(tmp_path))
    yield made
    made.registry.close()


def test_a_wish_by_a_clock_that_is_a_day_ahead_lasts_as_long_as_was_asked_in_both_databases(registry_url: str) -> None:
    room = Room(registry_url)
    room.asker_ahead_s = 86_400
    assert not room.is_held()
    room.ask(900)
    assert room.lasts_s() == 900
    room.registry.forget_leases(room.leases.over())
    assert room.registry.snapshot().leases == {}
    room.registry.close()


@pytest.mark.parametrize("ahead_s", JUMPS_S)
@pytest.mark.parametrize("whose", ["asker_ahead_s", "looker_ahead_s"])
def test_a_wish_lasts_as_long_as_was_asked_whoevers_clock_is_wrong(room: Room, whose: str, ahead_s: float) -> None:
    setattr(room, whose, ahead_s)
    assert not room.is_held()
    room.ask(900)
    assert room.lasts_s() == 900


@pytest.mark.parametrize("jump_s", JUMPS_S)
@pytest.mark.parametrize("whose", ["asker_ahead_s", "looker_ahead_s"])
def test_a_clock_that_jumps_meanwhile_ends_nothing_and_prolongs_nothing(room: Room, whose: str, jump_s: float) -> None:
    assert not room.is_held()
    room.ask(900)
    assert room.is_held()
    room.age.forward(300)
    setattr(room, whose, jump_s)
    assert room.lasts_s() == 600


@pytest.mark.parametrize(("first", "second", "lasts"), [(900, 60, 900), (60, 900, 900)])
def test_the_longest_wish_counts(room: Room, first: float, second: float, lasts: float) -> None:
    assert not room.is_held()
    room.ask(first)
    room.ask(second)
    assert room.lasts_s() == lasts


@pytest.mark.parametrize(("passed_s", "lasts_s"), [(300, 600), (1200, 0)])
def test_a_server_that_has_just_been_started_holds_a_wish_against_the_clock(room: Room, passed_s: float, lasts_s: float) -> None:
    room.ask(900)
    room.age.forward(passed_s)
    room.restart()
    assert room.lasts_s() == lasts_s


@pytest.mark.parametrize("behind_s", [61, 86_400])
def test_a_server_whose_clock_is_behind_believes_a_wish_from_before_for_no_longer_than_was_asked(room: Room, behind_s: float) -> None:
    room.ask(900)
    room.looker_ahead_s = -behind_s
    room.restart()
    assert room.lasts_s() == 900


def test_wishes_that_ended_are_told_and_forgotten(room: Room) -> None:
    assert not room.is_held()
    room.ask(60)
    room.ask(900)
    assert (room.is_held(), room.leases.over()) == (True, ())
    room.age.forward(60)
    (ended,) = room.leases.over()
    room.registry.forget_leases([ended])
    assert [each.seconds for each in room.registry.snapshot().leases[room.release.id]] == [900]
