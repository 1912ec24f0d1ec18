"""`tunegate serve`: supervisor, rollouts, routing table and gateway in one process and one event loop, until a signal; the gateway in
several others, where more than one is asked for. One server looks after a registry; more gateways may read it (`gateway_only.py`).

Stopping, in this order: no new connections; requests in flight finish; engines drain and stop; the heartbeat ends. Every step has
a limit. A second signal is not caught: the process dies, and the leashes take the engines with it.
Next: `supervisor.py` and `gateway_front.py`, the two things that run here; `gateway_workers.py`, where the latter runs elsewhere.
"""

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

import uvloop

from serving import fleet
from serving.cluster import ClusterEngines
from serving.cluster_settings import load_cluster_settings
from serving.engine import EngineCommand, engine_command
from serving.engines import Command
from serving.errors import RegistryError
from serving.gateway_front import Front, listen, stop_on_signal, until_stopped
from serving.metrics import GatewayMetrics, ServerMetrics
from serving.notifier import watch_over
from serving.notify_settings import load_notify_settings
from serving.outlets import Outlet, outlets_of
from serving.records import Release, ServerInfo
from serving.registry import Registry, utc_now
from serving.rollout_controller import RolloutController
from serving.server_watch import is_gone
from serving.settings import Settings
from serving.supervisor import Supervisor
from serving.surroundings import Surroundings

_log = logging.getLogger(__name__)

_BEAT_EVERY_S = 1.0
_LOOK_FOR_DEAD_RUNS_S = 2.0


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


async def _serve(settings: Settings, registry: Registry, command: Command, tell: Callable[[], list[asyncio.Task[None]]]) -> None:
    info = _server_info(settings)
    _forget_dead_server(registry)
    take_over(registry, info)
    try:
        with listen(settings.host, settings.port) as listener, closing(registry.watch()) as watch:
            alone = GatewayMetrics() if settings.gateway_workers == 1 else None
            metrics = alone or ServerMetrics()
            metrics.line.retrain_within(settings.retrain_days)
            front = Front(settings, registry, watch, metrics, alone.traffic if alone else None, settings.home / "workers")
            await front.look()
            surroundings = Surroundings(settings.home, metrics)
            await surroundings.look()
            stop = stop_on_signal()
            supervisor = asyncio.create_task(_supervisor(registry, settings, command, metrics).run(), name="supervisor")
            others = [
                *front.tasks(),
                asyncio.create_task(_beat(registry, info), name="heartbeat"),
                asyncio.create_task(surroundings.run(), name="surroundings"),
                _rollouts(registry, metrics),
                *tell(),
                asyncio.create_task(_bury_the_dead(registry), name="runs"),
                *_in_a_cluster(registry, settings),
            ]
            await front.open(listener)
            _log.info("gateway at %s:%d, registry %s", settings.host, settings.port, settings.home)
            await until_stopped(stop, front, [supervisor], others)
    finally:
        _leave(registry, info)


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


def take_over(registry: Registry, info: ServerInfo) -> None:
    """Be the server. One that has not said that it stopped is looked at first.

    Raises:
        AlreadyServing: it is alive.
    """
    before = registry.last_server()
    alive = registry.server()
    if alive is not None:
        raise fleet.already_serving(alive)
    registry.beat(info, gone=before)


def _forget_dead_server(registry: Registry) -> None:
    """A server of this machine that was killed need not be waited for."""
    other = registry.last_server()
    if other is not None and is_gone(other):
        registry.leave(other.boot_id)


def _leave(registry: Registry, info: ServerInfo) -> None:
    try:
        registry.leave(info.boot_id)
    except RegistryError as error:
        _log.error("the registry did not hear that this server stopped: %s", error)
