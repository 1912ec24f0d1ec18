"""Who answers for a public name right now: a table that is swapped whole, and the coroutine that keeps it true.

The gateway reads the table on every request; it never waits for the registry. When the registry cannot be read, the last good
table stays: callers notice nothing, and nobody is let in who was not before.
Knows nothing of HTTP or processes. Next: `gateway.py`, which reads; `server.py`, which starts `follow`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import SecretStr

from serving.errors import RegistryError
from serving.keys import KeyInfo, KeyRing
from serving.records import SlotState, Snapshot
from serving.registry import Registry
from serving.tables import Watch

_log = logging.getLogger(__name__)

KeyReader = Callable[[str], SecretStr | None]
"""release id -> the key its slot asks for; None when there is none."""


@dataclass(frozen=True)
class Backend:
    """A slot that takes traffic. `base_url` is the root of its HTTP server, without `/v1`; it serves the model `release_id`."""

    release_id: str
    base_url: str
    api_key: SecretStr


class RoutingTable:
    """public name -> the champion's slot. A name whose champion is not ready is known, but has no backend."""

    def __init__(self, routes: Mapping[str, Backend | None] | None = None) -> None:
        self._routes: Mapping[str, Backend | None] = MappingProxyType(dict(routes or {}))

    def backend(self, public_name: str) -> Backend | None:
        """The slot to ask; None when the name is unknown or its champion is not ready."""
        return self._routes.get(public_name)

    def public_names(self) -> tuple[str, ...]:
        """Every name that has a champion, ready or not."""
        return tuple(self._routes)

    def replace(self, routes: Mapping[str, Backend | None]) -> None:
        """Swap the whole table in one step; requests already sent to a slot stay there."""
        self._routes = MappingProxyType(dict(routes))


def routes_of(snapshot: Snapshot, read_key: KeyReader) -> dict[str, Backend | None]:
    """The table this snapshot asks for."""
    ready = {slot.release_id: slot.base_url for slot in snapshot.slots if slot.state is SlotState.READY}
    return {name: _backend(release.id, ready.get(release.id), read_key) for name, release in sorted(snapshot.champions.items())}


def _backend(release_id: str, base_url: str | None, read_key: KeyReader) -> Backend | None:
    if base_url is None:
        return None
    key = read_key(release_id)
    return None if key is None else Backend(release_id, base_url, key)


@dataclass(frozen=True)
class View:
    """What the gateway lives on: swapped together after each change of the registry."""

    table: RoutingTable
    ring: KeyRing
    observe: Callable[[Snapshot], None]
    read_key: KeyReader


async def follow(registry: Registry, watch: Watch, view: View, *, poll_s: float) -> None:
    """Keep `view` true until cancelled. A change is seen within `poll_s` seconds and the time of one read."""
    blind = False
    while True:
        try:
            await refresh(registry, watch, view)
            blind = False
        except RegistryError as error:
            if not blind:
                _log.error("the last good routing table stays: %s", error)
            blind = True
        await asyncio.sleep(poll_s)


async def refresh(registry: Registry, watch: Watch, view: View) -> None:
    """Bring `view` up to date if anybody has committed since the last time.

    Raises:
        RegistryError: the registry cannot be read; `view` is as it was.
    """
    news = await asyncio.to_thread(_news, registry, watch, view.read_key)
    if news is None:
        return
    snapshot, index, routes = news
    view.table.replace(routes)
    view.ring.replace(index)
    view.observe(snapshot)


_News = tuple[Snapshot, Mapping[str, KeyInfo], dict[str, Backend | None]]


def _news(registry: Registry, watch: Watch, read_key: KeyReader) -> _News | None:
    if not watch.changed():
        return None
    try:
        snapshot = registry.snapshot()
        return snapshot, registry.key_index(), routes_of(snapshot, read_key)
    except RegistryError:
        watch.forget()
        raise
