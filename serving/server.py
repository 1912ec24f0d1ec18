"""`tunegate serve`: supervisor, rollouts, routing table and gateway in one process and one event loop, until a signal; the gateway in
several others, where more than one is asked for.

Stopping, in this order: no new connections; requests in flight finish; engines drain and stop; the heartbeat ends. Every step has
a limit. A second signal is not caught: the process dies, and the leashes take the engines with it.
Next: `supervisor.py`, `routing.py`, `gateway.py`, the three things that run here; `gateway_workers.py`, where it runs elsewhere.
"""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Protocol

import psutil
import uvloop
from pydantic import SecretStr

from serving.admin_api import AdminDesk
from serving.admin_door import WithAdmin
from serving.cluster import ClusterEngines
from serving.cluster_settings import load_cluster_settings
from serving.engine import EngineCommand, engine_command
from serving.engines import Command
from serving.errors import PortInUse, RegistryError, ServerError
from serving.gateway import Gateway
from serving.gateway_commons import alone
from serving.gateway_door import Door
from serving.gateway_house import OwnHouse
from serving.gateway_workers import Staff
from serving.keys import KeyRing
from serving.metrics import GatewayMetrics, ServerMetrics
from serving.notifier import watch_over
from serving.notify_settings import load_notify_settings
from serving.outlets import Outlet, outlets_of
from serving.records import Release, ServerInfo, Snapshot
from serving.registry import Registry, utc_now
from serving.rollout_controller import RolloutController
from serving.rollout_tally import TallyTeller
from serving.routing import RoutingTable, View, follow, refresh
from serving.settings import Settings
from serving.slots import read_key
from serving.supervisor import Supervisor
from serving.surroundings import Surroundings
from serving.upstream import Upstream

_log = logging.getLogger(__name__)

_BEAT_EVERY_S = 1.0
_LOOK_FOR_DEAD_RUNS_S = 2.0
_BACKLOG = 2048


def serve(settings: Settings, command: Command | None = None, more_outlets: Sequence[Outlet] = ()) -> None:
    """Serve every champion of the registry until SIGTERM or SIGINT; returns when everything has stopped.

    `more_outlets` are told what happens to releases, besides those of the settings.

    Raises:
        AlreadyServing: another live server looks after this registry.
        PortInUse: somebody else listens where the gateway should.
        RegistryError: the registry cannot be opened.
    """
    notify = load_notify_settings()
    with Registry(settings.database_url) as registry:
        notifier, outlets = registry.notifier(notify.attempts), (*outlets_of(notify), *more_outlets)
        uvloop.run(_serve(settings, registry, command or vllm_with(settings), lambda: watch_over(notifier, outlets)))


def vllm_with(settings: Settings) -> Command:
    """The command that starts vLLM for a release."""

    def command(release: Release, port: int) -> EngineCommand:
        return engine_command(release.model_dir, release.id, port, release.serving, drain_s=settings.drain_s, cpu_bind=settings.cpu_bind)

    return command


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


async def _serve(settings: Settings, registry: Registry, command: Command, tell: Callable[[], list[asyncio.Task[None]]]) -> None:
    info = _server_info(settings)
    _forget_dead_server(registry)
    registry.beat(info)
    try:
        with listen(settings.host, settings.port) as listener, closing(registry.watch()) as watch:
            metrics = GatewayMetrics() if settings.gateway_workers == 1 else ServerMetrics()
            teller = TallyTeller(registry, metrics.tallies)

            def observe(snapshot: Snapshot) -> None:
                metrics.follow(snapshot)
                teller.observe(snapshot)

            view = View(RoutingTable(), KeyRing({}), observe, partial(_slot_key, settings), seen=metrics.registry_seen)
            house, stop = OwnHouse(settings, metrics), asyncio.Event()
            door = _front(settings, registry, view, metrics, house)
            await refresh(registry, watch, view)
            surroundings = Surroundings(settings.home, metrics)
            await surroundings.look()
            _stop_on_signal(stop)
            # What is loaded by now stays: the collector need not look at it again for every request.
            gc.collect()
            gc.freeze()
            supervisor = asyncio.create_task(_supervisor(registry, settings, command, metrics).run(), name="supervisor")
            others = [
                asyncio.create_task(follow(registry, watch, view, poll_s=settings.poll_s), name="routing"),
                asyncio.create_task(_beat(registry, info), name="heartbeat"),
                asyncio.create_task(surroundings.run(), name="surroundings"),
                asyncio.create_task(house.sample.run(), name="live sample"),
                asyncio.create_task(teller.run(), name="tallies"),
                _rollouts(registry, metrics),
                *tell(),
                asyncio.create_task(_bury_the_dead(registry), name="runs"),
                *_in_a_cluster(registry, settings),
            ]
            await door.open(listener)
            _log.info("gateway at %s:%d, registry %s", settings.host, settings.port, settings.home)
            await _until_stopped(stop, door, settings.drain_s, supervisor, others)
    finally:
        _leave(registry, info)


