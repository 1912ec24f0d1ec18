"""What several workers count in one ledger. The workers of these tests are in one process: each has its own map, row and bell."""

import os
import traceback
from collections.abc import Callable, Iterator

import pytest

from serving.gateway_commons import NEWEST, SharedCrowd, SharedRoom, SharedUses
from serving.gateway_ledger import Ledger, Levels
from serving.key_limits import KeyLimiter
from serving.openai_errors import ApiError
from tests.fakes_gateway import key_info

PATIENCE_S = 10.0


class Shop:
    """A ledger, three workers, and a clock."""

    def __init__(self, places: int = 2, queue: int = 2) -> None:
        self.now_s = 100.0
        self.maker = Ledger.make(3)
        self.ledgers = [Ledger(self.maker.memory, self.maker.bells, worker) for worker in range(3)]
        self.rooms = [SharedRoom(ledger, places, queue, PATIENCE_S, lambda: self.now_s) for ledger in self.ledgers]

    def rung(self, worker: int) -> bool:
        """Whether that worker was woken up since the last look."""
        try:
            return os.eventfd_read(self.maker.bells[worker]) > 0
        except BlockingIOError:
            return False

    def dies(self, worker: int) -> None:
        with self.maker:
            self.maker.clear(worker)


@pytest.fixture
def shop() -> Iterator[Shop]:
    opened = Shop()
    yield opened
    opened.maker.close()


def test_places_are_those_of_all_workers_together(shop: Shop) -> None:
    assert [room.take(NEWEST) for room in shop.rooms] == [True, True, False]
    shop.rooms[0].give_back()
    assert shop.rooms[2].take(NEWEST)


