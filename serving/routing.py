"""Who answers for a public name right now: a table that is swapped whole, and the coroutine that keeps it true.

The gateway reads the table on every request; it never waits for the registry. When the registry cannot be read, the last good
table stays: callers notice nothing, and nobody is let in who was not before.
Knows nothing of HTTP or processes. Next: `gateway.py`, which reads; `server.py`, which starts `follow`.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from pydantic import SecretStr

from serving.database import Watch
from serving.errors import RegistryError
from serving.keys import KeyInfo, KeyRing
from serving.records import LEASE_S, Canary, SlotInfo, SlotState, Snapshot
from serving.registry import Registry, utc_now

_log = logging.getLogger(__name__)

KeyReader = Callable[[SlotInfo], SecretStr | None]
"""slot -> the key it asks for; None when there is none, or it must not be asked from here."""


@dataclass(frozen=True)
class Backend:
    """A slot that takes traffic. `base_url` is the root of its HTTP server, without `/v1`; `served_name` is what it calls the model."""

    release_id: str
    base_url: str
    api_key: SecretStr
    served_name: str


@dataclass(frozen=True)
class Target:
    """A slot and its share of a public name's traffic. A weight of 0 gets none, but can be asked for by a pin."""

    backend: Backend
    weight: float
    role: Literal["champion", "canary"]


@dataclass(frozen=True)
class Route:
    """Who answers for a public name. Without targets the name is known and nobody is ready.

    `changing` says that its champion is being started, for the first time or in the place of another engine: worth a longer wait.
    `shadow` gets copies whose answers no caller sees. `lease_until` is a reading of `time.monotonic()` after which canaries get
    nothing: whoever watches them has gone.
    """

    name: str
    targets: tuple[Target, ...] = ()
    shadow: Backend | None = None
    lease_until: float | None = None
    changing: bool = False


def champion_route(name: str, backend: Backend | None) -> Route:
    """Everything to one slot, or to nobody yet."""
    return Route(name, () if backend is None else (Target(backend, 1.0, "champion"),))


def choose(route: Route, stickiness: bytes | None, random: Callable[[], float], now: float) -> tuple[Backend, ...]:
    """The backends to try, in this order; empty when nobody is ready.

    Whoever sends the same `stickiness` stays with one release while the weights stay. Canaries take the low end of the scale, so
    that a rising weight only ever moves callers to the canary, never back and forth.
    """
    if len(route.targets) == 1 and route.targets[0].role == "champion":
        return (route.targets[0].backend,)
    leased = route.lease_until is None or now < route.lease_until
    # A champion is always there to fall back on, even while a canary has the whole weight.
    canaries = [target for target in route.targets if target.role == "canary" and target.weight > 0 and leased]
    champions = sorted((target for target in route.targets if target.role == "champion"), key=lambda target: -target.weight)
    open_ones = [*canaries, *champions]
    if not open_ones:
        return ()
    point = random() if stickiness is None else _point(route.name, stickiness)
    first = _at(open_ones, point * sum(target.weight for target in open_ones))
    return (first.backend, *(target.backend for target in (*champions, *canaries) if target is not first))


def _at(targets: Sequence[Target], point: float) -> Target:
    for target in targets:
        point -= target.weight
        if point < 0:
            return target
    return targets[-1]


def _point(name: str, stickiness: bytes) -> float:
    """A number in [0, 1) that is the same for the same caller in every process."""
    digest = hashlib.blake2b(stickiness, digest_size=6, key=name.encode()[:64]).digest()
    return int.from_bytes(digest) / (1 << 48)


class RoutingTable:
    """public name -> its route. A name whose champion is not ready is known, but has no backend."""

    def __init__(self, routes: Mapping[str, Route] | None = None) -> None:
        self._routes: Mapping[str, Route] = MappingProxyType(dict(routes or {}))
        self._on_change: list[Callable[[], None]] = []

    def route(self, public_name: str) -> Route | None:
        """Who answers for it; None when the name is unknown."""
        return self._routes.get(public_name)

    def backend(self, public_name: str) -> Backend | None:
        """The champion's slot; None when the name is unknown or its champion is not ready."""
        route = self._routes.get(public_name)
        targets = route.targets if route else ()
        return next((target.backend for target in targets if target.role == "champion"), None)

    def public_names(self) -> tuple[str, ...]:
        """Every name that has a champion, ready or not."""
        return tuple(self._routes)

    def replace(self, routes: Mapping[str, Route]) -> None:
        """Swap the whole table in one step; requests already sent to a slot stay there."""
        self._routes = MappingProxyType(dict(routes))
        for tell in self._on_change:
            tell()

    def on_change(self, tell: Callable[[], None]) -> None:
        """Call `tell` after each swap."""
        self._on_change.append(tell)