def _slot_key(settings: Settings, release_id: str) -> SecretStr | None:
    return read_key(settings.slot_folder(release_id))


class _Front(Protocol):
    """Where callers come in."""

    async def open(self, listener: socket.socket) -> None: ...

    async def close(self, within_s: float) -> None: ...


def _front(settings: Settings, registry: Registry, view: View, metrics: ServerMetrics, house: OwnHouse) -> _Front:
    """The gateway in this process; or in several others, to which this one is the house."""
    if not isinstance(metrics, GatewayMetrics):
        return Staff(settings, house, metrics)
    upstream = Upstream(connect_timeout_s=settings.connect_timeout_s)
    gateway = Gateway(settings, view.table, view.ring, upstream, metrics.traffic, house, alone(settings))
    return Door(WithAdmin(gateway, AdminDesk(registry), view.ring, metrics.traffic), settings)


async def _until_stopped(
    stop: asyncio.Event, door: _Front, drain_s: float, supervisor: asyncio.Task[None], others: list[asyncio.Task[None]]
) -> None:
    """Run until a signal, or until one of the parts fails; then stop in the order that loses nothing, and raise that failure."""
    for task in (supervisor, *others):
        task.add_done_callback(lambda _: stop.set())
    try:
        await stop.wait()
        await door.close(drain_s)
        failed = [task for task in (supervisor, *others) if task.done()]
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    for task in failed:
        task.result()


def _in_a_cluster(registry: Registry, settings: Settings) -> list[asyncio.Task[None]]:
    """What keeps engines in Kubernetes, where there is one."""
    cluster = load_cluster_settings()
    return [asyncio.create_task(ClusterEngines(registry, settings, cluster).run(), name="cluster")] if cluster.url else []


def _supervisor(registry: Registry, settings: Settings, command: Command, metrics: ServerMetrics) -> Supervisor:
    return Supervisor(registry, settings, command, seen=partial(metrics.house.registry_seen, "supervisor"))


def _rollouts(registry: Registry, metrics: ServerMetrics) -> asyncio.Task[None]:
    """The controller, whose end does not end the server: without it canaries lose their share, and champions go on."""

    seen = partial(metrics.house.registry_seen, "rollouts")

    async def run() -> None:
        controller = asyncio.create_task(RolloutController(registry, seen=seen, looked=metrics.rollouts.looked).run())
        try:
            await asyncio.wait([controller])
        finally:
            controller.cancel()
        _log.error("the rollout controller has ended; canaries give their share back", exc_info=controller.exception())
        await asyncio.Event().wait()

    return asyncio.create_task(run(), name="rollouts")


async def _beat(registry: Registry, info: ServerInfo) -> None:
    while True:
        await asyncio.sleep(_BEAT_EVERY_S)
        try:
            await asyncio.to_thread(registry.beat, info)
        except RegistryError as error:
            # Callers are better off with a server nobody hears of than with none.
            _log.error("no heartbeat: %s", error)


async def _bury_the_dead(registry: Registry) -> None:
    """Runs whose process was killed are marked, and what they had started for their candidates is let go."""
    while True:
        await asyncio.sleep(_LOOK_FOR_DEAD_RUNS_S)
        try:
            for run in await asyncio.to_thread(registry.runs.bury_the_dead):
                _log.warning("the %s (process %d) is gone; the next one goes on where it stopped", run.subject, run.holder.pid)
        except RegistryError as error:
            _log.warning("nobody looked for dead runs: %s", error.what)


def _stop_on_signal(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        _log.info("%s: stopping; once more ends at once", number.name)
        stop.set()
        for caught in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(caught)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)


def _server_info(settings: Settings) -> ServerInfo:
    now = utc_now()
    return ServerInfo(
        boot_id=uuid.uuid4().hex,
        hostname=socket.gethostname(),
        pid=os.getpid(),
        host=settings.host,
        port=settings.port,
        started_at=now,
        beat_at=now,
    )


def _forget_dead_server(registry: Registry) -> None:
    """A server of this machine that was killed need not be waited for."""
    other = registry.server()
    if other is not None and other.hostname == socket.gethostname() and not psutil.pid_exists(other.pid):
        registry.leave(other.boot_id)


def _leave(registry: Registry, info: ServerInfo) -> None:
    try:
        registry.leave(info.boot_id)
    except RegistryError as error:
        _log.error("the registry did not hear that this server stopped: %s", error)
