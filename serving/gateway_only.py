"""`tunegate serve --gateway-only`: one more gateway for a registry, beside the one server, on its machine or on another.

It starts no engine and decides nothing: what it knows of releases, canaries and keys it reads from the registry, as the server's own
gateway does, and a change reaches it as fast. When the server dies it goes on with the engines that are left. What a server says of
releases and slots stays with the server, so that sums over all gateways count it once.
Next: `gateway_front.py`, what runs here; `slot_keys.py`, which engines it can reach.
"""

import logging
from contextlib import closing

import uvloop

from serving.database import kind_of
from serving.errors import RegistryError
from serving.gateway_front import Front, listen, stop_on_signal, until_stopped
from serving.metrics import CallerMetrics, LoneMetrics
from serving.registry import Registry
from serving.settings import Settings
from serving.sqlite_file import SqliteFile

_log = logging.getLogger(__name__)


def serve_callers(settings: Settings) -> None:
    """Take callers until SIGTERM or SIGINT; returns when all that was asked is answered.

    Raises:
        PortInUse: somebody else listens there.
        RegistryError: there is no registry, or it cannot be opened.
    """
    url = settings.database_url.get_secret_value()
    _must_be_there(url)
    with Registry(settings.database_url) as registry:
        uvloop.run(_serve(settings, registry))


def _must_be_there(url: str) -> None:
    kind = kind_of(url)
    if isinstance(kind, SqliteFile) and not kind.path.exists():
        raise RegistryError(
            f"there is no registry at {kind.path}",
            why="a gateway of its own makes none: it would answer for nothing",
            do="give it the server's TUNEGATE_HOME or TUNEGATE_REGISTRY_URL, and start the server first",
        )


async def _serve(settings: Settings, registry: Registry) -> None:
    with listen(settings.host, settings.port) as listener, closing(registry.watch()) as watch:
        alone = LoneMetrics() if settings.gateway_workers == 1 else None
        metrics = alone or CallerMetrics()
        # Several gateways may share one home, each with workers of its own.
        folder = settings.home / f"workers-{settings.port}"
        front = Front(settings, registry, watch, metrics, alone.traffic if alone else None, folder)
        await front.look()
        stop = stop_on_signal()
        await front.open(listener)
        _log.info("gateway at %s:%d; registry and engines are another process's", settings.host, settings.port)
        await until_stopped(stop, front, front.tasks())
