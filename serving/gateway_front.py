"""All that takes callers, for one registry: who answers for which name, whose keys open, what is counted, and the door.

The same for the server, which has a supervisor beside it (`server.py`), and for a gateway that has none (`gateway_only.py`). In this
process, or as the house of several others, by `TUNEGATE_GATEWAY_WORKERS`. Knows nothing of engines. Next: `routing.py`, `gateway.py`.
"""

import asyncio
import errno
import gc
import logging
import signal
import socket
from pathlib import Path
from typing import Protocol

from serving.admin_api import AdminDesk
from serving.admin_door import WithAdmin
from serving.database import Watch
from serving.errors import PortInUse, ServerError
from serving.gateway import Gateway
from serving.gateway_commons import alone
from serving.gateway_door import Door
from serving.gateway_house import OwnHouse
from serving.gateway_workers import Staff
from serving.keys import KeyRing
from serving.metrics import CallerMetrics
from serving.metrics_requests import RequestMetrics
from serving.records import Snapshot
from serving.registry import Registry
from serving.rollout_tally import TallyTeller
from serving.routing import RoutingTable, View, follow, refresh
from serving.settings import Settings
from serving.slot_keys import SlotKeys
from serving.upstream import Upstream

_log = logging.getLogger(__name__)

_BACKLOG = 2048


class _Doorway(Protocol):
    """Where callers come in: one process's door, or the staff of several."""

    async def open(self, listener: socket.socket) -> None: ...

    async def close(self, within_s: float) -> None: ...


class Front:
    """Built, then `look`, then `open` with `tasks` beside it, then `close`.

    Args:
        traffic: where requests are counted in this process; None: several other processes take callers.
        workers: where those others count.
    """

    def __init__(
        self, settings: Settings, registry: Registry, watch: Watch, metrics: CallerMetrics, traffic: RequestMetrics | None, workers: Path
    ) -> None:  # fmt: skip
        self._settings, self._registry, self._watch, self._metrics = settings, registry, watch, metrics
        self._teller = TallyTeller(registry, metrics.tallies)
        self._view = View(RoutingTable(), KeyRing({}), self._observe, SlotKeys(settings), seen=metrics.registry_seen)
        self._house = OwnHouse(settings, metrics)
        self._door = Staff(settings, self._house, metrics, workers) if traffic is None else self._own_door(traffic)

    def _own_door(self, traffic: RequestMetrics) -> _Doorway:
        upstream = Upstream(connect_timeout_s=self._settings.connect_timeout_s)
        gateway = Gateway(self._settings, self._view.table, self._view.ring, upstream, traffic, self._house, alone(self._settings))
        return Door(WithAdmin(gateway, AdminDesk(self._registry), self._view.ring, traffic), self._settings)

    def _observe(self, snapshot: Snapshot) -> None:
        self._metrics.follow(snapshot)
        self._teller.observe(snapshot)

    async def look(self) -> None:
        """Read the registry once.

        Raises:
            RegistryError: it cannot be read; nobody should be let in.
        """
        await refresh(self._registry, self._watch, self._view)

    def tasks(self) -> list[asyncio.Task[None]]:
        """What keeps it true while it is open."""
        following = follow(self._registry, self._watch, self._view, poll_s=self._settings.poll_s)
        return [
            asyncio.create_task(following, name="routing"),
            asyncio.create_task(self._house.sample.run(), name="live sample"),
            asyncio.create_task(self._teller.run(), name="tallies"),
        ]

    async def open(self, listener: socket.socket) -> None:
        """Take callers from `listener`.

        Raises:
            ServerError: nobody can.
            SettingsError: the certificate cannot be used.
        """
        # What is loaded by now stays: the collector need not look at it again for every request.
        gc.collect()
        gc.freeze()
        await self._door.open(listener)

    async def close(self) -> None:
        """Take no more callers, and let those who are in be answered."""
        await self._door.close(self._settings.drain_s)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the gateway's address.

    Raises:
        PortInUse: somebody else listens there.
        ServerError: this machine has no such address, or the port may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServerError(f"{host} is no address of this machine: {error}", do="set TUNEGATE_HOST, for example to 127.0.0.1") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Without listening, a second one could bind as well.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is taken by another process",
                why="the gateway cannot listen there",
                do="stop that process, or set TUNEGATE_PORT to another port",
            ) from error
        raise ServerError(f"cannot listen on {host}:{port}: {error.strerror}", do="set TUNEGATE_HOST or TUNEGATE_PORT") from error
    return listener


def stop_on_signal() -> asyncio.Event:
    """Set by SIGTERM, SIGINT and SIGHUP. A second one of the first two is not caught: the process dies.

    Several gateway workers are exchanged at SIGHUP instead; a lone one must not die of it, with all its streams.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def end(number: signal.Signals) -> None:
        _log.info("%s: stopping; once more ends at once", number.name)
        stop.set()
        for caught in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(caught)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    return stop


async def until_stopped(stop: asyncio.Event, front: Front, *waves: list[asyncio.Task[None]]) -> None:
    """Run until a signal, or until one of the tasks ends; then stop callers, then wave after wave, and raise that task's failure."""
    tasks = [task for wave in waves for task in wave]
    for task in tasks:
        task.add_done_callback(lambda _: stop.set())
    try:
        await stop.wait()
        await front.close()
        failed = [task for task in tasks if task.done()]
    finally:
        for wave in waves:
            for task in wave:
                task.cancel()
            await asyncio.gather(*wave, return_exceptions=True)
    for task in failed:
        task.result()
