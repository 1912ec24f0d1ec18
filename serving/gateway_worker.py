"""One of several processes that take callers: a whole gateway, but for what is there only once.

    python -m serving.gateway_worker FD      started by `gateway_workers.py`, with its line to the server at FD

It follows the registry by itself, so that it knows of a flip as soon as a lone gateway would, and takes callers from the socket that all
workers share. At SIGTERM it drains; when the server goes, it goes. Next: `gateway_talk.py`, what is said on the line.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from time import monotonic

import uvloop
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from serving.admin_api import AdminDesk
from serving.admin_door import WithAdmin
from serving.gateway import Gateway
from serving.gateway_commons import together
from serving.gateway_door import Door
from serving.gateway_ledger import Ledger
from serving.gateway_order import Side
from serving.gateway_talk import MOST_LINE_BYTES, Answer, Said, Terms
from serving.keeping import Kept
from serving.keys import KeyRing
from serving.live_sample import Turns
from serving.metrics_mapped import count_in
from serving.metrics_requests import RequestMetrics
from serving.records import Snapshot
from serving.registry import Registry
from serving.rollout_counts import Tallies
from serving.rollout_tally import TallyTeller
from serving.routing import RoutingTable, View, follow, refresh
from serving.settings import Settings
from serving.slot_keys import SlotKeys
from serving.upstream import Upstream

_log = logging.getLogger(__name__)

_MOST_UNSENT_BYTES = 16 << 20
_LOOK_AGAIN_S = 0.05


class HouseLine:
    """The house as a worker has it: at the other end of a line. See `gateway_house.House`."""

    def __init__(self, writer: asyncio.StreamWriter, settings: Settings, ledger: Ledger) -> None:
        self._writer = writer
        self._asked: dict[int, Callable[[Answer], None]] = {}
        self._last = 0
        self.keeper = _Handed(self, "keep")
        self.sample = _Sampled(self, settings.live_checks_per_minute, ledger)
        self.dropped = 0

    def say(self, said: Said) -> bool:
        """Say it, unless so much waits to be said that the server must be in trouble; whether it was said."""
        line = said.spelled()
        if len(line) >= MOST_LINE_BYTES or self._writer.transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:
            self.dropped += 1
            return False
        self._writer.write(line)
        return True

    def page(self, path: str, show: Callable[[bytes], None]) -> None:
        """See `House`."""
        self._ask(Said(kind="page", id=self._next(), path=path), lambda answer: show(answer.page.encode()))

    def feedback(self, record: Kept, tell: Callable[[bool], None]) -> None:
        """See `House`."""
        self._ask(Said(kind="feedback", id=self._next(), record=record), lambda answer: tell(answer.known))

    def hear(self, answer: Answer) -> None:
        """Pass an answer on to who asked."""
        self._asked.pop(answer.id)(answer)

    def close(self) -> None:
        """What was said last is sent when the worker ends."""

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _ask(self, said: Said, then: Callable[[Answer], None]) -> None:
        if self.say(said):
            self._asked[said.id] = then
        else:
            then(Answer(id=said.id))


class _Handed:
    """Hands records over."""

    def __init__(self, line: HouseLine, kind: str) -> None:
        self._line, self._kind = line, kind

    def offer(self, record: Kept) -> None:
        self._line.say(Said.model_validate({"kind": self._kind, "record": record}))


class _Sampled(_Handed):
    """Hands over so many answers a minute, of all workers."""

    def __init__(self, line: HouseLine, per_minute: float, ledger: Ledger) -> None:
        super().__init__(line, "sample")
        self._turns, self._ledger, self._look_s = Turns(per_minute, self._is_time), ledger, [0.0, 0.0]

    def wants(self, side: Side) -> bool:
        return self._turns.due(side, monotonic())

    def _is_time(self, now_s: float, every_s: float, of_canaries: bool) -> bool:
        if now_s < self._look_s[of_canaries]:
            return False
        self._look_s[of_canaries] = now_s + min(every_s, _LOOK_AGAIN_S)
        with self._ledger:
            return self._ledger.is_time(now_s, every_s, of_canaries)


class Worker:
    """Built from its terms; `run` opens it and returns when it has drained."""

    def __init__(self, terms: Terms, registry: Registry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._settings = Settings(**terms.settings)
        self._terms, self._registry, self._reader, self._writer = terms, registry, reader, writer
        self._ledger = Ledger(terms.memory, terms.bells, terms.number)
        self._line = HouseLine(writer, self._settings, self._ledger)
        count_in(terms.figures, terms.number)
        metrics = RequestMetrics(CollectorRegistry(), Tallies())
        self._teller = TallyTeller(registry, metrics.tallies)
        self._view = self._make_view(metrics)
        commons = together(self._settings, self._ledger)
        upstream = Upstream(connect_timeout_s=self._settings.connect_timeout_s)
        self._gateway = Gateway(self._settings, self._view.table, self._view.ring, upstream, metrics, self._line, commons)
        desk = WithAdmin(self._gateway, AdminDesk(registry), self._view.ring, metrics)
        self._door = Door(desk, self._settings, commons.connections)

    def _make_view(self, metrics: RequestMetrics) -> View:
        def observe(snapshot: Snapshot) -> None:
            metrics.follow(snapshot)
            self._teller.observe(snapshot)

        return View(RoutingTable(), KeyRing({}), observe, SlotKeys(self._settings), seen=metrics.registry_seen)

    async def run(self) -> None:
        """Take callers until SIGTERM, then drain; end at once when the server has gone.

        Raises:
            RegistryError: the registry cannot be read.
        """
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_reader(self._terms.bells[self._terms.number], self._rung)
        with closing(self._registry.watch()) as watch:
            await refresh(self._registry, watch, self._view)
            others = [
                asyncio.create_task(follow(self._registry, watch, self._view, poll_s=self._settings.poll_s), name="routing"),
                asyncio.create_task(self._teller.run(), name="tallies"),
            ]
            gc.collect()
            gc.freeze()
            await self._door.open(socket.socket(fileno=self._terms.listener))
            self._line.say(Said(kind="open"))
            alone = asyncio.create_task(self._listen(), name="line")
            await _first_of(asyncio.create_task(stop.wait()), alone, *others)
            await _first_of(asyncio.create_task(self._door.close(self._settings.drain_s)), alone)
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        if not alone.done():
            await self._say_the_last()

    async def _say_the_last(self) -> None:
        await self._teller.tell()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _listen(self) -> None:
        """Until the server has gone."""
        while line := await self._reader.readline():
            try:
                self._line.hear(Answer.model_validate_json(line))
            except (ValidationError, KeyError):
                _log.error("the server said what this worker does not understand")  # the line may hold what callers wrote

    def _rung(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._terms.bells[self._terms.number])
        self._gateway.pump()


async def _first_of(*tasks: asyncio.Task[None] | asyncio.Task[bool]) -> None:
    """Wait for one of them; its failure is raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _work(line: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=line, limit=MOST_LINE_BYTES)
    terms = Terms.model_validate_json(await reader.readline())
    logging.basicConfig(level=terms.log_level, format=f"%(asctime)s %(levelname)s worker {terms.number}: %(message)s")
    with Registry(Settings(**terms.settings).database_url) as registry:
        await Worker(terms, registry, reader, writer).run()


def main(arguments: Sequence[str]) -> None:
    """Work until told to stop."""
    uvloop.run(_work(socket.socket(fileno=int(arguments[0]))))


if __name__ == "__main__":
    main(sys.argv[1:])