class Leases:
    """Until when canaries have their share, as readings of `time.monotonic()`.

    A renewal that is seen to come is good for `LEASE_S` from now, whatever two machines' clocks say; only the first sight of a
    lease is held against the clock. One that is seen again unchanged ends when it was going to.
    """

    def __init__(self, now: Callable[[], datetime] = utc_now, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now, self._monotonic = now, monotonic
        self._known: dict[str, tuple[str, datetime, float]] = {}

    def ends(self, public_name: str, canary: Canary) -> float:
        """When this canary's lease ends."""
        seen = self._known.get(public_name)
        if seen is not None and seen[:2] == (canary.release_id, canary.lease_until):
            return seen[2]
        renewed = seen is not None and seen[0] == canary.release_id
        left_s = LEASE_S if renewed else min(LEASE_S, (canary.lease_until - self._now()).total_seconds())
        ends = self._monotonic() + left_s
        self._known[public_name] = (canary.release_id, canary.lease_until, ends)
        return ends


def routes_of(snapshot: Snapshot, read_key: KeyReader, leases: Leases) -> dict[str, Route]:
    """The table this snapshot asks for."""
    ready = {slot.release_id: slot for slot in snapshot.slots if slot.state is SlotState.READY}

    def backend(release_id: str) -> Backend | None:
        return _backend(ready.get(release_id), read_key)

    return {name: _route(name, release.id, snapshot, backend, leases) for name, release in sorted(snapshot.champions.items())}


def _route(name: str, champion_id: str, snapshot: Snapshot, backend: Callable[[str], Backend | None], leases: Leases) -> Route:
    canary, shadow = snapshot.canaries.get(name), snapshot.shadows.get(name)
    share = canary.share if canary else 0.0
    wanted: tuple[tuple[str, float, Literal["champion", "canary"]], ...] = ((champion_id, 1 - share, "champion"),)
    if canary is not None:
        wanted += ((canary.release_id, share, "canary"),)
    targets = tuple(Target(found, weight, role) for release_id, weight, role in wanted if (found := backend(release_id)) is not None)
    lease_until = leases.ends(name, canary) if canary else None
    return Route(name, targets, backend(shadow.release_id) if shadow else None, lease_until, _is_changing(champion_id, snapshot))


def _is_changing(champion_id: str, snapshot: Snapshot) -> bool:
    """Not ready, and neither failed nor crashed: nobody knows how long it takes to come back from that."""
    slot = next((each for each in snapshot.slots if each.release_id == champion_id), None)
    return slot is None or (slot.state not in (SlotState.READY, SlotState.FAILED) and slot.restarts == 0)


def _backend(slot: SlotInfo | None, read_key: KeyReader) -> Backend | None:
    if slot is None or slot.base_url is None:
        return None
    key = read_key(slot)
    return None if key is None else Backend(slot.release_id, slot.base_url, key, slot.served_name)


@dataclass(frozen=True)
class View:
    """What the gateway lives on: swapped together after each change of the registry. `seen` is called whenever the registry answers."""

    table: RoutingTable
    ring: KeyRing
    observe: Callable[[Snapshot], None]
    read_key: KeyReader
    leases: Leases = field(default_factory=Leases)
    seen: Callable[[], None] = lambda: None


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
    news = await asyncio.to_thread(_news, registry, watch, view)
    view.seen()
    if news is None:
        return
    snapshot, index, routes = news
    view.table.replace(routes)
    view.ring.replace(index)
    view.observe(snapshot)


_News = tuple[Snapshot, Mapping[str, KeyInfo], dict[str, Route]]


def _news(registry: Registry, watch: Watch, view: View) -> _News | None:
    if not watch.changed():
        return None
    try:
        snapshot = registry.snapshot()
        return snapshot, registry.key_index(), routes_of(snapshot, view.read_key, view.leases)
    except RegistryError:
        watch.forget()
        raise
