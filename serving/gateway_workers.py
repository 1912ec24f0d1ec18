"""The processes that take callers, from the server's side: started, started again when they die, exchanged one by one, drained.

All of them take callers from the one listening socket that the server holds, so nothing that waits at it depends on any of them: a
worker that ends leaves the queue to the others. What is there once (metrics page, kept answers, sampled answers) stays in the server.
Next: `gateway_worker.py`, what runs in each; `gateway_ledger.py`, what they count together.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from pathlib import Path
from time import monotonic

from pydantic import ValidationError

from serving.errors import ServerError
from serving.gateway_house import OwnHouse
from serving.gateway_ledger import Ledger
from serving.gateway_talk import MOST_LINE_BYTES, Answer, Said, Terms, spelled_out
from serving.gateway_tls import tls_context
from serving.keeping import Kept
from serving.metrics import CallerMetrics
from serving.metrics_workers import WorkersMetrics
from serving.settings import Settings
from serving.supervisor import backoff_s

_log = logging.getLogger(__name__)

_EXIT_GRACE_S = 5.0
# One that has taken callers for so long is forgiven its crashes.
_SETTLED_S = 60.0


class Staff:
    """What `gateway_door.Door` is for one process: `open` and `close`. SIGHUP exchanges all workers, without a loss.

    `folder` is where they count; nobody else's may lie there.
    """

    def __init__(self, settings: Settings, house: OwnHouse, metrics: CallerMetrics, folder: Path) -> None:
        self._settings, self._house = settings, house
        shutil.rmtree(folder, ignore_errors=True)  # counted by the process before this one
        folder.mkdir(mode=0o700, parents=True)
        self._folder, self._metrics = folder, WorkersMetrics(metrics.registry, folder)
        # While they are exchanged, there are twice as many.
        self._free = set(range(2 * settings.gateway_workers))
        self._ledger = Ledger.make(len(self._free))
        self._workers: set[_Worker] = set()
        self._tending: set[asyncio.Task[None]] = set()
        self._closing, self._exchanging = asyncio.Event(), asyncio.Lock()

    async def open(self, listener: socket.socket) -> None:
        """Start all workers; returns when every one takes callers from `listener`.

        Raises:
            ServerError: one ended first.
            SettingsError: the certificate cannot be used.
        """
        tls_context(self._settings)
        self._listener = listener
        for worker in await asyncio.gather(*(self._start() for _ in range(self._settings.gateway_workers))):
            if not await worker.opens():
                raise ServerError(f"a gateway worker ended with status {worker.process.returncode} before it took callers")
            self._tend(worker)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._exchange_soon)

    async def close(self, within_s: float) -> None:
        """Have every worker drain, end those that take too long, and write what is still to be kept."""
        self._closing.set()
        for worker in self._workers:
            worker.relieve()
        if self._tending:
            await asyncio.wait(self._tending, timeout=within_s + _EXIT_GRACE_S)
        for worker in self._workers:
            worker.kill()
        await asyncio.gather(*self._tending, return_exceptions=True)
        self._house.close()
        self._ledger.close()

    async def exchange(self) -> None:
        """Put a new process in the place of each worker: it takes callers before the old one stops to."""
        async with self._exchanging:
            relieved = []
            for old in sorted(self._workers, key=lambda worker: worker.number):
                if self._closing.is_set():
                    break
                new = await self._start()
                if not await new.opens():
                    _log.error("a new gateway worker ended with status %s; the others go on", new.process.returncode)
                    await self._bury(new)
                    break
                surplus = old if old in self._workers else new  # the old one has died meanwhile, and is being replaced
                relieved.append(surplus)
                self._tend(new)
                surplus.relieve()
                asyncio.get_running_loop().call_later(self._settings.drain_s + _EXIT_GRACE_S, surplus.kill)
            await asyncio.gather(*(worker.buried.wait() for worker in relieved))
            _log.info("%d gateway workers exchanged", len(relieved))

    def _exchange_soon(self) -> None:
        if not self._closing.is_set() and not self._exchanging.locked():
            task = asyncio.ensure_future(self.exchange())
            self._tending.add(task)
            task.add_done_callback(self._tending.discard)

    def _tend(self, worker: "_Worker") -> None:
        task = asyncio.create_task(self._keep_up(worker), name=f"gateway worker {worker.number}")
        self._tending.add(task)
        task.add_done_callback(self._tending.discard)

    async def _keep_up(self, worker: "_Worker") -> None:
        crashes = 0
        while True:
            await worker.ended()
            await self._bury(worker)
            if worker.relieved:
                return
            crashes = 1 if monotonic() - worker.began_s > _SETTLED_S else crashes + 1
            _log.error("gateway worker %d ended with status %s; another one starts", worker.number, worker.process.returncode)
            successor = await self._succeed(crashes)
            if successor is None:
                return
            worker = successor

    async def _succeed(self, crashes: int) -> "_Worker | None":
        """Somebody in the place of one who crashed, after a while; None when nobody is wanted any more."""
        while True:
            pause_s = backoff_s(crashes, self._settings.restart_first_s, self._settings.restart_cap_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause_s)
            if self._closing.is_set():
                return None
            try:
                return await self._start()
            except OSError as error:  # no memory, no process, no file: it may be better later
                _log.error("no gateway worker can be started: %s", error)
                crashes += 1

    async def _start(self) -> "_Worker":
        number = min(self._free)
        self._free.remove(number)
        try:
            process, line = await self._spawn()
        except OSError:
            self._free.add(number)
            raise
        reader, writer = await asyncio.open_unix_connection(sock=line, limit=MOST_LINE_BYTES)
        worker = _Worker(number, process, reader, writer, self._house)
        writer.write(self._terms(number).spelled())
        self._metrics.begins(number, process.pid)
        self._workers.add(worker)
        if self._closing.is_set():
            worker.relieve()
        return worker

    async def _spawn(self) -> tuple[Process, socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = (theirs.fileno(), self._listener.fileno(), self._ledger.memory, *self._ledger.bells)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "serving.gateway_worker", str(theirs.fileno())),
                    env={name: value for name, value in os.environ.items() if not name.startswith("TUNEGATE_")},
                    pass_fds=inherited,
                    stdin=DEVNULL,
                    # A Ctrl-C at the terminal is for the server, which has them drain.
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        return process, ours

    def _terms(self, number: int) -> Terms:
        return Terms(
            settings=spelled_out(self._settings),
            number=number,
            listener=self._listener.fileno(),
            memory=self._ledger.memory,
            bells=self._ledger.bells,
            figures=str(self._folder),
            log_level=logging.getLogger().getEffectiveLevel(),
        )

    async def _bury(self, worker: "_Worker") -> None:
        """Give back all that it held, and wake those who wait for it."""
        await worker.ended()
        self._workers.discard(worker)
        self._metrics.ended(worker.number)
        with self._ledger:
            self._ledger.clear(worker.number)
        self._free.add(worker.number)
        for other in self._workers:
            self._ledger.ring(other.number)
        worker.buried.set()


class _Worker:
    """One process, and what it says."""

    def __init__(
        self, number: int, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, house: OwnHouse
    ) -> None:  # fmt: skip
        self.number, self.process, self.began_s = number, process, monotonic()
        self._reader, self._writer, self._house = reader, writer, house
        self._opened, self.buried, self.relieved = asyncio.Event(), asyncio.Event(), False
        self._listening = asyncio.create_task(self._listen(), name=f"line of gateway worker {number}")

    async def opens(self) -> bool:
        """Wait until it takes callers; False when it has ended before."""
        opened, ended = asyncio.create_task(self._opened.wait()), asyncio.create_task(self.ended())
        await asyncio.wait({opened, ended}, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        ended.cancel()
        return self._opened.is_set()

    async def ended(self) -> None:
        """Wait until it is gone and all it has said is heard."""
        await self.process.wait()
        await asyncio.shield(self._listening)

    def relieve(self) -> None:
        """Have it drain and end; nobody takes its place."""
        self.relieved = True
        with suppress(ProcessLookupError):
            self.process.terminate()

    def kill(self) -> None:
        """End it at once, if it is still there."""
        with suppress(ProcessLookupError):
            self.process.kill()

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                self._hear(line)
        except (OSError, ValueError) as error:  # ValueError: a line without an end
            _log.error("gateway worker %d cannot be heard any more: %s", self.number, error)
            self.kill()
        finally:
            self._writer.close()

    def _hear(self, line: bytes) -> None:
        try:
            said = Said.model_validate_json(line)
        except ValidationError:
            _log.error("gateway worker %d said what the server does not understand", self.number)  # callers' words
            return
        if said.kind == "open":
            self._opened.set()
        elif said.kind == "page":
            self._house.page(said.path, lambda page: self._answer(Answer(id=said.id, page=page.decode())))
        elif said.record is not None:
            self._take(said.kind, said.id, said.record)

    def _take(self, kind: str, number: int, record: Kept) -> None:
        match kind:
            case "keep":
                self._house.keeper.offer(record)
            case "sample":
                self._house.sample.offer(record)
            case _:
                self._house.feedback(record, lambda known: self._answer(Answer(id=number, known=known)))

    def _answer(self, answer: Answer) -> None:
        self._writer.write(answer.spelled())
