"""Who is the server, where clocks are wrong or jump. Time passes for everybody by `pause` alone; a clock may be moved without it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from serving.errors import AlreadyServing
from serving.records import ServerInfo
from serving.registry import Registry
from serving.server import take_over
from tests.fakes_serving import Clock, server_info, url_in

JUMPS_S = [61, -61, 86_400, -86_400]


@dataclass
class Machine:
    """A machine whose clock is `ahead_s` ahead of the right time."""

    time: Clock
    url: str
    ahead_s: float = 0.0
    meanwhile: Callable[[], None] = lambda: None
    passed_s: float = 0.0
    registry: Registry = field(init=False)

    def __post_init__(self) -> None:
        self.registry = Registry(self.url, now=self.clock, monotonic=self.time.seconds, pause=self.pause)

    def clock(self) -> datetime:
        return self.time() + timedelta(seconds=self.ahead_s)

    def pause(self, seconds: float) -> None:
        self.time.forward(seconds)
        self.passed_s += seconds
        self.meanwhile()

    def beat(self) -> None:
        self.registry.beat(server_info(self.time, boot_id="theirs"))

    def server(self) -> ServerInfo | None:
        return self.registry.server()


@contextmanager
def _machines(url: str, time: Clock) -> Iterator[tuple[Machine, Machine]]:
    ours, theirs = Machine(time, url), Machine(time, url)
    with ours.registry, theirs.registry:
        yield ours, theirs


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Ours, which looks, and theirs, which serves."""
    with _machines(url_in(tmp_path), Clock()) as both:
        yield both


def test_a_server_a_day_ahead_is_seen_to_live_and_to_die_in_both_databases(registry_url: str) -> None:
    with _machines(registry_url, Clock()) as (ours, theirs):
        theirs.ahead_s = 86_400
        theirs.beat()
        ours.meanwhile = theirs.beat
        assert ours.server() is not None
        ours.meanwhile = lambda: None
        ours.pause(5)
        assert ours.server() is None


@pytest.mark.parametrize("ahead_s", JUMPS_S)
def test_a_server_whose_clock_is_wrong_lives_as_long_as_it_beats(machines: tuple[Machine, Machine], ahead_s: float) -> None:
    ours, theirs = machines
    theirs.ahead_s = ahead_s
    theirs.beat()
    ours.meanwhile = theirs.beat
    found = ours.server()
    assert found is not None
    assert (found.boot_id, ours.passed_s) == ("theirs", 0.25)


@pytest.mark.parametrize("ahead_s", JUMPS_S)
def test_a_server_that_died_is_dead_after_five_seconds_whatever_its_clock_said(machines: tuple[Machine, Machine], ahead_s: float) -> None:
    ours, theirs = machines
    theirs.ahead_s = ahead_s
    theirs.beat()
    assert ours.server() is None
    assert ours.passed_s == 5


@pytest.mark.parametrize("jump_s", JUMPS_S)
@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_clock_that_jumps_while_the_server_is_watched_changes_nothing(
    machines: tuple[Machine, Machine], whose: str, jump_s: float
) -> None:
    ours, theirs = machines
    for step in range(8):
        theirs.beat()
        assert ours.server() is not None
        ours.pause(1)
        if step == 4:
            (ours if whose == "ours" else theirs).ahead_s = jump_s
    assert ours.passed_s == 8
    ours.pause(3.75)
    assert ours.server() is not None
    ours.pause(0.25)
    assert ours.server() is None


def test_a_beat_that_came_while_nobody_looked_is_no_sign_of_life(machines: tuple[Machine, Machine]) -> None:
    ours, theirs = machines
    theirs.beat()
    assert ours.server() is not None
    ours.pause(1)
    theirs.beat()
    ours.pause(59)
    assert ours.server() is None
    assert ours.passed_s == 65


@pytest.mark.parametrize("ahead_s", JUMPS_S)
def test_a_server_whose_clock_is_wrong_is_not_taken_over_from_as_long_as_it_beats(
    machines: tuple[Machine, Machine], ahead_s: float
) -> None:
    ours, theirs = machines
    theirs.ahead_s = ahead_s
    theirs.beat()
    ours.meanwhile = theirs.beat
    with pytest.raises(AlreadyServing, match="on box"):
        take_over(ours.registry, server_info(ours.time, boot_id="ours"))


@pytest.mark.parametrize("ahead_s", JUMPS_S)
def test_a_server_that_beats_no_more_is_taken_over_from_and_cannot_come_back(machines: tuple[Machine, Machine], ahead_s: float) -> None:
    ours, theirs = machines
    theirs.ahead_s = ahead_s
    theirs.beat()
    take_over(ours.registry, server_info(ours.time, boot_id="ours"))
    found = ours.server()
    assert found is not None
    assert found.boot_id == "ours"
    with pytest.raises(AlreadyServing):
        theirs.beat()


def test_a_server_that_beats_after_it_was_given_up_is_not_taken_over_from(machines: tuple[Machine, Machine]) -> None:
    ours, theirs = machines
    theirs.beat()
    ours.pause(60)
    gone = ours.registry.last_server()
    theirs.beat()
    with pytest.raises(AlreadyServing):
        ours.registry.beat(server_info(ours.time, boot_id="ours"), gone=gone)
