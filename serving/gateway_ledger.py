"""What the workers of one gateway count together: a piece of memory that all of them map, behind one lock.

The lock is the operating system's record lock: it is free again when its holder dies, however it dies. Each worker writes numbers of
its own, one in each column, and every sum is taken over all workers, so that what a dead worker held is given back by clearing its
numbers. Who waits for what another worker gives back is told by a bell, an event counter that its event loop listens to.
Knows nothing of requests or keys. Next: `gateway_commons.py`, what is counted here.
"""

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple

_HEAD = struct.Struct("=ddQ")
_TIME = struct.Struct("=d")
_FIRST_BYTES, _NUMBER_BYTES, _COLUMNS = 8, 4, 4
_COUNT = struct.Struct("=I")
_TAG_BYTES = 16
_LEVELS = struct.Struct("=4d")
_FIRST_KEYS = 1024
_NOBODY = float("inf")


class Levels(NamedTuple):
    """Two buckets: what is in them, and when that was."""

    requests: float
    requests_at_s: float
    tokens: float
    tokens_at_s: float


class Ledger:
    """The shared memory as one process sees it. Use it as `with ledger:`, which locks; `ring` and `fence` need no lock.

    Columns hold a number of each worker, which no other one writes: how many requests it is `running`, how many are `waiting`, its
    `connections` and `copies`; `first_s` is since when its longest waiting request could have begun, infinite when none could. An item is
    read and written at once, so a column may be looked at without the lock; what is seen then may be over already.

    Args:
        memory: file descriptor of the memory.
        bells: one file descriptor for each worker.
        own: which worker this is.
    """

    def __init__(self, memory: int, bells: Sequence[int], own: int) -> None:
        self.memory, self.bells, self.own = memory, tuple(bells), own
        self._workers = len(bells)
        self._keys_at = _keys_at(self._workers)
        self._key_bytes = _TAG_BYTES + _LEVELS.size + self._workers * _COUNT.size
        self._map = mmap.mmap(memory, 0)
        self._places: dict[bytes, int] = {}
        self._fence = threading.Lock()
        self._fence.acquire()
        # A map of their own: one that is looked into like this cannot be made larger.
        columns = memoryview(mmap.mmap(memory, self._keys_at))[_HEAD.size :]
        numbers = columns[self._workers * _FIRST_BYTES :].cast("I")
        self.first_s = columns[: self._workers * _FIRST_BYTES].cast("d")
        self.running, self.waiting, self.connections, self.copies = (
            numbers[column * self._workers : (column + 1) * self._workers] for column in range(_COLUMNS)
        )

    @classmethod
    def make(cls, workers: int) -> "Ledger":
        """New memory with rows for so many workers; the maker is none of them."""
        memory = os.memfd_create("tunegate workers")
        os.ftruncate(memory, _keys_at(workers) + _FIRST_KEYS * (_TAG_BYTES + _LEVELS.size + workers * _COUNT.size))
        ledger = cls(memory, [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(workers)], own=-1)
        for worker in range(workers):
            ledger.clear(worker)
        return ledger

    def close(self) -> None:
        """Give the memory back; the other processes keep it."""
        self._map.close()
        for descriptor in (self.memory, *self.bells):
            os.close(descriptor)

    def __enter__(self) -> "Ledger":
        fcntl.lockf(self.memory, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self.memory, fcntl.LOCK_UN)

    # Workers.

    def clear(self, worker: int) -> None:
        """This worker is no more: everything that it held is free."""
        self.first_s[worker] = _NOBODY
        for column in (self.running, self.waiting, self.connections, self.copies):
            column[worker] = 0
        for key in range(self._known_keys()):
            _COUNT.pack_into(self._map, self._count_at(key, worker), 0)

    def fence(self) -> None:
        """Have every worker see what this one wrote before it reads anything else; processors may do it the other way round.

        Giving a thread lock back and taking it again is a release and an acquire in order, which no write and no read may pass.
        """
        self._fence.release()
        self._fence.acquire()

    def ring(self, worker: int) -> None:
        """Wake a worker up."""
        os.eventfd_write(self.bells[worker], 1)

    # Times.

    def is_time(self, now_s: float, every_s: float, second: bool = False) -> bool:
        """Whether something that is done every so often, by one of all, is due; if so, this one does it. There are two such things."""
        at = second * _TIME.size
        if now_s < _TIME.unpack_from(self._map, at)[0]:
            return False
        _TIME.pack_into(self._map, at, now_s + every_s)
        return True

    # Keys.

    def place_of(self, name: str, begin: Callable[[], Levels]) -> int:
        """Where the levels of `name` are; they are made when nobody has asked for them before. It stays the same for ever."""
        tag = blake2b(name.encode(), digest_size=_TAG_BYTES).digest()
        self._learn()
        place = self._places.get(tag)
        if place is None:
            place = self._places[tag] = self._append(tag, begin())
        return place

    def levels(self, place: int) -> Levels:
        """What is in the buckets."""
        return Levels(*_LEVELS.unpack_from(self._map, self._key_at(place) + _TAG_BYTES))

    def set_levels(self, place: int, levels: Levels) -> None:
        """Put other levels in."""
        _LEVELS.pack_into(self._map, self._key_at(place) + _TAG_BYTES, *levels)

    def at_a_time(self, place: int) -> int:
        """How many requests all workers work on."""
        return sum(struct.unpack_from(f"={self._workers}I", self._map, self._count_at(place, 0)))

    def add(self, place: int, requests: int) -> None:
        """This worker works on so many more, or fewer."""
        at = self._count_at(place, self.own)
        _COUNT.pack_into(self._map, at, max(0, _COUNT.unpack_from(self._map, at)[0] + requests))

    def _learn(self) -> None:
        """Where other workers have put keys since the last look."""
        for place in range(len(self._places), self._known_keys()):
            at = self._key_at(place)
            self._places[self._map[at : at + _TAG_BYTES]] = place

    def _append(self, tag: bytes, levels: Levels) -> int:
        place = self._known_keys()
        at = self._key_at(place)
        if at + self._key_bytes > len(self._map):
            self._map.resize(self._keys_at + 2 * (place + 1) * self._key_bytes)
        self._map[at : at + _TAG_BYTES] = tag
        self.set_levels(place, levels)
        _HEAD.pack_into(self._map, 0, *_HEAD.unpack_from(self._map)[:-1], place + 1)
        return place

    def _known_keys(self) -> int:
        keys = int(_HEAD.unpack_from(self._map)[-1])
        if self._key_at(keys) > len(self._map):  # another one has made it larger
            self._map.resize(os.fstat(self.memory).st_size)
        return keys

    def _key_at(self, place: int) -> int:
        return self._keys_at + place * self._key_bytes

    def _count_at(self, place: int, worker: int) -> int:
        return self._key_at(place) + _TAG_BYTES + _LEVELS.size + worker * _COUNT.size


def _keys_at(workers: int) -> int:
    return _HEAD.size + workers * (_FIRST_BYTES + _COLUMNS * _NUMBER_BYTES)