def test_three_processes_that_snatch_at_two_places_never_hold_three(shop: Shop) -> None:
    """Whoever has a place takes a token from the kernel, which has made two of them: nobody ever finds none."""
    tokens = os.eventfd(2, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    def snatch(worker: int) -> None:
        room, had = SharedRoom(Ledger(shop.maker.memory, shop.maker.bells, worker), 2, 0, PATIENCE_S, lambda: 100.0), 0
        while had < 2000:
            if room.take(NEWEST):
                os.eventfd_read(tokens)
                os.sched_yield()
                os.eventfd_write(tokens, 1)
                room.give_back()
                had += 1

    children = [in_a_child(snatch, worker) for worker in range(3)]
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(tokens)
    assert ends == [0, 0, 0]
    assert [room.take(NEWEST) for room in shop.rooms] == [True, True, False]


def in_a_child(work: Callable[[int], None], worker: int) -> int:
    """A forked process that ends by itself: what other tests' libraries do at an exit is not for their copies to do. Returns its id."""
    child = os.fork()
    if child == 0:
        try:
            work(worker)
        except BaseException:  # noqa: BLE001  # whatever it is, it must not run into the copy of the test runner
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def test_the_queue_is_that_of_all_workers_together(shop: Shop) -> None:
    assert [room.queue() for room in shop.rooms] == [True, True, False]
    shop.rooms[1].leave_queue()
    assert shop.rooms[2].queue()


def test_what_a_dead_worker_held_is_free_again(shop: Shop) -> None:
    assert [shop.rooms[0].take(NEWEST) for _ in range(3)] == [True, True, False]
    assert not shop.rooms[1].take(NEWEST)
    shop.dies(0)
    assert [shop.rooms[1].take(NEWEST) for _ in range(3)] == [True, True, False]


def test_a_place_goes_to_whoever_has_waited_longest_in_whichever_worker(shop: Shop) -> None:
    for _ in range(2):
        assert shop.rooms[0].take(NEWEST)
    shop.rooms[1].waits_since(99.0)
    shop.rooms[2].waits_since(98.0)
    shop.rooms[0].give_back()
    assert (shop.rung(1), shop.rung(2)) == (False, True)
    assert [shop.rooms[0].take(NEWEST), shop.rooms[1].take(99.0), shop.rooms[2].take(98.0)] == [False, False, True]


def test_a_place_that_the_first_does_not_need_any_more_is_offered_to_the_second(shop: Shop) -> None:
    shop.rooms[1].waits_since(99.0)
    shop.rooms[2].waits_since(98.0)
    assert not shop.rung(1)
    shop.rooms[2].waits_since(NEWEST)
    assert shop.rung(1)


def test_a_worker_that_has_stopped_holds_nobody_up_for_longer_than_its_callers_would_have_waited(shop: Shop) -> None:
    shop.rooms[1].waits_since(100.0)
    assert not shop.rooms[0].take(NEWEST)
    shop.now_s += PATIENCE_S + 0.1
    assert shop.rooms[0].take(NEWEST)


def test_connections_are_those_of_all_workers_together(shop: Shop) -> None:
    crowds = [SharedCrowd(ledger, ledger.connections, 3) for ledger in shop.ledgers]
    assert [crowds[0].admits(0), crowds[0].admits(1), crowds[1].admits(0), crowds[1].admits(1), crowds[2].admits(0)] == [
        *(True, True, True),
        *(False, False),
    ]
    crowds[0].are_here(1)
    assert [crowds[2].admits(0), crowds[1].admits(1)] == [True, False]


@pytest.mark.parametrize("second", [False, True])
def test_what_is_done_every_so_often_is_done_by_one_of_all(shop: Shop, second: bool) -> None:
    with shop.ledgers[0]:
        assert shop.ledgers[0].is_time(99.9, 10.0, not second)  # the other such thing, which is nothing to this one

    def due(at_s: float) -> list[bool]:
        found = []
        for ledger in shop.ledgers:
            with ledger:
                found.append(ledger.is_time(at_s, 2.0, second))
        return found

    assert [due(at_s) for at_s in (100.0, 101.9, 102.0)] == [[True, False, False], [False] * 3, [True, False, False]]


def refused_for_s(limiter: KeyLimiter, **limits: int) -> int | None:
    """Seconds until a request of 100 tokens may pass; None if it passed."""
    try:
        limiter.admit(key_info("k", **limits), 100)
    except ApiError as error:
        return error.retry_after_s
    return None


def limiters(shop: Shop) -> list[KeyLimiter]:
    return [KeyLimiter(lambda: shop.now_s, SharedUses(ledger)) for ledger in shop.ledgers]


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [
        ({"requests_per_minute": 2}, [None, None, 30]),
        ({"tokens_per_minute": 250}, [None, None, 12]),  # 50 are left, 50 are missing, 250 come in a minute
        ({"max_concurrent": 2}, [None, None, 1]),
    ],
)
def test_what_a_key_may_use_it_may_use_of_all_workers_together(shop: Shop, limits: dict[str, int], outcome: list[int | None]) -> None:
    assert [refused_for_s(limiter, **limits) for limiter in limiters(shop)] == outcome


def test_tokens_settled_in_one_worker_are_there_in_another(shop: Shop) -> None:
    one, other, _ = limiters(shop)
    key = key_info("k", tokens_per_minute=100)
    grant = one.admit(key, 100)
    assert refused_for_s(other, tokens_per_minute=100) == 60
    grant.settle(0)
    assert refused_for_s(other, tokens_per_minute=100) is None


def test_requests_of_a_dead_worker_no_longer_count_as_under_way(shop: Shop) -> None:
    one, other, _ = limiters(shop)
    assert [refused_for_s(each, max_concurrent=1) for each in (one, other)] == [None, 1]
    shop.dies(0)
    assert refused_for_s(other, max_concurrent=1) is None


def test_thousands_of_keys_have_levels_of_their_own_in_every_map_of_the_memory(shop: Shop) -> None:
    """More than the memory has room for at first, made by two workers in turn."""
    for number in range(5000):
        with shop.ledgers[number % 2] as ledger:
            ledger.place_of(str(number), lambda number=number: Levels(number, 0, 0, 0))  # type: ignore[misc]
    with shop.ledgers[2] as ledger:
        found = [ledger.levels(ledger.place_of(str(number), lambda: Levels(-1, 0, 0, 0))).requests for number in range(5000)]
    assert found == list(range(5000))
